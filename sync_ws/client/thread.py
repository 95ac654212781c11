"""The client's one thread: it dials, looks after the connection or reads from it, waits out the delay, and dials again.

Why so: one loop does all this, so there is never more than one connection, and the application's functions are called
from this one thread, in order.  Who reads depends on what the application does.  With a ``message`` function this
thread reads and calls it in place.  Without one, ``recv`` reads in the caller's own thread (a hand-over between threads
would cost most of the speed), and this one only looks after the connection while nobody is in ``recv``.

Timers (``threading.Timer``): at most one is armed, the heartbeat's while open and the delay's while waiting.

The end for good is told by one last event: ``close`` when it was the application's ``close()``, else ``gave_up``, after
the ``close`` of the connection if there was one.

Threading: what is shared with other threads is in the line.  The rest is this thread's own; a method that others may
call says so.
"""

from __future__ import annotations

import _thread
import logging
import threading
from dataclasses import replace

from ..channel.channel import Channel, Intercepts
from ..channel.housekeeper import TICK
from ..channel.inbox import Note
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed, HandshakeError, SendTimeout
from ..events import EventBus
from ..interrupts import Flag
from ..net.transport import transport_for
from ..protocol.deflate import Deflate
from ..protocol.masking import load_numpy
from ..timing import Deadline
from .dial import Established
from .events import Closed, Error, GaveUp, HeartbeatAnswered, Opened, Reconnected, Reconnecting
from .heartbeat import Heartbeat, HeartbeatMonitor
from .line import CLOSED_BY_US, Line
from .options import ClientOptions, NotUsable
from .state import ClientState, name_unknown, should_reconnect, why_final
from .teller import Teller
from .voice import Voice

__all__ = ["ClientThread"]

log = logging.getLogger("sync_ws.client")
ASKED = "reconnect() was called"
FUNCTION_ENDED_IT = "a function ended it"


class ClientThread(threading.Thread):
    """See the module.  ``bus``: the application's functions; anybody may subscribe, this thread has them called."""

    def __init__(self, options: ClientOptions, line: Line, bus: EventBus) -> None:
        super().__init__(name="sync_ws-client", daemon=True)
        self.gone = Flag()  # it has ended, but for its last instructions
        self._options = options
        self._line = line
        self._bus = bus
        self._teller = Teller(bus, line, options.limits.close_timeout)
        self._emit = self._teller.emit
        self._voice = Voice(options.shown_url, options.clock)
        self._greeting_channel: Channel | None = None  # the present one, while "open" functions run

    @property
    def greeting_channel(self) -> Channel | None:
        """From any thread: the connection that an "open" function is being told of, if it is such a function that asks.

        What it sends goes out before what was queued, over this connection or not at all: the next one is greeted
        anew, and a greeting that was left over must not follow that one.
        """
        return self._greeting_channel if threading.current_thread() is self else None

    def start(self) -> None:
        """From another thread, for a signal's handler may raise in this one, and Thread.start does not bear that: the
        new thread was seen to die before ``run``.  RuntimeError when the system has no thread to give.
        """
        started, errors = Flag(), list[RuntimeError]()

        def start() -> None:
            try:
                super(ClientThread, self).start()
            except RuntimeError as exc:
                errors.append(exc)
            finally:
                started.set()

        _thread.start_new_thread(start, ())
        started.wait()
        if errors:
            raise errors[0]

    def run(self) -> None:
        if self._line.state is ClientState.CLOSED:  # close() came in the very moment of the start
            self.gone.set()
            return
        reason: Reason = CLOSED_BY_US
        try:
            reason = self._stay_connected()
        except BaseException as exc:  # trouble of our own, or somebody's way to end a thread
            log.exception("the client's thread failed")
            reason = self._give_up(Reason(f"internal error: {exc!r}", error=exc), "the client's thread failed")
        finally:
            self._line.over(reason)
            self._teller.stop()
            self.gone.set()

    # -- the loop -------------------------------------------------------------------------------------------------

    def _stay_connected(self) -> Reason:
        """The one loop: connect, converse, wait, again.  Returns why it is over."""
        backoff, failed, first = self._options.backoff, 0, True
        while True:
            outcome = self._attempt()
            lived: float | None = None
            if isinstance(outcome, Established):
                lived, reason = self._converse(outcome)
                if backoff is not None and lived is not None and lived >= backoff.stable:
                    failed = 0
            else:
                reason = outcome
                if not self._line.asked:
                    self._line.attempt_failed(reason)
            if self._line.closing:
                return self._close(reason if lived is not None or reason.by_us else CLOSED_BY_US)
            asked = self._line.asked
            if asked and reason.by_us:
                reason = replace(reason, text=ASKED if lived is None else f"{ASKED}: {reason}")
            why = self._why_over(reason, failed, first)
            if why is not None and not self._line.finish(reason, unless_asked=self._teller.ended_by is None):
                why = None  # reconnect() came first
            if why is None:
                self._voice.trouble(reason, lived, asked=asked)
            if lived is not None:
                self._emit("close", Closed(reason, why is None))
            if self._teller.ended_by is not None or why is not None:
                return self._give_up(self._teller.ended_by or reason, why or FUNCTION_ENDED_IT)
            failed, first = 1 if asked else failed + 1, False  # one at the application's word is the first of a row
            if not self._wait_before(failed, reason):
                if self._teller.ended_by is not None:
                    return self._give_up(self._teller.ended_by, FUNCTION_ENDED_IT)
                return self._close(CLOSED_BY_US)

    def _close(self, reason: Reason) -> Reason:
        """It is over by our own close: the last event."""
        self._line.finish(reason)
        self._log_dropped()
        self._voice.closed(reason)
        self._emit("close", Closed(reason, False, self._line.take_undelivered()))
        return reason

    def _give_up(self, reason: Reason, why: str) -> Reason:
        """It is over in any other way: the last event, though close() may have been called since that was clear."""
        self._line.finish(reason)
        self._log_dropped()
        self._voice.gave_up(reason, why)
        self._emit("gave_up", GaveUp(reason, self._line.take_undelivered()))
        return reason

    def _why_over(self, reason: Reason, failed: int, first: bool) -> str | None:
        """Why there will be no further attempt, in words; None when there will be one."""
        backoff = self._options.backoff
        if self._teller.ended_by is not None:
            return FUNCTION_ENDED_IT
        if self._line.asked:
            return None
        if backoff is None:
            return "reconnect=None"
        try:
            again = bool(self._options.should_reconnect(reason))
        except Exception as exc:
            self._teller.function_raised("should_reconnect", (reason,), exc)
            again = should_reconnect(reason)
        except BaseException as exc:
            self._teller.end_by("should_reconnect", exc)
            return FUNCTION_ENDED_IT
        by_default = self._options.should_reconnect is should_reconnect
        if not again:
            return (why_final(reason) if by_default else None) or "should_reconnect says so"
        if by_default and first and self._line.awaited and name_unknown(reason):
            return "there is no such name, and open() waits"
        return f"its {backoff.attempts} attempts are used up" if backoff.exhausted(failed) else None

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
        except BaseException as exc:
            return self._teller.end_by("a function among the options", exc)
        self._voice.attempt(dial.target.shown)
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
        self._voice.waiting(delay)
        self._emit("reconnecting", Reconnecting(attempt, delay, reason))
        if self._teller.ended_by is not None:
            return False
        if not delay:
            return not self._line.closing
        due = Flag()

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
            on_end=lambda reason: self._line.wake(),
            on_pong=self._answered,
            intercepts=self._intercepts(policy),
            deflate=Deflate(established.deflate) if established.deflate else None,
            early=established.early,
            batches=self._line.batches,
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
        reason = channel.reason
        if self._teller.ended_by is not None:
            reason = self._teller.ended_by = replace(self._teller.ended_by, code=reason.code)
        return lived if lived is None else self._options.clock.monotonic() - opened_at, reason

    def _monitor_of(self, channel: Channel, policy: Heartbeat | None) -> HeartbeatMonitor | None:
        if policy is None:
            return None
        return HeartbeatMonitor(
            policy,
            self._options.clock,
            send=channel.writer.post,
            received=lambda: channel.bytes_received,
            unread=channel.unread_bytes,
            crowded=channel.crowded,
            on_dead=lambda text: channel.abort(Reason(text, CloseCode.ABNORMAL)),
            raised=self._heartbeat_function_raised,
        )

    def _intercepts(self, policy: Heartbeat | None) -> Intercepts:
        """The heartbeat's answers, if they are messages."""
        intercept = policy.intercept(self._answer_function_raised) if policy is not None else None
        if policy is None or intercept is None:
            return {}
        if policy.message is None:
            return {intercept: lambda channel, beat: self._answered(beat.text.encode())}
        return {intercept: lambda channel, answer: self._answered(None)}

    def _greet(self, channel: Channel, established: Established) -> None:
        """Tell of the connection."""
        self._voice.opened(established.subprotocol)
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
        line, bus, teller = self._line, self._bus, self._teller
        channel.tend()  # what came in one segment with the response does not make the socket readable
        while not channel.ended or (line.inbox and bus.has("message") and not line.closing and teller.ended_by is None):
            teller.tell_notes(channel)
            monitor = line.monitor
            if monitor is not None:
                monitor.revive()
            if bus.has("message"):
                if channel is not teller.kept_channel:
                    teller.keep(channel)  # a close() that cannot wait for its end relies on it
                lost = monitor is not None and monitor.lost
                try:
                    item = channel.read(TICK if lost else None)
                except ConnectionClosed:
                    return
                except TimeoutError:
                    continue
                teller.tell(item)
            else:
                before = channel.bytes_received
                readable = channel.wait_readable(TICK)
                channel.tend()  # also when nothing came: there may be room now for what had to wait
                if channel.writer.queued[0]:  # an answer that the kernel had no room for
                    channel.writer.flush()
                channel.end_overdue()
                load_numpy()
                # somebody is in recv(), or enough messages wait to be taken
                if readable and channel.bytes_received == before:
                    line.await_end(channel, Deadline(TICK))

    def _part_with(self, channel: Channel) -> None:
        """The connection has ended, or close() came before it could be used: tidy up."""
        monitor = self._line.monitor
        if monitor is not None:
            monitor.stop()
        if not channel.ended:
            channel.abort(CLOSED_BY_US)
        self._teller.keep_no_more(channel)
        channel.release()
        self._teller.tell_notes(channel)
        self._line.ended(channel)

    # -- called from whichever thread reads, or times the heartbeat --------------------------------------------------

    def _heartbeat_function_raised(self, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            self._teller.end_by("a function of the heartbeat", exc)
            return
        log.error("a function of the heartbeat raised", exc_info=exc)
        self._line.put_aside(Note("error", Error(exc)))
        self._line.wake()

    def _answer_function_raised(self, exc: BaseException) -> None:
        """From whichever thread reads.  What is meant to end a program ends the client, and once, if it was a thread of
        the application that read, it goes its way as well: there it may end the program."""
        ours = threading.current_thread() is self or self._teller.is_housekeeper
        first = self._teller.ended_by is None
        self._heartbeat_function_raised(exc)
        if first and not ours and not isinstance(exc, Exception):
            raise exc

    def _answered(self, payload: bytes | None) -> Note | None:
        monitor = self._line.monitor
        rtt = monitor.answered(payload) if monitor is not None else None
        if rtt is None:
            return None
        self._line.note_rtt(rtt)
        return Note("heartbeat", HeartbeatAnswered(rtt))
