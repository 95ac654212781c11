"""The line: all that a client's one thread and the application's threads share, and the one lock that guards it.

Why so: a client outlives its connections, so somebody has to know at every moment where it is in its life, which
connection there is to send over and to read from, what waits to be sent, and how it all ended.  Each change of these
is one small method here, decided under the lock; whatever takes time or talks to anybody (dialling, writing, timers,
the application's functions) is done by those who call, outside.

Threading: every method from any thread, unless it says that it is the client's thread's.  ``_lock`` is the innermost
of all locks: none is taken under it, and it is not waited for under a channel's either: a handler that interrupted its
owner may wait for the channel.  Under it there are assignments and queue operations: no wait, no I/O, no function of
the application.  The fields without an underscore may be read without it, each being one attribute; all are written
here and nowhere else.  Waiting is done outside, with ``_waiters``.

``close`` may come from a signal handler or a finalizer that interrupts any of these methods in the same thread: the
lock lets its owner in again, and every method is written to bear it.  A handler may also raise: then the lock is given
back, and what was about to be set is set or is not.  What ``close`` sets is never set back: the state is worked out
from ``_phase``, ``closing`` and ``_over``, so an interrupted method that goes on to set the phase undoes nothing.  And
what ``close`` has to find (a dial, a channel) is assigned before ``closing`` is looked at for the last time: either
``close`` found it, or the caller is told not to use it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from ..channel.batch import Batch, Batches
from ..channel.channel import Channel
from ..channel.inbox import MAX_NOTES, Inbox, Note
from ..channel.limits import Limits
from ..endings import Close, Reason
from ..errors import ConnectionClosed, NotConnected
from ..forking import ToldOfForks
from ..interrupts import Flag, Waiters, owned
from ..messages import Data, Message, Pieces
from ..timing import Deadline
from .dial import Dial
from .heartbeat import HeartbeatMonitor
from .outbox import Entry, Offline, Outbox, entry_from, entry_of
from .state import ClientState, check_transition

__all__ = ["CLOSED_BY_US", "Line", "OpenedBefore"]

log = logging.getLogger("sync_ws.client")
COUNTERS = ("opened", "attempts_failed", "messages_received", "messages_sent", "bytes_received", "bytes_sent")
CLOSED_BY_US = Reason("closed by us", by_us=True)
NOT_OPENED = "the client has not been opened; call open() or use it as a context manager"


class OpenedBefore(RuntimeError):
    """A client is opened once."""


class Line:
    """See the module.  ``offline``: what becomes of a message while nobody can send it; None: its sender is told."""

    def __init__(self, limits: Limits, offline: Offline | None = Offline()) -> None:
        self._offline = offline
        self._send_timeout = limits.send_timeout
        self._lock = threading.RLock()  # guards everything below; see the module
        self._waiters = Waiters()  # woken after every change that somebody may wait for
        self._phase = ClientState.IDLE  # how far the client's thread has come; never CLOSING or CLOSED
        self.closing = False  # close() was called
        self._over = False  # the client's thread has ended, or never will begin
        self.awaited = False  # somebody waits in open(), for as long as it takes
        self._final: Reason | None = None  # set when there will be no other connection; nothing is queued from then on
        self._dial: Dial | None = None  # the one under way
        self.url: str | None = None  # of the present attempt or connection, else of the last one
        self.reading_channel: Channel | None = None  # the connection, from its opening to its end
        self.sending_channel: Channel | None = None  # the same, once everything queued has gone out over it
        self.monitor: HeartbeatMonitor | None = None  # of that connection
        self.subprotocol: str | None = None  # of that connection
        self.inbox = Inbox()  # filled by the channels, under their lock, and outlives them
        self.aside: deque[Note] = deque(maxlen=MAX_NOTES)  # met by a thread in recv(), for the client's thread to tell
        self._outbox = Outbox(offline or Offline())
        self.batches = Batches()  # of the application's threads; each is its thread's
        self._dropped_before = 0  # of the messages that made room for others, those that have been told of
        self._asked = False  # reconnect() was called, and no attempt has begun since
        self._last_reason: Reason | None = None  # of the attempt or the connection that ended last
        self._close_frames: tuple[Close | None, Close | None] = (None, None)  # sent, received; of the last connection
        self._rtt: list[float] = []  # seconds, of the last answered heartbeat; set without the lock
        self._counters = dict.fromkeys(COUNTERS, 0)  # over the connections that have ended
        _lines.add(self)

    # -- a life ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> ClientState:
        """Where the client is in its life; see ``ClientState``."""
        if self._over:
            return ClientState.CLOSED
        return ClientState.CLOSING if self.closing else self._phase

    def _become(self, state: ClientState) -> None:
        """With _lock held."""
        check_transition(self._phase, state)
        if state is ClientState.CLOSED:
            self._over = True
        elif state is ClientState.CLOSING:
            self.closing = True
        else:
            self._phase = state
        self._waiters.wake()

    def begin(self, awaited: bool = False) -> None:
        """The client is opened, and its thread about to start; OpenedBefore when that was done before."""
        with self._lock:
            state = self.state
            if state is not ClientState.IDLE:
                raise OpenedBefore(f"a client is opened once; this one is {state.value}")
            self.awaited = awaited
            self._become(ClientState.CONNECTING)

    def close(self) -> tuple[Dial | None, Channel | None, HeartbeatMonitor | None]:
        """Our own end, in whatever state it is: what is under way, for the caller to end.  Idempotent."""
        with self._lock:
            if self._phase is ClientState.IDLE:  # there is no thread that would say so
                self._become(ClientState.CLOSED)
                self._final = CLOSED_BY_US
                self.closing = True
            else:
                self._become(ClientState.CLOSING)
            return self._dial, self.reading_channel, self.monitor

    def reconnect(self) -> tuple[Dial | None, Channel | None]:
        """Whatever connection there will be from now on is another: what is under way, for the caller to end.

        ConnectionClosed when there will be none, NotConnected when it has not begun.
        """
        with self._lock:
            self.check_going_on()
            self._asked = True
            self._waiters.wake()
            return self._dial, self.reading_channel

    @property
    def asked(self) -> bool:
        """Whether reconnect() was called, and no attempt has begun since."""
        return self._asked and not self.closing

    def finish(self, reason: Reason, unless_asked: bool = False) -> bool:
        """There will be no other connection: nothing is queued from now on.  False when reconnect() came first, if
        that matters: then there will be one.
        """
        with self._lock:
            if unless_asked and self.asked:
                return False
            self._final = reason
            self._waiters.wake()
            return True

    def over(self, reason: Reason) -> None:
        """The client's thread has ended, or could not be had."""
        with self._lock:
            self._final = reason
            self._dial = self.sending_channel = None
            self._become(ClientState.CLOSED)

    @property
    def held_here(self) -> bool:
        """Whether the caller interrupted one of these methods in its own thread: nobody else can until that goes on."""
        return owned(self._lock)

    # -- attempts and connections: by the client's thread ----------------------------------------------------------

    def attempt(self) -> bool:
        """An attempt to connect begins; False when close() came first."""
        with self._lock:
            if self.closing:
                return False
            self._asked = False
            if self._phase is not ClientState.CONNECTING:
                self._become(ClientState.CONNECTING)
            return not self.closing

    def dialling(self, dial: Dial) -> bool:
        """``dial`` is about to run, and close() or reconnect() cancels it; False when one of them came first."""
        with self._lock:
            self._dial, self.url = dial, dial.target.text
            return not (self.closing or self._asked)

    def dialled(self) -> None:
        """It has run."""
        with self._lock:
            self._dial = None

    def attempt_failed(self, reason: Reason) -> None:
        """The attempt led to no connection."""
        with self._lock:
            self._last_reason = reason
            self._counters["attempts_failed"] += 1

    def opened(self, channel: Channel, subprotocol: str | None, monitor: HeartbeatMonitor | None) -> bool:
        """It led to ``channel``, to be read from at once; False when close() or reconnect() came first: it is not to be
        used.
        """
        with self._lock:
            if self.closing or self._asked:
                return False
            self.reading_channel, self.subprotocol, self.monitor = channel, subprotocol, monitor
            self._counters["opened"] += 1
            self._become(ClientState.OPEN)
            return not self.closing

    @property
    def times_opened(self) -> int:
        """How many connections there have been, the present one included."""
        return self._counters["opened"]

    def next_queued(self, channel: Channel) -> Message | None:
        """What to send over ``channel`` before anything else; None when there is no more, and everybody may send."""
        with self._lock:
            first = self._outbox.take_first()
            if first is None:
                self.sending_channel = channel
                self._waiters.wake()
            return first

    def drop_first_queued(self) -> None:
        """What ``next_queued`` gave has been sent."""
        with self._lock:
            self._outbox.went()
            self._waiters.wake()  # there may be somebody who waits for room

    def ended(self, channel: Channel) -> None:
        """``channel`` has ended and nobody is to use it any more."""
        error = channel.closed_error()
        counted = _counted(channel)
        with self._lock:
            self.monitor = self.reading_channel = self.sending_channel = None
            self._last_reason = error.reason
            self._close_frames = error.sent, error.received
            self._outbox.stayed()
            _add(self._counters, counted)
            self._waiters.wake()

    def begin_waiting(self) -> bool:
        """The delay before the next attempt begins; False when close() came first."""
        with self._lock:
            if self.closing:
                return False
            self._become(ClientState.WAITING)
            return not self.closing

    def take_undelivered(self) -> tuple[Message, ...]:
        """What waits to be sent and never will be; it waits no more."""
        with self._lock:
            return self._outbox.take_all()

    def take_dropped(self) -> int:
        """How many messages made room for others since this was last asked."""
        with self._lock:
            dropped = self._outbox.dropped - self._dropped_before
            self._dropped_before = self._outbox.dropped
            return dropped

    def note_rtt(self, rtt: float) -> None:
        """A heartbeat was answered after ``rtt`` seconds.  From any thread, with a channel's lock held."""
        self._rtt[:] = [rtt]

    # -- talking --------------------------------------------------------------------------------------------------

    def put_offline(self, data: Data | Pieces, tried_channel: Channel | None, may_wait: bool = True) -> bool:
        """Queue a message, or raise; False when there is a new connection to try instead of ``tried_channel``.

        Waits for room only where the policy says so and it ``may_wait``.
        """
        return self._put_all((entry_of(data),), tried_channel, may_wait)

    def put_batch_offline(self, batch: Batch, tried_channel: Channel | None, may_wait: bool = True) -> bool:
        """The same for all that the calling thread has gathered: it is queued as a whole, or stays until it is tried
        with the new connection, or is given up as a whole and this raises.
        """
        items = batch.take()
        entries = tuple(entry_from(opcode, payload) for opcode, payload in items)
        if not self._put_all(entries, tried_channel, may_wait):
            batch.put_back(items)
            return False
        return True

    def _put_all(self, entries: tuple[Entry, ...], tried_channel: Channel | None, may_wait: bool) -> bool:
        size, count = sum(entry.size for entry in entries), len(entries)
        deadline: Deadline | None = None
        while True:
            with self._lock:
                if self._other_than(tried_channel):
                    return False
                self.check_going_on()
                if self._offline is None:
                    why = tried_channel.closed_error().reason if tried_channel is not None else None
                    raise NotConnected(f"not connected now: {why or self.last_trouble}")
                if not self._outbox.may_block(size, count):
                    untold = self._outbox.dropped == self._dropped_before
                    self._outbox.put(*entries)
                    first_dropped = untold and self._outbox.dropped > self._dropped_before
                    break
                if not may_wait:
                    raise self._outbox.full(", and the client's own thread does not wait for room")
            deadline = deadline or Deadline(self._send_timeout)
            if not self._waiters.wait(lambda: self._no_need_to_wait(size, count), deadline):
                raise self._outbox.full(f", and there was no room within {self._send_timeout:g} s")
        if first_dropped:
            log.warning("not connected, and the queue is full: the oldest messages are dropped from now on")
        return True

    def _other_than(self, tried_channel: Channel | None) -> bool:
        channel = self.sending_channel
        return channel is not None and channel is not tried_channel

    def _no_need_to_wait(self, size: int, count: int) -> bool:
        """There is room, as there is once a new connection may be sent over, or there never will be any."""
        return self.closing or self._final is not None or not self._outbox.may_block(size, count)

    def take_left(self, ended_channel: Channel | None, deadline: Deadline, may_wait: bool) -> Message | Note | None:
        """Something received from an earlier connection than the present; None when there is one to read from, other
        than ``ended_channel``.

        Waits for either.  TimeoutError past the deadline; without ``may_wait``, NotConnected at once.
        """
        while True:
            with self._lock:
                if self.reading_channel is not ended_channel or self.inbox or self.inbox.kept is not None:
                    return self._take_first_left()
                if self._final is not None or self._over:
                    raise self._over_error()
                if self._phase is ClientState.IDLE:
                    raise NotConnected(NOT_OPENED)
                if not may_wait:
                    raise NotConnected("recv() in an event function, and there is no connection now")
            if not self._waiters.wait(lambda: self._something_left(ended_channel), deadline):
                raise TimeoutError("no message within the timeout")

    def _something_left(self, ended_channel: Channel | None) -> bool:
        return bool(self.reading_channel is not ended_channel or self.inbox or self._final)

    def _take_first_left(self) -> Message | Note | None:
        """With _lock held.  What is taken is kept in the inbox, lest an interrupt lose it."""
        if self.inbox.kept is not None or self.reading_channel is not None or not self.inbox:
            return self.inbox.kept
        self.inbox.kept = self.inbox[0]
        del self.inbox[0]
        self._counters["messages_received"] += self.inbox.kept.__class__ is not Note
        return self.inbox.kept

    def put_aside(self, note: Note) -> None:
        """A note that a thread in recv() met: the client's thread tells the application of it.  Takes no lock."""
        self.aside.append(note)

    def take_aside(self) -> tuple[Note, ...]:
        """What was put aside, oldest first; it waits no more.  By the client's thread."""
        return tuple(self.aside.popleft() for _ in range(len(self.aside)))

    def check_going_on(self) -> None:
        """ConnectionClosed when it is over, NotConnected when it has not begun."""
        if self.closing or self._final is not None or self._over:
            raise self._over_error()
        if self._phase is ClientState.IDLE:
            raise NotConnected(NOT_OPENED)

    def _over_error(self) -> ConnectionClosed:
        """What to raise now that it is over: a new one each time, for raising adds to an exception's traceback."""
        final = self._final
        return ConnectionClosed(CLOSED_BY_US) if final is None else ConnectionClosed(final, *self._close_frames)

    @property
    def reason(self) -> Reason | None:
        """Why it is over, or will be; before that, why the last attempt or connection ended, None if none has."""
        return self._final or self._last_reason

    @property
    def last_trouble(self) -> str:
        """Why there is no connection, in words."""
        return str(self._last_reason or "the first attempt is under way")

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        channel = self.reading_channel
        return channel is not None and channel.open

    # -- waiting --------------------------------------------------------------------------------------------------

    def await_open(self, deadline: Deadline) -> bool:
        """Until everybody may send, or it is over: True.  False past the deadline."""
        return self._waiters.wait(
            lambda: self.sending_channel is not None or self._final is not None or self.closing or self._over, deadline
        )

    def never_opened(self) -> Reason | None:
        """Why it is over without a single connection, None unless it is."""
        with self._lock:
            if self._counters["opened"]:
                return None
            return self._final or (CLOSED_BY_US if self.closing else None)

    def await_closed(self, deadline: Deadline) -> bool:
        """Until it is over for good: True.  False past the deadline."""
        return self._waiters.wait(lambda: self._over, deadline)

    def await_due(self, due: Flag, deadline: Deadline) -> bool:
        """Until ``due`` is set (and ``wake`` called), reconnect() is called or the deadline has passed: True.  False at
        close().
        """
        self._waiters.wait(lambda: due.is_set() or self.closing or self._asked, deadline)
        return not self.closing

    def await_end(self, channel: Channel, deadline: Deadline) -> None:
        """Until ``channel`` has ended, or the deadline has passed."""
        self._waiters.wait(lambda: channel.ended, deadline)

    def wake(self) -> None:
        """Let those who wait look again."""
        self._waiters.wake()

    # -- telling --------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counters over all connections so far, and what there is now."""
        with self._lock:
            channel, totals = self.reading_channel, dict(self._counters)
            now = {
                "state": self.state.value,
                "rtt": self._rtt[0] if self._rtt else None,
                "reconnects": max(0, totals["opened"] - 1),
                "queued_messages": len(self._outbox),
                "queued_bytes": self._outbox.size,
                "dropped_messages": self._outbox.dropped,
            }
        if channel is not None:
            _add(totals, _counted(channel))
        return {**totals, **now}

    def _forget_in_child(self) -> None:
        """After fork: the conversation is the parent's; here it is over, unless it never began."""
        self._lock = threading.RLock()
        self._waiters = Waiters()
        if self._phase is ClientState.IDLE:
            return
        self._over = self.closing = True
        self.reading_channel = self.sending_channel = self.monitor = self._dial = None
        self._final = Reason("the connection belongs to the parent process")
        self.inbox.forget_in_child()


def _counted(channel: Channel) -> dict[str, int]:
    """What ``channel`` has counted so far."""
    return {
        "messages_received": channel.messages_received,
        "messages_sent": channel.writer.messages_sent,
        "bytes_received": channel.bytes_received,
        "bytes_sent": channel.writer.bytes_sent,
    }


def _add(totals: dict[str, int], counted: dict[str, int]) -> None:
    for name, count in counted.items():
        totals[name] += count


_lines: ToldOfForks[Line] = ToldOfForks()
