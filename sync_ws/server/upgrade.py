"""The untrusted edge: what a request must be to become a WebSocket, and the HTTP answer when it is not.

Why so: an http.server-style handler, because people know it and because refusals must be proper HTTP; but the head of
the request is read and parsed by ``request``, under one deadline.  One request a connection: whatever follows a
refused request is never looked at.  The order of the checks is cheap ones first, the application's last, and nothing
is registered before all have passed.

Threading: one handler per connection, in that connection's thread.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any, Callable, Collection, Mapping

from ..errors import Refusal
from ..timing import Deadline
from .pages import Pages, content_type, find_page
from .request import Request, parse_request, read_head

__all__ = ["Upgrade", "UpgradeHandler", "UpgradePolicy", "bearer_token", "check_name"]

Authenticate = Callable[[Request], Any]

log = logging.getLogger("sync_ws.server")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
NAME_LENGTH = 128  # characters
LINGER_BYTES = 256 * 1024  # read and thrown away after a refusal, so that the answer is not lost in a reset


def check_name(name: str) -> str:
    """``name`` itself if a connection may have it; ValueError if not.

    1 to 128 printable characters: control, format (bidi marks) and separator characters would forge log lines.
    """
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a name has 1 to {NAME_LENGTH} printable characters")
    return name


def bearer_token(*tokens: str, query: str | None = None) -> Authenticate:
    """An ``authenticate`` hook: one of ``tokens`` must come as ``Authorization: Bearer TOKEN``.

    ``query``: a query parameter that may carry it instead, for browsers, which cannot set the header.  Compared in
    constant time.  ValueError without a token, or for an empty one.
    """
    if not tokens or not all(tokens):
        raise ValueError("bearer_token() needs at least one token, and none of them empty")
    accepted = [token.encode() for token in tokens]

    def authenticate(request: Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.query.get(query, "") if query else ""
        presented = given.strip().encode(errors="surrogateescape")
        # every token is compared, so that the time taken tells nothing
        return sum(hmac.compare_digest(presented, token) for token in accepted) > 0

    return authenticate


@dataclass(frozen=True)
class UpgradePolicy:
    """What a server asks of an opening handshake."""

    path: str = "/ws/"
    origins: Collection[str] | None = None  # None: the same origin; "*" in it: any
    require_name: bool = False
    authenticate: Authenticate | None = None
    pages: Pages | None = None


@dataclass(frozen=True)
class Upgrade:
    """A request that has passed every check."""

    request: Request
    name: str | None
    identity: Any  # what the authenticate hook returned
    early: bytes  # bytes that came behind the request


class UpgradeHandler(BaseHTTPRequestHandler):
    """Handles a connection's one request: ``upgrade`` is set if it may become a WebSocket, else it was answered."""

    protocol_version = "HTTP/1.1"
    server_version = "sync_ws"
    sys_version = ""

    def __init__(self, sock: socket.socket, peer: Any, policy: UpgradePolicy, deadline: Deadline, secure: bool) -> None:
        self.policy = policy
        self.deadline = deadline
        self.secure = secure
        self.upgrade: Upgrade | None = None
        self.command = ""
        self.requestline = "-"
        self.request_version = "HTTP/1.1"
        super().__init__(sock, peer, None)  # type: ignore[arg-type]

    # -- what http.server's base class calls ----------------------------------------------------------------------

    def setup(self) -> None:
        self.connection: socket.socket = self.request
        self._output = self.wfile = BytesIO()

    def handle(self) -> None:
        try:
            head, early = read_head(self.connection, self.deadline)
            parsed = parse_request(head, self.client_address, self.secure)
            self.command, self.path = parsed.method, parsed.path
            self.requestline = f"{parsed.method} {parsed.path}"
            if parsed.path == self.policy.path:
                self.upgrade = self._check_upgrade(parsed, early)
            else:
                self._serve_page(parsed)
        except Refusal as refusal:
            self.refuse(refusal)

    def finish(self) -> None:
        return  # the socket is the server's

    def version_string(self) -> str:
        return self.server_version

    def log_message(self, format: str, *args: Any) -> None:
        # what the peer sent is escaped, so that a record stays one line; never the query, it may hold a token
        log.debug("%s %s", self.client_address[0], ascii(format % args))

    # -- answers --------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer with the refusal's status and its one line of text, and end the connection."""
        log.info("%s refused %s: %s", self.client_address[0], ascii(self.requestline), refusal)
        headers = {"Content-Type": "text/plain; charset=utf-8", **refusal.headers}
        self._answer(refusal.status, headers, f"{refusal.text}\n".encode())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Refused"
        self.send_response(status, phrase)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)
        answer = self._output.getvalue()
        # a deadline of its own: the request may have used up the other one
        deadline = Deadline(2.0)
        try:
            self.connection.settimeout(2.0)
            self.connection.sendall(answer)
            socket.socket.shutdown(self.connection, socket.SHUT_WR)
            self._linger(deadline)
        except OSError as exc:
            log.debug("%s did not take its answer: %s", self.client_address[0], exc)

    def _linger(self, deadline: Deadline) -> None:
        """Read what the peer still sends: closing with unread bytes would reset the connection under our answer."""
        thrown_away = 0
        while thrown_away < LINGER_BYTES and (remaining := deadline.remaining()):
            self.connection.settimeout(remaining)
            data = self.connection.recv(4096)
            if not data:
                return
            thrown_away += len(data)

    def _serve_page(self, request: Request) -> None:
        if self.policy.pages is None:
            raise Refusal(404, f"expected the path {self.policy.path}")
        page = find_page(self.policy.pages, request.path)
        if page is None:
            raise Refusal(404, "no such page")
        if request.method not in ("GET", "HEAD"):
            raise Refusal(405, "expected the method GET or HEAD", {"Allow": "GET, HEAD"})
        headers = {"Content-Type": content_type(page), "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
        try:
            body = page.read_bytes()
        except OSError as exc:  # removed a moment ago, or not ours to read
            log.warning("the page %s cannot be read: %s", ascii(str(page)), exc)
            raise Refusal(404, "no such page") from None
        self._answer(200, headers, body)

    # -- checks, in their order -----------------------------------------------------------------------------------

    def _check_upgrade(self, request: Request, early: bytes) -> Upgrade:
        self._check_handshake(request)
        self._check_origin(request)
        name = self._check_name(request)
        self._check_subprotocols(request)
        return Upgrade(request, name, self._authenticated(request), early)

    def _check_handshake(self, request: Request) -> None:
        """RFC 6455 section 4.2.1."""
        if request.method != "GET":
            raise Refusal(405, "expected the method GET", {"Allow": "GET"})
        headers = request.headers
        upgrade = {token.lower() for token in headers.tokens("Upgrade")}
        connection = {token.lower() for token in headers.tokens("Connection")}
        if "websocket" not in upgrade or "upgrade" not in connection:
            needed = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            raise Refusal(426, "expected an opening handshake: Upgrade: websocket, Connection: Upgrade", needed)
        if headers.get_all("Sec-WebSocket-Version") != ["13"]:
            raise Refusal(426, "expected Sec-WebSocket-Version: 13", {"Sec-WebSocket-Version": "13"})
        keys = headers.get_all("Sec-WebSocket-Key")
        try:
            good = len(keys) == 1 and _KEY.fullmatch(keys[0]) and len(base64.b64decode(keys[0], validate=True)) == 16
        except binascii.Error:
            good = False
        if not good:
            raise Refusal(400, "expected one Sec-WebSocket-Key of 16 bytes in base64")

    def _check_origin(self, request: Request) -> None:
        """A browser tells where its page came from; what is not a browser sends no Origin and passes."""
        given = request.headers.get_all("Origin")
        allowed = self.policy.origins
        if not given or (allowed is not None and "*" in allowed):
            return
        origin = given[0].lower()
        if len(given) == 1:
            if allowed is not None and origin in {item.lower() for item in allowed}:
                return
            # host and port as the browser sees them; the scheme may differ behind a proxy that ends TLS
            scheme, _, place = origin.partition("://")
            same = scheme in ("http", "https") and place == request.headers["Host"].lower()
            if allowed is None and same:
                return
        raise Refusal(403, "expected an allowed Origin")

    def _check_name(self, request: Request) -> str | None:
        name = request.query.get("name")
        if name is None:
            if self.policy.require_name:
                raise Refusal(400, "expected a name in the query, such as ?name=test")
            return None
        if "name" in request.repeated:
            raise Refusal(400, "expected one name in the query")
        try:
            return check_name(name)
        except ValueError as exc:
            raise Refusal(400, f"expected a good name in the query: {exc}") from None

    def _check_subprotocols(self, request: Request) -> None:
        offered = request.headers.tokens("Sec-WebSocket-Protocol")
        if len(offered) != len(set(offered)) or not all(_TOKEN.fullmatch(token) for token in offered):
            raise Refusal(400, "expected Sec-WebSocket-Protocol to list distinct tokens")

    def _authenticated(self, request: Request) -> Any:
        if self.policy.authenticate is None:
            return None
        try:
            identity = self.policy.authenticate(request)
        except Refusal:
            raise
        except Exception:
            log.exception("the authenticate hook raised")
            raise Refusal(500, "the request could not be checked") from None
        if not identity:
            raise Refusal(401, "expected valid credentials", {"WWW-Authenticate": "Bearer"})
        return identity
