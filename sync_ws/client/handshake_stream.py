"""The stream that websocket-client does its opening handshake over: bounded, checked, and free of shared state.

Why so: websocket-client reads a response a byte at a time without a limit, ignores partial writes, adds cookies from
a jar that all hosts of the process share, and compares Sec-WebSocket-Accept without regard to case.  This stream reads
the head in pieces up to a bound, hands it out from memory, keeps what came behind it, and checks for itself.

Threading: used by the one thread that dials.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import select
import socket
import ssl
from typing import Mapping, Protocol

from ..endings import Reason
from ..errors import HandshakeError

__all__ = ["HandshakeStream", "Io"]

MAX_HEAD = 40 * 1024  # bytes of a whole response head
MAX_HEADERS = 64
MAX_BODY = 64 * 1024  # bytes of a refusal's body
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00\r\n]*?)[ \t]*")


class Io(Protocol):
    """How to wait for a socket."""

    def wait(self, sock: socket.socket, events: int) -> None: ...


class HandshakeStream:
    """What websocket-client takes for a socket."""

    def __init__(self, sock: socket.socket, io: Io, cookie: str | None = None) -> None:
        self._sock = sock
        self._io = io
        self._cookie = cookie
        self._key = b""
        self._head: bytes | None = None  # the response head, as websocket-client gets to see it
        self._at = 0  # how much of it has been handed out
        self._behind = bytearray()  # what came behind the head
        self._body_read = 0
        self.status: int | None = None
        self._fields: list[tuple[str, str]] = []

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
        lines = data.split(b"\r\n")
        # the jar that websocket-client shares among all hosts of the process must not speak for us
        kept = [line for line in lines[:-2] if not line.lower().startswith(b"cookie:")]
        if self._cookie is not None:
            kept.append(b"Cookie: " + self._cookie.encode())
        for line in kept:
            if line.lower().startswith(b"sec-websocket-key:"):
                self._key = line.partition(b":")[2].strip()
        self._write(b"\r\n".join([*kept, b"", b""]))
        return len(data)

    def recv(self, size: int) -> bytes:
        """Bytes of the response's head, then of its body."""
        if self._head is None:
            self._head = self._read_head()
        if self._at < len(self._head):
            data = self._head[self._at : self._at + size]
            self._at += len(data)
            return data
        if not self._behind:
            self._behind += self._read()
        data = bytes(self._behind[:size])
        del self._behind[:size]
        self._body_read += len(data)
        if self._body_read > MAX_BODY:
            raise ValueError(f"the body of the response has more than {MAX_BODY} bytes")
        return data

    # -- what the dial asks -----------------------------------------------------------------------------------------

    @property
    def headers(self) -> dict[str, str]:
        """The response's header fields by lower-case name; repeated ones joined by commas."""
        joined: dict[str, str] = {}
        for name, value in self._fields:
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return joined

    def check(self) -> Mapping[str, str]:
        """The headers of a 101; ValueError unless they complete the handshake (RFC 6455 section 4.1, page 19)."""
        for name in ("sec-websocket-accept", "sec-websocket-protocol", "upgrade"):
            if sum(1 for field, _ in self._fields if field == name) > 1:
                raise ValueError(f"more than one {name} header")
        headers = self.headers
        expected = base64.b64encode(hashlib.sha1(self._key + _GUID).digest()).decode()
        if not hmac.compare_digest(headers.get("sec-websocket-accept", "").encode(), expected.encode()):
            raise ValueError("Sec-WebSocket-Accept does not match the key")
        return headers

    def rest(self) -> bytes:
        """What came behind the response: the first frames."""
        return bytes(self._behind)

    def tunnel(self, place: str, basic_auth: str | None) -> None:
        """HTTP CONNECT through a proxy; HandshakeError unless it agrees."""
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if basic_auth:
            lines.append(f"Proxy-Authorization: Basic {basic_auth}")
        self._write("\r\n".join([*lines, "", ""]).encode())
        try:
            self._read_head()
        except ValueError as exc:
            raise HandshakeError(Reason(f"the proxy did not answer as one: {exc}", error=exc)) from exc
        if self.status is None or not 200 <= self.status <= 299:
            again = self.status is not None and self.status >= 500
            raise HandshakeError(Reason(f"the proxy answered {self.status}", permanent=not again))
        if self._behind:
            raise HandshakeError("the proxy sent bytes before the tunnel was used")

    # -- the socket -------------------------------------------------------------------------------------------------

    def _read_head(self) -> bytes:
        head = bytearray()
        while (end := head.find(b"\r\n\r\n", max(0, len(head) - 4096 - 3))) < 0:
            if len(head) > MAX_HEAD:
                raise ValueError(f"the head of the response has more than {MAX_HEAD} bytes")
            head += self._read()
        self._behind += head[end + 4 :]
        lines = bytes(head[:end]).split(b"\r\n")
        status = _STATUS.fullmatch(lines[0])
        if status is None:
            raise ValueError("the response does not begin with an HTTP status line")
        self.status = int(status[1])
        if len(lines) - 1 > MAX_HEADERS:
            raise ValueError(f"the response has more than {MAX_HEADERS} headers")
        shown = [lines[0]]
        for line in lines[1:]:
            field = _HEADER.fullmatch(line)
            if field is None:
                raise ValueError("the response has a malformed header")
            self._fields.append((field[1].decode().lower(), field[2].decode("latin-1")))
            if field[1].lower() != b"set-cookie":  # else it ends up in the shared jar
                shown.append(line.decode("latin-1").encode())
        return b"\r\n".join([*shown, b"", b""])

    def _read(self) -> bytes:
        while True:
            try:
                data = self._sock.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._io.wait(self._sock, select.POLLIN)
                continue
            if not data:
                raise HandshakeError("the connection was lost during the opening handshake")
            # a byte at a time from the peer must not escape the deadline
            self._io.wait(self._sock, select.POLLIN | select.POLLOUT)
            return data

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._io.wait(self._sock, select.POLLOUT)
            except ssl.SSLWantReadError:
                self._io.wait(self._sock, select.POLLIN)
