"""What a server says in its log: each thing once, and nothing at the rate of an attack where somebody is woken by it.

Why so: INFO is the diary: listening, each connection's beginning and end, takeovers, refusals.  WARNING is for what
somebody should look at: a connection that neither side ended properly, and trouble in accepting.  Strangers can cause
both as often as they like, so only some of them are warnings in any one minute; the rest is told at a lower level.
DEBUG has the opening handshakes, without their secrets.

What a peer sent is escaped and bounded: a record is one line, whatever comes.

Threading: every function may be called from any thread.  ``shutdown`` says nothing of INFO or above itself: it may run
in a signal's handler, and the interrupted frame may hold what a log handler needs (a ``queue.Queue`` has such a lock).
"""

from __future__ import annotations

import logging
import time
from typing import Any

from ..protocol.shown_head import escaped, shown_lines
from .connection import Connection

__all__ = [
    "Sparing", "accept_trouble", "answered", "asked", "ended", "listening", "opened", "place", "refused", "stopped",
    "taken_over",
]  # fmt: skip

log = logging.getLogger("sync_ws.server")
WARNINGS = 10  # of one kind
PERIOD = 60.0  # seconds in which there are no more of them
MAX_TEXT = 500  # characters of a refusal's or a reason's text


class Sparing:
    """The level for something that may happen often: WARNING up to WARNINGS times in a PERIOD, then INFO.

    Threads that ask at once may get one more; that is not worth a lock.
    """

    def __init__(self) -> None:
        self._since = -PERIOD
        self._count = 0

    def next(self) -> tuple[int, str]:
        """The level, and what to add to the text."""
        now = time.monotonic()
        if now - self._since >= PERIOD:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > WARNINGS:
            return logging.INFO, ""
        more = f" (further ones within {PERIOD:.0f} s are for INFO only)"
        return logging.WARNING, more if self._count == WARNINGS else ""


def place(peer: Any) -> str:
    """A peer's address for people."""
    host, port = peer[0], peer[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _who(connection: Connection) -> str:
    name = f"'{escaped(connection.name)}' at " if connection.name is not None else ""
    return f"{name}{escaped(place(connection.request.peer))}"


# -- the server --------------------------------------------------------------------------------------------------------


def listening(url: str) -> None:
    """It takes connections from now on."""
    log.info("listening: %s", url)


def stopped(url: str, connections: int) -> None:
    """It does not any more, because it is shut down."""
    log.info("shutting down: %s, open connections: %d", url, connections)


def accept_trouble(text: str, error: BaseException, sparing: Sparing) -> None:
    """A connection could not be accepted, or got no thread."""
    level, more = sparing.next()
    log.log(level, "%s: %s%s", text, error, more)


# -- strangers ---------------------------------------------------------------------------------------------------------


def refused(peer: Any, status: int | str, request: str, text: str) -> None:
    """A stranger did not get in.  ``request``: method and path; never the query, it may hold a token."""
    if log.isEnabledFor(logging.INFO):
        log.info("refused %s: %s, %s: %s", status, place(peer), escaped(request), escaped(text, MAX_TEXT))


def asked(peer: Any, head: bytes) -> None:
    """An opening handshake's request, as it came: a well-formed one."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ", 2)
    path, mark, query = target.partition("?")
    shown = "&".join(map(_field, query.split("&"))) if mark else ""
    _tell(peer, "<", f"{method} {path}{mark}{shown} {version}", lines)


def _field(field: str) -> str:
    """One of a query, of which only the name of a connection is known to be no secret."""
    name, sign, value = field.partition("=")
    if not sign:
        return "***"
    return field if name == "name" or not value else f"{name}=***"


def answered(peer: Any, head: bytes) -> None:
    """The answer to it."""
    if not log.isEnabledFor(logging.DEBUG):
        return
    first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    _tell(peer, ">", first, lines)


def _tell(peer: Any, direction: str, first: str, lines: list[str]) -> None:
    fields = (line.partition(":") for line in lines)
    for line in shown_lines(first, ((name, value.strip()) for name, _, value in fields)):
        log.debug("%s %s %s", place(peer), direction, line)


# -- connections -------------------------------------------------------------------------------------------------------


def opened(connection: Connection) -> None:
    """A stranger got in."""
    if log.isEnabledFor(logging.INFO):
        path = escaped(connection.request.path)
        subprotocol = f", subprotocol {connection.subprotocol}" if connection.subprotocol is not None else ""
        log.info("open: %s, path %s%s", _who(connection), path, subprotocol)


def taken_over(connection: Connection, old: Connection) -> None:
    """``connection`` has the name that ``old`` had."""
    if log.isEnabledFor(logging.INFO):
        log.info("takeover: %s, replacing %s", _who(connection), escaped(place(old.request.peer)))


def ended(connection: Connection, sparing: Sparing) -> None:
    """It is over."""
    channel = connection.channel
    level, more = logging.INFO, ""
    if not _clean(connection):
        level, more = sparing.next()
    if log.isEnabledFor(level):
        reason, lived = channel.reason, time.monotonic() - connection.made
        text = "closed: %s, after %.1f s, messages in: %d, out: %d: %s%s"
        counts = channel.messages_received, channel.writer.messages_sent
        log.log(level, text, _who(connection), lived, *counts, escaped(str(reason), MAX_TEXT), more)


def _clean(connection: Connection) -> bool:
    """Whether it was ended by the peer's Close frame, or by the application, whatever the peer made of that."""
    reason, (sent, received) = connection.channel.reason, connection.channel.close_frames
    if reason is None or received is not None or (reason.by_us and reason.code == 1001):
        return True
    # a broken rule is answered with a Close frame too, and then its code is the reason's
    return sent is not None and reason.by_us and reason.code != sent.code
