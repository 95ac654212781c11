"""Two tiny proxies on loopback: HTTP CONNECT, and SOCKS5 with or without a password.

Threading: one thread accepts, each connection has one that relays both directions; `close` ends and joins them all.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from types import TracebackType

__all__ = ["ConnectProxy", "Socks5Proxy"]

TIMEOUT = 10.0


class _Proxy:
    """What both have in common."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.asked: list[str] = []  # "host:port" of each request
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, name="proxy-accept", daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), name="proxy", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            server = self._open(client)
            if server is not None:
                with server:
                    self._sockets.append(server)
                    _relay(client, server)

    def _open(self, client: socket.socket) -> socket.socket | None:
        raise NotImplementedError

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(TIMEOUT)
        self._listener.close()
        for sock in list(self._sockets):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(TIMEOUT)

    def __enter__(self) -> _Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ConnectProxy(_Proxy):
    """HTTP CONNECT (RFC 9110 section 9.3.6); `answer`: its status line in answer to every request.

    `target`: where it connects to, whatever was asked for: a name that only the proxy can resolve.
    """

    def __init__(self, answer: str = "HTTP/1.1 200 OK", *, target: tuple[str, int] | None = None) -> None:
        self._answer = answer
        self._target = target
        self.heads: list[str] = []
        super().__init__()

    def _open(self, client: socket.socket) -> socket.socket | None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return None
            head += data
        self.heads.append(head.decode())
        place = head.split()[1].decode()
        self.asked.append(place)
        client.sendall(self._answer.encode() + b"\r\n\r\n")
        if " 200 " not in self._answer:
            return None
        host, _, port = place.rpartition(":")
        return socket.create_connection(self._target or (host, int(port)), TIMEOUT)


class Socks5Proxy(_Proxy):
    """SOCKS5 (RFC 1928), CONNECT only; with `user` and `password` it asks for them (RFC 1929)."""

    def __init__(self, user: str | None = None, password: str = "", *, target: tuple[str, int] | None = None) -> None:
        self._login = None if user is None else (user.encode(), password.encode())
        self._target = target
        super().__init__()

    def _open(self, client: socket.socket) -> socket.socket | None:
        _exactly(client, _exactly(client, 2)[1])
        client.sendall(b"\x05\x00" if self._login is None else b"\x05\x02")
        if self._login is not None:
            user = _exactly(client, _exactly(client, 2)[1])
            password = _exactly(client, _exactly(client, 1)[0])
            client.sendall(b"\x01\x00" if (user, password) == self._login else b"\x01\x01")
            if (user, password) != self._login:
                return None
        kind = _exactly(client, 4)[3]
        host = socket.inet_ntoa(_exactly(client, 4)) if kind == 1 else _exactly(client, _exactly(client, 1)[0]).decode()
        (port,) = struct.unpack("!H", _exactly(client, 2))
        self.asked.append(f"{host}:{port}")
        server = socket.create_connection(self._target or (host, port), TIMEOUT)
        client.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        return server


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Both directions, until either ends."""
    while True:
        for sock in select.select([one, other], [], [], TIMEOUT)[0]:
            data = sock.recv(65536)
            if not data:
                return
            (other if sock is one else one).sendall(data)
