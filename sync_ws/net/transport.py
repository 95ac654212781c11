"""Bytes over one connected socket, plain or TLS, with what a thread-per-connection design needs of it.

Why so: a plain socket is left in blocking mode, so reading is one system call with no ``poll`` before it, while
``MSG_DONTWAIT`` makes a single write (or read) non-blocking: a deadline costs nothing until the peer is slow.
Waiting for writability is always done by the caller outside its locks.  The functions of every message are attributes,
bound once for each transport: a method would cost its lookup and the way to the socket each time.

A Python TLS socket is not safe for a read and a write at once, so the TLS transport keeps its socket non-blocking,
touches it under a lock only, and waits outside that lock.

Threading: ``recv*`` by one thread at a time, ``send*`` by one thread at a time (the channel's locks see to
both), the two of them at once; ``shutdown`` and the ``wait_*`` functions by any thread at any time.  ``close`` only
when nobody is in ``recv`` or ``send``: a closed descriptor's number may be another socket's a moment later.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Protocol

from .waiting import READABLE, WRITABLE, wait

__all__ = ["Bytes", "PlainTransport", "TlsTransport", "Transport", "transport_for"]

Bytes = bytes | bytearray | memoryview  # what can be sent
_DONTWAIT = socket.MSG_DONTWAIT
_MORE = getattr(socket, "MSG_MORE", 0)


class Transport(Protocol):
    """What a channel needs of its socket."""

    # both block until there is something; b"" or 0 at the end of the stream, OSError when the connection broke
    recv: Callable[[int], bytes]
    recv_into: Callable[[memoryview], int]
    # hands over what the kernel takes at once: how many bytes, 0 for none; OSError when the connection broke
    send_nowait: Callable[[Bytes], int]

    def send_more_nowait(self, data: Bytes) -> int: ...

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
        self.recv: Callable[[int], bytes] = sock.recv
        self.recv_into: Callable[[memoryview], int] = sock.recv_into
        self.send_nowait = _without_waiting(sock.send)

    def send_more_nowait(self, data: Bytes) -> int:
        """``send_nowait`` with a hint to the kernel that the next write follows at once."""
        try:
            return self._sock.send(data, _DONTWAIT | _MORE)
        except BlockingIOError:
            return 0

    def recv_nowait(self, size: int) -> bytes | None:
        """What is there, up to ``size`` bytes; b"" at the end of the stream, None when nothing is there."""
        try:
            return self._sock.recv(size, _DONTWAIT)
        except BlockingIOError:
            return None

    def recv_into_nowait(self, room: memoryview) -> int | None:
        """The same into ``room``: how many bytes, 0 at the end of the stream, None when nothing is there."""
        try:
            return self._sock.recv_into(room, 0, _DONTWAIT)
        except BlockingIOError:
            return None

    def wait_readable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), WRITABLE, timeout)

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


def _without_waiting(send: Callable[[Bytes, int], int]) -> Callable[[Bytes], int]:
    """``send_nowait`` of a plain socket: the one function of every message, with all that it needs in its closure."""
    flags = _DONTWAIT

    def send_nowait(data: Bytes) -> int:
        try:
            return send(data, flags)
        except BlockingIOError:
            return 0

    return send_nowait


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
        self.send_nowait: Callable[[Bytes], int] = self.send_more_nowait

    def _recv(self, size: int) -> bytes:
        while True:
            data = self.recv_nowait(size)
            if data is not None:
                return data
            wait(self._sock.fileno(), READABLE, None)

    def _recv_into(self, room: memoryview) -> int:
        while True:
            size = self.recv_into_nowait(room)
            if size is not None:
                return size
            wait(self._sock.fileno(), READABLE, None)

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

    def send_more_nowait(self, data: Bytes) -> int:
        """Either kind: TLS has no such hint."""
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
        return wait(self._sock.fileno(), READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), READABLE if self._write_wants_read else WRITABLE, timeout)

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
