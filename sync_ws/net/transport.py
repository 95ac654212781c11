"""Bytes over one connected socket, plain or TLS, with what a thread-per-connection design needs of it.

Why so: a plain socket is left in blocking mode, so reading is one system call with no ``poll`` before it, while
``MSG_DONTWAIT`` makes a single write (or read) non-blocking: a deadline costs nothing until the peer is slow.
Waiting for writability is always done by the caller outside its locks.

Reading and writing are iterators, whose value is taken with ``for``.  After a call Python looks for signals, and if a
signal's handler raises then, what the call returned is lost: bytes that were read, or how many were written, and with
them the stream.  ``for`` stores the value first.

A Python TLS socket is not safe for a read and a write at once, so the TLS transport keeps its socket non-blocking,
touches it under a lock only, and waits outside that lock.

Where the kernel is not to block (gevent and eventlet put sockets of their own in place of the standard library's, and
wait for all of them in one thread) or cannot be asked for one call without waiting (Windows has no ``MSG_DONTWAIT``),
a plain socket is non-blocking for good, and waiting is a step of its own.

Threading: ``recv*`` by one thread at a time, ``send*`` by one thread at a time (the channel's locks see to
both), the two of them at once; ``shutdown`` and the ``wait_*`` functions by any thread at any time.  ``close`` only
when nobody is in ``recv`` or ``send``: a closed descriptor's number may be another socket's a moment later.
"""

from __future__ import annotations

import _socket
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol, TypeVar

from .waiting import READABLE, WRITABLE, wait

try:
    import fcntl
    import termios
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Bytes", "PlainTransport", "PortableTransport", "TlsTransport", "Transport", "transport_for"]

A = TypeVar("A")
S = TypeVar("S")
R = TypeVar("R")
Bytes = bytes | bytearray | memoryview  # what can be sent
_DONTWAIT = (getattr(socket, "MSG_DONTWAIT", 0),)
_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
_PEEKED = 64 * 1024  # bytes looked at where the system does not tell how many there are
_DONTWAIT_MORE = (_DONTWAIT[0] | getattr(socket, "MSG_MORE", 0),)
# also where it is asked for: so the whole suite can be run with it on any system
_PORTABLE = not _DONTWAIT[0] or os.environ.get("SYNC_WS_PORTABLE") == "1"


class Transport(Protocol):
    """What a channel needs of its socket.  Take what an iterator gives with ``for``, and leave after the first value.

    Reads give b"" or 0 at the end of the stream.  The ``_now`` ones, and writes, raise BlockingIOError instead of
    waiting.  OSError when the connection broke.
    """

    def receiving(self, size: int) -> Iterator[bytes]:
        """What is there, up to ``size`` bytes, as soon as something is; again and again.

        BlockingIOError when there was something, and then there was not: try again.
        """
        ...

    def receiving_now(self, size: int) -> Iterator[bytes]: ...

    def receiving_into(self, room: memoryview) -> Iterator[int]: ...

    def receiving_into_now(self, room: memoryview) -> Iterator[int]: ...

    def sending(self, data: Bytes) -> Iterator[int]:
        """Hand over what the kernel takes at once: how many bytes."""
        ...

    def sending_more(self, data: Bytes) -> Iterator[int]:
        """The same, with a hint to the kernel that the next write follows at once."""
        ...

    def wait_readable(self, timeout: float | None) -> bool: ...

    def wait_writable(self, timeout: float | None) -> bool: ...

    def unread(self) -> int:
        """How many bytes wait in the socket, as they came; where the system does not tell, of its first 64 KiB."""
        ...

    def crowded(self) -> bool:
        """Whether so many do that more may have no room."""
        ...

    def fileno(self) -> int: ...

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None: ...

    def close(self) -> None: ...


class PlainTransport:
    """A blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._send = sock.send

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._sock.recv, repeat(size))

    def receiving_now(self, size: int) -> Iterator[bytes]:
        return map(self._sock.recv, (size,), _DONTWAIT)

    def receiving_into(self, room: memoryview) -> Iterator[int]:
        return map(self._sock.recv_into, (room,))

    def receiving_into_now(self, room: memoryview) -> Iterator[int]:
        return map(self._sock.recv_into, (room,), (0,), _DONTWAIT)

    def sending(self, data: Bytes) -> Iterator[int]:
        return map(self._send, (data,), _DONTWAIT)

    def sending_more(self, data: Bytes) -> Iterator[int]:
        return map(self._send, (data,), _DONTWAIT_MORE)

    def wait_readable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), WRITABLE, timeout)

    def unread(self) -> int:
        return _unread(self._sock)

    def crowded(self) -> bool:
        return _crowded(self._sock)

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


class PortableTransport(PlainTransport):
    """A socket that never blocks, and no flags."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(0)

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._sock.recv, map(self._when_readable, repeat(size)))

    def receiving_now(self, size: int) -> Iterator[bytes]:
        return map(self._sock.recv, (size,))

    def receiving_into(self, room: memoryview) -> Iterator[int]:
        return map(self._sock.recv_into, map(self._when_readable, (room,)))

    def receiving_into_now(self, room: memoryview) -> Iterator[int]:
        return map(self._sock.recv_into, (room,))

    def sending(self, data: Bytes) -> Iterator[int]:
        return map(self._send, (data,))

    sending_more = sending

    def _when_readable(self, asked: A) -> A:
        wait(self._sock.fileno(), READABLE, None)
        return asked


class TlsTransport:
    """A non-blocking TLS socket whose reads and writes take turns.

    ``ssl.SSLSocket``'s methods are Python's, so an interrupt may come in the middle of one, and what it had read or
    written is not known: the connection ends then, and says so.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.settimeout(0)
        self._sock = sock
        # guards every operation on the SSL object; held by readers and writers for one non-blocking call each
        self._lock = threading.RLock()
        self._reading = False  # in the middle of an operation: the one reader's
        self._writing = False  # the one writer's
        self._write_wants_read = False  # the writer's, too

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._read, repeat(self._sock.recv), repeat(size), repeat(b""))

    def receiving_now(self, size: int) -> Iterator[bytes]:
        return map(self._read, (self._sock.recv,), (size,), (b"",), (False,))

    def receiving_into(self, room: memoryview) -> Iterator[int]:
        return map(self._read, (self._sock.recv_into,), (room,), (0,))

    def receiving_into_now(self, room: memoryview) -> Iterator[int]:
        return map(self._read, (self._sock.recv_into,), (room,), (0,), (False,))

    def sending(self, data: Bytes) -> Iterator[int]:
        return map(self._write, (data,))

    sending_more = sending  # TLS has no such hint

    def _read(self, operation: Callable[[S], R], where: S, nothing: R, patient: bool = True) -> R:
        if self._reading:
            raise ConnectionAbortedError("an interrupt came in the middle of reading from TLS")
        self._reading = True
        while True:
            with self._lock:
                try:
                    result = operation(where)
                    break
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    result = nothing
                    break
                except OSError as exc:
                    if not isinstance(exc, _NOT_NOW):
                        self._reading = False
                        raise
            self._reading = False
            if not patient:
                raise BlockingIOError
            wait(self._sock.fileno(), READABLE, None)
            self._reading = True
        self._reading = False  # from here to the ``for`` that takes it, nothing is called
        return result

    def _write(self, data: Bytes) -> int:
        # after "want write" OpenSSL insists on the same bytes again: the channel keeps them at the head of its queue
        if self._writing:
            raise ConnectionAbortedError("an interrupt came in the middle of writing to TLS")
        self._writing = True
        with self._lock:
            try:
                sent = self._sock.send(data)
                self._write_wants_read = False
            except OSError as exc:
                self._writing = False
                if not isinstance(exc, _NOT_NOW):
                    raise
                self._write_wants_read = isinstance(exc, ssl.SSLWantReadError)
                raise BlockingIOError from None
        self._writing = False
        if not sent:  # gevent's way to say so; nobody hands over no bytes
            raise BlockingIOError
        return sent

    def wait_readable(self, timeout: float | None) -> bool:
        with self._lock:
            if self._sock.pending():  # decrypted already: the descriptor will not tell
                return True
        return wait(self._sock.fileno(), READABLE, timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return wait(self._sock.fileno(), READABLE if self._write_wants_read else WRITABLE, timeout)

    def unread(self) -> int:
        return _unread(self._sock)

    def crowded(self) -> bool:
        return _crowded(self._sock)

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


def _unread(sock: socket.socket) -> int:
    """0 for a socket that is closed or broken."""
    try:
        if fcntl is not None:
            (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
            return int(count)
        # not SSLSocket.recv: that one would decrypt, and takes no flags
        return len(socket.socket.recv(sock, _PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except (OSError, ValueError):
        return 0


def _crowded(sock: socket.socket) -> bool:
    try:
        size = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    except OSError:
        return False
    if sock.family == getattr(socket, "AF_UNIX", None):  # there the bookkeeping may take a hundred times the bytes
        return _unread(sock) > 0
    # TCP's takes up to as much as they do: a full buffer of Linux was seen to have half its size in bytes, and more
    return _unread(sock) >= min(size // 4, _PEEKED)


def transport_for(sock: socket.socket) -> Transport:
    """The transport for a connected socket, TLS or plain; sets TCP_NODELAY, for a message must not wait."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        pass  # not TCP (a socket pair, a Unix socket), or gone already: the first read will tell
    if isinstance(sock, ssl.SSLSocket):
        return TlsTransport(sock)
    # what is put in place of the standard library's sockets wraps a socket of the system, but is none
    if _PORTABLE or not isinstance(sock, _socket.socket):
        return PortableTransport(sock)
    return PlainTransport(sock)
