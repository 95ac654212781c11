"""One open WebSocket over one socket, for both sides: its state and closing handshake, over a receiver and a writer.

Its life is ``protocol.closing``'s table: open, closing (a Close frame was sent), ended (a Close frame came, the stream
ended, or it was given up), released (the descriptor was given back).

Why so: reading and writing share nothing but the socket, so each side has its own module and its own lock, and what
belongs to both, the state and the two Close frames, is here.

Threading: ``read`` by one thread at a time (its owner sees to it); everything else by any thread.  No function of the
application is called from here: what the owner is told, it only takes note of.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from ..endings import Close, CloseCode, Reason, without_tracebacks
from ..errors import ConcurrentReceive, ConnectionClosed, QueueFull
from ..forking import ToldOfForks
from ..interrupts import Flag, owned
from ..messages import Message, Opcode
from ..net.heap import give_back
from ..net.transport import Transport
from ..protocol.closing import Action, Actions, Closing, Happening, Phase, check_close
from ..protocol.deflate import Deflate
from ..protocol.frame_reader import FrameReader
from ..protocol.frames import LARGE_BLOCK, Control, close_payload
from ..protocol.intercepts import Intercept
from ..timing import Deadline
from ..weak import Weakly
from .batch import Batches
from .frame_log import FrameLog
from .inbox import Inbox, Note
from .limits import Limits
from .receiver import Receiver
from .writer import Writer

__all__ = ["Channel", "Intercepts"]

_client_log, _server_log = logging.getLogger("sync_ws.client"), logging.getLogger("sync_ws.server")
PING_STEP = 0.05  # seconds between two looks for a Pong that another thread may read
_ping_numbers = itertools.count(1)
LINGER = 1.0  # seconds given to a peer to read our Close frame and end the stream
Intercepts = Mapping[Intercept, Callable[["Channel", Control], Note | None]]


class _Ping:
    """One that the application waits for."""

    __slots__ = ("answered", "answered_at", "sent_at")

    def __init__(self) -> None:
        self.answered = Flag()
        self.sent_at = self.answered_at = time.monotonic()


class Channel:
    """One open WebSocket.

    ``inbox``: where messages and notes wait to be taken; it belongs to the owner and outlives the channel.
    ``intercepts``: the messages that are not the application's, and what is done with each kind: under the read lock,
    so ``post``, note, and return; what it returns waits in the inbox in the message's place.  ``on_pong``: told each
    Pong's payload, likewise.  ``on_end``: told once why it ended, from whichever thread found out, perhaps under the
    read lock.  ``early``: bytes that arrived behind the opening handshake.  ``batches``: the owner's,
    if they outlive the channel.
    """

    def __init__(
        self,
        transport: Transport,
        inbox: Inbox,
        *,
        client: bool,
        limits: Limits,
        on_end: Callable[[Reason], object],
        on_pong: Callable[[bytes], Note | None] | None = None,
        intercepts: Intercepts | None = None,
        deflate: Deflate | None = None,
        early: bytes = b"",
        batches: Batches | None = None,
    ) -> None:
        self._transport = transport
        self._inbox = inbox
        self._client = client
        self._limits = limits
        self._compressed = deflate is not None
        self._on_end = on_end
        self._on_pong = on_pong
        self._intercepts = intercepts or {}
        # guards _closing; any thread, for taking a step of the table only
        self._state_lock = threading.RLock()
        self._pings: dict[bytes, _Ping] = {}  # by payload; each entry is its own thread's
        self._closing = Closing()
        self.closing_since: float | None = None  # when our Close frame went out, monotonic
        closed_error = partial(_closed_error, self._closing)
        frame_log = FrameLog.wanted(_client_log if client else _server_log, transport.fileno())
        self.writer = Writer(
            transport,
            masked=client,
            deflate=deflate,
            send_timeout=limits.send_timeout,
            max_queued=limits.max_queued,
            max_queued_bytes=limits.max_queued_bytes,
            max_frame=limits.max_frame,
            log=frame_log,
            batches=batches,
            closed_error=closed_error,
            on_broken=Weakly(self._writing_failed),
        )
        self.receiver = Receiver(
            transport,
            FrameReader(
                expect_masked=not client,
                max_message=limits.max_message,
                max_fragments=limits.max_fragments,
                intercepts=tuple(self._intercepts),
                deflate=deflate,
                on_frame=frame_log.received if frame_log is not None else None,
            ),
            self.writer,
            inbox,
            early=early,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_waiting_bytes,
            on_control=Weakly(self._control),
            on_lost=Weakly(self._lost),
            closing=self._closing,
            closed_error=closed_error,
        )
        # the two sides' own: a call less for every message
        self.send = self.writer.send
        self.read_kept = self.receiver.read
        self.tend = self.receiver.tend
        _channels.add(self)

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether nothing comes or goes any more; for good."""
        return self._closing.reason is not None

    @property
    def open(self) -> bool:
        """Whether messages may still be sent."""
        return self._closing.phase is Phase.OPEN and self.writer.open

    @property
    def reason(self) -> Reason | None:
        """Why it ended, None while it has not."""
        return self._closing.reason

    @property
    def close_frames(self) -> tuple[Close | None, Close | None]:
        """Ours and the peer's, each None while there is none."""
        return self._closing.sent, self._closing.received

    def closed_error(self) -> ConnectionClosed:
        """What to raise to somebody who wants to use a channel that is not open."""
        return _closed_error(self._closing)

    def read(self, timeout: float | None = None) -> Message | Note:
        """``Receiver.read``, where no signal's handler runs in the caller's thread: nothing is kept for another."""
        item = self.read_kept(timeout)
        self._inbox.kept = None
        return item

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
        """Whether bytes of the peer, or its end, wait in the socket."""
        return self._transport.wait_readable(0)

    def unread_bytes(self) -> int:
        """How many bytes of the peer wait in the socket: that there are more is a sign of life, as if they were read.

        Over TLS they are counted as they came, so reading some may change the sum of both, too.
        """
        return self._transport.unread()

    def crowded(self) -> bool:
        """Whether so many wait there that more may have no room."""
        return self._transport.crowded()

    def wait_readable(self, timeout: float) -> bool:
        return self._transport.wait_readable(timeout)

    def ping(self, timeout: float) -> float:
        """The round-trip time of a Ping (RFC 6455 section 5.5.2), in seconds.

        TimeoutError when no Pong comes within ``timeout`` seconds, ConnectionClosed when the connection is not open or
        ends meanwhile, QueueFull when the Ping cannot be queued, ConcurrentReceive in a signal's handler that
        interrupted a read of its own thread.
        """
        if self.receiver.interrupted:
            raise ConcurrentReceive("this thread was interrupted while it was receiving; nobody would read the Pong")
        deadline, payload, ping = Deadline(timeout), b"ping %d" % next(_ping_numbers), _Ping()
        self._pings[payload] = ping
        try:
            if not self.writer.post(Opcode.PING, payload):
                raise QueueFull("more waits to be sent than may be queued") if self.open else self.closed_error()
            while not ping.answered.is_set():
                if self.ended:
                    raise self.closed_error()
                if deadline.passed:
                    raise TimeoutError(f"no answer to a Ping within {timeout:g} s")
                before = self.bytes_received
                self.writer.flush()  # nobody else may be told that the kernel had no room for it
                readable = self.wait_readable(min(PING_STEP, deadline.remaining() or 0.0))
                self.tend()  # if nobody else is reading
                if readable and self.bytes_received == before:  # somebody is, or the inbox is full
                    ping.answered.wait(min(PING_STEP, deadline.remaining() or 0.0))
            return ping.answered_at - ping.sent_at
        finally:
            del self._pings[payload]

    def fileno(self) -> int:
        return self._transport.fileno()

    # -- what comes that is no message: with the receiver's lock held ------------------------------------------------

    def _control(self, control: Control) -> Note | None:
        if control.intercept is not None:
            return self._intercepts[control.intercept](self, control)
        if control.opcode == Opcode.PING:
            self.writer.post(Opcode.PONG, control.payload)
        elif control.opcode == Opcode.PONG:
            return self._pong(control.payload)
        elif control.opcode == Opcode.CLOSE:
            self._happens(Happening.CLOSE_FRAME, control.close)
        else:
            self._happens(Happening.FAILURE, control.close, about=control.text)
        return None

    def _pong(self, payload: bytes) -> Note | None:
        ping = self._pings.get(payload)
        if ping is not None:
            ping.answered_at = time.monotonic()
            ping.answered.set()
        return self._on_pong(payload) if self._on_pong is not None else None

    def _lost(self, error: OSError | None) -> None:
        self._happens(Happening.END_OF_STREAM, error=error or self._closing.broken)

    # -- the closing handshake, by the table --------------------------------------------------------------------------

    def _happens(
        self,
        what: Happening,
        close: Close | None = None,
        *,
        about: str = "",
        reason: Reason | None = None,
        error: OSError | None = None,
    ) -> Actions:
        """Take the table's step and do what it says; nothing of that under the state lock."""
        with self._state_lock:
            step = self._closing.happens(what, close, about=about, reason=reason, error=error)
        actions = step.actions
        if Action.SEND_CLOSE in actions:
            if what is Happening.CLOSE:
                self.closing_since = time.monotonic()
            self.writer.finish(close_payload(step.close))
        if step.reason is not None:
            with self._state_lock:
                first = self._closing.end(step.reason)
            if first:
                self._on_end(step.reason)
        ends = Action.END_WRITING in actions or (Action.SERVER_ENDS_WRITING in actions and not self._client)
        if ends and not self.writer.queued[0]:  # else the Close frame waits there; release() ends the stream behind it
            self._transport.shutdown(socket.SHUT_WR)
        if Action.DROP in actions:
            self.writer.fail()
        if Action.CUT in actions:
            self._transport.shutdown()
        return actions

    def start_close(self, code: int, reason: str) -> bool:
        """Send a Close frame and return at once; False if the channel was closing or ended already.

        ValueError for a code that must not be sent or a reason of more than 123 bytes.
        """
        close = check_close(code, reason)
        if self._closing.phase is Phase.OPEN:
            with contextlib.suppress(ConnectionClosed):  # broken, or another thread was faster
                self.writer.write_batch(wait=False)  # a peer that does not read must not hold up close()
        if self._happens(Happening.CLOSE, close):
            return True
        self.send_owed()
        return False

    def send_owed(self) -> None:
        """Send our Close frame if it is due and was not sent: who took that step was interrupted behind it, by the
        caller or by a handler that raised.  The writer takes no second one."""
        if self._closing.phase is Phase.CLOSING:
            if self.closing_since is None:
                self.closing_since = time.monotonic()
            self.writer.finish(close_payload(self._closing.sent))

    @property
    def interrupted(self) -> bool:
        """Whether the caller interrupted, in its own thread, what others wait for here: to wait for them is in vain."""
        return self.receiver.interrupted or self.writer.interrupted or owned(self._state_lock)

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float | None = None) -> None:
        """The closing handshake (RFC 6455 section 7): back when it is done, or given up after ``timeout`` seconds.

        Idempotent.  Messages that arrive after our Close frame are discarded, unless a thread in ``read`` takes them.
        """
        deadline = Deadline(self._limits.close_timeout if timeout is None else timeout)
        self.start_close(code, reason)
        if self.interrupted:
            return  # a signal's handler: it is the interrupted frame that has to send the frame, or to read the answer
        self.receiver.discard_until_end(deadline)
        if not self.ended:
            self.abort()
        elif self._client and self._closing.received and self._closing.phase is not Phase.RELEASED:
            self.receiver.wait_for_end_of_stream(Deadline(min(LINGER, deadline.remaining() or 0.0)))

    def excuse(self, now: float, lost: float) -> None:
        """Do not count ``lost`` seconds, in which the process was stopped; by who looks after it.  ``now``: monotonic
        seconds."""
        if self.closing_since is not None:
            self.closing_since = min(now, self.closing_since + lost)
        self.writer.excuse(now, lost)

    def end_overdue(self) -> None:
        """Give it up if our Close frame has not been answered in time; for whoever looks after it."""
        self.send_owed()
        since = self.closing_since
        if since is not None and not self.ended and time.monotonic() - since > self._limits.close_timeout:
            self.abort()

    def abort(self, reason: Reason | None = None) -> None:
        """Give the connection up at once, without a closing handshake; wakes every thread blocked in it.

        ``reason``: by default, that no Close frame came in answer to ours.
        """
        self._happens(Happening.GIVEN_UP, reason=reason)

    def _writing_failed(self, text: str, error: BaseException | None) -> None:
        if error is None:  # the write deadline
            self.abort(Reason(text, CloseCode.TRY_AGAIN_LATER, by_us=True))
            return
        without_tracebacks(error)
        if isinstance(error, OSError):
            self._closing.broken = error
        # Not an end yet: what the peer sent before it went, a Close frame above all, may still be read.
        self._transport.shutdown(socket.SHUT_WR)
        if not self.unread():
            self.abort(Reason(f"{text}: {error}", CloseCode.ABNORMAL, error=error))

    def release(self) -> None:
        """Give the descriptor back; by the owner, once the channel has ended.  Idempotent."""
        assert self.ended
        with self._state_lock:
            step = self._closing.happens(Happening.RELEASE)
        if not step.actions:
            return
        deadline = Deadline(LINGER)
        # our Close frame may wait behind messages
        while not self.writer.flush() and not deadline.passed:
            self._transport.wait_writable(deadline.remaining())
        if self._closing.sent is not None and self._closing.received is None:  # we failed it: let the peer read why
            self._transport.shutdown(socket.SHUT_WR)
            self.receiver.wait_for_end_of_stream(deadline)
        self._transport.shutdown()
        with self.receiver.lock:
            self.writer.close_transport()
        # what was compressed may have been large, however little of it was on the wire
        if self._compressed or self.bytes_received + self.writer.bytes_sent >= LARGE_BLOCK:
            give_back()

    def _forget_in_child(self) -> None:
        """After fork: this process has no part in the connection; close the copy of the descriptor, say nothing."""
        self.receiver.forget_in_child()
        self._state_lock = threading.RLock()
        self._closing.end(Reason("the connection belongs to the parent process", CloseCode.ABNORMAL))
        self.writer.forget_in_child()


def _closed_error(closing: Closing) -> ConnectionClosed:
    return ConnectionClosed(closing.present(), closing.sent, closing.received)


_channels: ToldOfForks[Channel] = ToldOfForks()
