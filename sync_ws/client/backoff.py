"""How long to wait before the next attempt to connect: pure arithmetic, no sleeping.

Why so: full jitter (a uniformly random delay up to a growing cap) is what keeps a thousand clients of a restarted
server from coming back in the same second.  A policy only turns an attempt number into seconds; who waits, and how
the wait is interrupted, is the client's business.

Threading: policies are frozen; one may serve any number of clients.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..checks import check_count, check_flag, check_seconds

__all__ = ["Backoff"]


@dataclass(frozen=True)
class Backoff:
    """Attempt number -> seconds to wait before it.

    ``first``: the cap of the first delay, in seconds, above 0.  ``maximum``: the cap never grows beyond it.
    ``factor``: by how much the cap grows at each attempt, at least 1.  ``jitter``: True draws the delay uniformly
    from 0 to the cap, False waits for exactly the cap.  ``attempts``: give up after so many failed attempts in a
    row, None for never.  ``stable``: a connection that stayed open so many seconds starts the count anew.

    ValueError or TypeError for anything outside these bounds.
    """

    first: float = 0.5
    maximum: float = 60.0
    factor: float = 2.0
    jitter: bool = True
    attempts: int | None = None
    stable: float = 60.0

    def __post_init__(self) -> None:
        check_seconds("Backoff.first", self.first)
        check_seconds("Backoff.maximum", self.maximum)
        check_seconds("Backoff.stable", self.stable, zero=True)
        if self.first > self.maximum:
            raise ValueError(f"Backoff.first ({self.first}) is at most Backoff.maximum ({self.maximum})")
        if isinstance(self.factor, bool) or not isinstance(self.factor, (int, float)):
            raise TypeError(f"Backoff.factor is a number, not {self.factor!r}")
        if not self.factor >= 1:
            raise ValueError(f"Backoff.factor is at least 1, not {self.factor!r}")
        check_flag("Backoff.jitter", self.jitter)
        if self.attempts is not None:
            check_count("Backoff.attempts", self.attempts)

    @classmethod
    def fixed(cls, seconds: float, attempts: int | None = None) -> Backoff:
        """The same delay before every attempt, without jitter."""
        return cls(first=seconds, maximum=seconds, factor=1, jitter=False, attempts=attempts, stable=0)

    @classmethod
    def of(cls, value: Backoff | float | None) -> Backoff | None:
        """What a ``reconnect=`` argument means: a policy, a fixed number of seconds, or None for never."""
        if value is None or isinstance(value, Backoff):
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"reconnect is a sync_ws.Backoff, a number of seconds or None, not {value!r}")
        return cls.fixed(check_seconds("reconnect (None for never)", value))

    def cap(self, attempt: int) -> float:
        """The longest delay before ``attempt`` (1 is the first), in seconds."""
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, not {attempt!r}")
        try:
            return float(min(self.maximum, self.first * float(self.factor) ** (attempt - 1)))
        except OverflowError:  # beyond what a float holds; the maximum was reached long before
            return float(self.maximum)

    def delay(self, attempt: int) -> float:
        """Seconds to wait before ``attempt`` (1 is the first)."""
        cap = self.cap(attempt)
        return random.uniform(0, cap) if self.jitter else cap

    def exhausted(self, failed: int) -> bool:
        """Whether ``failed`` attempts in a row are all there were to be."""
        return self.attempts is not None and failed >= self.attempts
