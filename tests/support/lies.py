"""A system that lies: system calls that fail, or do less than they were asked to, one call at a time.

Why so: what breaks a connection is rare and may come at any call; here each call has its turn with each fault.  The
calls are counted by who makes them and by their name, so a first run without a lie tells which there are.  The faults
are those that a system may tell of: nothing is "not there now" for a call that would have waited, and of EINTR, which
Python itself bears (PEP 475), sockets that others put in the place of Python's might tell.

Threading: calls come from any thread; ``Lies`` counts them under a lock.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import fcntl
import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from sync_ws.client import tls as client_tls
from sync_ws.net import transport, waiting
from sync_ws.net.tls import TlsSocket
from sync_ws.server import admission

__all__ = ["AGAIN", "FAULTS", "SHORT", "Call", "Fault", "Lies", "lying"]

SHORT = "short"  # a read or a write of one byte
AGAIN = "again"  # nothing there now, or no room, after all
Fault = int | str  # an errno, or one of these two

_LINE = (errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOBUFS, errno.ENOMEM)
_NEW = (errno.EMFILE, errno.ENOBUFS, errno.ENOMEM)
FAULTS: dict[str, tuple[Fault, ...]] = {
    "recv": (SHORT, AGAIN, errno.EINTR, *_LINE),
    "recv_into": (SHORT, AGAIN, errno.EINTR, *_LINE),
    "send": (SHORT, AGAIN, errno.EINTR, errno.EPIPE, *_LINE),
    "sendall": (errno.EPIPE, *_LINE),  # it goes on by itself until all is sent
    "accept": (AGAIN, errno.EINTR, errno.ECONNABORTED, *_NEW),
    "connect_ex": (errno.EINTR, errno.ECONNREFUSED, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ENOBUFS, errno.ENOMEM),
    "socket": _NEW,
    "socketpair": _NEW,
    "shutdown": (errno.ENOTCONN, errno.ENOBUFS),
    "getsockopt": (errno.ENOBUFS, errno.ENOMEM),
    "setsockopt": (errno.EINVAL, errno.ENOBUFS, errno.ENOMEM),
    "ioctl": (errno.EINVAL, errno.ENOMEM),
    "poll": (errno.EINTR, errno.ENOMEM),
    "select": (errno.EINTR, errno.ENOMEM),
}  # by the name of the call


class Call(NamedTuple):
    """The ``number``-th call of that name by that side, counted from 1.

    ``side``: whose socket it is: client, server, listener, waker, nobody's yet; or whose thread, where there is no
    socket: application, client, server, accept, housekeeper.
    """

    side: str
    name: str
    number: int


class Lies:
    """Counts the calls, and has ``fault`` come at one of them."""

    def __init__(self, at: Call | None = None, fault: Fault = 0) -> None:
        self._lock = threading.Lock()  # guards the counter; for counting only
        self.calls: Counter[tuple[str, str]] = Counter()
        self.at = at
        self.fault = fault
        self.told = False  # the lie

    def comes(self, side: str, name: str, waits: bool = False) -> Fault | None:
        """The fault of this call, None for none.  ``waits``: it is one that waits."""
        with self._lock:
            self.calls[side, name] += 1
            number = self.calls[side, name]
        if self.at != (side, name, number) or (waits and self.fault == AGAIN):
            return None
        self.told = True
        return self.fault

    def instead_of(self, side: str, name: str, call: Callable[..., Any], *args: Any) -> Any:
        """``call`` with ``args``, or its failure."""
        fault = self.comes(side, name)
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        return call(*args)

    def transferred(self, sock: Any, name: str, call: Callable[..., Any], what: Any, *args: Any) -> Any:
        """The same for bytes, and there may be too few."""
        waits = sock.gettimeout() != 0 and socket.MSG_DONTWAIT not in args
        fault = self.comes(sock.side, name, waits)
        if fault == AGAIN:
            fault = errno.EAGAIN
        if isinstance(fault, int):
            raise OSError(fault, os.strerror(fault))
        return call(sock, _one_byte(what) if fault == SHORT else what, *args)


def _one_byte(what: Any) -> Any:
    """Of how much is asked for, of where it is to go, or of what is to be sent."""
    return 1 if isinstance(what, int) else memoryview(what)[:1]


def _thread_side() -> str:
    name = threading.current_thread().name
    if not name.startswith("sync_ws-"):
        return "application"
    last = name.rpartition("-")[2]
    return last if last in ("accept", "housekeeper", "client") else "server"


def _classes(lies: Lies) -> tuple[type[socket.socket], type[TlsSocket]]:
    real, usual = _socket.socket, socket.socket

    class Lying(usual):  # type: ignore[valid-type, misc]
        side = "nobody"  # until it is known better

        def __init__(self, *args: Any, **options: Any) -> None:
            if len(args) < 4 and "fileno" not in options:
                lies.instead_of(_thread_side(), "socket", lambda: None)
            super().__init__(*args, **options)

        def accept(self) -> tuple[socket.socket, Any]:
            self.side = "listener"
            fault = lies.comes("listener", "accept")
            if fault is not None:
                code = fault if isinstance(fault, int) else errno.EAGAIN
                raise OSError(code, os.strerror(code))
            sock, peer = super().accept()
            sock.side = "server"
            return sock, peer

        def connect_ex(self, address: Any) -> int:
            self.side = "client"
            fault = lies.comes("client", "connect_ex")
            if fault == errno.EINTR:
                real.connect_ex(self, address)  # which goes on
            return fault if isinstance(fault, int) else real.connect_ex(self, address)

        def recv(self, *args: Any) -> bytes:
            return lies.transferred(self, "recv", real.recv, *args)  # type: ignore[no-any-return]

        def recv_into(self, *args: Any) -> int:
            return lies.transferred(self, "recv_into", real.recv_into, *args)  # type: ignore[no-any-return]

        def send(self, *args: Any) -> int:
            return lies.transferred(self, "send", real.send, *args)  # type: ignore[no-any-return]

        def sendall(self, *args: Any) -> None:
            lies.instead_of(self.side, "sendall", real.sendall, self, *args)

        def getsockopt(self, *args: Any) -> Any:
            return lies.instead_of(self.side, "getsockopt", real.getsockopt, self, *args)

        def setsockopt(self, *args: Any) -> None:
            lies.instead_of(self.side, "setsockopt", real.setsockopt, self, *args)

        def shutdown(self, how: int) -> None:
            lies.instead_of(self.side, "shutdown", real.shutdown, self, how)

    class LyingTls(TlsSocket, Lying):
        def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
            self.side = sock.side
            super().__init__(sock, *args, **options)

    return Lying, LyingTls


class _LyingPoll:
    """``select.poll``'s object, whose ``poll`` may fail."""

    def __init__(self, lies: Lies, real: Any) -> None:
        self._lies = lies
        self._real = real
        self.register = real.register

    def poll(self, *args: Any) -> Any:
        return self._lies.instead_of(_thread_side(), "poll", self._real.poll, *args)


@contextlib.contextmanager
def lying(lies: Lies, *, portable: bool = False) -> Iterator[None]:
    """What is done inside, by any thread, is done with such calls.

    ``portable``: with the transport and the way to wait of systems that have no other.
    """
    plain, secure = _classes(lies)
    pair, poll, ready, control = socket.socketpair, waiting._poll_object, select.select, fcntl.ioctl

    def instead_of(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: lies.instead_of(_thread_side(), name, call, *args)

    def lying_pair(*args: Any) -> Any:
        ends: tuple[Any, Any] = pair(*args)
        for end in ends:
            end.side = "waker"
        return ends

    with (
        mock.patch("socket.socket", plain),
        mock.patch("socket.socketpair", instead_of("socketpair", lying_pair)),
        mock.patch.object(client_tls, "TlsSocket", secure),
        mock.patch.object(admission, "TlsSocket", secure),
        mock.patch.object(transport, "_PORTABLE", portable),
        mock.patch.object(
            waiting, "_poll_object", waiting._SelectPoll if portable else lambda: _LyingPoll(lies, poll())
        ),
        mock.patch("select.select", instead_of("select", ready)),
        mock.patch("fcntl.ioctl", instead_of("ioctl", control)),
    ):
        yield
