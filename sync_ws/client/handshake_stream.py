"""The stream that websocket-client does its opening handshake over: bounded, checked, and free of shared state.

Why so: websocket-client reads a response a byte at a time without a limit, ignores partial writes, takes a 103 for the
answer, follows redirects with the credentials of another host, adds cookies from a jar that all hosts of the process
share, loses what stands behind a semicolon in a path, and compares Sec-WebSocket-Accept without regard to case.  This
stream reads the head in pieces up to a bound, hands a 101 out from memory, and keeps what came behind it;
``protocol.handshake`` then verifies the response once more.  Any other answer it keeps to itself: ``Refused``.

What a request could not be written for may have been answered all the same (413, a TLS alert): it is read first.

Threading: used by the one thread that dials.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
from collections.abc import Iterable
from typing import Protocol

from ..endings import Reason
from ..errors import HandshakeError, HandshakeTimeout
from ..net.waiting import NOT_NOW, READABLE, WRITABLE
from ..protocol.http_head import BadHead, HeadBuffer, Response, TlsInstead, check_response_size, parse_response
from ..protocol.shown_head import escaped, shown_address, shown_lines
from ..timing import Deadline

__all__ = ["HandshakeStream", "Io", "Refused"]

log = logging.getLogger("sync_ws.client")
MAX_BODY = 64 * 1024  # bytes of a refusal's body
BODY_PATIENCE = 1.0  # seconds for it: the status is there already
MAX_INTERIM = 16  # 1xx responses before the final one
_BODILESS = (204, 205, 304)


class Io(Protocol):
    """How to wait for a socket, up to the dial's deadline or ``share``, a nearer one (TimeoutError past that one)."""

    def wait(self, sock: socket.socket, events: int, share: Deadline | None = None) -> None: ...

    def too_late(self) -> HandshakeTimeout: ...


class Refused(Exception):
    """The server has answered, and not with 101."""


class HandshakeStream:
    """What websocket-client takes for a socket."""

    def __init__(self, sock: socket.socket, io: Io, resource: str = "/", cookie: str | None = None) -> None:
        self._sock = sock
        self._io = io
        self._resource = resource
        self._cookie = cookie
        self._shown: bytes | None = None  # the response head, as websocket-client gets to see it
        self._at = 0  # how much of it has been handed out
        self._behind = bytearray()  # what came behind the head
        self._unwritten: OSError | None = None  # why the request could not be written to its end
        self.key = ""  # Sec-WebSocket-Key, as websocket-client made it
        self.heard = False  # anything from the server
        self.status: int | None = None  # of the response; known though the rest of its head may be malformed
        self.response: Response | None = None
        self.failure: Exception | None = None  # what was raised here, before websocket-client gave it another name

    # -- what websocket-client calls --------------------------------------------------------------------------------

    def gettimeout(self) -> None:
        """Blocking, as far as websocket-client is concerned; the deadline is the dial's."""
        return

    def settimeout(self, timeout: float | None) -> None:
        """The deadline is the dial's."""

    def close(self) -> None:
        """The socket is the dial's."""

    def send(self, data: bytes) -> int:
        """Write all of the request."""
        _, *lines = data.split(b"\r\n")[:-2]
        # the jar that websocket-client shares among all hosts of the process must not speak for us
        kept = [line for line in lines if not line.lower().startswith(b"cookie:")]
        if self._cookie is not None:
            kept.append(b"Cookie: " + self._cookie.encode())
        for line in kept:
            if line.lower().startswith(b"sec-websocket-key:"):
                self.key = line.partition(b":")[2].strip().decode()
        if log.isEnabledFor(logging.DEBUG):
            first = f"GET {shown_address(self._resource)} HTTP/1.1"
            _log_head(">", first, (_field(line) for line in kept))
        try:
            self._write(b"\r\n".join([f"GET {self._resource} HTTP/1.1".encode(), *kept, b"", b""]))
        except Exception as exc:
            self.failure = exc
            raise
        return len(data)

    def recv(self, size: int) -> bytes:
        """Bytes of the response's head, if it is a 101."""
        try:
            if self._shown is None:
                response = self._read_head()
                if response.status != 101:
                    raise Refused
                self._shown = _shown(response)
        except Exception as exc:
            self.failure = exc
            raise
        data = self._shown[self._at : self._at + size]
        self._at += len(data)
        return data

    # -- what the dial asks -----------------------------------------------------------------------------------------

    def rest(self) -> bytes:
        """What came behind the response: the first frames."""
        return bytes(self._behind)

    def read_body(self) -> bytes:
        """The body of a refusal, as much as there is of it within bounds; HandshakeError when the dial is cancelled."""
        if self.response is None or self.response.status in _BODILESS:
            return b""
        headers, share = self.response.headers, Deadline(BODY_PATIENCE)
        chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
        length = headers.get("Content-Length", "")
        size = int(length[:9]) if length.isascii() and length.isdigit() else MAX_BODY
        size = MAX_BODY if chunked else min(size, MAX_BODY)
        try:
            while len(self._behind) < size and not (chunked and _unchunked(self._behind)[1]):
                self._behind += self._read(share)
        except (OSError, EOFError):  # TimeoutError and HandshakeTimeout among them
            pass
        body = _unchunked(self._behind)[0] if chunked else bytes(self._behind)
        return body[:size]

    def tunnel(self, place: str, basic_auth: str | None) -> None:
        """HTTP CONNECT through a proxy; HandshakeError unless it agrees."""
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if basic_auth:
            lines.append(f"Proxy-Authorization: Basic {basic_auth}")
        if log.isEnabledFor(logging.DEBUG):
            _log_head(">", lines[0], (_field(line.encode()) for line in lines[1:]))
        self._write("\r\n".join([*lines, "", ""]).encode())
        try:
            response = self._read_head()
        except TlsInstead as exc:
            raise HandshakeError(
                Reason("the proxy speaks TLS, which is not supported", permanent=True, error=exc)
            ) from exc
        except ValueError as exc:
            raise HandshakeError(Reason(f"the proxy did not answer as one: {exc}", error=exc)) from exc
        status = response.status
        if not 200 <= status <= 299:
            text = f"the proxy answered {status} {escaped(response.phrase, 80)}".rstrip()
            if status == 407:
                text += "; the proxy's address may have credentials: http://user:password@host:port"
            raise HandshakeError(Reason(text, permanent=status < 500))
        if self._behind:
            raise HandshakeError("the proxy sent bytes before the tunnel was used")

    # -- the socket -------------------------------------------------------------------------------------------------

    def _read_head(self) -> Response:
        """The final response: the informational ones before it (RFC 9110 section 15.2) tell nothing of it."""
        for _ in range(MAX_INTERIM + 1):
            response = self._read_one_head()
            if _final(response.status):
                self.status, self.response = response.status, response
                return response
        raise BadHead(0, f"there were more than {MAX_INTERIM} responses before the response")

    def _read_one_head(self) -> Response:
        buffer = HeadBuffer(check_response_size, bare_lf=True)
        data = bytes(self._behind) or self._read()
        begin = b""
        while (whole := buffer.feed(data)) is None:
            begin = (begin + data)[:60]
            if not begin.startswith(b"HTTP/"[: len(begin)]):  # whoever it is may never end what is no head
                parse_response(begin)
            data = self._read()
        head, behind = whole
        self._behind = bytearray(behind)
        try:
            response = parse_response(head)
        except BadHead as bad:
            self.status = bad.status if _final(bad.status) else None
            raise
        if log.isEnabledFor(logging.DEBUG):
            fields = ((name, value) for name in response.headers for value in response.headers.get_all(name))
            _log_head("<", f"HTTP/1.1 {response.status} {response.phrase}", fields)
        return response

    def _read(self, share: Deadline | None = None) -> bytes:
        """What has come; OSError for a broken connection, EOFError at its end."""
        while True:
            try:
                data = self._sock.recv(4096)
            except (*NOT_NOW, ssl.SSLWantReadError):
                self._io.wait(self._sock, READABLE, share)
                continue
            if not data:
                raise self._unwritten or EOFError("the connection was ended")
            self.heard = True
            # a byte at a time from the peer must not escape the deadline
            self._io.wait(self._sock, READABLE | WRITABLE, share)
            return data

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except (*NOT_NOW, ssl.SSLWantWriteError):
                self._io.wait(self._sock, WRITABLE)
            except ssl.SSLWantReadError:
                self._io.wait(self._sock, READABLE)
            except OSError as exc:
                self._unwritten = exc  # what the server may have said before tells more
                with contextlib.suppress(OSError):  # and if it has not, it must not wait for the rest
                    self._sock.shutdown(socket.SHUT_WR)
                return


def _final(status: int) -> bool:
    return status == 101 or status >= 200


def _field(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("utf-8", "replace").partition(":")
    return name, value.strip()


def _log_head(arrow: str, first: str, fields: Iterable[tuple[str, str]]) -> None:
    for line in shown_lines(first, fields):
        log.debug("%s %s", arrow, line)


def _unchunked(data: bytes | bytearray) -> tuple[bytes, bool]:
    """What is in the chunks (RFC 9112 section 7.1), and whether the last one has come, or nonsense."""
    body, at = bytearray(), 0
    while (end := data.find(b"\n", at)) >= 0:
        digits = bytes(data[at:end]).partition(b";")[0].strip()
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            return bytes(body), True
        size = int(digits, 16)
        body += data[end + 1 : end + 1 + size]
        if size == 0:
            return bytes(body), True
        at = end + 1 + size
        if data[at : at + 1] == b"\r":
            at += 1
        at += 1
    return bytes(body), False


def _shown(response: Response) -> bytes:
    """The head that websocket-client gets to see: without what would end up in the jar that all hosts share."""
    headers = response.headers
    lines = [f"HTTP/1.1 {response.status} {response.phrase}"]
    lines += [f"{name}: {value}" for name in headers if name != "set-cookie" for value in headers.get_all(name)]
    return "\r\n".join([*lines, "", ""]).encode()
