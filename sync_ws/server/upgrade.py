"""The untrusted edge: a connection's one request, read under a deadline, and its answer over HTTP.

Why so: an http.server-style handler, because people know it and because refusals must be proper HTTP.  But
``http.server`` handles a request in its constructor, reads with a timeout per read (so a request dribbled byte by byte
holds a thread for ever) and reads ahead bytes that belong to the WebSocket: here the head is read whole by ``handle``,
up to its limits and its deadline, and what came behind it is kept.  One request a connection: whatever follows a
refused request is never looked at.  The order of the checks is cheap ones first, the application's last, and nothing
is registered before all have passed.

Threading: one handler per connection, in that connection's thread.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any

from ..errors import Refusal
from ..protocol import handshake
from ..protocol.http_head import BadHead, HeadBuffer, Request, check_request_size, parse_request
from ..timing import Deadline
from . import voice
from .answers import Answer, answer_page, answer_refusal, capped, write_last
from .pages import Pages
from .policy import Authenticate

__all__ = ["Upgrade", "UpgradeHandler", "authenticated", "read_head"]

log = logging.getLogger("sync_ws.server")


@dataclass(frozen=True)
class Upgrade:
    """A request that has passed every check."""

    request: Request
    accepted: handshake.Accepted
    identity: Any  # what the authenticate hook returned
    early: bytes  # bytes that came behind the request


class UpgradeHandler(BaseHTTPRequestHandler):
    """Handles a connection's one request: after ``handle``, ``upgrade`` is set if it may become a WebSocket; else it
    was answered."""

    protocol_version = "HTTP/1.1"
    server_version = "sync_ws"
    sys_version = ""

    def __init__(
        self,
        sock: socket.socket,
        peer: Any,
        policy: handshake.Policy,
        deadline: Deadline,
        *,
        secure: bool = False,
        authenticate: Authenticate | None = None,
        pages: Pages | None = None,
    ) -> None:
        # http.server's own constructor would handle the request before it returned
        self.request = self.connection = sock
        self.client_address = peer
        self.policy = policy
        self.deadline = deadline
        self.secure = secure
        self.authenticate = authenticate
        self.pages = pages
        self.upgrade: Upgrade | None = None
        self.command = ""
        self.requestline = "-"
        self.request_version = "HTTP/1.1"

    def handle(self) -> None:
        """Read the request, check it, and answer it unless it may become a WebSocket.  OSError when the peer left."""
        try:
            head, early = read_head(self.connection, self.deadline)
            request = parse_request(head, self.client_address, self.secure)
            self.command, self.path = request.method, request.path
            self.requestline = f"{request.method} {request.path}"
            voice.asked(self.client_address, head)
            if self.pages is not None and self._is_for_a_page(request):
                handshake.check_host(request, self.policy)
                answer = answer_page(self.pages, request, self.policy.path)
                assert answer.page is not None
                with answer.page:
                    self._answer(answer)
            else:
                accepted = handshake.check(request, self.policy)
                self.upgrade = Upgrade(request, accepted, authenticated(request, self.authenticate), early)
        except BadHead as bad:
            self.refuse(Refusal(bad.status, bad.text))
        except Refusal as refusal:
            self.refuse(refusal)

    def _is_for_a_page(self, request: Request) -> bool:
        """Whoever wants a WebSocket somewhere else is told where it is, rather than that there is no such page."""
        upgrades = {token.lower() for token in request.headers.tokens("Upgrade")}
        return request.path != self.policy.path and "websocket" not in upgrades

    def switch(self) -> None:
        """Answer with 101: from here on it is a WebSocket.  OSError when the peer left."""
        assert self.upgrade is not None
        head = handshake.answer(self.upgrade.accepted)
        self.connection.sendall(head)  # nothing waits before it, so it goes into the kernel at once
        voice.answered(self.client_address, head)

    def refuse(self, refusal: Refusal) -> None:
        """Answer with the refusal's status and its one line of text, and end the connection."""
        voice.refused(self.client_address, refusal.status, self.requestline, refusal.text)
        self._answer(answer_refusal(refusal))

    def _answer(self, answer: Answer) -> None:
        output = self.wfile = BytesIO()  # written to by http.server's methods
        try:
            phrase = HTTPStatus(answer.status).phrase
        except ValueError:
            phrase = "Refused"
        self.send_response(answer.status, phrase)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(answer.size))
        self.send_header("Connection", "close")
        self.end_headers()
        voice.answered(self.client_address, output.getvalue())
        wants_body = self.command != "HEAD"
        output.write(answer.body if wants_body else b"")
        try:
            write_last(self.connection, output.getvalue(), answer.page if wants_body else None, answer.page_size)
        except OSError as exc:
            log.debug("%s did not take its answer: %s", self.client_address[0], exc)

    # -- what http.server's methods ask ---------------------------------------------------------------------------

    def version_string(self) -> str:
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:
        """The handshake and the answer have been told already."""


def read_head(sock: socket.socket, deadline: Deadline) -> tuple[bytes, bytes]:
    """The head of a request, and the bytes that came behind it.

    Refusal (408) past the deadline, BadHead (414, 431) past a limit; ConnectionError when the peer left before the end.
    """
    buffer = HeadBuffer(check_request_size)
    while True:
        if deadline.passed:
            raise Refusal(408, "expected the whole request within the time allowed (the option handshake_timeout)")
        try:
            sock.settimeout(capped(deadline.remaining()))
            data = sock.recv(4096)
        except TimeoutError as exc:
            if exc.errno is not None:  # the kernel has given the peer up
                raise
            continue
        except InterruptedError:
            continue
        if not data:
            raise ConnectionResetError("the peer left before its request was complete")
        if whole := buffer.feed(data):
            return whole


def authenticated(request: Request, authenticate: Authenticate | None) -> Any:
    """What the application's hook says of ``request``, None without one; Refusal if it says nothing true."""
    if authenticate is None:
        return None
    try:
        identity = authenticate(request)
    except Refusal:
        raise
    except Exception:
        log.exception("the authenticate hook raised")
        raise Refusal(500, "the request could not be checked") from None
    if not identity:
        raise Refusal(401, "expected valid credentials", {"WWW-Authenticate": "Bearer"})
    return identity
