"""Bytes over one connected socket, plain or TLS, with what a thread-per-connection design needs of it.

Why so: a plain socket is left in blocking mode, so reading is one system call with no ``poll`` before it, while
``MSG_DONTWAIT`` makes a single write (or read) non-blocking: a deadline costs nothing until the peer is slow.
Waiting for writability is always done by the caller outside its locks.

A Python TLS socket is not safe for a read and a write at once, so the TLS transport keeps its socket non-blocking,
touches it under a lock only, and waits outside that lock.

Threading: ``recv*`` by one thread at a time, ``send`` by one thread at a time (the channel's locks see to
both), the two of them at once; ``shutdown`` and the ``wait_*`` functions by any thread at any time.  ``close`` only
when nobody is in ``recv`` or ``send``: a closed descriptor's number may be another socket's a moment later.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
from typing import Callable, Protocol

__all__ = ["DONTWAIT", "MORE", "PlainTransport", "TlsTransport", "Transport", "poll_fd", "transport_for"]

DONTWAIT = socket.MSG_DONTWAIT
MORE = getattr(socket, "MSG_MORE", 0)  # a hint that the next write belongs to the same frame
_READABLE = select.POLLIN | select.POLLPRI
_WRITABLE = select.POLLOUT


def poll_fd(fd: int, events: int, timeout: float | None) -> bool:
    """Wait until ``fd`` has one of ``events`` (or an error) or ``timeout`` seconds have passed; False then."""
    if fd < 0:
        return True  # closed meanwhile: let the caller's next operation find out
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(None if timeout is None else timeout * 1000))


class Transport(Protocol):
    """What a channel needs of its socket."""

    recv: Callable[[int], bytes]
    recv_into: Callable[[memoryview], int]
    send: Callable[[bytes | bytearray | memoryview, int], int]

    def recv_nowait(self, size: int) -> bytes | None: ...

    def recv_into_nowait(self, room: memoryview) -> int | None: ...

    def wait_readable(self, timeout: float | None) -> bool: ...

    def wait_writable(self, timeout: float | None) -> bool: ...

    def fileno(self) -> int: ...

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None: ...

    def close(self) -> None: ...


class PlainTransport:
    """A blocking socket; ``recv`` is the socket's own."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        # blocks until there is something; b"" at the end of the stream; OSError when the connection broke
        self.recv: Callable[[int], bytes] = sock.recv
        self.recv_into: Callable[[memoryview], int] = sock.recv_into
        # send(data, DONTWAIT) hands over what the kernel takes at once: how many bytes; BlockingIOError for none
        self.send: Callable[[bytes | bytearray | memoryview, int], int] = sock.send

    def recv_nowait(self, size: int) -> bytes | None:
        """What is there, up to ``size`` bytes; b"" at the end of the stream, None when nothing is there."""
        try:
            return self._sock.recv(size, DONTWAIT)
        except BlockingIOError:
            return None

    def recv_into_nowait(self, room: memoryview) -> int | None:
        """The same into ``room``: how many bytes, 0 at the end of the stream, None when nothing is there."""
        try:
            return self._sock.recv_into(room, 0, DONTWAIT)
        except BlockingIOError:
            return None

    def wait_readable(self, timeout: float | None) -> bool:
        return poll_fd(self._sock.fileno(), _READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return poll_fd(self._sock.fileno(), _WRITABLE, timeout)

    def fileno(self) -> int:
        return self._sock.fileno()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        """End one or both directions; wakes whoever is blocked in them.  Never raises, may be repeated."""
        try:
            self._sock.shutdown(how)
        except OSError:
            return  # not connected any more, which is what was wanted

    def close(self) -> None:
        """Give the descriptor back."""
        self._sock.close()


class TlsTransport:
    """A non-blocking TLS socket whose reads and writes take turns."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(0)
        self._sock = sock
        # guards every operation on the SSL object; held by readers and writers for one non-blocking call each
        self._lock = threading.Lock()
        self._write_wants_read = False
        self.recv: Callable[[int], bytes] = self._recv
        self.recv_into: Callable[[memoryview], int] = self._recv_into
        self.send: Callable[[bytes | bytearray | memoryview, int], int] = self._send

    def _recv(self, size: int) -> bytes:
        while True:
            data = self.recv_nowait(size)
            if data is not None:
                return data
            poll_fd(self._sock.fileno(), _READABLE, None)

    def _recv_into(self, room: memoryview) -> int:
        while True:
            size = self.recv_into_nowait(room)
            if size is not None:
                return size
            poll_fd(self._sock.fileno(), _READABLE, None)

    def recv_nowait(self, size: int) -> bytes | None:
        with self._lock:
            try:
                return self._sock.recv(size)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def recv_into_nowait(self, room: memoryview) -> int | None:
        with self._lock:
            try:
                return self._sock.recv_into(room)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0

    def _send(self, data: bytes | bytearray | memoryview, flags: int) -> int:
        # after "want write" OpenSSL insists on the same bytes again: the channel keeps them at the head of its queue
        with self._lock:
            try:
                sent = self._sock.send(data)
            except ssl.SSLWantWriteError:
                return 0
            except ssl.SSLWantReadError:
                self._write_wants_read = True
                return 0
            except BlockingIOError:
                return 0
            self._write_wants_read = False
            return sent

    def wait_readable(self, timeout: float | None) -> bool:
        with self._lock:
            if self._sock.pending():  # decrypted already: the descriptor will not tell
                return True
        return poll_fd(self._sock.fileno(), _READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return poll_fd(self._sock.fileno(), _READABLE if self._write_wants_read else _WRITABLE, timeout)

    def fileno(self) -> int:
        return self._sock.fileno()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        try:
            # not SSLSocket.shutdown: that one drops the SSL object under the feet of the other threads
            socket.socket.shutdown(self._sock, how)
        except OSError:
            return

    def close(self) -> None:
        self._sock.close()


def transport_for(sock: socket.socket) -> Transport:
    """The transport for a connected socket, TLS or plain; sets TCP_NODELAY, for a message must not wait."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP (a socket pair, a Unix socket), or gone already: the first read will tell
    return TlsTransport(sock) if isinstance(sock, ssl.SSLSocket) else PlainTransport(sock)
