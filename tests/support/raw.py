"""A WebSocket client made of a bare socket, for tests that send what no client would and look at every byte.

It has frames and masks of its own, so that a fault in the library's engine cannot hide behind the same fault here.

Threading: none; one thread at a time uses a RawClient.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from tests.support import wire

__all__ = [
    "BINARY", "CLOSE", "CONTINUATION", "KEY", "PING", "PONG", "TEXT", "Frame", "RawClient", "Response", "frame",
    "handshake", "read_response",
]  # fmt: skip

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
frame = partial(wire.frame, masked=True)  # as a client sends it, unless it is told otherwise
TIMEOUT = 10.0  # seconds any single read may take: only ever reached by a failing test


@dataclass(frozen=True)
class Frame:
    """A frame as it came: `first` is its first byte."""

    first: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def close(self) -> tuple[int, str]:
        """Code and reason of a Close frame; (1005, "") of an empty one."""
        assert self.opcode == CLOSE, self
        if not self.payload:
            return 1005, ""
        return struct.unpack_from("!H", self.payload)[0], self.payload[2:].decode()


@dataclass(frozen=True)
class Response:
    """An HTTP response; `rest` is what came behind it."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    rest: bytes = field(default=b"", repr=False)

    @property
    def line(self) -> str:
        """The body, which is one plain line."""
        text = self.body.decode()
        assert text.endswith("\n") and text.count("\n") == 1 and "\r" not in text, text
        return text[:-1]


def handshake(
    path: str = "/ws/",
    *,
    drop: Iterable[str] = (),
    lines: Iterable[str] = (),
    method: str = "GET",
    version: str = "HTTP/1.1",
    host: str = "localhost",
) -> bytes:
    """An opening handshake without the headers named in `drop`, and with more `lines`."""
    fields = {
        "Host": host, "Upgrade": "websocket", "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13",
    }  # fmt: skip
    kept = [f"{name}: {value}" for name, value in fields.items() if name not in drop]
    return "\r\n".join([f"{method} {path} {version}", *kept, *lines, "", ""]).encode("latin-1")


def read_response(sock: socket.socket) -> Response:
    """The next response on `sock`, by its Content-Length; ConnectionError when it ends before."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError(f"no response, but {data!r}")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    assert len(headers) == len(lines), f"a header is repeated: {lines}"
    size = int(headers.get("content-length", "0"))
    while len(rest) < size:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("the body is cut short")
        rest += piece
    return Response(int(status_line.split()[1]), headers, rest[:size], rest[size:])


class RawClient:
    """A connected socket and what was read from it."""

    def __init__(self, port: int, *, context: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.settimeout(TIMEOUT)
            sock.connect(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock = sock if context is None else context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise
        self.data = b""
        self.response = Response(0, {}, b"")

    @classmethod
    def over(cls, sock: socket.socket) -> RawClient:
        """One that speaks over ``sock``, which is connected already."""
        client = cls.__new__(cls)
        sock.settimeout(TIMEOUT)
        client.sock, client.data, client.response = sock, b"", Response(0, {}, b"")
        return client

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def upgrade(self, path: str = "/ws/", *lines: str, early: bytes = b"", drop: Iterable[str] = ()) -> RawClient:
        """The opening handshake, with `early` in the same segment; AssertionError unless it succeeds."""
        self.send(handshake(path, lines=lines, drop=drop) + early)
        self.response = read_response(self.sock)
        assert self.response.status == 101, (self.response, self.response.body)
        assert self.response.headers["sec-websocket-accept"] == ACCEPT
        self.data = self.response.rest
        return self

    def request(self, data: bytes) -> Response:
        """Send anything and read the answer."""
        self.send(data)
        return read_response(self.sock)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        self.send(frame(opcode, payload, fin=fin, rsv=rsv))

    def send_text(self, text: str) -> None:
        self.send_frame(TEXT, text.encode())

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        self.send_frame(CLOSE, struct.pack("!H", code) + reason.encode())

    def read(self, size: int) -> bytes:
        while len(self.data) < size:
            piece = self.sock.recv(max(65536, size - len(self.data)))
            if not piece:
                raise ConnectionError(f"the stream ended where {size} bytes were due")
            self.data += piece
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def read_frame(self) -> Frame:
        """The next frame; a server's frame is never masked."""
        first, second = self.read(2)
        size = second & 0x7F
        assert not second & 0x80, "a server masked its frame"
        if size == 126:
            (size,) = struct.unpack("!H", self.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.read(8))
        return Frame(first, self.read(size))

    def read_text(self) -> str:
        got = self.read_frame()
        assert got.first == 0x80 | TEXT, got
        return got.payload.decode()

    def read_close(self) -> tuple[int, str]:
        """Code and reason of the Close frame that comes next."""
        return self.read_frame().close

    def read_to_end(self) -> bytes:
        """Everything until the stream ends, however it ends."""
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            while piece := self.sock.recv(65536):
                self.data += piece
        return self.data

    def finish(self, code: int = 1000) -> tuple[int, str]:
        """The closing handshake, begun here: what the server answered."""
        self.send_close(code)
        got = self.read_frame()
        while got.opcode != CLOSE:
            got = self.read_frame()
        self.close()
        return got.close

    def vanish(self) -> None:
        """End with a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
