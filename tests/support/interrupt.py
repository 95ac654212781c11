"""Acts at any instruction of a module's own code, in the same thread: where a signal's handler may come.

Why so: a handler runs between any two instructions, and a real signal finds the narrow gaps once in a million times.
A trace function finds each of them, every time.

Threading: for one thread at a time; what it does is seen by the thread that entered it.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterable
from types import FrameType, ModuleType
from typing import Any

__all__ = ["Interrupt"]

_LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # instructions behind which Python looks for signals


class Interrupt:
    """Calls ``act`` before the ``number``-th instruction that is executed in ``modules``; ``came``: whether it did.

    ``signals_only``: counts only the instructions before which Python looks for signals, where an act that raises has
    to be borne: behind a call, at the beginning of a function, and when a loop begins anew.
    """

    def __init__(
        self, modules: ModuleType | Iterable[ModuleType], number: int, act: Callable[[], object], *,
        signals_only: bool = False,
    ) -> None:  # fmt: skip
        several: Iterable[ModuleType] = [modules] if isinstance(modules, ModuleType) else modules
        self._files = {module.__file__ for module in several}
        self._left = number
        self._act = act
        self._signals_only = signals_only
        self._previous: dict[FrameType, str] = {}  # the instruction before, in the frames that are at work
        self.came = False

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame asks for it only in settrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)
        self._previous.clear()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename not in self._files:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and not self.came:
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            previous, self._previous[frame] = self._previous.get(frame, "RESUME"), name
            if not self._signals_only or previous.startswith(_LOOKS):
                self._left -= 1
                if self._left == 0:
                    self.came = True
                    self._act()
        elif event == "return":
            self._previous.pop(frame, None)
        return self._trace
