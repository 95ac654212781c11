"""The writing side of one open WebSocket: whole frames, in order, from any thread, never blocking under a lock.

Why so: ``send`` writes at once, one non-blocking system call, so that a handler that sends and then works for a
minute does not sit on the bytes.  What the kernel does not take is queued, and the sender waits for it *outside* the
lock; so a Pong, a broadcast or the housekeeper is never stuck behind a sender whose peer does not read.

A signal's handler may call any of this in the middle of any of this, in the same thread, and must not wait for the
lock that the interrupted function holds: what it wants done is noted, and the interrupted function does it as soon as
it lets go of the lock, however it is left.

Threading: every method may be called from any thread.  ``_lock`` is held for encoding and non-blocking writes only.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from itertools import accumulate

from ..errors import ConnectionClosed, SendTimeout
from ..interrupts import owned
from ..messages import Data, Opcode, Pieces, as_payload, as_pieces
from ..net.transport import Transport
from ..protocol.deflate import Deflate
from ..protocol.frames import encode_fragments, encode_frame, encode_large_frame
from ..timing import Deadline
from .batch import Batch, Batches
from .frame_log import FrameLog
from .frame_queue import FrameQueue

__all__ = ["Writer"]

LARGE = 64 * 1024  # bytes: from here on a payload is not copied to stand behind its header
BATCH_BYTES = 256 * 1024  # a batch is written when it has gathered this much
REFUSED = -1  # in place of a ticket


class Writer:
    """Writes to one transport.

    ``send_timeout``: seconds a peer may not read before the connection is given up.  ``max_queued`` and
    ``max_queued_bytes``: the bound on what ``post`` leaves waiting.  ``max_frame``: bytes of one frame; longer messages
    go out in several.  ``batches``: those of its threads, if they outlive it.  ``closed_error``: makes what ``send``
    raises once the connection is closing.  ``on_broken``: told, outside the lock, that writing failed and why.
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
        max_frame: int | None = None,
        log: FrameLog | None = None,
        batches: Batches | None = None,
        closed_error: Callable[[], ConnectionClosed],
        on_broken: Callable[[str, BaseException | None], None],
    ) -> None:
        self._transport = transport
        self._masked = masked
        self._deflate = deflate
        self._send_timeout = send_timeout
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._max_frame = max_frame
        self._short = (
            LARGE if max_frame is None else min(LARGE, max_frame + 1)
        )  # bytes: below it, a message is one frame
        self._log = log
        self._closed_error = closed_error
        self._on_broken = on_broken
        self.batches = Batches() if batches is None else batches
        # guards everything below, and every write to the transport; any thread, never while waiting
        self._lock = threading.RLock()
        self._busy = False  # somebody is in here: the same thread may be interrupted and come again
        self._later: tuple[Callable[[], int], ...] = ()  # what it wants done then
        self._open = True  # False once a Close frame was queued or writing failed: no message may follow
        self._failure: OSError | None = None  # of a write, until it is told
        self._queue = FrameQueue(transport)
        self._compressing = False  # a message went into the compressor, and has not come out on the wire
        self._progress_at = 0.0  # when the queue was last seen to have moved, monotonic
        self._over_since: float | None = None  # since when post() finds the queue over its bound
        self.on_queued: Callable[[], None] | None = None  # told, outside the lock, that somebody must flush later
        self.messages_sent = 0

    # -- for the application ----------------------------------------------------------------------------------

    def send(self, data: Data | Pieces) -> None:
        """Send one message, in one frame or in its pieces; back when it is in the kernel.

        SendTimeout when the peer does not take it in time, ConnectionClosed when the connection is not open,
        TypeError or ValueError for what is no message.
        """
        try:
            opcode, payload = as_payload(data)  # type: ignore[arg-type]
        except TypeError:
            return self._send_pieces(data)  # type: ignore[arg-type]
        if self.batches.open and (batch := self.batches.mine()) is not None:
            return self._gather(batch, opcode, payload)
        frame: bytes | None = None
        if self._deflate is None and len(payload) < self._short:
            frame = encode_frame(opcode, payload, self._masked)
        try:
            with self._lock:
                if self._busy:
                    self._later += (partial(self._put_if_open, opcode, payload),)
                    return None
                self._busy = True
                try:
                    if self._open:
                        # a compressor's state follows the order on the wire, so it works under the lock
                        ticket = self._queue.put(frame) if frame is not None else self._put(opcode, payload)
                        self.messages_sent += 1
                        if self._log is not None:
                            self._log.sent(opcode, payload)
                    else:
                        ticket = REFUSED
                except OSError as exc:
                    self._fail(exc)
                    raise
                finally:
                    self._busy = False
        except OSError as exc:
            raise self._error() from exc
        finally:
            if self._later and not self._busy:
                self._catch_up()
        return self._wait_for(ticket) if ticket else None

    def _send_pieces(self, data: Pieces) -> None:
        """A message in as many fragments as there are pieces, all of which are taken before the first is written: an
        iterator that is slow, or raises, holds nobody up.  No pieces are no message."""
        opcode, pieces = as_pieces(data)
        if not pieces:
            return
        if self.batches.open:
            self.write_batch()  # what was gathered goes before
        ticket = self._exclusively(partial(self._put_if_open, opcode, pieces))
        if ticket:
            self._wait_for(ticket)

    def batch(self) -> Batch:
        """Gather what this thread sends inside: see ``Connection.batch``."""
        return Batch(self.batches, self.write_batch)

    def write_batch(self, wait: bool = True) -> None:
        """Write what this thread has gathered, if it has; ``wait``: until it is in the kernel.

        ConnectionClosed when it is not there as a whole; what is not stays gathered in a batch that outlives this.
        """
        batch = self.batches.mine() if self.batches.open else None
        if batch is None or not batch.items:
            return
        items, ends = batch.take(), list[int]()
        try:
            ticket = self._exclusively(partial(self._put_all, items, ends))
            if ticket == REFUSED or (ticket and wait):
                self._wait_for(ticket)
        except ConnectionClosed:
            if batch.outlives:
                batch.put_back(items[bisect_right(ends, self._queue.bytes_sent) :] if ends else items)
            raise

    def _gather(self, batch: Batch, opcode: int, payload: bytes) -> None:
        if not self._open and not batch.outlives:  # as good as an answer of a moment ago: write_batch looks again
            raise self._error()
        batch.add(opcode, payload)
        if batch.size >= BATCH_BYTES:
            batch.write()

    # -- for the library: never waits ---------------------------------------------------------------------------

    def post(self, opcode: int, payload: bytes, frame: bytes | None = None) -> bool:
        """Write a frame without waiting, or queue it within the bound; False when it was refused.

        ``frame``: the same already encoded, for one that goes to many.
        """
        try:
            with self._lock:  # as in _exclusively, without its calls: this is the way of a broadcast
                if self._busy:
                    self._later += (partial(self._post, opcode, payload, frame),)
                    return True
                self._busy = True
                try:
                    ticket = self._post(opcode, payload, frame)
                except OSError as exc:
                    self._fail(exc)
                    raise
                finally:
                    self._busy = False
        except OSError:
            self._tell()
            return False
        finally:
            if self._later and not self._busy:
                self._catch_up()
        if ticket > 0 and self.on_queued:
            self.on_queued()
        return ticket != REFUSED

    def finish(self, payload: bytes) -> bool:
        """Queue the Close frame; no message after it.  False if there is one already, or writing has failed."""
        return self._exclusively(partial(self._finish, payload)) != REFUSED

    def flush(self) -> bool:
        """Write what the kernel takes of the queue; True when nothing is left."""
        self._exclusively(self._flush, tell=False)
        return not len(self._queue)

    def fail(self) -> None:
        """Forget what is queued; every sender, waiting or to come, gets the connection's end."""
        self._exclusively(self._forget_queue)

    def close_transport(self) -> None:
        """Close the transport while nobody is writing to it."""
        self._exclusively(self._close_transport)

    def forget_in_child(self) -> None:
        """After fork, in the child: the lock may be held by a thread that is not here."""
        self._lock = threading.RLock()
        self._busy = False
        self._close_transport()

    @property
    def interrupted(self) -> bool:
        """Whether it is the calling thread's own interrupted frame that is writing: what is to be done waits for it."""
        return owned(self._lock)

    @property
    def open(self) -> bool:
        """Whether a message may still be sent."""
        return self._open

    @property
    def bytes_sent(self) -> int:
        """Bytes that are in the kernel, or further."""
        return self._queue.bytes_sent

    @property
    def queued(self) -> tuple[int, int]:
        """Frames and bytes that the kernel has not taken yet."""
        return len(self._queue), self._queue.waiting

    def stuck(self, now: float) -> str | None:
        """Why this peer is too slow to be kept, None while it is not (RFC 6455 has 1013 for the former)."""
        if self._queue.moved:
            self._queue.moved, self._progress_at = False, now
        over = self._over_since
        if over is not None and now - over > self._send_timeout:
            return f"more was queued than it may be for {self._send_timeout:g} s"
        if len(self._queue) and now - self._progress_at > self._send_timeout:
            return f"the peer did not read for {self._send_timeout:g} s"
        return None

    def excuse(self, now: float, lost: float) -> None:
        """Do not count ``lost`` seconds, in which the process was stopped, against the peer; by who asks ``stuck``."""
        self._progress_at = min(now, self._progress_at + lost)
        if self._over_since is not None:
            self._over_since = min(now, self._over_since + lost)

    # -- one at a time ------------------------------------------------------------------------------------------

    def _exclusively(self, act: Callable[[], int], tell: bool = True) -> int:
        """Do it with the lock held: its ticket.  0 when it was noted, for this thread's own interrupted frame to do.

        ``tell``: whether somebody who flushes is told when something is left to be flushed.
        """
        try:
            with self._lock:
                if self._busy:
                    self._later += (act,)
                    return 0
                self._busy = True
                try:
                    ticket = act()
                except OSError as exc:
                    self._fail(exc)
                    raise
                finally:
                    self._busy = False
        except OSError:
            self._tell()
            return REFUSED
        finally:
            if self._later and not self._busy:
                self._catch_up()
        if ticket > 0 and tell and self.on_queued:
            self.on_queued()
        return ticket

    def _catch_up(self) -> None:
        """Do what was noted meanwhile."""
        while self._later:
            act, *rest = self._later
            self._later = tuple(rest)
            self._exclusively(act)

    # -- with _lock held ----------------------------------------------------------------------------------------

    def _encode(self, opcode: int, payload: bytes | list[bytes]) -> bytes:
        """The frames of a message, or of a control frame.  Compressed, pieces become one: its boundaries are ours."""
        rsv1 = False
        if self._deflate is not None and opcode < 8:
            if self._compressing:
                raise ConnectionAbortedError("an interrupt came in the middle of compressing a message")
            self._compressing = True
            payload = payload if isinstance(payload, bytes) else b"".join(payload)
            compressed = self._deflate.compress(payload)
            if compressed is not None:
                payload, rsv1 = compressed, True
        if isinstance(payload, bytes) and (opcode >= 8 or self._max_frame is None or len(payload) <= self._max_frame):
            return encode_frame(opcode, payload, self._masked, rsv1)
        pieces = [payload] if isinstance(payload, bytes) else payload
        return encode_fragments(opcode, pieces, self._masked, rsv1, self._max_frame)

    def _put(self, opcode: int, payload: bytes | list[bytes]) -> int:
        if self._deflate is None and self._max_frame is None and isinstance(payload, bytes) and len(payload) >= LARGE:
            return self._queue.put_parts(*encode_large_frame(opcode, payload, self._masked))
        ticket = self._queue.put(self._encode(opcode, payload))
        if opcode < 8:  # a control frame mends no compressor
            self._compressing = False
        return ticket

    def _put_if_open(self, opcode: int, payload: bytes | list[bytes]) -> int:
        if not self._open:
            return REFUSED
        ticket = self._put(opcode, payload)
        self.messages_sent += opcode < 8
        if self._log is not None:
            self._log.sent(opcode, payload if isinstance(payload, bytes) else b"".join(payload))
        return ticket

    def _put_all(self, items: list[tuple[int, bytes]], ends: list[int]) -> int:
        """``ends``: gets what ``bytes_sent`` will be when each of them is in the kernel."""
        if not self._open:
            return REFUSED
        frames = []
        for opcode, payload in items:
            frames.append(self._encode(opcode, payload))
            self._compressing = False
        self._compressing = self._deflate is not None
        begin = self._queue.bytes_sent + self._queue.waiting
        ends += accumulate(map(len, frames[1:]), initial=begin + len(frames[0]))
        ticket = self._queue.put(b"".join(frames))
        self._compressing = False
        self.messages_sent += len(items)
        if self._log is not None:
            for opcode, payload in items:
                self._log.sent(opcode, payload)
        return ticket

    def _post(self, opcode: int, payload: bytes, frame: bytes | None) -> int:
        if not self._open:
            return REFUSED
        if len(self._queue) >= self._max_queued or self._queue.waiting >= self._max_queued_bytes:
            self._over_since = self._over_since or time.monotonic()
            return REFUSED
        if frame is None or self._deflate is not None or len(payload) >= self._short or self._log is not None:
            return self._put_if_open(opcode, payload)
        self.messages_sent += opcode < 8
        return self._queue.put(frame)

    def _finish(self, payload: bytes) -> int:
        if not self._open:
            return REFUSED
        queue = self._queue
        self._open, before = False, queue.bytes_sent + queue.waiting
        try:
            if self._log is not None:
                self._log.sent(Opcode.CLOSE, payload)
            return queue.put(encode_frame(Opcode.CLOSE, payload, self._masked))
        finally:
            if queue.bytes_sent + queue.waiting == before:  # an interrupt: it is still owed
                self._open = True

    def _flush(self) -> int:
        left = not self._queue.flush()
        if len(self._queue) < self._max_queued and self._queue.waiting < self._max_queued_bytes:
            self._over_since = None
        return int(left)

    def _fail(self, error: OSError) -> None:
        """A write failed: a part of the frame may be on the wire, so nothing may follow it, not even in the moment
        before this is told to the owner."""
        self._failure = error
        self._forget_queue()

    def _forget_queue(self) -> int:
        self._open = False
        self._queue.forget()
        return 0

    def _close_transport(self) -> int:
        self._open = False
        self._transport.close()
        return 0

    # -- waiting, without the lock ------------------------------------------------------------------------------

    def _wait_for(self, ticket: int) -> None:
        """Until all bytes up to ``ticket`` are in the kernel; the deadline counts from the last progress."""
        if ticket == REFUSED:
            raise self._error()
        try:
            self._wait_patiently(ticket)
        except BaseException:
            if self.on_queued:  # what is queued is to go out all the same
                self.on_queued()
            raise

    def _wait_patiently(self, ticket: int) -> None:
        queue = self._queue
        seen = queue.bytes_sent
        deadline = Deadline(self._send_timeout)
        text = f"the peer did not read for {self._send_timeout:g} s"
        while queue.bytes_sent < ticket:
            self._transport.wait_writable(deadline.remaining())
            self.flush()
            empty = not len(queue)  # looked at first: who writes counts before he takes a frame off the queue
            if queue.bytes_sent >= ticket:
                return
            if empty:  # fail() emptied it; if for want of time, then the housekeeper was a moment faster than we
                if deadline.passed:
                    raise SendTimeout(text)
                raise self._error()
            if queue.bytes_sent != seen:
                seen, deadline = queue.bytes_sent, Deadline(self._send_timeout)
            elif deadline.passed and self._exclusively(partial(self._give_up_at, seen)) == REFUSED:
                self._on_broken(text, None)
                raise SendTimeout(text)

    def _give_up_at(self, seen: int) -> int:
        """Forget the queue, unless it has moved: what raises must not be delivered after all."""
        if self._queue.bytes_sent != seen:
            return 0
        self._forget_queue()
        return REFUSED

    def _tell(self) -> None:
        failure = self._failure
        if failure is not None:
            self._on_broken("writing failed", failure)
            self._failure = None

    def _error(self) -> ConnectionClosed:
        """What to raise to a sender, who may be faster than the one whose write failed: then it is he who tells."""
        self._tell()
        return self._closed_error()
