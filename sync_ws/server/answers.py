"""The HTTP answers to whatever does not become a WebSocket: refusals and pages; and how an answer reaches its reader.

Why so: a refusal must be proper HTTP that a person can read, and a peer must get it though it is still sending: a
socket that is closed with unread bytes in it resets the connection, and the reset overtakes the answer.

Threading: pure functions, but for writing to a socket that is the caller's alone.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import Refusal
from ..protocol.http_head import Request
from ..timing import Deadline
from .pages import Pages, content_type, find_page

__all__ = ["NO_THREAD", "Answer", "answer_page", "answer_refusal", "capped", "come_again", "write_last"]

log = logging.getLogger("sync_ws.server")
RETRY_AFTER = 5  # seconds, in the 503 of a full server
FULL = "the server is full, try again later"
# for a connection that gets no thread, in which its request could be read
NO_THREAD = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Retry-After: {RETRY_AFTER}\r\nContent-Length: {len(FULL) + 1}\r\nConnection: close\r\n\r\n{FULL}\n"
).encode()
LONGEST = 3600.0  # seconds in one system call: a socket's timeout is milliseconds in a C int for some of them
PATIENCE = 2.0  # seconds for a peer to take its answer and to stop sending
LINGER_BYTES = 256 * 1024  # read and thrown away behind a refused request


class Answer(NamedTuple):
    """A response that ends its connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def come_again(text: str = FULL) -> Refusal:
    """A refusal of what would be welcome at another time, and when."""
    return Refusal(503, text, {"Retry-After": str(RETRY_AFTER)})


def answer_refusal(refusal: Refusal) -> Answer:
    """The refusal's status and its one line of text."""
    # it may repeat what came: no browser must take that for a page
    headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", **refusal.headers}
    return Answer(refusal.status, headers, f"{refusal.text}\n".encode())


def answer_page(pages: Pages, request: Request, websocket: str) -> Answer:
    """The page that is asked for; Refusal if there is none.  ``websocket``: the path where the WebSocket is."""
    page = find_page(pages, request.path)
    if page is None:
        raise Refusal(404, f"no such page; the WebSocket is at {websocket}")
    if request.method not in ("GET", "HEAD"):
        raise Refusal(405, "expected the method GET or HEAD", {"Allow": "GET, HEAD"})
    headers = {"Content-Type": content_type(page), "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    try:
        body = page.read_bytes()
    except OSError as exc:  # removed a moment ago, or not ours to read
        log.info("the page %s cannot be read: %s", ascii(str(page)), exc)
        raise Refusal(404, f"no such page; the WebSocket is at {websocket}") from None
    return Answer(200, headers, body)


def capped(timeout: float | None) -> float | None:
    """``timeout`` as a socket takes it; whoever waits looks at the deadline again afterwards."""
    return None if timeout is None else min(timeout, LONGEST)


def write_last(sock: socket.socket, data: bytes) -> None:
    """Write the last bytes of a connection, and see to it that the peer can read them.  OSError if it does not.

    Under a deadline of its own: the request may have used up the other one.
    """
    deadline = Deadline(PATIENCE)
    sock.settimeout(PATIENCE)
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    thrown_away = 0
    while thrown_away < LINGER_BYTES and (remaining := deadline.remaining()):
        sock.settimeout(remaining)
        rest = sock.recv(4096)
        if not rest:
            return
        thrown_away += len(rest)
