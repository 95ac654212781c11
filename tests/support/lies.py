"""A system that lies: sockets whose calls fail, or do less than they were asked to, one call at a time.

Why so: what breaks a connection is rare and comes at any call; here each call has its turn with each fault.  The calls
are counted by who makes them and by their name, so a first run without a lie tells which there are.

Threading: calls come from any thread; ``Lies`` counts them under a lock.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from sync_ws.net import waiting

__all__ = ["AGAIN", "NOT_CALLED", "SHORT", "Call", "Lies", "fault_text", "lying"]

SHORT = "short"  # a read or a write of one byte
AGAIN = "again"  # nothing now, after all
NOT_CALLED = Counter[tuple[str, str]]()


class Call(NamedTuple):
    """The ``number``-th call of that name by that side, counted from 1."""

    side: str  # client, server, listener or waker; "" where it cannot be told
    name: str
    number: int


def fault_text(code: int) -> str:
    """What the system says of it."""
    return os.strerror(code)


class Lies:
    """Counts the calls, and has ``fault`` (an errno, SHORT or AGAIN) come at one of them."""

    def __init__(self, at: Call | None = None, fault: int | str = 0) -> None:
        self._lock = threading.Lock()  # guards the counter; for counting only
        self.calls: Counter[tuple[str, str]] = Counter()
        self.at = at
        self.fault = fault
        self.told = False  # the lie

    def comes(self, side: str, name: str) -> int | str | None:
        """The fault of this call, None for none."""
        with self._lock:
            self.calls[side, name] += 1
            number = self.calls[side, name]
        if self.at != (side, name, number):
            return None
        self.told = True
        return self.fault

    def plain(self, sock: Any, name: str, call: Callable[..., Any], *args: Any) -> Any:
        """``call`` with ``args``, or a lie."""
        fault = self.comes(getattr(sock, "side", ""), name)
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        if fault == AGAIN:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if fault == SHORT:
            args = (_cut(args[0]), *args[1:])
        return call(sock, *args)


def _cut(what: Any) -> Any:
    """One byte of it: of how much is asked for, where it is to go, or what is to be sent."""
    return 1 if isinstance(what, int) else memoryview(what)[:1]


def _classes(lies: Lies) -> tuple[type[socket.socket], type[ssl.SSLSocket]]:
    real = _socket.socket

    class Lying(socket.socket):
        side = "waker"  # until it is known better

        def __init__(self, *args: Any, **options: Any) -> None:
            if not options.get("fileno") and len(args) < 4:
                lies.plain(self, "socket", lambda sock: None)
            super().__init__(*args, **options)

        def accept(self) -> tuple[socket.socket, Any]:
            self.side = "listener"
            sock, peer = lies.plain(self, "accept", socket_type.accept)
            sock.side = "server"
            return sock, peer

        def connect_ex(self, address: Any) -> int:
            self.side = "client"
            fault = lies.comes("client", "connect_ex")
            return fault if isinstance(fault, int) else super().connect_ex(address)

        def recv(self, *args: Any) -> bytes:
            return lies.plain(self, "recv", real.recv, *args)  # type: ignore[no-any-return]

        def recv_into(self, *args: Any) -> int:
            return lies.plain(self, "recv_into", real.recv_into, *args)  # type: ignore[no-any-return]

        def send(self, *args: Any) -> int:
            return lies.plain(self, "send", real.send, *args)  # type: ignore[no-any-return]

        def sendall(self, *args: Any) -> None:
            lies.plain(self, "sendall", real.sendall, *args)

        def getsockopt(self, *args: Any) -> Any:
            return lies.plain(self, "getsockopt", real.getsockopt, *args)

        def setsockopt(self, *args: Any) -> None:
            lies.plain(self, "setsockopt", real.setsockopt, *args)

        def shutdown(self, how: int) -> None:
            lies.plain(self, "shutdown", real.shutdown, how)

    class LyingTls(ssl.SSLSocket):
        @property
        def side(self) -> str:
            return "server" if self.server_side else "client"

        def tls(self, name: str, call: Callable[..., Any], *args: Any) -> Any:
            fault = lies.comes(self.side, name)
            if isinstance(fault, int):
                raise OSError(fault, os.strerror(fault))
            if fault == AGAIN:
                kind = ssl.SSLWantWriteError if name == "send" else ssl.SSLWantReadError
                raise kind(2, "The operation did not complete")
            if fault == SHORT:
                args = (_cut(args[0]), *args[1:])
            return call(self, *args)

        def recv(self, *args: Any) -> bytes:
            return self.tls("recv", ssl.SSLSocket.recv, *args)  # type: ignore[no-any-return]

        def recv_into(self, *args: Any) -> int:
            return self.tls("recv_into", ssl.SSLSocket.recv_into, *args)  # type: ignore[no-any-return]

        def send(self, *args: Any) -> int:
            return self.tls("send", ssl.SSLSocket.send, *args)  # type: ignore[no-any-return]

        def do_handshake(self, *args: Any) -> None:
            self.tls("do_handshake", ssl.SSLSocket.do_handshake, *args)

    socket_type = socket.socket
    return Lying, LyingTls


class _LyingPoll:
    """``select.poll``'s object, whose ``poll`` may fail."""

    def __init__(self, lies: Lies, real: Any) -> None:
        self._lies = lies
        self._real = real
        self.register = real.register

    def poll(self, *args: Any) -> Any:
        fault = self._lies.comes(_side_of_thread(), "poll")
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        return self._real.poll(*args)


def _side_of_thread() -> str:
    name = threading.current_thread().name
    if name.endswith(("-accept", "-housekeeper")):
        return name.rpartition("-")[2]
    return "server" if name.startswith("sync_ws-") and name[8:9].isdigit() else "client"


@contextlib.contextmanager
def lying(lies: Lies, *contexts: ssl.SSLContext) -> Iterator[None]:
    """What is done inside, by any thread, is done with such sockets, and with such ones of the TLS ``contexts``."""
    plain, tls = _classes(lies)
    poll_object = waiting._poll_object
    for context in contexts:
        context.sslsocket_class = tls
    with (
        mock.patch("socket.socket", plain),
        mock.patch.object(waiting, "_poll_object", lambda: _LyingPoll(lies, poll_object())),
    ):
        yield
