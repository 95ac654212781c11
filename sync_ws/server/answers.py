"""The HTTP answers to whatever does not become a WebSocket: refusals and pages; and how an answer reaches its reader.

Why so: a refusal must be proper HTTP that a person can read, and a peer must get it though it is still sending: a
socket that is closed with unread bytes in it resets the connection, and the reset overtakes the answer.  A page goes
from the file into the socket without passing through our memory, or in small pieces: it may be large, and whoever asks
for it is a stranger, who may be slow.

Threading: pure functions, but for writing to a socket that is the caller's alone.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Mapping
from io import FileIO
from typing import NamedTuple

from ..errors import Refusal
from ..net.tls import TlsSocket
from ..protocol.http_head import Request
from ..timing import Deadline
from .pages import Pages, content_type, find_page

__all__ = ["NO_THREAD", "Answer", "answer_page", "answer_refusal", "capped", "come_again", "write_last", "write_page"]

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
STALL = 10.0  # seconds in which a page's reader takes nothing
SLOWEST = 4096  # bytes a second, over a whole page: who dribbles holds a thread
SENT_AT_ONCE = 256 * 1024  # bytes of a page, by the kernel, between two looks at the clock
PIECE = 16 * 1024  # bytes of a page in our memory, where it is encrypted
LINGER_BYTES = 256 * 1024  # read and thrown away behind a refused request


class Answer(NamedTuple):
    """A response that ends its connection.  ``page``: an open file that is its body instead, for its user to close."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    page: FileIO | None = None
    page_size: int = 0  # bytes, when it was opened

    @property
    def size(self) -> int:
        """Bytes of its body."""
        return len(self.body) if self.page is None else self.page_size


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
        file = FileIO(page)
    except OSError as exc:  # removed a moment ago, or not ours to read
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise come_again() from None
        log.info("the page %s cannot be read: %s", ascii(str(page)), exc)
        raise Refusal(404, f"no such page; the WebSocket is at {websocket}") from None
    return Answer(200, headers, page=file, page_size=os.fstat(file.fileno()).st_size)


def capped(timeout: float | None) -> float | None:
    """``timeout`` as a socket takes it; whoever waits looks at the deadline again afterwards."""
    return None if timeout is None else min(timeout, LONGEST)


def write_page(sock: socket.socket, page: FileIO, size: int) -> None:
    """Write so many bytes of a file.  OSError when the peer left, or takes nothing for a while, or next to nothing.

    The deadline counts from the last progress: a long page on a slow line is no offence.
    """
    whole = Deadline(STALL + size / SLOWEST)
    sock.settimeout(STALL)
    offset = 0
    while offset < size:
        if whole.passed:
            raise TimeoutError(f"the reader takes less than {SLOWEST} bytes a second")
        if isinstance(sock, TlsSocket):
            piece = page.read(min(PIECE, size - offset))
            sock.sendall(piece)
            sent = len(piece)
        else:
            sent = sock.sendfile(page, offset, min(SENT_AT_ONCE, size - offset))
        if not sent:
            raise ConnectionAbortedError("the page became shorter meanwhile")
        offset += sent


def write_last(sock: socket.socket, data: bytes, page: FileIO | None = None, page_size: int = 0) -> None:
    """Write the last bytes of a connection, and a page behind them, and see to it that the peer can read them.  OSError
    if it does not.

    Under deadlines of their own: the request may have used up the other one.
    """
    sock.settimeout(PATIENCE)
    sock.sendall(data)
    if page is not None:
        write_page(sock, page, page_size)
    deadline = Deadline(PATIENCE)
    sock.shutdown(socket.SHUT_WR)
    thrown_away = 0
    while thrown_away < LINGER_BYTES and (remaining := deadline.remaining()):
        sock.settimeout(remaining)
        rest = sock.recv(4096)
        if not rest:
            return
        thrown_away += len(rest)
