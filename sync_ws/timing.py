"""Time: one deadline through a multi-step wait, and the clock that tests replace.

Why so: every clock is ``time.monotonic()``, so a stepped wall clock changes nothing, and a wait of several steps
carries one ``Deadline`` rather than a timeout that starts anew at each step.  What waits for minutes in production
(heartbeats, reconnect delays) takes a ``Clock``; ``sync_ws.testing.ManualClock`` is one that tests advance by hand.

Threading: a ``Deadline`` is immutable; the system clock's methods may be called from any thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "Deadline", "SystemClock", "TimerHandle"]


LONGEST = 1e9  # seconds, some 30 years: locks take no timeout of more than 300


class Deadline:
    """A point in time that a wait of several steps must not pass; ``Deadline(None)`` never comes.

    Any timeout will do: what is beyond all clocks is as far away as they go.
    """

    __slots__ = ("_at",)

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + (timeout if timeout < LONGEST else LONGEST)

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
        timer = threading.Timer(min(delay, threading.TIMEOUT_MAX), function)  # what a thread can wait: 49 days or more
        timer.daemon = True
        timer.name = f"sync_ws-timer-{timer.name}"
        timer.start()
        return timer


SYSTEM_CLOCK = SystemClock()
