"""One open WebSocket over one socket, for both sides: its state and closing handshake, over a receiver and a writer.

The life of a channel: open -> closing (a Close frame was sent) -> ended (a Close frame came, the stream ended, or it
was given up).  ``ended`` is final; ``release`` then gives the descriptor back.

Why so: reading and writing share nothing but the socket, so each side has its own module and its own lock, and what
belongs to both, the state and the two Close frames, is here.

Threading: ``read`` by one thread at a time (its owner sees to it); everything else by any thread.  No function of the
application is called from here: the owner's hooks only take notes.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from typing import Protocol

from ..endings import Close, CloseCode, Reason
from ..envelope import HEART_BEAT_MARK, is_heart_beat
from ..errors import ConnectionClosed
from ..forking import ToldOfForks
from ..messages import Message, Opcode
from ..net.transport import Transport
from ..protocol.deflate import Deflate
from ..protocol.frame_reader import FrameReader
from ..protocol.frames import Control, close_payload
from ..timing import Deadline
from .limits import Limits
from .receiver import Receiver
from .writer import Writer

__all__ = ["Channel", "ChannelOwner"]

LINGER = 1.0  # seconds given to a peer to read our Close frame and end the stream


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
        self._client = client
        self._limits = limits
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
        self.receiver = Receiver(
            transport,
            FrameReader(
                expect_masked=not client,
                max_message=limits.max_message,
                max_fragments=limits.max_fragments,
                is_heart_beat=is_heart_beat,
                heart_beat_mark=HEART_BEAT_MARK,
                deflate=deflate,
            ),
            self.writer,
            inbox,
            early=early,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_waiting_bytes,
            on_control=self._control,
            on_lost=self._lost,
            closed_error=self.closed_error,
        )
        # the two sides' own: a call less for every message
        self.send = self.writer.send
        self.read = self.receiver.read
        self.tend = self.receiver.tend
        # guards the four below; held for assignments only
        self._state_lock = threading.Lock()
        self._sent: Close | None = None
        self._received: Close | None = None
        self._reason: Reason | None = None  # set when the channel has ended
        self._released = False
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

    # -- what others ask ------------------------------------------------------------------------------------------

    @property
    def bytes_received(self) -> int:
        """Bytes of the peer so far; that it changes is a sign of life."""
        return self.receiver.bytes_received

    @property
    def messages_received(self) -> int:
        """Messages taken so far."""
        return self.receiver.messages_received

    def unread(self) -> bool:
        """Whether bytes of the peer wait in the socket: proof that it lives, though nobody has read them."""
        return self._transport.wait_readable(0)

    def wait_readable(self, timeout: float) -> bool:
        return self._transport.wait_readable(timeout)

    def fileno(self) -> int:
        return self._transport.fileno()

    # -- control frames: with the receiver's lock held --------------------------------------------------------------

    def _control(self, control: Control) -> None:
        opcode = control.opcode
        if opcode == Opcode.HEART_BEAT:
            self._owner.note_heart_beat(control.text, control.payload)
        elif opcode == Opcode.PING:
            self.writer.post(Opcode.PONG, control.payload)
        elif opcode == Opcode.PONG:
            self._owner.note_pong(control.payload)
        elif opcode == Opcode.CLOSE:
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
        self.receiver.ended = True
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
            if self.receiver.lock.acquire(timeout=deadline.remaining() or 0.001):
                try:
                    self.receiver.discard_until_end(deadline)
                finally:
                    self.receiver.lock.release()
        if not self.ended:
            self.abort(Reason("no Close frame in answer to ours in time", CloseCode.ABNORMAL, by_us=True))
        elif self._client and self._received and not self._released:
            self.receiver.wait_for_end_of_stream(Deadline(min(LINGER, deadline.remaining() or 0.0)))

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
            self.receiver.wait_for_end_of_stream(deadline)
        self._transport.shutdown()
        with self.receiver.lock:
            self.writer.close_transport()

    def _forget_in_child(self) -> None:
        """After fork: this process has no part in the connection; close the copy of the descriptor, say nothing."""
        self.receiver.lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._reason = self._reason or Reason("the connection belongs to the parent process", CloseCode.ABNORMAL)
        self.receiver.ended = True
        self.writer.forget_in_child()


_channels: ToldOfForks[Channel] = ToldOfForks()
