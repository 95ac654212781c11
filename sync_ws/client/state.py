"""The life of a client: its states, the transitions between them, and which ends lead to a reconnect.

An end for good, and why another attempt would only repeat it:

======================  ===============================================================================================
close code 1000         the server has finished: a handler returned, the work is done
close code 1002, 1007   one of the two does not keep to the protocol; it would do the same again
close code 1003, 1009   a message was of a kind or a size that one of the two does not take
close code 1008         refused by the server's policy: a bad token, a rule broken
close code 1010         an extension is missing
close code 4009         a newer connection took this name; two holders of a name must not fight for it
HTTP status             any refusal but 408, 425, 429 and 5xx
certificate, answer     the server is not who it should be, or not a WebSocket
======================  ===============================================================================================

Everything else passes: a server that is away, restarts (1001, 1012), is overloaded (1013, 503), has an accident (1011),
vanishes (1006) or says goodbye without a code (1005).  Servers differ in what they mean by a code, and a program may
know better: some close with 1008 when a Pong was late, or with 1000 at a restart.  It says so with the option
``should_reconnect``; and since the end is loud (a warning and ``gave_up``), it can know.

Threading: pure functions and constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from ..endings import CloseCode, Reason

__all__ = [
    "FINAL_CODES", "ClientState", "TRANSITIONS", "check_transition", "name_unknown", "should_reconnect", "why_final",
]  # fmt: skip


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

FINAL_CODES: Mapping[int, str] = {
    CloseCode.NORMAL: "the server has finished",
    CloseCode.PROTOCOL_ERROR: "one of the two does not keep to the protocol",
    CloseCode.UNSUPPORTED_DATA: "messages of this kind are not taken",
    CloseCode.INVALID_DATA: "one of the two does not keep to the protocol",
    CloseCode.POLICY_VIOLATION: "refused by the server's policy",
    CloseCode.MESSAGE_TOO_BIG: "messages of this size are not taken",
    CloseCode.MANDATORY_EXTENSION: "an extension is missing",
    CloseCode.REPLACED: "a newer connection took this name",
}


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
    return why_final(reason) is None


def why_final(reason: Reason) -> str | None:
    """Why another attempt would only repeat an end like this one, in words; None when it may help."""
    if reason.status is not None and reason.permanent:
        return f"HTTP status {reason.status} is final"
    if reason.permanent:
        return "trying again cannot help"
    explained = None if reason.code is None else FINAL_CODES.get(reason.code)
    return explained and f"close code {reason.code} is final: {explained}"


def name_unknown(reason: Reason) -> bool:
    """Whether an attempt failed because there is no such host name.

    Not because nobody could be asked (EAI_AGAIN): that is what a machine sees that starts before its network.
    """
    import socket  # when it is asked, it has been loaded; a program that has no client need not load it

    # where a system has the second, it knows the name but no address of it
    unknown = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))
    error: BaseException | None = reason.error
    while error is not None and not isinstance(error, socket.gaierror):
        error = error.__cause__
    return error is not None and error.errno in unknown
