"""Bytes over one connected socket, plain or TLS, with what a thread-per-connection design needs of it.

Why so: a plain socket is left in blocking mode, so reading is one system call with no ``poll`` before it, while
``MSG_DONTWAIT`` makes a single write (or read) non-blocking: a deadline costs nothing until the peer is slow.
Waiting for writability is always done by the caller outside its locks.

Reading and writing are iterators, whose value is taken with ``for``.  After a call Python looks for signals, and if a
signal's handler raises then, what the call returned is lost: bytes that were read, or how many were written, and with
them the stream.  ``for`` stores the value first.

TLS is done in memory, over a plain transport that is read, written and waited for as without: a TLS object is not safe
for a read and a write at once, so it is touched under a lock, which is held for no call to the kernel.

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
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Protocol, TypeVar, cast

from ..forking import close_fully
from ..interrupts import STEP
from .tls import CIPHERTEXT, TlsSocket
from .waiting import NOT_NOW, READABLE, WRITABLE, wait

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
_STEP = struct.pack("ll", *divmod(int(STEP * 1_000_000), 1_000_000))  # a timeval
_PEEKED = 64 * 1024  # bytes looked at where the system does not tell how many there are
_DONTWAIT_MORE = (_DONTWAIT[0] | getattr(socket, "MSG_MORE", 0),)
_NO_DATA = (ssl.SSLWantReadError, ssl.SSLZeroReturnError, ssl.SSLEOFError)
_RECORD = 16 * 1024  # bytes of plaintext, the most that a TLS record holds
_AHEAD = 4 * _RECORD  # bytes of plaintext encrypted at once, before the kernel has taken them
_KEPT = 64  # bytes of plaintext at most that wait for the next write: the head of a large frame
# also where it is asked for: so the whole suite can be run with it on any system
_PORTABLE = not _DONTWAIT[0] or os.environ.get("SYNC_WS_PORTABLE") == "1"


class Transport(Protocol):
    """What a channel needs of its socket.  Take what an iterator gives with ``for``, and leave after the first value.

    Reads give b"" or 0 at the end of the stream.  The ``_now`` ones, and writes, raise BlockingIOError instead of
    waiting.  OSError when the connection broke.
    """

    def receiving(self, size: int) -> Iterator[bytes]:
        """What is there, up to ``size`` bytes, as soon as something is; again and again.

        BlockingIOError when there was something, and then there was not, or after ``step_reads``: try again.
        """
        ...

    def step_reads(self) -> None:
        """From now on a read does not wait longer than ``interrupts.STEP``, for the sake of a main thread that reads:
        see there."""
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

    def step_reads(self) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _STEP)
        except OSError:
            return  # closed: no read will wait

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
        close_fully(self._sock)


class PortableTransport(PlainTransport):
    """A socket that never blocks, and no flags."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.settimeout(0)

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._sock.recv, map(self._when_readable, repeat(size)))

    def step_reads(self) -> None:
        """``wait`` sees to it."""

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
    """TLS in memory over a plain transport: see ``TlsSocket``.

    What is done in memory takes some steps of Python, and after an interrupt in the middle of them it is not known what
    was read or written: the connection ends then, and says so.
    """

    def __init__(self, raw: Transport, sock: TlsSocket) -> None:
        self._raw = raw
        # guards the TLS object and the memory on both its sides; held for calls that do not wait
        self._lock = threading.RLock()
        # of the one reader
        self._reading = False  # in the middle of an operation
        self._reads = raw.receiving(CIPHERTEXT)
        self._received: bytes | None = None  # from the kernel; None when TLS has it
        self._ready = True  # False: TLS cannot tell anything before more is received
        self._incoming = sock.incoming
        self._pending = sock.tls.pending
        self._decrypt = sock.tls.read
        self._decrypt_into = cast(Callable[[int, memoryview], int], sock.tls.read)
        # of the one writer
        self._writing = False  # in the middle of an operation
        self._outgoing = sock.outgoing
        self._encrypt = sock.tls.write
        self._unsent: Bytes = sock.take_unsent()  # ciphertext that the kernel has not taken
        # the records that end in it: how many bytes before its end, and how much plaintext each holds
        self._records: deque[tuple[int, int]] = deque()
        self._owed = 0  # the sum of the latter: what the next write has to begin with

    # -- reading --------------------------------------------------------------------------------------------------

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._read, repeat(self._one_record), repeat(size))

    def receiving_now(self, size: int) -> Iterator[bytes]:
        return map(self._read, (self._one_record,), (size,), (False,))

    def receiving_into(self, room: memoryview) -> Iterator[int]:
        return map(self._read, (self._records_into,), (room,))

    def receiving_into_now(self, room: memoryview) -> Iterator[int]:
        return map(self._read, (self._records_into,), (room,), (False,))

    def _read(self, operation: Callable[[S], R | None], where: S, patient: bool = True) -> R:
        while True:
            if self._ready or self._received is not None:
                if self._reading:
                    raise ConnectionAbortedError("an interrupt came in the middle of reading from TLS")
                self._reading = True
                try:
                    with self._lock:
                        received, self._received = self._received, None
                        if received:
                            self._incoming.write(received)
                        elif received is not None:
                            self._incoming.write_eof()
                        result = operation(where)
                except OSError:
                    self._reading = False
                    raise
                self._reading = False
                if result is not None:  # from here to the ``for`` that takes it, nothing is called
                    return result
            for received in self._reads if patient else self._raw.receiving_now(CIPHERTEXT):
                self._received = received
                break

    def _one_record(self, size: int) -> bytes | None:
        """Up to ``size`` bytes, b"" at the end of the stream, None before more has come."""
        try:
            data = self._decrypt(size)
        except _NO_DATA as exc:
            return b"" if self._ended(exc) else None
        self._ready = self._incoming.pending > 0 or (len(data) == size and self._pending() > 0) or not data
        return data

    def _records_into(self, room: memoryview) -> int | None:
        """As many bytes as there are, 0 at the end of the stream, None before more has come."""
        at, size = 0, len(room)
        try:
            while at < size:
                got = self._decrypt_into(size - at, room[at:])
                at += got
                self._ready = self._incoming.pending > 0 or (at == size and self._pending() > 0) or not got
                if not got or not self._ready:
                    break
        except _NO_DATA as exc:
            return at if self._ended(exc) or at else None
        return at

    def _ended(self, exc: ssl.SSLError) -> bool:
        """TLS cannot tell more: whether there is no more, or more has to come first."""
        self._ready = isinstance(exc, ssl.SSLZeroReturnError)  # it said goodbye, and will say so again
        return not isinstance(exc, ssl.SSLWantReadError)

    def step_reads(self) -> None:
        self._raw.step_reads()

    # -- writing --------------------------------------------------------------------------------------------------

    def sending(self, data: Bytes) -> Iterator[int]:
        """What was encrypted has to be sent: after less than all of it, or none, the rest of the same bytes must come
        next.  The channel keeps them at the head of its queue.
        """
        return map(self._write, (data,))

    def sending_more(self, data: Bytes) -> Iterator[int]:
        return map(self._keep, (data,)) if len(data) <= _KEPT else map(self._write, (data,))

    def _write(self, data: Bytes) -> int:
        self._begin_writing()
        size = len(data)
        if size <= _RECORD and not self._owed and not self._unsent:  # nearly every message
            with self._lock:
                self._encrypt(data)
                record = self._outgoing.read()
            sent = self._hand_over(record)
            if sent == len(record):
                done = size
            else:
                done, self._owed, self._unsent = 0, size, memoryview(record)[sent:]
                self._records.append((0, size))
        else:
            done = self._write_all(data)
        self._writing = False
        if not done:
            raise BlockingIOError
        return done

    def _keep(self, data: Bytes) -> int:
        """Encrypt what is little, for the next write to take along."""
        if self._owed or self._outgoing.pending or self._raw.fileno() < 0:
            return self._write(data)
        self._begin_writing()
        with self._lock:
            done = self._encrypt(data)
        self._writing = False
        return done

    def _begin_writing(self) -> None:
        if self._writing:
            raise ConnectionAbortedError("a failure or an interrupt came in the middle of writing to TLS")
        self._writing = True

    def _write_all(self, data: Bytes) -> int:
        """As much as the kernel takes."""
        done, size = 0, len(data)
        with memoryview(data) as view:
            while done < size:
                if not self._owed:
                    self._encrypt_records(view[done : done + _AHEAD])
                done += self._flush()
                if self._owed:
                    break
        return done

    def _encrypt_records(self, data: memoryview) -> None:
        pieces: list[Bytes] = [self._unsent]
        sizes: list[tuple[int, int]] = []
        with self._lock:
            for at in range(0, len(data), _RECORD):
                size = self._encrypt(data[at : at + _RECORD])
                pieces.append(self._outgoing.read())  # one at a time: the memory in between would grow, and stay so
                sizes.append((len(pieces[-1]), size))
        self._unsent = b"".join(pieces)
        behind = sum(length for length, _ in sizes)
        for length, size in sizes:
            behind -= length
            self._records.append((behind, size))
            self._owed += size

    def _flush(self) -> int:
        """Write what the kernel takes; returns how much plaintext is thereby sent."""
        unsent = self._unsent
        left = len(unsent) - self._hand_over(unsent)
        self._unsent = memoryview(unsent)[-left:] if left else b""  # an empty view would hold on to all of it
        done = 0
        while self._records and self._records[0][0] >= left:
            done += self._records.popleft()[1]
        self._owed -= done
        return done

    def _hand_over(self, ciphertext: Bytes) -> int:
        try:
            for sent in self._raw.sending(ciphertext):
                return sent
        except NOT_NOW:
            pass
        return 0

    # -- the socket -----------------------------------------------------------------------------------------------

    def wait_readable(self, timeout: float | None) -> bool:
        return self._ready or self._received is not None or self._raw.wait_readable(timeout)

    def wait_writable(self, timeout: float | None) -> bool:
        return self._raw.wait_writable(timeout)

    def unread(self) -> int:
        return self._raw.unread()

    def crowded(self) -> bool:
        return self._raw.crowded()

    def fileno(self) -> int:
        return self._raw.fileno()

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        self._raw.shutdown(how)

    def close(self) -> None:
        self._raw.close()


def _unread(sock: socket.socket) -> int:
    """0 for a socket that is closed or broken."""
    try:
        if fcntl is not None:
            (count,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))
            return int(count)
        return len(sock.recv(_PEEKED, socket.MSG_PEEK | socket.MSG_DONTWAIT))
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
    # what is put in place of the standard library's sockets wraps a socket of the system, but is none
    plain = PortableTransport if _PORTABLE or not isinstance(sock, _socket.socket) else PlainTransport
    if isinstance(sock, TlsSocket):
        return TlsTransport(plain(sock.raw()), sock)
    return plain(sock)
