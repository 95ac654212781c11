"""One open WebSocket over one socket: inline reading, locked writing, the closing handshake; for both sides.

Why so: the thread that wants a message blocks in ``recv`` itself, parses what arrived there and takes its message in
place.  Handing messages between threads is what makes other threaded implementations slow.  While nobody is reading
(a handler is at work), ``tend`` lets another thread borrow the reading side for a moment: it answers pings and
heartbeats and queues a bounded number of messages, so a busy peer does not look like a dead one.

The life of a channel: open -> closing (a Close frame was sent) -> ended (a Close frame came, the stream ended, or it
was given up).  ``ended`` is final; ``release`` then gives the descriptor back.

Threading: ``read`` by one thread at a time (its owner sees to it); everything else by any thread.  ``_read_lock`` is
held by whoever reads, also while blocked in the socket; ``shutdown`` of the socket is what frees it.  No function of
the application is called from here: the owner's hooks only take notes.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from .deflate import Deflate
from .errors import Close, CloseCode, ConnectionClosed, Reason
from .frame_reader import FrameReader
from .frames import Control, Message, Opcode, close_payload
from .messages import HEART_BEAT_MARK, is_heart_beat
from .timing import Deadline
from .transport import Transport
from .writer import Writer

__all__ = ["Channel", "ChannelOwner", "Limits", "Message"]

SMALL_READ = 16 * 1024  # bytes asked for while little comes: what an idle connection may hold on to
LARGE_READ = 128 * 1024  # bytes asked for while much comes
DIRECT_READ = 16 * 1024  # bytes missing to a frame: from here on they are read to where they belong
PARSE_AHEAD = 256  # messages parsed at once from what was received
FLOOD = 0.1  # seconds after a timeout in which a peer's unbroken stream of control frames may still hold a read up
HOLD = 0.25  # seconds that the peer's last word is held back for messages that came before it to be answered
TEND = 0.02  # seconds that tend() takes at most, whatever the peer sends
LINGER = 1.0  # seconds given to a peer to read our Close frame and end the stream


@dataclass(frozen=True)
class Limits:
    """The bounds of one connection; sizes in bytes, times in seconds."""

    max_message: int = 1 << 20  # of a whole message, after inflation
    max_fragments: int = 1024  # of one message
    max_waiting: int = 16  # messages received and not taken, while nobody reads
    max_waiting_bytes: int = 4 << 20
    max_queued: int = 64  # messages to send that the kernel has not taken
    max_queued_bytes: int = 1 << 20
    send_timeout: float = 10.0
    close_timeout: float = 5.0


class ChannelOwner(Protocol):
    """What a channel reports.  Called under the read lock: note it and return."""

    def note_heart_beat(self, text: str, binary: bytes) -> None:
        """``binary``: the same as it came, if it came as a binary message; else empty."""

    def note_pong(self, payload: bytes) -> None:
        """A Pong, asked for or not."""

    def note_end(self, reason: Reason) -> None:
        """Once, from whichever thread found out; perhaps under the read lock."""


class Channel:
    """See the module.  ``inbox``: where messages wait to be taken; it belongs to the owner and outlives the channel.
    ``early``: bytes that arrived behind the opening handshake."""

    def __init__(
        self,
        transport: Transport,
        owner: ChannelOwner,
        inbox: deque[Message],
        *,
        client: bool,
        limits: Limits,
        deflate: Deflate | None = None,
        early: bytes = b"",
    ) -> None:
        self._transport = transport
        self._owner = owner
        self._inbox = inbox
        self._client = client
        self._limits = limits
        self._reader = FrameReader(
            expect_masked=not client,
            max_message=limits.max_message,
            max_fragments=limits.max_fragments,
            is_heart_beat=is_heart_beat,
            heart_beat_mark=HEART_BEAT_MARK,
            deflate=deflate,
        )
        if early:
            self._reader.feed(early)
        self.writer = Writer(
            transport,
            masked=client,
            deflate=deflate,
            send_timeout=limits.send_timeout,
            max_queued=limits.max_queued,
            max_queued_bytes=limits.max_queued_bytes,
            closed_error=self.closed_error,
            on_broken=self._writing_failed,
        )
        self.send = self.writer.send
        # guards _reader, the inbox's filling and the transport's reading; held while blocked in recv
        self._read_lock = threading.Lock()
        self._read_size = SMALL_READ
        self._held: Control | None = None  # the peer's last word, while messages before it have not been taken
        self._held_since = 0.0
        # guards the four below; held for assignments only
        self._state_lock = threading.Lock()
        self._sent: Close | None = None
        self._received: Close | None = None
        self._reason: Reason | None = None  # set when the channel has ended
        self._released = False
        self.notices = False  # the owner took notes during a read and wants it to return for them
        self.bytes_received = len(early)
        self.messages_received = 0
        self.opened_at = time.monotonic()
        self.closing_since: float | None = None  # when our Close frame went out, monotonic
        _channels.add(self)

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        return self._reason is not None

    @property
    def open(self) -> bool:
        """Whether messages may still be sent."""
        return self._reason is None and self.writer.open

    @property
    def reason(self) -> Reason | None:
        """Why it ended, None while it has not."""
        return self._reason

    def closed_error(self) -> ConnectionClosed:
        """What to raise to somebody who wants to use a channel that is not open."""
        reason = self._reason
        if reason is None and self._sent is not None:
            reason = Reason(f"closing: we sent {self._sent}", by_us=True)
        elif reason is None:
            reason = Reason("the connection broke while writing", CloseCode.ABNORMAL)
        return ConnectionClosed(reason, self._sent, self._received)

    # -- reading --------------------------------------------------------------------------------------------------

    def read(self, timeout: float | None = None) -> Message | None:
        """The next message; None when ``notices`` was set.

        TimeoutError after ``timeout`` seconds (0: only what is there now), ConnectionClosed once everything
        received has been taken and the channel has ended.
        """
        inbox = self._inbox
        deadline = None if timeout is None else Deadline(timeout)
        patience = None if timeout is None else Deadline(timeout + FLOOD)
        with self._read_lock:
            while not inbox:
                if self._reader.buffered and self._parse_waiting():
                    continue
                if self.notices:
                    return None
                if self._held is not None:
                    self._last_word()
                if self._reason is not None:
                    raise self.closed_error()
                if patience is not None and patience.passed:
                    raise TimeoutError("no message within the timeout")
                self._receive(deadline)
            self.messages_received += 1
            return inbox.popleft()

    def _receive(self, deadline: Deadline | None) -> None:
        """Read once, waiting for something to read, and parse it."""
        try:
            if deadline is not None:
                while not self._receive_now():
                    self.writer.write_batch()
                    if not self._transport.wait_readable(deadline.remaining()):
                        raise TimeoutError("no message within the timeout")
                return
            if self.writer.batches:
                self.writer.write_batch()
            if self._reader.wanted < DIRECT_READ:
                size = self._read_size
                data = self._transport.recv(size)
                self._reader.feed(data)
                self._received_bytes(len(data), size)
            else:
                with self._reader.vacancy() as room:
                    size = self._transport.recv_into(room)
                self._reader.filled(size)
                self._received_bytes(size, 0)
        except OSError as exc:
            if isinstance(exc, TimeoutError) and exc.errno is None:
                raise  # the caller's timeout; ETIMEDOUT is the kernel giving the peer up
            self._lost(exc)

    def _receive_now(self, room_for: int = PARSE_AHEAD) -> bool:
        """Read once what is there; False when nothing is.  OSError when the connection broke."""
        if self._reader.wanted < DIRECT_READ:
            data = self._transport.recv_nowait(self._read_size)
            if data is None:
                return False
            self._reader.feed(data)
            self._received_bytes(len(data), self._read_size, room_for)
            return True
        with self._reader.vacancy() as room:
            size = self._transport.recv_into_nowait(room)
        if size is None:
            return False
        self._reader.filled(size)
        self._received_bytes(size, 0, room_for)
        return True

    def _received_bytes(self, received: int, asked: int, room: int = PARSE_AHEAD) -> None:
        """Parse what one read brought; ``asked``: bytes it might have brought, 0 to leave the next one's size alone."""
        if not received:
            self._lost(None)
            return
        self.bytes_received += received
        if received == asked:
            self._read_size = LARGE_READ
        elif asked and received < SMALL_READ:
            self._read_size = SMALL_READ
        for control in self._reader.parse(self._inbox, room):
            self._control(control)

    def _parse_waiting(self, room: int = PARSE_AHEAD) -> bool:
        """Parse what an earlier read left; whether that brought messages or controls."""
        before = len(self._inbox)
        controls = self._reader.parse(self._inbox, room)
        for control in controls:
            self._control(control)
        return bool(controls) or len(self._inbox) > before

    def tend(self) -> bool:
        """Borrow the reading side if nobody is using it: take what is there, answer what the library answers.

        Never waits.  At most ``max_waiting`` messages are left waiting; then reading pauses, and with it the peer.
        False when somebody else is reading.
        """
        if not self._read_lock.acquire(blocking=False):
            return False
        try:
            deadline = Deadline(TEND)
            if self._held is not None:
                if time.monotonic() - self._held_since >= HOLD:
                    self._last_word()
                return True
            while self._reason is None and (space := self._space()) and not deadline.passed:
                if self._reader.buffered and self._parse_waiting(space):
                    continue
                if not self._receive_now(space):
                    break
        except OSError as exc:
            self._lost(exc)
        finally:
            self._read_lock.release()
        return True

    def _space(self) -> int:
        """How many more messages may wait."""
        space = self._limits.max_waiting - len(self._inbox)
        if space <= 0 or sum(map(len, self._inbox)) >= self._limits.max_waiting_bytes:
            return 0
        return space

    def unread(self) -> bool:
        """Whether bytes of the peer wait in the socket: proof that it lives, though nobody has read them."""
        return self._transport.wait_readable(0)

    def wait_readable(self, timeout: float) -> bool:
        return self._transport.wait_readable(timeout)

    def fileno(self) -> int:
        return self._transport.fileno()

    # -- control frames: with _read_lock held ---------------------------------------------------------------------

    def _control(self, control: Control) -> None:
        opcode = control.opcode
        if opcode == Opcode.HEART_BEAT:
            self._owner.note_heart_beat(control.text, control.payload)
        elif opcode == Opcode.PING:
            self.writer.post(Opcode.PONG, control.payload)
        elif opcode == Opcode.PONG:
            self._owner.note_pong(control.payload)
        else:  # nothing is parsed after it
            self._held, self._held_since = control, time.monotonic()
            if not self._inbox:
                self._last_word()

    def _last_word(self) -> None:
        """The peer's Close frame or failure, once what it sent before has been taken.

        Else an application that is about to answer a message could or could not, depending on how the stream was cut
        into segments.
        """
        control, self._held = self._held, None
        assert control is not None
        if control.opcode == Opcode.CLOSE:
            self._close_received(control.close)
        else:
            assert control.close is not None
            self._fail(control.close)

    def _close_received(self, close: Close | None) -> None:
        """The peer's Close frame: answer it with its own code, unless ours went first (RFC 6455 section 5.5.1)."""
        received = close or Close(CloseCode.NO_STATUS)
        with self._state_lock:
            self._received = received
            ours = self._sent
            self._sent = ours or close or Close(CloseCode.NO_STATUS)
        if ours is None:
            self.writer.finish(close_payload(close))
            reason = Reason(f"closed by the peer: {received}", code=received.code)
        else:
            reason = Reason(f"closed by us: {ours}", code=received.code, by_us=True)
        self._end(reason)
        if not self._client and not self.writer.queued[0]:
            self._transport.shutdown(socket.SHUT_WR)  # the server ends the TCP stream, RFC 6455 section 7.1.1

    def _fail(self, close: Close) -> None:
        """The peer broke the protocol: tell it why and end (RFC 6455 section 7.1.7)."""
        with self._state_lock:
            self._sent = self._sent or close
        self.writer.finish(close_payload(close))
        if not self.writer.queued[0]:
            self._transport.shutdown(socket.SHUT_WR)
        self._end(Reason(f"the peer broke the protocol: {close}", code=close.code, by_us=True))

    def _lost(self, error: OSError | None) -> None:
        """The stream ended without a Close frame."""
        what = "the connection was lost without a Close frame"
        with self._state_lock:
            ours = self._sent
        if ours is not None:
            self._end(Reason(f"closed by us: {ours}; {what}", CloseCode.ABNORMAL, by_us=True, error=error))
        else:
            detail = f": {error.strerror or error}" if error else ""
            self._end(Reason(what + detail, CloseCode.ABNORMAL, error=error))
        self._transport.shutdown()

    def _end(self, reason: Reason) -> None:
        with self._state_lock:
            if self._reason is not None:
                return
            self._reason = reason
        self._owner.note_end(reason)

    # -- closing --------------------------------------------------------------------------------------------------

    def start_close(self, code: int, reason: str) -> bool:
        """Send a Close frame and return at once; False if the channel was closing or ended already.

        ValueError for a code that must not be sent or a reason of more than 123 bytes.
        """
        if not CloseCode.may_be_sent(code):
            raise ValueError(f"a close code is 1000-1014 as registered, or 3000-4999, not {code!r}")
        if len(reason.encode()) > 123:
            raise ValueError("the reason of a Close frame has at most 123 bytes of UTF-8")
        close = Close(code, reason)
        with self._state_lock:
            if self._reason is not None or self._sent is not None:
                return False
            self._sent = close
        self.closing_since = time.monotonic()
        try:
            self.writer.write_batch(wait=False)  # a peer that does not read must not hold up close()
        finally:
            self.writer.finish(close_payload(close))
        return True

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float | None = None) -> None:
        """The closing handshake (RFC 6455 section 7): back when it is done, or given up after ``timeout`` seconds.

        Idempotent.  Messages that arrive after our Close frame are discarded, unless a thread in ``read`` takes them.
        """
        deadline = Deadline(self._limits.close_timeout if timeout is None else timeout)
        self.start_close(code, reason)
        while not self.ended and not deadline.passed:
            # a thread in read() holds the lock until the peer's Close frame arrives: wait for it, then look again
            if self._read_lock.acquire(timeout=deadline.remaining() or 0.001):
                try:
                    self._read_until_close(deadline)
                finally:
                    self._read_lock.release()
        if not self.ended:
            self.abort(Reason("no Close frame in answer to ours in time", CloseCode.ABNORMAL, by_us=True))
        elif self._client and self._received and not self._released:
            self._wait_for_end_of_stream(Deadline(min(LINGER, deadline.remaining() or 0.0)))

    def _read_until_close(self, deadline: Deadline) -> None:
        """With _read_lock held: read and discard messages until the channel has ended."""
        while self._reason is None and not deadline.passed:
            before = len(self._inbox)
            if self._held is not None:
                self._last_word()
            elif not (self._reader.buffered and self._parse_waiting()):
                self.writer.flush()
                try:
                    self._receive(Deadline(min(0.1, deadline.remaining() or 0.0)))
                except TimeoutError:
                    continue
            while len(self._inbox) > before:
                self._inbox.pop()

    def _wait_for_end_of_stream(self, deadline: Deadline) -> None:
        """Until the peer ends the stream too: bytes left unread would make our close() a reset."""
        if not self._read_lock.acquire(timeout=deadline.remaining() or 0.001):
            return
        try:
            while not deadline.passed and self._transport.wait_readable(deadline.remaining()):
                if self._transport.recv_nowait(SMALL_READ) == b"":
                    return
        except OSError:
            return  # reset: it has ended
        finally:
            self._read_lock.release()

    def abort(self, reason: Reason) -> None:
        """Give the connection up at once, without a closing handshake; wakes every thread blocked in it."""
        self._end(reason)
        self.writer.fail()
        self._transport.shutdown()

    def _writing_failed(self, text: str, error: BaseException | None) -> None:
        if error is None:  # the write deadline
            self.abort(Reason(text, CloseCode.TRY_AGAIN_LATER, by_us=True))
            return
        # Not an end yet: what the peer sent before it went, a Close frame above all, may still be read.
        self._transport.shutdown(socket.SHUT_WR)
        if not self.unread():
            self.abort(Reason(f"{text}: {error}", CloseCode.ABNORMAL, error=error))

    def release(self) -> None:
        """Give the descriptor back; by the owner, once the channel has ended.  Idempotent."""
        with self._state_lock:
            if self._released:
                return
            self._released = True
        assert self._reason is not None
        deadline = Deadline(LINGER)
        while not self.writer.flush() and not deadline.passed:  # our Close frame may wait behind messages
            self._transport.wait_writable(deadline.remaining())
        if self._sent is not None and self._received is None:  # we failed it: let the peer read why
            self._transport.shutdown(socket.SHUT_WR)
            self._wait_for_end_of_stream(deadline)
        self._transport.shutdown()
        with self._read_lock:
            self.writer.close_transport()

    def _forget_in_child(self) -> None:
        """After fork: this process has no part in the connection; close the copy of the descriptor, say nothing."""
        self._read_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._reason = self._reason or Reason("the connection belongs to the parent process", CloseCode.ABNORMAL)
        self.writer.forget_in_child()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for channel in list(_channels):
        channel._forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
