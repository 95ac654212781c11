"""The life of a client: its states, the transitions between them, and which ends lead to a reconnect.

Threading: pure functions and constants.
"""

from __future__ import annotations

from enum import Enum

from ..endings import CloseCode, Reason

__all__ = ["ClientState", "TRANSITIONS", "check_transition", "should_reconnect"]


class ClientState(Enum):
    """Where a client is in its life."""

    IDLE = "idle"  # made, not opened
    CONNECTING = "connecting"  # an attempt is under way
    OPEN = "open"
    WAITING = "waiting"  # for the delay before the next attempt
    CLOSING = "closing"  # close() was called
    CLOSED = "closed"  # over for good


TRANSITIONS: dict[ClientState, frozenset[ClientState]] = {
    ClientState.IDLE: frozenset({ClientState.CONNECTING, ClientState.CLOSED}),
    ClientState.CONNECTING: frozenset({ClientState.OPEN, ClientState.WAITING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.OPEN: frozenset({ClientState.WAITING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.WAITING: frozenset({ClientState.CONNECTING, ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.CLOSING: frozenset({ClientState.CLOSING, ClientState.CLOSED}),
    ClientState.CLOSED: frozenset(),
}

# ends that another attempt would only repeat: the peer is done, or one of the two does not keep to the protocol
_FINAL_CODES = frozenset({1000, 1002, 1003, 1007, 1008, 1009, 1010, CloseCode.REPLACED})


def check_transition(old: ClientState, new: ClientState) -> None:
    """RuntimeError for a transition that is not in the table."""
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"a client does not go from {old.value} to {new.value}")


def should_reconnect(reason: Reason) -> bool:
    """Whether an end like this one leads to a reconnect; the default for the client's option of the same name.

    Yes: refused, name not resolved, timeouts, lost connections, close codes 1001, 1005, 1006, 1011 to 1014 and others
    not listed here, HTTP 408, 425, 429 and 5xx.  No: our own close, close codes 1000, 1002, 1003, 1007 to 1010 and 4009
    (replaced by a newer connection of this name), other HTTP statuses, a bad certificate.
    """
    if reason.permanent:
        return False
    return reason.code not in _FINAL_CODES
