"""The client's one thread: it dials, looks after the connection or reads from it, waits out the delay, and dials again.

Why so: one loop does all this, so there is never more than one connection, and the application's functions are called
from this one thread, in order.  Who reads depends on what the application does.  With a ``message`` function this
thread reads and calls it in place.  Without one, ``recv`` reads in the caller's own thread (a hand-over between threads
would cost most of the speed), and this one only looks after the connection while nobody is in ``recv``.

Timers (``threading.Timer``): at most one is armed, the heartbeat's while open and the delay's while waiting.

Threading: what is shared with other threads is in the line.  The rest is this thread's own; a method that others may
call says so.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

from ..channel.channel import Channel, Intercepts
from ..channel.housekeeper import TICK, Housekeeper
from ..channel.inbox import Note
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed, HandshakeError, SendTimeout
from ..events import EventBus
from ..messages import Message
from ..net.transport import transport_for
from ..protocol.deflate import Deflate
from ..timing import Deadline
from .dial import Established
from .events import EVENTS, Closed, Error, GaveUp, HeartbeatAnswered, Opened, Reconnected, Reconnecting
from .heartbeat import Heartbeat, HeartbeatMonitor
from .line import CLOSED_BY_US, Line
from .options import ClientOptions, NotUsable
from .state import ClientState, should_reconnect

__all__ = ["ClientThread"]

log = logging.getLogger("sync_ws.client")
ASKED = "reconnect() was called"


class ClientThread(threading.Thread):
    """See the module.  ``bus``: the application's functions; anybody may subscribe, this thread calls them."""

    def __init__(self, options: ClientOptions, line: Line) -> None:
        super().__init__(name="sync_ws-client", daemon=True)
        self._options = options
        self._line = line
        self.bus = EventBus(EVENTS, on_error=self._function_raised)
        self._housekeeper: Housekeeper | None = None  # from the first call of an application's function on
        self._kept_channel: Channel | None = None  # the one it looks after
        self._greeting_channel: Channel | None = None  # the present one, while "open" functions run

    @property
    def greeting_channel(self) -> Channel | None:
        """From any thread: the connection that an "open" function is being told of, if it is such a function that asks.

        What it sends goes out before what was queued, over this connection or not at all: the next one is greeted
        anew, and a greeting that was left over must not follow that one.
        """
        return self._greeting_channel if threading.current_thread() is self else None

    def run(self) -> None:
        if self._line.state is ClientState.CLOSED:  # close() came in the very moment of the start
            return
        reason: Reason = CLOSED_BY_US
        try:
            reason = self._stay_connected()
        except Exception as exc:
            log.exception("the client's thread failed")
            reason = self._tell_end(Reason(f"internal error: {exc!r}", error=exc), told=False)
        finally:
            self._line.over(reason)
            if self._housekeeper is not None:
                self._housekeeper.stop(1.0)

    # -- the loop -------------------------------------------------------------------------------------------------

    def _stay_connected(self) -> Reason:
        """The one loop: connect, converse, wait, again.  Returns why it is over."""
        backoff = self._options.backoff
        failed = 0
        while True:
            outcome = self._attempt()
            if isinstance(outcome, Established):
                lived, reason = self._converse(outcome)
                if backoff is not None and lived is not None and lived >= backoff.stable:
                    failed = 0
            else:
                reason, lived = outcome, None
                if not self._line.asked:
                    self._line.attempt_failed(reason)
            asked = self._line.asked
            if asked and reason.by_us:
                reason = replace(reason, text=ASKED if lived is None else f"{ASKED}: {reason}")
            again = asked or self._wants_again(reason)
            exhausted = again and not asked and backoff is not None and backoff.exhausted(failed)
            over = (exhausted or not again) and self._line.finish_unless_asked(reason)
            if lived is not None:
                undelivered = self._line.take_undelivered() if over and not exhausted else ()
                self._emit("close", Closed(reason, not over, undelivered))
            if over:
                return self._tell_end(reason, told=lived is not None and not exhausted)
            failed = 1 if asked else failed + 1  # an attempt at the application's own word is the first of a row
            if not self._wait_before(failed, reason):
                return self._tell_end(CLOSED_BY_US, told=False)

    def _tell_end(self, reason: Reason, told: bool) -> Reason:
        """The last event, unless ``told``: ``close`` after our own close, ``gave_up`` otherwise."""
        closing = self._line.closing
        if closing:
            reason = reason if told or reason.by_us else CLOSED_BY_US
        self._line.finish(reason)
        self._log_dropped()
        if not told:
            if closing:
                self._emit("close", Closed(reason, False, self._line.take_undelivered()))
            else:
                self._emit("gave_up", GaveUp(reason, self._line.take_undelivered()))
        return reason

    def _wants_again(self, reason: Reason) -> bool:
        if self._line.closing or self._options.backoff is None:
            return False
        try:
            return bool(self._options.should_reconnect(reason))
        except Exception as exc:
            self._function_raised("should_reconnect", (reason,), exc)
            return should_reconnect(reason)

    def _attempt(self) -> Established | Reason:
        """One attempt to connect."""
        if not self._line.attempt():
            return CLOSED_BY_US
        try:
            dial = self._options.make_dial()
        except Exception as exc:
            log.error("the options of an attempt could not be made", exc_info=exc)
            self._emit("error", Error(exc))
            # a function that raised may do better next time
            permanent = isinstance(exc, NotUsable)
            return Reason(f"the options of an attempt could not be made: {exc}", permanent=permanent, error=exc)
        try:
            return dial.run() if self._line.dialling(dial) else CLOSED_BY_US
        except HandshakeError as exc:
            if self._line.closing:  # close() cancelled it
                return CLOSED_BY_US
            return replace(exc.reason, error=exc)
        finally:
            self._line.dialled()

    def _wait_before(self, attempt: int, reason: Reason) -> bool:
        """Wait out the delay before ``attempt``, none at reconnect(); False when the client was closed meanwhile."""
        backoff = self._options.backoff
        delay = 0.0 if backoff is None or self._line.asked else max(backoff.delay(attempt), reason.retry_after or 0.0)
        if not self._line.begin_waiting():
            return False
        self._emit("reconnecting", Reconnecting(attempt, delay, reason))
        if not delay:
            return not self._line.closing
        due = threading.Event()

        def time_is_up() -> None:
            due.set()
            self._line.wake()

        deadline, timer = Deadline(None), None
        try:
            timer = self._options.clock.timer(delay, time_is_up)
        except RuntimeError as exc:  # no thread to be had: wait here
            log.warning("no timer for the reconnect: %s", exc)
            deadline = Deadline(delay)
        again = self._line.await_due(due, deadline)
        if timer is not None:
            timer.cancel()
        return again

    # -- one connection -------------------------------------------------------------------------------------------

    def _converse(self, established: Established) -> tuple[float | None, Reason]:
        """From an open connection to its end: how many seconds it lived, None if it was not to be used, and why it
        ended.
        """
        policy = self._options.heartbeat.towards(established.headers) if self._options.heartbeat is not None else None
        channel = Channel(
            transport_for(established.sock),
            self._line.inbox,
            client=True,
            limits=self._options.limits,
            on_end=lambda reason: self._line.stop_sending(),
            on_pong=self._answered,
            intercepts=self._intercepts(policy),
            deflate=Deflate(established.deflate) if established.deflate else None,
            early=established.early,
        )
        opened_at = self._options.clock.monotonic()
        monitor = self._monitor_of(channel, policy)
        lived: float | None = None
        try:
            if self._line.opened(channel, established.subprotocol, monitor):
                lived = 0.0
                if monitor is not None:
                    monitor.start()
                self._greet(channel, established)
                self._send_queued(channel)
                self._attend(channel)
        finally:
            self._part_with(channel)
        assert channel.reason is not None
        return lived if lived is None else self._options.clock.monotonic() - opened_at, channel.reason

    def _monitor_of(self, channel: Channel, policy: Heartbeat | None) -> HeartbeatMonitor | None:
        if policy is None:
            return None
        return HeartbeatMonitor(
            policy,
            self._options.clock,
            send=channel.writer.post,
            received=lambda: channel.bytes_received,
            unread=channel.unread,
            on_dead=lambda text: channel.abort(Reason(text, CloseCode.ABNORMAL)),
            raised=self._heartbeat_function_raised,
        )

    def _intercepts(self, policy: Heartbeat | None) -> Intercepts:
        """The heartbeat's answers, if they are messages."""
        intercept = policy.intercept(self._heartbeat_function_raised) if policy is not None else None
        if policy is None or intercept is None:
            return {}
        if policy.message is None:
            return {intercept: lambda channel, beat: self._answered(beat.text.encode())}
        return {intercept: lambda channel, answer: self._answered(None)}

    def _greet(self, channel: Channel, established: Established) -> None:
        """Tell of the connection."""
        self._greeting_channel = channel
        try:
            self._emit("open", Opened(established.subprotocol, established.headers))
            if self._line.times_opened > 1:
                self._emit("reconnected", Reconnected(self._line.times_opened - 1))
        finally:
            self._greeting_channel = None

    def _send_queued(self, channel: Channel) -> None:
        """Send what was queued, in order; then everybody may send."""
        while (first := self._line.next_queued(channel)) is not None:
            try:
                channel.send(first)
            except (ConnectionClosed, SendTimeout):
                return  # it stays at the head of the queue
            self._line.drop_first_queued()
        self._log_dropped()

    def _log_dropped(self) -> None:
        dropped = self._line.take_dropped()
        if dropped:
            log.warning("%d messages were dropped while there was no connection, the oldest first", dropped)

    def _attend(self, channel: Channel) -> None:
        """While it is open: read and call the ``message`` function, or look after it for those who call ``recv``."""
        line = self._line
        channel.tend()  # what came in one segment with the response does not make the socket readable
        while not channel.ended or (line.inbox and self.bus.has("message") and not line.closing):
            self._tell_notes(channel)
            monitor = line.monitor
            if monitor is not None:
                monitor.revive()
            if self.bus.has("message"):
                if channel is not self._kept_channel:
                    self._keep(channel)  # a close() that cannot wait for its end relies on it
                lost = monitor is not None and monitor.lost
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
                channel.end_overdue()
                # somebody is in recv(), or enough messages wait to be taken
                if readable and channel.bytes_received == before:
                    line.await_change(channel, TICK)

    def _part_with(self, channel: Channel) -> None:
        """The connection has ended, or close() came before it could be used: tidy up."""
        monitor = self._line.monitor
        if monitor is not None:
            monitor.stop()
        if not channel.ended:
            channel.abort(CLOSED_BY_US)
        if self._housekeeper is not None:
            self._housekeeper.discard(channel)
            self._kept_channel = None
        channel.release()
        self._tell_notes(channel)
        self._line.ended(channel)

    # -- telling the application -----------------------------------------------------------------------------------

    def _emit(self, event: str, *args: Any) -> None:
        """Call the application's functions; while they run, a housekeeper answers for this thread.

        After ``close`` nothing is told but the end itself, and what a function raised that was running then.
        """
        if not self.bus.has(event) or (self._line.closing and event not in ("close", "error")):
            return
        channel = self._line.reading_channel
        if channel is not None and channel is not self._kept_channel:
            self._keep(channel)
        self.bus.emit(event, *args)

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
        self._kept_channel = channel

    def _tell(self, item: Message | Note) -> None:
        if isinstance(item, Note):
            self._emit(item.event, item.what)
        else:
            self._emit("message", item)

    def _tell_notes(self, channel: Channel) -> None:
        """Tell of what nobody has to be in recv() for."""
        if self._line.aside:  # a look costs less than the lock, and this is done for every message
            for note in self._line.take_aside():
                self._tell(note)
        if not self.bus.has("message"):  # else this thread takes them in their order with the messages
            for note in channel.receiver.take_notes():
                self._tell(note)

    def _function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        log.error("a function for the event %r raised", event, exc_info=exc)
        if event != "error":
            self._emit("error", Error(exc))

    # -- called from whichever thread reads, or times the heartbeat --------------------------------------------------

    def _heartbeat_function_raised(self, exc: Exception) -> None:
        log.error("a function of the heartbeat raised", exc_info=exc)
        self._line.put_aside(Note("error", Error(exc)))
        self._line.wake()

    def _answered(self, payload: bytes | None) -> Note | None:
        monitor = self._line.monitor
        rtt = monitor.answered(payload) if monitor is not None else None
        if rtt is None:
            return None
        self._line.note_rtt(rtt)
        return Note("heartbeat", HeartbeatAnswered(rtt))
