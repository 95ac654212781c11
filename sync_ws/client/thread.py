"""The driver: the one thread that owns the life of a client, and the state it shares with the application's threads.

Why so: one loop dials, watches or reads the connection, waits out the delay and dials again.  So there is never more
than one connection, and the application's functions are called from this one thread, in order.  Who reads depends on
what the application does.  With a ``message`` function the driver reads and calls it in place.  Without one, ``recv``
reads in the caller's own thread (a hand-over between threads would cost most of the speed), and the driver only looks
after the connection while nobody is in ``recv``.

Timers (``threading.Timer``): at most one is armed, the heartbeat's while open and the delay's while waiting.

Threading: ``_cond`` guards the state; it is held for assignments, never for I/O or while a function of the
application runs.  Unless said otherwise, methods run in the driver's thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

from ..channel.channel import Channel
from ..channel.housekeeper import TICK, Housekeeper
from ..channel.inbox import MAX_NOTES, Inbox, Note
from ..endings import Close, CloseCode, Reason
from ..errors import ConnectionClosed, HandshakeError, SendTimeout
from ..events import EventBus
from ..messages import Message, Opcode
from ..net.transport import transport_for
from ..protocol.deflate import Deflate
from ..protocol.intercepts import HEART_BEAT
from ..timing import Deadline
from .dial import Dial, Established
from .events import EVENTS, Closed, Error, GaveUp, HeartbeatAnswered, Opened, Reconnected, Reconnecting
from .heartbeat import HeartbeatMonitor
from .options import ClientOptions, NotUsable
from .outbox import Outbox
from .state import ClientState, check_transition, should_reconnect

__all__ = ["CLOSED_BY_US", "Driver", "add_counters"]

log = logging.getLogger("sync_ws.client")
COUNTERS = ("opened", "attempts_failed", "messages_received", "messages_sent", "bytes_received", "bytes_sent")
CLOSED_BY_US = Reason("closed by us", by_us=True)


class Driver:
    """See the module.  ``Client`` is this, with the application's face."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._bus = EventBus(EVENTS, on_error=self._function_raised)
        self._inbox = Inbox()  # outlives the channels: what was received is not lost with one
        self._aside: deque[Note] = deque(maxlen=MAX_NOTES)  # met by a thread in recv(), for the driver to tell
        self._thread = threading.Thread(target=self._drive, name="sync_ws-client", daemon=True)
        self._housekeeper: Housekeeper | None = None  # from the first call of an application's function on
        self._kept: Channel | None = None  # the channel it looks after
        self._greeting: Channel | None = None  # the channel, while "open" functions run; the driver's own
        # guards everything below; any thread, for assignments and for waiting on it
        self._cond = threading.Condition()
        self._state = ClientState.IDLE
        self._closing = False
        self._dial: Dial | None = None
        self._reading: Channel | None = None  # the connection, from its opening to its end
        self._channel: Channel | None = None  # the same, once everything queued has gone out over it
        self._subprotocol: str | None = None
        self._outbox = Outbox(options.limits.max_queued, options.limits.max_queued_bytes)
        self._last_reason: Reason | None = None
        self._close_frames: tuple[Close | None, Close | None] = (None, None)  # sent, received; of the last connection
        self._final: ConnectionClosed | None = None  # set when it is over for good
        self._monitor: HeartbeatMonitor | None = None
        self._rtt: float | None = None
        self._counters = dict.fromkeys(COUNTERS, 0)  # over the connections that have ended

    def _drive(self) -> None:
        reason: Reason = CLOSED_BY_US
        try:
            reason = self._stay_connected()
        except Exception as exc:
            log.exception("the client's thread failed")
            reason = self._over(Reason(f"internal error: {exc!r}", error=exc), told=False)
        finally:
            with self._cond:
                self._final = ConnectionClosed(reason)
                self._dial = self._channel = None
                if self._state is not ClientState.CLOSED:
                    self._become(ClientState.CLOSED)
            if self._housekeeper is not None:
                self._housekeeper.stop(1.0)

    def _stay_connected(self) -> Reason:
        """The one loop: connect, converse, wait, again.  Returns why it is over."""
        failed = 0
        while True:
            outcome = self._attempt()
            if isinstance(outcome, Established):
                lived, reason = self._converse(outcome)
                if self._options.backoff is not None and lived >= self._options.backoff.stable:
                    failed = 0
            else:
                reason, lived = outcome, None
                self._counters["attempts_failed"] += 1
            again = not self._closing and self._options.backoff is not None and self._wants_again(reason)
            exhausted = again and self._options.backoff is not None and self._options.backoff.exhausted(failed)
            if exhausted or not again:
                with self._cond:
                    self._final = ConnectionClosed(reason)  # nothing is queued from now on
            if lived is not None:
                self._emit("close", Closed(reason, again and not exhausted, () if again else self._leftovers()))
            if exhausted or not again:
                return self._over(reason, told=lived is not None and not again)
            failed += 1
            if not self._wait_before(failed, reason):
                return self._over(CLOSED_BY_US, told=False)

    def _over(self, reason: Reason, told: bool) -> Reason:
        """The last event, unless ``told``: ``close`` after our own close, ``gave_up`` otherwise."""
        if self._closing:
            reason = reason if told or reason.by_us else CLOSED_BY_US
        with self._cond:
            self._final = ConnectionClosed(reason)
        if not told:
            if self._closing:
                self._emit("close", Closed(reason, False, self._leftovers()))
            else:
                self._emit("gave_up", GaveUp(reason, self._leftovers()))
        return reason

    def _leftovers(self) -> tuple[Message, ...]:
        with self._cond:
            return self._outbox.take_all()

    def _wants_again(self, reason: Reason) -> bool:
        try:
            return bool(self._options.should_reconnect(reason))
        except Exception as exc:
            self._function_raised("should_reconnect", (reason,), exc)
            return should_reconnect(reason)

    def _attempt(self) -> Established | Reason:
        """One attempt to connect."""
        with self._cond:
            if self._closing:
                return CLOSED_BY_US
            if self._state is not ClientState.CONNECTING:
                self._become(ClientState.CONNECTING)
        try:
            dial = self._options.make_dial()
        except Exception as exc:
            log.error("the address or headers could not be made", exc_info=exc)
            self._emit("error", Error(exc))
            # a function that raised may do better next time
            permanent = isinstance(exc, NotUsable)
            return Reason(f"the address or headers could not be made: {exc}", permanent=permanent, error=exc)
        with self._cond:
            if self._closing:
                return CLOSED_BY_US
            self._dial = dial
        try:
            return dial.run()
        except HandshakeError as exc:
            if self._closing:  # close() cancelled it
                return CLOSED_BY_US
            self._last_reason = Reason(**{**vars(exc.reason), "error": exc})
            return self._last_reason
        finally:
            with self._cond:
                self._dial = None

    def _converse(self, opened: Established) -> tuple[float, Reason]:
        """From an open connection to its end: how many seconds it lived, and why it ended."""
        channel = Channel(
            transport_for(opened.sock),
            self._inbox,
            client=True,
            limits=self._options.limits,
            on_end=self._channel_ended,
            on_pong=lambda payload: self._answered(payload.decode("latin-1")),
            intercepts={HEART_BEAT: lambda channel, beat: self._answered(beat.text)},
            deflate=Deflate(opened.deflate) if opened.deflate else None,
            early=opened.early,
        )
        opened_at = self._options.clock.monotonic()
        self._subprotocol = opened.subprotocol
        with self._cond:
            if self._closing:
                channel.abort(CLOSED_BY_US)
            else:
                self._reading = channel
                self._counters["opened"] += 1
                self._become(ClientState.OPEN)
                self._monitor = self._watch(channel)
        try:
            if not channel.ended:
                self._greet(channel, opened)
                self._send_queued(channel)
                self._attend(channel)
        finally:
            self._part_with(channel)
        assert channel.reason is not None
        return self._options.clock.monotonic() - opened_at, channel.reason

    def _greet(self, channel: Channel, opened: Established) -> None:
        """Tell of the connection; what these functions send goes out before anything that was queued."""
        self._greeting = channel
        try:
            self._emit("open", Opened(opened.subprotocol, opened.headers))
            if self._counters["opened"] > 1:
                self._emit("reconnected", Reconnected(self._counters["opened"] - 1))
        finally:
            self._greeting = None

    def _watch(self, channel: Channel) -> HeartbeatMonitor | None:
        policy = self._options.heartbeat
        if policy is None:
            return None
        opcode = Opcode.TEXT if policy.kind == "message" else Opcode.PING
        monitor = HeartbeatMonitor(
            policy,
            self._options.clock,
            send=lambda payload: channel.writer.post(opcode, payload.encode()),
            received=lambda: channel.bytes_received,
            unread=channel.unread,
            on_dead=lambda text: channel.abort(Reason(text, CloseCode.ABNORMAL)),
        )
        monitor.start()
        return monitor

    def _send_queued(self, channel: Channel) -> None:
        """Send what was queued, in order; then let everybody send."""
        while True:
            with self._cond:
                if not len(self._outbox):
                    self._channel = channel
                    self._cond.notify_all()
                    return
                first = self._outbox.first
            try:
                channel.send(first)
            except (ConnectionClosed, SendTimeout):
                return  # it stays at the head of the queue
            with self._cond:
                self._outbox.drop_first()

    def _attend(self, channel: Channel) -> None:
        """While it is open: read and call the ``message`` function, or look after it for those who call ``recv``."""
        channel.tend()  # what came in one segment with the response does not make the socket readable
        while not channel.ended or (self._inbox and self._bus.has("message") and not self._closing):
            self._tell_notes(channel)
            if self._monitor is not None:
                self._monitor.revive()
            if self._bus.has("message"):
                lost = self._monitor is not None and self._monitor.lost
                try:
                    item = channel.read(TICK if lost else None)
                except ConnectionClosed:
                    return
                except TimeoutError:
                    continue
                self._tell(item)
            else:
                before = channel.bytes_received
                readable = channel.wait_readable(TICK)
                channel.tend()  # also when nothing came: there may be room now for what had to wait
                # somebody is in recv(), or enough messages wait to be taken
                if readable and channel.bytes_received == before:
                    with self._cond:
                        if not channel.ended:
                            self._cond.wait(TICK)

    def _part_with(self, channel: Channel) -> None:
        """The connection has ended: tidy up."""
        if self._monitor is not None:
            self._monitor.stop()
        if not channel.ended:
            channel.abort(CLOSED_BY_US)
        if self._housekeeper is not None:
            self._housekeeper.discard(channel)
            self._kept = None
        channel.release()
        self._tell_notes(channel)
        with self._cond:
            self._monitor = None
            self._reading = self._channel = None
            self._last_reason = channel.reason
            ended = channel.closed_error()
            self._close_frames = ended.sent, ended.received
            add_counters(self._counters, channel)
            self._cond.notify_all()

    def _wait_before(self, attempt: int, reason: Reason) -> bool:
        """Wait out the delay before ``attempt``; False when the client was closed meanwhile."""
        assert self._options.backoff is not None
        delay = max(self._options.backoff.delay(attempt), reason.retry_after or 0.0)
        with self._cond:
            if self._closing:
                return False
            self._become(ClientState.WAITING)
        self._emit("reconnecting", Reconnecting(attempt, delay, reason))
        over = threading.Event()

        def time_is_up() -> None:
            with self._cond:
                over.set()
                self._cond.notify_all()

        deadline: Deadline | None = None
        timer = None
        try:
            timer = self._options.clock.timer(delay, time_is_up)
        except RuntimeError as exc:  # no thread to be had: wait here
            log.warning("no timer for the reconnect: %s", exc)
            deadline = Deadline(delay)
        with self._cond:
            self._cond.wait_for(lambda: over.is_set() or self._closing, deadline.remaining() if deadline else None)
        if timer is not None:
            timer.cancel()
        return not self._closing

    def _emit(self, event: str, *args: Any) -> None:
        """Call the application's functions; while they run, a housekeeper answers for this thread.

        After ``close`` nothing is told but the end itself, and what a function raised that was running then.
        """
        if not self._bus.has(event) or (self._closing and event not in ("close", "error")):
            return
        channel = self._reading
        if channel is not None and channel is not self._kept:
            self._keep(channel)
        self._bus.emit(event, *args)

    def _keep(self, channel: Channel) -> None:
        if self._housekeeper is None:
            close_timeout = self._options.limits.close_timeout
            keeper = Housekeeper("sync_ws-client", ping_interval=None, ping_timeout=1.0, close_timeout=close_timeout)
            try:
                keeper.start()
            except RuntimeError as exc:
                log.warning("no thread to answer while a function runs: %s", exc)
                return
            self._housekeeper = keeper
        self._housekeeper.add(channel)
        self._kept = channel

    def _tell(self, item: Message | Note) -> None:
        if isinstance(item, Note):
            self._emit(item.event, item.what)
        else:
            self._emit("message", item)

    def _tell_notes(self, channel: Channel) -> None:
        """Tell of what nobody has to be in recv() for."""
        if not self._bus.has("message"):  # else this thread takes them in their order with the messages
            self._aside.extend(channel.receiver.take_notes())
        while self._aside:
            self._tell(self._aside.popleft())

    def _function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        log.error("a function for the event %r raised", event, exc_info=exc)
        if event != "error":
            self._emit("error", Error(exc))

    # -- called from whichever thread reads --------------------------------------------------------------------------

    def _answered(self, payload: str) -> Note | None:
        monitor = self._monitor
        rtt = monitor.answered(payload) if monitor is not None else None
        if rtt is None:
            return None
        self._rtt = rtt
        return Note("heartbeat", HeartbeatAnswered(rtt))

    def _channel_ended(self, reason: Reason) -> None:
        with self._cond:
            self._channel = None
            self._cond.notify_all()

    def _become(self, state: ClientState) -> None:
        """With _cond held."""
        check_transition(self._state, state)
        self._state = state
        self._cond.notify_all()


def add_counters(totals: dict[str, int], channel: Channel) -> None:
    """Add what ``channel`` has counted."""
    totals["messages_received"] += channel.messages_received
    totals["messages_sent"] += channel.writer.messages_sent
    totals["bytes_received"] += channel.bytes_received
    totals["bytes_sent"] += channel.writer.bytes_sent
