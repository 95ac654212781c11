"""A signal as if it had come in the moment before the main thread's system call began: the call does not see it.

Why so: the gap between Python's last look for signals and the call is some instructions wide.  A signal that another
thread gets has the same effect at any time: Python knows of it, and the main thread's call goes on.

Threading: for the main thread; what is raised is raised there.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Unseen", "unseen_signal"]

SOON = 0.1  # seconds until it comes: the wait has begun by then, and if not, it is seen at once


class Unseen(BaseException):
    """What the signal's handler raises."""


@contextmanager
def unseen_signal() -> Iterator[None]:
    """It comes soon after the block has been entered."""

    def handle(number: int, frame: FrameType | None) -> None:
        raise Unseen

    def send() -> None:
        time.sleep(SOON)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
