"""A server that does what a test tells it to, byte by byte: what no well-behaved server would.

Each connection is handled by the test's function, in a thread of its own. It is handed a `Wire`, which knows how to
read the request, to answer it, and to write and read frames, right or wrong ones.

Threading: the test's function runs in the connection's thread; `close` ends them all, and waits for them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType

from tests.support import wire

__all__ = ["ScriptedServer", "Wire", "frame", "refusing", "staying_open"]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
frame = partial(wire.frame, masked=False)  # as a server sends it, unless it is told otherwise
TIMEOUT = 10.0  # seconds that a script may wait for the client


class Wire:
    """One connection of a ScriptedServer."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number  # 1 for the first connection
        self.request = b""
        self._buffer = bytearray()

    def read_request(self) -> bytes:
        """The request's head."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        end = self._buffer.index(b"\r\n\r\n") + 4
        self.request = bytes(self._buffer[:end])
        del self._buffer[:end]
        return self.request

    def header(self, name: str) -> str | None:
        """A header of the request; AssertionError when it is there more than once."""
        found = [
            line.partition(":")[2].strip()
            for line in self.request.decode().split("\r\n")[1:]
            if line.lower().startswith(name.lower() + ":")
        ]
        assert len(found) <= 1, f"{name} more than once: {found}"
        return found[0] if found else None

    def switch(
        self,
        *,
        headers: tuple[str, ...] = (),
        then: bytes = b"",
        status: str = "101 Switching Protocols",
        accept: str | None = None,
    ) -> None:
        """Read the request and answer it with a correct 101, or with what is wrong on purpose."""
        if not self.request:
            self.read_request()
        key = (self.header("Sec-WebSocket-Key") or "").encode()
        digest = accept or base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        lines = [f"HTTP/1.1 {status}", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {digest}"]
        self.send("\r\n".join([*lines, *headers, "", ""]).encode() + then)

    def answer(self, status: str, body: bytes = b"", headers: tuple[str, ...] = ()) -> None:
        """Read the request and refuse it."""
        if not self.request:
            self.read_request()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.sock.sendall(data)

    def send_frame(self, opcode: int, payload: bytes = b"") -> None:
        self.send(frame(opcode, payload))

    def read_frame(self) -> tuple[int, bytes]:
        """The opcode and payload of the client's next frame; AssertionError unless it is masked and whole."""
        first, second = self._take(2)
        assert first & 0x80 and second & 0x80, "the client's frames are whole and masked"
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._take(8))
        key = self._take(4)
        return first & 0x0F, bytes(byte ^ key[index % 4] for index, byte in enumerate(self._take(size)))

    def read_close(self) -> int:
        """Frames up to the client's Close; its code, 1005 for an empty one."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == 8:
                return int.from_bytes(payload[:2], "big") if payload else 1005

    def wait_for_end(self) -> bytes:
        """Everything up to the end of the stream."""
        with contextlib.suppress(OSError):
            while True:
                self._fill()
        rest, self._buffer = bytes(self._buffer), bytearray()
        return rest

    def reset(self) -> None:
        """Close with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionResetError("the client ended the stream")
        self._buffer += data


def staying_open(*, then: bytes = b"", headers: tuple[str, ...] = ()) -> Callable[[Wire], None]:
    """A script: switch to WebSocket, send these bytes in the same segment, and wait for the client to leave."""

    def script(wire: Wire) -> None:
        wire.switch(headers=headers, then=then)
        wire.wait_for_end()

    return script


def refusing(status: str, body: bytes = b"", *headers: str) -> Callable[[Wire], None]:
    """A script: answer with this status, body and headers."""

    def script(wire: Wire) -> None:
        wire.answer(status, body, headers)

    return script


class ScriptedServer:
    """Listens on a free port of 127.0.0.1 and runs `script(wire)` for each connection; a context manager.

    What a script raises fails the test in `close`; OSError is taken for the client having left.
    """

    def __init__(
        self,
        script: Callable[[Wire], object],
        *,
        context: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self._script = script
        self._context = context
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()  # guards all below; any thread, for a few instructions
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._closed = False
        self.accepted = 0
        self._acceptor = threading.Thread(target=self._accept, name="scripted-accept", daemon=True)
        self._acceptor.start()

    def url(self, path: str = "/ws/") -> str:
        return f"{'ws' if self._context is None else 'wss'}://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._closed:
                    sock.close()
                    return
                self.accepted += 1
                number = self.accepted
                self._sockets.add(sock)
                thread = threading.Thread(target=self._serve, args=(sock, number), name="scripted", daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._sockets.add(sock)
            self._script(Wire(sock, number))
        except OSError:
            pass  # the client left
        except BaseException as exc:
            self._errors.append(exc)
        finally:
            with self._lock:
                self._sockets -= {plain, sock}
            sock.close()
            plain.close()

    def close(self) -> None:
        """End every connection, wait for the scripts, and raise what the first of them raised."""
        with self._lock:
            self._closed = True
            sockets, threads = list(self._sockets), list(self._threads)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(TIMEOUT)
        self._listener.close()
        for sock in sockets:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in threads:
            thread.join(TIMEOUT)
        if self._errors:
            raise AssertionError(f"a server script failed: {self._errors[0]!r}") from self._errors[0]

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
