"""SIGTERM, for as long as a function runs that would otherwise not hear of it.

Why so: what ends services (systemd, docker, a shell's kill) sends SIGTERM, and Python dies of it where it stands: no
``finally``, no Close frame.  Whoever has a handler of their own is left alone, and so is who is not in the main
thread, where alone handlers can be set and run.

Threading: for the thread that enters it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

__all__ = ["Termination"]


class Termination:
    """Inside the with block SIGTERM calls ``function``, in the middle of whatever the main thread does, rather than
    ending the process; afterwards it is as it was."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __enter__(self) -> Termination:
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            try:
                signal.signal(signal.SIGTERM, self._came)
            except BaseException:  # of another signal's handler, right behind it
                self.__exit__()
                raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        # unless the application has set its own meanwhile
        if signal.getsignal(signal.SIGTERM) == self._came:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _came(self, number: int, frame: FrameType | None) -> None:
        self._function()
