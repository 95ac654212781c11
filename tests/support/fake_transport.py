"""A transport without a socket: what comes is written down beforehand, and what goes out is kept.

Why so: a test says in how many pieces something arrives, how much the kernel takes, and where it breaks; no peer and
no thread are needed.

Threading: for one thread.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import repeat

from sync_ws.net.transport import Bytes

__all__ = ["FakeTransport"]


class FakeTransport:
    """``arrivals``: what each read brings, an error to raise, or b"" for the end of the stream, which stays.

    Where nothing is left, a ``_now`` read raises BlockingIOError and a waiting one AssertionError: it would wait for
    ever.  ``takes``: how many bytes each write takes, or an error to raise; None: nothing, for now.  Then everything.
    """

    def __init__(self, *arrivals: bytes | Exception, takes: tuple[int | Exception | None, ...] = ()) -> None:
        self.arrivals = list(arrivals)
        self.takes = list(takes)
        self.asked: list[int] = []  # how many bytes each read was to bring at most
        self.sent = bytearray()
        self.writes: list[tuple[str, int]] = []  # which way each write went, and how many bytes it was offered
        self.on_write: Callable[[], object] | None = None  # called in the middle of each write
        self.waits: list[float | None] = []
        self.shutdowns: list[int] = []
        self.closed = False
        self.stepped = False  # whether reads are to wait in steps

    def receiving(self, size: int) -> Iterator[bytes]:
        return map(self._take, repeat(size))

    def step_reads(self) -> None:
        self.stepped = True

    def receiving_now(self, size: int) -> Iterator[bytes]:
        return map(self._take, (size,), (False,))

    def receiving_into(self, room: memoryview) -> Iterator[int]:
        return map(self._take_into, (room,))

    def receiving_into_now(self, room: memoryview) -> Iterator[int]:
        return map(self._take_into, (room,), (False,))

    def unread(self) -> int:
        return 0

    def crowded(self) -> bool:
        return False

    def _take(self, size: int, patient: bool = True) -> bytes:
        self.asked.append(size)
        if not self.arrivals:
            if patient:
                raise AssertionError("a read that would wait for ever")
            raise BlockingIOError
        piece = self.arrivals.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if len(piece) > size or not piece:
            self.arrivals.insert(0, piece[size:])
        return piece[:size]

    def _take_into(self, room: memoryview, patient: bool = True) -> int:
        data = self._take(len(room), patient)
        room[: len(data)] = data
        return len(data)

    def sending(self, data: Bytes) -> Iterator[int]:
        return map(self._give, (data,), ("whole",))

    def sending_more(self, data: Bytes) -> Iterator[int]:
        return map(self._give, (data,), ("more",))

    def _give(self, data: Bytes, way: str) -> int:
        self.writes.append((way, len(data)))
        if self.on_write is not None:
            self.on_write()
        size = self.takes.pop(0) if self.takes else len(data)
        if size is None:
            raise BlockingIOError
        if isinstance(size, Exception):
            raise size
        self.sent += data[:size]
        return min(size, len(data))

    def wait_readable(self, timeout: float | None) -> bool:
        self.waits.append(timeout)
        return bool(self.arrivals)

    def wait_writable(self, timeout: float | None) -> bool:
        return True

    def fileno(self) -> int:
        return -1

    def shutdown(self, how: int = socket.SHUT_RDWR) -> None:
        self.shutdowns.append(how)

    def close(self) -> None:
        self.closed = True
