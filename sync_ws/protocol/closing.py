"""The closing handshake (RFC 6455 section 7) as a table: what has happened, and what to do about it.

Why so: an end may be met by any thread, from either side, in any order: our ``close``, the peer's Close frame, a broken
rule, the end of the stream, a deadline.  Which of them come together, who is answered and what is then said of it
is decided here, where it can be read and tested in one place; the channel only carries it out.

A step is taken in two halves.  ``happens`` notes the Close frames and says what is to be done; ``end`` shows the end to
everybody, once that has been done: an owner who sees the end may take the descriptor away, and the answer must
have been written by then.

Threading: no lock of its own; the channel's state lock guards it.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, TypeAlias

from ..endings import Close, CloseCode, Reason
from .frames import GOODBYE

__all__ = [
    "NOTHING",
    "REASON_BYTES",
    "TABLE",
    "Action",
    "Actions",
    "Closing",
    "Happening",
    "Phase",
    "Step",
    "check_close",
]

REASON_BYTES = 123  # of UTF-8, in a Close frame: 125 less the code (RFC 6455 section 5.5)
NO_ANSWER = "no Close frame in answer to ours in time"


class Phase(enum.Enum):
    """Where a connection is in its life, after the opening handshake."""

    OPEN = "open"
    CLOSING = "closing"  # our Close frame was the first; the peer's is awaited
    ENDED = "ended"  # nothing comes or goes any more
    RELEASED = "released"  # and the descriptor was given back

    __hash__ = object.__hash__  # an Enum's own is Python code, and a connection asks some twenty times


class Happening(enum.Enum):
    """What may happen to a connection."""

    CLOSE = "we close"
    CLOSE_FRAME = "the peer's Close frame came"
    FAILURE = "the peer broke the protocol"
    END_OF_STREAM = "the stream ended or broke"
    GIVEN_UP = "we give it up"
    RELEASE = "its owner is done with it"

    __hash__ = object.__hash__


class Action(enum.Enum):
    """What is to be done about it, in the order of their definition."""

    SEND_CLOSE = enum.auto()  # queue a Close frame; no message after it
    END_WRITING = enum.auto()  # end our direction of the stream behind it
    SERVER_ENDS_WRITING = enum.auto()  # the same, by a server only: it ends the TCP stream first (section 7.1.1)
    DROP = enum.auto()  # forget what is queued; wake those who wait for it
    CUT = enum.auto()  # end both directions; wakes whoever is blocked in them
    GIVE_BACK = enum.auto()  # close the descriptor

    __hash__ = object.__hash__


Actions: TypeAlias = frozenset[Action]
NOTHING: Actions = frozenset()


def _do(*actions: Action) -> Actions:
    return frozenset(actions)


TABLE: dict[tuple[Phase, Happening], tuple[Phase, Actions]] = {
    (Phase.OPEN, Happening.CLOSE): (Phase.CLOSING, _do(Action.SEND_CLOSE)),
    (Phase.OPEN, Happening.CLOSE_FRAME): (Phase.ENDED, _do(Action.SEND_CLOSE, Action.SERVER_ENDS_WRITING)),
    (Phase.OPEN, Happening.FAILURE): (Phase.ENDED, _do(Action.SEND_CLOSE, Action.END_WRITING)),
    (Phase.OPEN, Happening.END_OF_STREAM): (Phase.ENDED, _do(Action.CUT)),
    (Phase.OPEN, Happening.GIVEN_UP): (Phase.ENDED, _do(Action.DROP, Action.CUT)),
    (Phase.CLOSING, Happening.CLOSE_FRAME): (Phase.ENDED, _do(Action.SERVER_ENDS_WRITING)),
    (Phase.CLOSING, Happening.FAILURE): (Phase.ENDED, _do(Action.END_WRITING)),
    (Phase.CLOSING, Happening.END_OF_STREAM): (Phase.ENDED, _do(Action.CUT)),
    (Phase.CLOSING, Happening.GIVEN_UP): (Phase.ENDED, _do(Action.DROP, Action.CUT)),
    (Phase.ENDED, Happening.GIVEN_UP): (Phase.ENDED, _do(Action.DROP, Action.CUT)),
    (Phase.ENDED, Happening.RELEASE): (Phase.RELEASED, _do(Action.GIVE_BACK)),
}  # whatever is not in it changes nothing


class Step(NamedTuple):
    """What ``happens`` says: what to do, with which Close frame, and what to ``end`` with (None: it goes on)."""

    actions: Actions
    close: Close | None = None
    reason: Reason | None = None


class Closing:
    """One connection's phase, the Close frames of both directions, and why it ended."""

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        self.sent: Close | None = None
        self.received: Close | None = None
        self.reason: Reason | None = None  # set when it has ended
        self.broken: OSError | None = None  # why nothing can be written, while there may be something left to read

    def happens(
        self,
        what: Happening,
        close: Close | None = None,
        *,
        about: str = "",
        reason: Reason | None = None,
        error: OSError | None = None,
    ) -> Step:
        """Note it, and say what is to be done.

        ``close``: our Close frame (CLOSE, FAILURE) or the peer's (CLOSE_FRAME; None for an empty one).  ``about``: what
        a FAILURE is about, see ``Control.text``.  ``reason``: why it is given up (GIVEN_UP).  ``error``: what broke the
        stream (END_OF_STREAM), None when it simply ended.
        """
        after, actions = self._move(what, close)
        if not actions:
            return Step(actions)
        ours = self.sent
        if what is Happening.CLOSE_FRAME:
            self.received = close or Close(CloseCode.NO_STATUS)
        if after is not Phase.ENDED:
            return Step(actions, close)
        if Action.SEND_CLOSE in actions:  # an answer repeats the peer's code, or its lack of one (section 5.5.1)
            self.sent = close or Close(CloseCode.NO_STATUS)
        return Step(actions, close, self._why(what, ours, close, about, reason, error))

    def _move(self, what: Happening, close: Close | None) -> tuple[Phase, Actions]:
        """What the table says, and the phase it leads to, unless that is the end."""
        ended, closing = Phase.ENDED, Phase.CLOSING
        while True:
            before = self.phase
            after, actions = TABLE.get((before, what), (before, NOTHING))
            if self.phase is before:  # nothing is called from here on; else a signal's handler was faster
                if after is not ended:
                    if after is closing and before is not closing:
                        self.sent = close
                    self.phase = after
                return after, actions

    def end(self, reason: Reason) -> bool:
        """It has ended; False if it had before, and then for the reason it had."""
        if self.reason is not None:
            return False
        self.reason = reason
        self.phase = Phase.ENDED
        return True

    def present(self) -> Reason:
        """Why nothing may be sent now."""
        if self.reason is not None:
            return self.reason
        if self.sent is not None:
            return Reason(f"closing: we sent {self.sent}", by_us=True)
        why = f": {self.broken.strerror or self.broken}" if self.broken is not None else ""
        return Reason(f"the connection broke while writing{why}", CloseCode.ABNORMAL, error=self.broken)

    def _why(
        self,
        what: Happening,
        ours: Close | None,
        close: Close | None,
        about: str,
        reason: Reason | None,
        error: OSError | None,
    ) -> Reason:
        if what is Happening.CLOSE_FRAME:
            assert self.received is not None
            if ours is None:
                return Reason(f"closed by the peer: {self.received}", code=self.received.code)
            return Reason(f"closed by us: {ours}", code=self.received.code, by_us=True)
        if what is Happening.FAILURE:
            assert close is not None
            if about == GOODBYE:  # section 7.1.7: to the application, a connection that failed ended with 1006
                return Reason(f"closed by the peer, in a Close frame that is none: {close.reason}", CloseCode.ABNORMAL)
            if about:
                text = f"closed by us, above our own limit: {close} (the option {about})"
                return Reason(text, code=close.code, by_us=True)
            return Reason(f"the peer broke the protocol: {close}", code=close.code, by_us=True)
        if what is Happening.END_OF_STREAM:
            lost = "the connection was lost without a Close frame"
            if error is not None:
                lost += f": {error.strerror or error}"
            if ours is not None:
                return Reason(f"closed by us: {ours}; {lost}", CloseCode.ABNORMAL, by_us=True, error=error)
            return Reason(lost, CloseCode.ABNORMAL, error=error)
        return reason or Reason(NO_ANSWER, CloseCode.ABNORMAL, by_us=True)


def check_close(code: int, reason: str) -> Close:
    """What a Close frame of ours may say.

    ValueError for a code that must not be sent (RFC 6455 section 7.4) or a reason of more than 123 bytes.
    """
    if not CloseCode.may_be_sent(code):
        raise ValueError(f"a close code is 1000-1014 as registered, or 3000-4999, not {code!r}")
    if len(reason.encode()) > REASON_BYTES:
        raise ValueError(f"the reason of a Close frame has at most {REASON_BYTES} bytes of UTF-8")
    return Close(code, reason)
