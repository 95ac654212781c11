"""Time: one deadline through a multi-step wait, and the clock that tests replace.

Why so: every clock is ``time.monotonic()``, so a stepped wall clock changes nothing, and a wait of several steps
carries one ``Deadline`` rather than a timeout that starts anew at each step.  What waits for minutes in production
(heartbeats, reconnect delays) takes a ``Clock``; ``sync_ws.testing.ManualClock`` is one that tests advance by hand.

Threading: a ``Deadline`` is immutable; the system clock's methods may be called from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Callable, Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "Deadline", "SystemClock", "TimerHandle", "check_count", "check_seconds"]


def check_seconds(name: str, value: float, *, zero: bool = False) -> float:
    """``value`` as seconds, or a ValueError that names the parameter: finite and above zero (or zero, if told)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} is a finite number of seconds above zero, not {value!r}")
    return float(value)


def check_count(name: str, value: int) -> int:
    """``value`` as a count, or an error that names the parameter: a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, not {value!r}")
    return value


class Deadline:
    """A point in time that a wait of several steps must not pass; ``Deadline(None)`` never comes."""

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> float | None:
        """Seconds left, 0.0 once it has passed, None for a deadline that never comes."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at


class TimerHandle(Protocol):
    """An armed timer, as ``threading.Timer`` is one."""

    def cancel(self) -> None: ...

    def is_alive(self) -> bool: ...


class Clock(Protocol):
    """What long waits need of the time: the monotonic seconds, and a timer that calls back in its own thread."""

    def monotonic(self) -> float: ...

    def timer(self, delay: float, function: Callable[[], None]) -> TimerHandle: ...


class SystemClock:
    """The real one: ``time.monotonic`` and daemon ``threading.Timer`` threads."""

    monotonic = staticmethod(time.monotonic)

    def timer(self, delay: float, function: Callable[[], None]) -> TimerHandle:
        """Arm a timer of ``delay`` seconds.  RuntimeError when the system has no thread left to give."""
        timer = threading.Timer(delay, function)
        timer.daemon = True
        timer.name = f"sync_ws-timer-{timer.name}"
        timer.start()
        return timer


SYSTEM_CLOCK = SystemClock()
