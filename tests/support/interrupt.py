"""Acts at any instruction of a module's own code, in the same thread: where a signal's handler may come.

Why so: a handler runs between any two instructions, and a real signal finds the narrow gaps once in a million times.
A trace function finds each of them, every time.

Threading: for one thread at a time; what it does is seen by the thread that entered it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

__all__ = ["Interrupt"]


class Interrupt:
    """Calls ``act`` before the ``number``-th instruction that is executed in ``module``; ``came``: whether it did."""

    def __init__(self, module: ModuleType, number: int, act: Callable[[], object]) -> None:
        self._file = module.__file__
        self._left = number
        self._act = act
        self.came = False

    def __enter__(self) -> Interrupt:
        self._before = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 looks whether any frame asks for it only in settrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != self._file:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._left -= 1
            if self._left == 0:
                self.came = True
                self._act()
        return self._trace
