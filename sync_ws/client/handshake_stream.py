"""The stream that websocket-client does its opening handshake over: bounded, checked, and free of shared state.

Why so: websocket-client reads a response a byte at a time without a limit, ignores partial writes, adds cookies from
a jar that all hosts of the process share, and compares Sec-WebSocket-Accept without regard to case.  This stream reads
the head in pieces up to a bound, hands what was read from it out from memory, and keeps what came behind it;
``protocol.handshake`` then verifies the response once more.

Threading: used by the one thread that dials.
"""

from __future__ import annotations

import socket
import ssl
from typing import Protocol

from ..endings import Reason
from ..errors import HandshakeError
from ..net.waiting import READABLE, WRITABLE
from ..protocol.http_head import BadHead, HeadBuffer, Response, check_response_size, parse_response

__all__ = ["HandshakeStream", "Io"]

MAX_BODY = 64 * 1024  # bytes of a refusal's body


class Io(Protocol):
    """How to wait for a socket."""

    def wait(self, sock: socket.socket, events: int) -> None: ...


class HandshakeStream:
    """What websocket-client takes for a socket."""

    def __init__(self, sock: socket.socket, io: Io, cookie: str | None = None) -> None:
        self._sock = sock
        self._io = io
        self._cookie = cookie
        self._shown: bytes | None = None  # the response head, as websocket-client gets to see it
        self._at = 0  # how much of it has been handed out
        self._behind = bytearray()  # what came behind the head
        self._body_read = 0
        self.key = ""  # Sec-WebSocket-Key, as websocket-client made it
        self.status: int | None = None  # of the response; known though the rest of its head may be malformed
        self.response: Response | None = None

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
                self.key = line.partition(b":")[2].strip().decode()
        self._write(b"\r\n".join([*kept, b"", b""]))
        return len(data)

    def recv(self, size: int) -> bytes:
        """Bytes of the response's head, then of its body."""
        if self._shown is None:
            self._shown = _shown(self._read_head())
        if self._at < len(self._shown):
            data = self._shown[self._at : self._at + size]
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
            status = self._read_head().status
        except ValueError as exc:
            raise HandshakeError(Reason(f"the proxy did not answer as one: {exc}", error=exc)) from exc
        if not 200 <= status <= 299:
            raise HandshakeError(Reason(f"the proxy answered {status}", permanent=status < 500))
        if self._behind:
            raise HandshakeError("the proxy sent bytes before the tunnel was used")

    # -- the socket -------------------------------------------------------------------------------------------------

    def _read_head(self) -> Response:
        buffer = HeadBuffer(check_response_size)
        while (whole := buffer.feed(self._read())) is None:
            pass
        head, behind = whole
        self._behind += behind
        try:
            self.response = parse_response(head)
        except BadHead as bad:
            self.status = bad.status or None
            raise
        self.status = self.response.status
        return self.response

    def _read(self) -> bytes:
        while True:
            try:
                data = self._sock.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                self._io.wait(self._sock, READABLE)
                continue
            if not data:
                raise HandshakeError("the connection was lost during the opening handshake")
            # a byte at a time from the peer must not escape the deadline
            self._io.wait(self._sock, READABLE | WRITABLE)
            return data

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._io.wait(self._sock, WRITABLE)
            except ssl.SSLWantReadError:
                self._io.wait(self._sock, READABLE)


def _shown(response: Response) -> bytes:
    """The head that websocket-client gets to see: without what would end up in the jar that all hosts share."""
    headers = response.headers
    lines = [f"HTTP/1.1 {response.status} {response.phrase}"]
    lines += [f"{name}: {value}" for name in headers if name != "set-cookie" for value in headers.get_all(name)]
    return "\r\n".join([*lines, "", ""]).encode()
