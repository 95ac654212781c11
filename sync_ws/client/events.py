"""What a client's event functions are given: one frozen object for each event, which says why it happened.

The ``message`` event is the exception: its functions get the message itself.

Threading: values; share them freely.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..endings import Reason
from ..headers import Headers
from ..messages import Message

__all__ = ["EVENTS", "Closed", "Error", "Event", "GaveUp", "HeartbeatAnswered", "Opened", "Reconnected", "Reconnecting"]

EVENTS = ("open", "message", "close", "error", "reconnecting", "reconnected", "gave_up", "heartbeat")


class Event:
    """What they have in common: nothing but being one."""

    __slots__ = ()


@dataclass(frozen=True)
class Opened(Event):
    """``open``: a connection is open, the first or a later one."""

    subprotocol: str | None = None
    headers: Headers = field(default_factory=Headers, repr=False)  # of the server's response


@dataclass(frozen=True)
class Closed(Event):
    """``close``: the connection has ended, or, last of all, the client was closed.

    ``reconnecting``: whether there will be another attempt.  ``undelivered``, in the last event there is: what was
    queued and will never be sent.
    """

    reason: Reason
    reconnecting: bool = False
    undelivered: tuple[Message, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Error(Event):
    """``error``: a function of the application raised ``exception``."""

    exception: Exception


@dataclass(frozen=True)
class Reconnecting(Event):
    """``reconnecting``: attempt number ``attempt`` (from 1) begins in ``delay`` seconds, because of ``reason``."""

    attempt: int
    delay: float
    reason: Reason


@dataclass(frozen=True)
class Reconnected(Event):
    """``reconnected``: after ``open``, when it was not the first; ``count`` is how many times so far."""

    count: int


@dataclass(frozen=True)
class GaveUp(Event):
    """``gave_up``: there will be no further attempt, and the application did not ask for that with ``close()``.

    The last event there is, after the ``close`` of the connection if there was one.  ``undelivered``: what was queued
    and will never be sent.
    """

    reason: Reason
    undelivered: tuple[Message, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class HeartbeatAnswered(Event):
    """``heartbeat``: it was answered, ``rtt`` seconds after it went out."""

    rtt: float
