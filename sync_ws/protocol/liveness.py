"""Whether a peer is still there: when to ask a silent one for a sign of life, and when to give it up.

Why so: a TCP connection whose other end has vanished looks like an idle one.  A server asks a peer that has been
silent; a client asks at every interval, as the browser page does.  Both wait so long for any byte at all, and count no
time that the process was stopped.  So there is one policy; who looks, how often, and how it asks is the caller's
business.

What counts is that bytes *arrive*, in the socket too, where they may wait unread: it is we who have not read them.  But
bytes that merely lie there say nothing new.  Where so many lie there that no more would fit in, an answer cannot
arrive, and the peer is given up only after ``CROWDED`` times as long.

Threading: none of its own; the caller sees to it that one thread looks at a time.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

__all__ = ["CROWDED", "Liveness", "Verdict", "stopped_for"]

LATE = 1.0  # seconds that went by and were neither waited nor computed for: the process was stopped
CROWDED = 10  # times interval and timeout: how long a peer is believed in whose answer has no room to arrive


class Verdict(enum.Enum):
    """What to do after a look."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


def stopped_for(passed: float, planned: float, busy: float) -> float:
    """Seconds that the process was stopped, if ``passed`` have gone by of which it meant to wait for ``planned``, and
    computed for ``busy``; 0.0 for what can be the scheduler's.  Time that we are slow ourselves is no such time."""
    lost = passed - planned - busy
    return lost if lost > LATE else 0.0


class Liveness:
    """See the module.  ``interval``: seconds until a peer is asked; ``timeout``: seconds it has to show a sign of life.
    ``silent_only``: ask only a peer that sent nothing for an interval.  ``now``: monotonic seconds."""

    __slots__ = ("_asked", "_asked_at", "_crowded", "_interval", "_seen", "_silent_only", "_timeout", "due")

    def __init__(self, interval: float, timeout: float, now: float, *, silent_only: bool) -> None:
        self._interval = interval
        self._timeout = timeout
        self._silent_only = silent_only
        self._asked = False  # an answer is awaited
        self._asked_at = 0.0  # since when
        self._crowded = False  # there was no room for an answer when it was due
        self._seen = 0  # bytes received when it was last seen to be alive; once it is asked, those unread counted in
        self.due = now + interval  # when the next look is worth while

    @property
    def asked(self) -> bool:
        """Whether an answer is awaited."""
        return self._asked

    def needs_unread(self, now: float) -> bool:
        """Whether a look at this time takes ``unread`` into account; else it may be 0."""
        return now >= self.due

    def look(
        self, now: float, received: int, unread: int, *, crowded: Callable[[], bool] = bool, lost: float = 0.0
    ) -> Verdict:
        """What to do now.  ``received``: bytes of the peer so far.  ``unread``: bytes of it that wait in the socket,
        asked before ``received``: what is read in between may count twice, but must not be missed.  ``crowded``:
        whether these are so many that no more may fit in, asked only before it is given up.  ``lost``: seconds since
        the last look that the process was stopped.
        """
        if self._asked or self._silent_only:
            self.due += lost
            self._asked_at += lost
        if self._asked:
            # not only more: bytes on their way from the socket to the application may be counted nowhere for a moment
            heard = received > self._seen or (now >= self.due and received + unread != self._seen)
        else:
            heard = self._silent_only and received != self._seen
        if heard:
            self._heard(now, received)
        if now < self.due:
            return Verdict.WAIT
        if not self._asked:
            self._asked, self._seen = True, received + unread
            self.asked_at(now)
            return Verdict.ASK
        was_crowded, self._crowded = self._crowded, crowded()
        patience = CROWDED * (self._interval + self._timeout)
        # once more after there was no room: it may be there only now
        if (self._crowded or was_crowded) and now - self._asked_at < patience:
            self.due = min(now + self._timeout, self._asked_at + patience)
            return Verdict.WAIT
        return Verdict.DEAD

    def asked_at(self, now: float) -> None:
        """The question that ``look`` told to ask goes out only now: the timeout begins here."""
        self.due, self._asked_at = now + self._timeout, now

    def _heard(self, now: float, received: int) -> None:
        # one that is asked at every interval is looked at a timeout after it was asked, however soon it answered
        self.due = now + (self._interval if self._silent_only else max(self._interval - self._timeout, 0.0))
        self._asked, self._crowded, self._seen = False, False, received
