"""A clock that tests advance by hand: six hours of heartbeats in a millisecond, each where it belongs.

`ManualClock` has the interface of the library's system clock, `monotonic()` and `timer(delay, function)`, so
it goes wherever a clock is taken. Its timers run when a test says so, in the order they are due, each in a
thread of its own as `threading.Timer` would run it, and `advance` waits for each before it goes on: a test
has no race to lose.

Threading: `monotonic` and `timer` and the timers' `cancel` may be called from any thread, the timers'
functions included. One thread at a time advances the clock. Functions are called without any lock.
"""

from __future__ import annotations

import itertools
import math
import sys
import threading
import traceback
from collections.abc import Callable

__all__ = ["ManualClock", "ManualTimer"]


class ManualTimer:
    """A timer of a ManualClock. `due` is the clock's time at which it runs."""

    def __init__(self, clock: ManualClock, due: float, order: int, function: Callable[[], None]) -> None:
        self.due = due
        self.function = function
        self._clock = clock
        self._order = order  # of two that are due together the one armed first runs first
        self._thread = threading.Thread(target=function, name=f"ManualTimer-{order}", daemon=True)

    def cancel(self) -> None:
        """Disarm it. Like `threading.Timer.cancel`, this does not stop a function that is running already."""
        self._clock._disarm(self)

    def is_alive(self) -> bool:
        """Whether it is armed or its function is running."""
        return self._clock._is_armed(self) or self._thread.is_alive()

    def __repr__(self) -> str:
        return f"<ManualTimer due at {self.due:g}: {self.function!r}>"


class ManualClock:
    """Time in seconds that moves only by advance() and suspend(); it begins at `start`.

    `patience` is the real time, in seconds, that one timer's function may take before advance() and suspend()
    give up with TimeoutError; the functions not yet run stay armed.
    """

    def __init__(self, start: float = 1000.0, *, patience: float = 5.0) -> None:
        self._now = start
        self._patience = patience
        self._orders = itertools.count(1)
        # Guards all below; held for a few instructions by any thread, never while a timer's function runs or
        # is waited for. Notified when a timer is armed.
        self._changed = threading.Condition(threading.Lock())
        self._timers: list[ManualTimer] = []  # the armed ones
        self._armed = 0
        self._failures = 0
        self._advancing = False

    def monotonic(self) -> float:
        """The time of this clock in seconds."""
        return self._now

    def timer(self, delay: float, function: Callable[[], None]) -> ManualTimer:
        """Arm a timer: the function runs once the clock has advanced by `delay` seconds.

        With 0 or less it runs at the next advance(), of 0 s too. ValueError for a delay that is not finite,
        RuntimeError when fail_timers() asked for it.
        """
        if not math.isfinite(delay):
            raise ValueError(f"delay must be a finite number of seconds, not {delay!r}")
        with self._changed:
            if self._failures:
                self._failures -= 1
                raise RuntimeError("can't start new thread")
            timer = ManualTimer(self, _grid(self._now + max(0.0, delay)), next(self._orders), function)
            self._timers.append(timer)
            self._armed += 1
            self._changed.notify_all()
        return timer

    def fail_timers(self, count: int = 1) -> None:
        """Let the next `count` calls of timer() raise RuntimeError, as when the system has no thread left."""
        with self._changed:
            self._failures = count

    @property
    def pending(self) -> list[float]:
        """The delays left of all armed timers in seconds, in the order in which they will run."""
        with self._changed:
            return [_grid(timer.due - self._now) for timer in sorted(self._timers, key=_turn)]

    @property
    def armed(self) -> int:
        """How many timers have been armed since the start, those cancelled or run included."""
        with self._changed:
            return self._armed

    def wait_for_timer(self, timeout: float = 5.0, *, after: int | None = None) -> float:
        """Wait until a timer is armed: the seconds left of the one that runs next. TimeoutError if none is.

        `timeout` is in seconds of real time. With `after`, an earlier value of `armed`, it must be one armed
        since: for code that re-arms its timer.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: bool(self._timers) and (after is None or self._armed > after), timeout
            ):
                raise TimeoutError(f"no timer was armed within {timeout:g} s; armed so far: {self._armed}")
            return _grid(min(timer.due for timer in self._timers) - self._now)

    def advance(self, seconds: float) -> None:
        """Move the time forward and run each timer that comes due, while the clock shows the time it is due.

        Timers armed on the way run too when they are due. Returns when all functions have. ValueError for a
        negative time; RuntimeError when another thread, or the timer's function that calls this, is advancing
        the clock already.
        """
        self._move(seconds, late=False)

    def suspend(self, seconds: float) -> None:
        """As if the process had been stopped for so long: the time jumps, then what is overdue runs, late."""
        self._move(seconds, late=True)

    def _move(self, seconds: float, *, late: bool) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be finite and not negative, not {seconds!r}")
        with self._changed:
            if self._advancing:
                raise RuntimeError("the clock is being advanced already")
            self._advancing = True
            target = _grid(self._now + seconds)
            if late:
                self._now = target
        try:
            while (timer := self._take_due(target)) is not None:
                self._run(timer)
        finally:
            with self._changed:
                self._advancing = False

    def _take_due(self, target: float) -> ManualTimer | None:
        """Set the time to that of the next timer and disarm it; or to the target when none is due before."""
        with self._changed:
            timer = min(self._timers, key=_turn, default=None)
            if timer is None or timer.due > target:
                self._now = target
                return None
            self._timers.remove(timer)
            self._now = max(self._now, timer.due)
            timer._thread.start()  # still under the lock: the timer is alive without a gap
            return timer

    def _run(self, timer: ManualTimer) -> None:
        thread = timer._thread
        thread.join(self._patience)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident or 0)
            stack = "".join(traceback.format_stack(frame)) if frame else ""
            raise TimeoutError(f"{timer!r} still runs after {self._patience:g} s of real time:\n{stack}")

    def _disarm(self, timer: ManualTimer) -> None:
        with self._changed:
            if timer in self._timers:
                self._timers.remove(timer)

    def _is_armed(self, timer: ManualTimer) -> bool:
        with self._changed:
            return timer in self._timers


def _turn(timer: ManualTimer) -> tuple[float, int]:
    return timer.due, timer._order


def _grid(seconds: float) -> float:
    """Whole nanoseconds: ten steps of 0.1 s have to reach a timer of 1 s, in binary fractions too."""
    return round(seconds, 9)
