"""Whether a peer is still there: when to ask a silent one for a sign of life, and when to give it up.

Why so: a TCP connection whose other end has vanished looks like an idle one.  A server asks a peer that has been
silent; a client asks at every interval, as the browser page does.  Both wait so long for any byte at all, take bytes
that lie unread in the socket for a sign of life (it is we who have not read them), and count no time that the
process was stopped.  So there is one policy; who looks, how often, and how it asks is the caller's business.

Threading: none of its own; the caller sees to it that one thread looks at a time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

__all__ = ["LATE", "Liveness", "Verdict"]

LATE = 1.0  # seconds: a look this much too late means that the process was stopped; the peer gets a fresh timeout


class Verdict(enum.Enum):
    """What to do after a look."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Liveness:
    """See the module.  ``interval``: seconds until a peer is asked; ``timeout``: seconds it has to show a sign of life.
    ``silent_only``: ask only a peer that sent nothing for an interval.  ``now``: monotonic seconds."""

    __slots__ = ("_asked", "_interval", "_seen", "_silent_only", "_timeout", "due")

    def __init__(self, interval: float, timeout: float, now: float, *, silent_only: bool) -> None:
        self._interval = interval
        self._timeout = timeout
        self._silent_only = silent_only
        self._asked = False  # an answer is awaited
        self._seen = 0  # bytes received when it was last asked, or seen to be alive
        self.due = now + interval  # when the next look is worth while

    @property
    def asked(self) -> bool:
        """Whether an answer is awaited."""
        return self._asked

    def look(self, now: float, received: int, unread: Callable[[], bool], *, late: bool) -> Verdict:
        """What to do now.  ``received``: bytes of the peer so far.  ``unread``: whether bytes of it wait in the socket,
        asked only before it is given up.  ``late``: this look comes LATE seconds or more after it was meant to.
        """
        if received != self._seen and (self._asked or self._silent_only):
            self._heard(now, received)
        elif late and self._silent_only:
            self._asked, self.due = False, now + self._interval
        elif late and self._asked:
            self.due = now + self._timeout
        if now < self.due:
            return Verdict.WAIT
        if not self._asked:
            self._asked, self._seen = True, received
            self.due = now + self._timeout
            return Verdict.ASK
        if unread():
            self._heard(now, received)
            return Verdict.WAIT
        return Verdict.DEAD

    def asked_at(self, now: float) -> None:
        """The question that ``look`` told to ask goes out only now: the timeout begins here."""
        self.due = now + self._timeout

    def _heard(self, now: float, received: int) -> None:
        # one that is asked at every interval is looked at a timeout after it was asked, however soon it answered
        self.due = now + (self._interval if self._silent_only else max(self._interval - self._timeout, 0.0))
        self._asked, self._seen = False, received
