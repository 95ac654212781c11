"""The writing side of one open WebSocket: whole frames, in order, from any thread, never blocking under a lock.

Why so: ``send`` writes at once, one non-blocking system call, so that a handler that sends and then works for a
minute does not sit on the bytes.  What the kernel does not take is queued, and the sender waits for it *outside* the
lock; so a Pong, a broadcast or the housekeeper is never stuck behind a sender whose peer does not read.  The queue's
head is always completed first: a frame once begun is never interleaved with another.

Threading: every method may be called from any thread.  ``_lock`` is held for encoding and non-blocking writes only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Callable, Iterator

from ..errors import ConnectionClosed, SendTimeout
from ..messages import Data, Opcode, as_payload
from ..net.transport import Bytes, Transport
from ..protocol.deflate import Deflate
from ..protocol.frames import encode_frame, encode_large_frame
from ..timing import Deadline

__all__ = ["Writer"]

LARGE = 64 * 1024  # bytes: from here on a payload is not copied to stand behind its header
BATCH_BYTES = 256 * 1024  # a batch is written when it has gathered this much
_MAX_HEADER = 14  # bytes; a batch counts it for each message, so that empty ones count too


class _Batch:
    """What one thread has gathered: that thread's alone."""

    __slots__ = ("items", "size")

    def __init__(self) -> None:
        self.items: list[tuple[int, bytes]] = []
        self.size = 0  # bytes


class Writer:
    """See the module.

    ``send_timeout``: seconds a peer may not read before the connection is given up.  ``max_queued`` and
    ``max_queued_bytes``: the bound on what ``post`` leaves waiting.  ``closed_error``: makes what ``send`` raises once
    the connection is closing.  ``on_broken``: told, outside the lock, that writing failed and why.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        masked: bool,
        deflate: Deflate | None,
        send_timeout: float,
        max_queued: int,
        max_queued_bytes: int,
        closed_error: Callable[[], ConnectionClosed],
        on_broken: Callable[[str, BaseException | None], None],
    ) -> None:
        self._transport = transport
        self._send_nowait = transport.send_nowait
        self._masked = masked
        self._deflate = deflate
        self._send_timeout = send_timeout
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._closed_error = closed_error
        self._on_broken = on_broken
        # guards everything below, and every write to the transport; any thread, never while waiting
        self._lock = threading.Lock()
        self._open = True  # False once a Close frame was queued or writing failed: no message may follow
        self._queue: deque[Bytes] = deque()
        self._queued_bytes = 0
        self._torn = False  # True during a system call: an interrupt then leaves the stream in an unknown state
        self._progress_at = 0.0  # when the queue last moved (or began), monotonic
        self._over_since: float | None = None  # since when post() finds the queue over its bound
        self.batches: dict[int, _Batch] = {}  # by thread; each entry is its own thread's alone
        self.on_queued: Callable[[], None] | None = None  # told, outside the lock, that somebody must flush later
        self.bytes_sent = 0
        self.messages_sent = 0

    # -- for the application ----------------------------------------------------------------------------------

    def send(self, data: Data) -> None:
        """Send one message; back when it is in the kernel.

        SendTimeout when the peer does not take it in time, ConnectionClosed when the connection is not open,
        TypeError or ValueError for what is no message.
        """
        opcode, payload = as_payload(data)
        if self.batches and (batch := self.batches.get(threading.get_ident())) is not None:
            self._gather(batch, opcode, payload)
            return
        frame: bytes | tuple[bytes, bytes | bytearray] | None = None
        if self._deflate is None:
            encode: Callable[[int, bytes, bool], bytes | tuple[bytes, bytes | bytearray]]
            encode = encode_frame if len(payload) < LARGE else encode_large_frame
            frame = encode(opcode, payload, self._masked)
        try:
            with self._lock:
                if not self._open:
                    raise self._closed_error()
                if frame is None:  # a compressor's state follows the order on the wire, so it works under the lock
                    frame = self._encode(opcode, payload)
                ticket = self._put(frame) if isinstance(frame, bytes) else self._put_parts(frame)
                self.messages_sent += 1
        except OSError as exc:
            self._break("writing failed", exc)
            raise self._closed_error() from exc
        if ticket:
            self._wait_for(ticket)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather what this thread sends inside: see ``Connection.batch``."""
        ident = threading.get_ident()
        if ident in self.batches:  # nested: the outer one writes
            yield
            return
        self.batches[ident] = _Batch()
        try:
            yield
        finally:
            try:
                self.write_batch()
            finally:
                del self.batches[ident]

    def write_batch(self, wait: bool = True) -> None:
        """Write what this thread has gathered, if it has; ``wait``: until it is in the kernel."""
        if not self.batches:
            return
        gathered = self.batches.get(threading.get_ident())
        if gathered is None or not gathered.items:
            return
        items, gathered.items, gathered.size = gathered.items, [], 0
        try:
            with self._lock:
                if not self._open:
                    raise self._closed_error()
                ticket = self._put(b"".join([self._encode(opcode, payload) for opcode, payload in items]))
                self.messages_sent += len(items)
        except OSError as exc:
            self._break("writing failed", exc)
            raise self._closed_error() from exc
        if ticket and wait:
            self._wait_for(ticket)

    def _gather(self, batch: _Batch, opcode: int, payload: bytes) -> None:
        if not self._open:  # a stale answer is as good as one of a moment ago: write_batch looks again
            raise self._closed_error()
        batch.items.append((opcode, payload))
        batch.size += len(payload) + _MAX_HEADER
        if batch.size >= BATCH_BYTES:
            self.write_batch()

    # -- for the library: never waits ---------------------------------------------------------------------------

    def post(self, opcode: int, payload: bytes, frame: bytes | None = None) -> bool:
        """Write a frame without waiting, or queue it within the bound; False when it was refused.

        ``frame``: the same already encoded, for one that goes to many.
        """
        try:
            with self._lock:
                if not self._open:
                    return False
                if len(self._queue) >= self._max_queued or self._queued_bytes >= self._max_queued_bytes:
                    self._over_since = self._over_since or time.monotonic()
                    return False
                queued = self._put(frame if frame and not self._deflate else self._encode(opcode, payload))
                self.messages_sent += opcode < 8
        except OSError as exc:
            self._break("writing failed", exc)
            return False
        if queued and self.on_queued:
            self.on_queued()
        return True

    def finish(self, payload: bytes) -> bool:
        """Queue the Close frame; no message after it.  False if there is one already, or writing has failed."""
        try:
            with self._lock:
                if not self._open:
                    return False
                self._open = False
                queued = self._put(encode_frame(Opcode.CLOSE, payload, self._masked))
        except OSError as exc:
            self._break("writing failed", exc)
            return False
        if queued and self.on_queued:
            self.on_queued()
        return True

    def flush(self) -> bool:
        """Write what the kernel takes of the queue; True when nothing is left."""
        try:
            with self._lock:
                return self._flush()
        except OSError as exc:
            self._break("writing failed", exc)
            return True

    def fail(self) -> None:
        """Forget what is queued; every sender, waiting or to come, gets the connection's end."""
        with self._lock:
            self._forget_queue()

    def close_transport(self) -> None:
        """Close the transport while nobody is writing to it."""
        with self._lock:
            self._open = False
            self._transport.close()

    def forget_in_child(self) -> None:
        """After fork, in the child: the lock may be held by a thread that is not here."""
        self._lock = threading.Lock()
        self.close_transport()

    @property
    def open(self) -> bool:
        """Whether a message may still be sent."""
        return self._open

    @property
    def queued(self) -> tuple[int, int]:
        """Frames and bytes that the kernel has not taken yet."""
        return len(self._queue), self._queued_bytes

    def stuck(self, now: float) -> str | None:
        """Why this peer is too slow to be kept, None while it is not (RFC 6455 has 1013 for the former)."""
        over = self._over_since
        if over is not None and now - over > self._send_timeout:
            return f"more was queued than it may be for {self._send_timeout:g} s"
        if self._queue and now - self._progress_at > self._send_timeout:
            return f"the peer did not read for {self._send_timeout:g} s"
        return None

    # -- with _lock held ----------------------------------------------------------------------------------------

    def _encode(self, opcode: int, payload: bytes) -> bytes:
        if self._deflate is not None and opcode < 8:
            compressed = self._deflate.compress(payload)
            if compressed is not None:
                return encode_frame(opcode, compressed, self._masked, rsv1=True)
        return encode_frame(opcode, payload, self._masked)

    def _put(self, frame: bytes) -> int:
        """Write or queue one frame: 0 when it is in the kernel, else what ``bytes_sent`` will be when it is."""
        if self._queue:
            rest: bytes | memoryview = frame
        else:
            # as _write does, without the call: this is the way of nearly every message
            if self._torn:
                raise _interrupted()
            self._torn = True
            try:
                sent = self._send_nowait(frame)
            except OSError:
                self._torn = False
                raise
            self.bytes_sent += sent
            self._torn = False
            if sent == len(frame):
                return 0
            rest = memoryview(frame)[sent:]
            self._progress_at = time.monotonic()
        self._queue.append(rest)
        self._queued_bytes += len(rest)
        return self.bytes_sent + self._queued_bytes

    def _put_parts(self, parts: tuple[bytes, bytes | bytearray]) -> int:
        """The same for a frame in parts, which are queued together lest an interrupt come between them."""
        if not self._queue:
            self._progress_at = time.monotonic()
        self._queue.extend(parts)
        self._queued_bytes += len(parts[0]) + len(parts[1])
        ticket = self.bytes_sent + self._queued_bytes
        return 0 if self._flush() else ticket

    def _forget_queue(self) -> None:
        self._open = False
        self._queue.clear()
        self._queued_bytes = 0

    def _flush(self) -> bool:
        queue = self._queue
        while queue:
            head = queue[0]
            sent = self._write(head, self._send_nowait if len(queue) == 1 else self._transport.send_more_nowait)
            if sent:
                self._queued_bytes -= sent
                self._progress_at = time.monotonic()
            if sent < len(head):
                if sent:
                    queue[0] = memoryview(head)[sent:]
                break
            queue.popleft()
        if len(queue) < self._max_queued and self._queued_bytes < self._max_queued_bytes:
            self._over_since = None
        return not queue

    def _write(self, data: Bytes, send: Callable[[Bytes], int]) -> int:
        if self._torn:
            raise _interrupted()
        self._torn = True
        try:
            sent = send(data)
        except OSError:
            self._torn = False
            raise
        self.bytes_sent += sent
        self._torn = False
        return sent

    # -- waiting, without the lock ------------------------------------------------------------------------------

    def _wait_for(self, ticket: int) -> None:
        """Until all bytes up to ``ticket`` are in the kernel; the deadline counts from the last progress."""
        seen = self.bytes_sent
        deadline = Deadline(self._send_timeout)
        text = f"the peer did not read for {self._send_timeout:g} s"
        while self.bytes_sent < ticket:
            self._transport.wait_writable(deadline.remaining())
            self.flush()
            empty = not self._queue  # looked at first: who writes counts before he takes a frame off the queue
            if self.bytes_sent >= ticket:
                return
            if empty:  # fail() emptied it; if for want of time, then the housekeeper was a moment faster than we
                if deadline.passed:
                    raise SendTimeout(text)
                raise self._closed_error()
            if self.bytes_sent != seen:
                seen, deadline = self.bytes_sent, Deadline(self._send_timeout)
            elif deadline.passed:
                with self._lock:  # look again where nobody can write: what raises must not be delivered after all
                    if self.bytes_sent != seen:
                        continue
                    self._forget_queue()
                self._on_broken(text, None)
                raise SendTimeout(text)

    def _break(self, text: str, error: BaseException | None) -> None:
        self.fail()
        self._on_broken(text, error)


def _interrupted() -> OSError:
    return ConnectionAbortedError("an interrupt came in the middle of an earlier write")
