"""The client: one conversation over as many connections as it takes.

Why so: one thread, the driver, owns the whole life: it dials, watches or reads the connection, waits out the delay
and dials again, in one loop.  So there is never more than one connection, and the functions subscribed with ``on``
are called from that one thread, in order.  Who reads depends on what the application does.  With a ``message``
function the driver reads and calls it in place.  Without one, ``recv`` reads in the caller's own thread (a hand-over
between threads would cost most of the speed), and the driver only looks after the connection while nobody is in
``recv``.

Timers (``threading.Timer``): at most one is armed, the heartbeat's while open and the delay's while waiting.

Threading: every method from any thread, also from the functions subscribed with ``on``; ``recv`` by one thread at a
time.  ``_cond`` guards the state; it is held for assignments, never for I/O or while a function of the application
runs.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Iterable, Mapping

from .backoff import Backoff
from .channel import Channel, Limits
from .client_events import EVENTS, Closed, Error, Event, GaveUp, HeartbeatAnswered, Reconnected, Reconnecting
from .client_events import Opened as OpenedEvent
from .client_state import ClientState, check_transition, should_reconnect
from .deflate import Deflate
from .dialer import Dial, Opened
from .errors import (
    Close,
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    HandshakeError,
    HandshakeTimeout,
    NotConnected,
    Reason,
    SendTimeout,
)
from .events import EventBus, H
from .frames import Message, Opcode
from .heartbeat import Heartbeat, HeartbeatMonitor
from .housekeeper import TICK, Housekeeper
from .outbox import Outbox
from .peer import Peer
from .timing import SYSTEM_CLOCK, Clock, Deadline, check_count, check_seconds
from .transport import transport_for
from .url import Target, check_headers, check_token, check_value, environment_proxy, parse_proxy, parse_url
from .writer import Data

__all__ = ["Client"]

log = logging.getLogger("sync_ws.client")
Headers = Mapping[str, str] | Iterable[tuple[str, str]]
COUNTERS = ("opened", "attempts_failed", "messages_received", "messages_sent", "bytes_received", "bytes_sent")
CLOSED_BY_US = Reason("closed by us", by_us=True)


class Client(Peer):
    """A WebSocket client that stays connected.  The options and their defaults are in the README.

    Opened once, with ``open``, ``run_forever`` or as a context manager; closed for good with ``close``.  ValueError or
    TypeError for an option out of its bounds.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        headers: Headers | Callable[[], Headers] | None = None,
        subprotocols: Iterable[str] = (),
        origin: str | None = None,
        cookie: str | None = None,
        proxy: str | None = None,
        ssl_context: Any = None,
        heartbeat: Heartbeat | None = Heartbeat(),
        reconnect: Backoff | float | None = Backoff(),
        should_reconnect: Callable[[Reason], bool] = should_reconnect,
        offline: str = "queue",
        compression: bool = False,
        max_message: int = 1 << 20,
        max_fragments: int = 1024,
        open_timeout: float = 10.0,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__()
        if offline not in ("queue", "raise"):
            raise ValueError(f'offline is "queue" or "raise", not {offline!r}')
        if isinstance(subprotocols, str):
            raise TypeError("subprotocols is a list of strings, not a string")
        self._url = url
        self._headers = headers
        if not callable(url):
            parse_url(url)  # a bad address is an error now, not a reason to try for ever
        if not callable(headers):
            self._headers = check_headers(headers)
        self._dial_options: dict[str, Any] = {
            "subprotocols": [check_token("a subprotocol", item) for item in subprotocols],
            "origin": None if origin is None else check_value("origin", origin),
            "cookie": None if cookie is None else check_value("cookie", cookie),
            "ssl_context": check_context(ssl_context),
            "compression": compression,
            "timeout": check_seconds("open_timeout", open_timeout),
        }
        self._proxy = proxy
        if proxy is not None and proxy != "environment":
            parse_proxy(proxy)
        self._limits = Limits(
            max_message=check_count("max_message", max_message),
            max_fragments=check_count("max_fragments", max_fragments),
            send_timeout=check_seconds("send_timeout", send_timeout),
            close_timeout=check_seconds("close_timeout", close_timeout),
        )
        self._heartbeat = heartbeat
        self._backoff = Backoff.of(reconnect)
        self._should_reconnect = should_reconnect
        self._offline = offline
        self._clock = clock
        self._bus = EventBus(EVENTS, on_error=self._function_raised)
        self._inbox: deque[Message] = deque()  # outlives the channels: what was received is not lost with one
        self._notes: deque[Event] = deque(maxlen=64)  # events met while reading, for the driver to emit
        self._driver = threading.Thread(target=self._drive, name="sync_ws-client", daemon=True)
        self._housekeeper: Housekeeper | None = None  # from the first call of an application's function on
        # guards everything below; any thread, for assignments and for waiting on it
        self._cond = threading.Condition()
        self._state = ClientState.IDLE
        self._closing = False
        self._dial: Dial | None = None
        self._reading: Channel | None = None  # the connection, from its opening to its end
        self._channel: Channel | None = None  # the same, once everything queued has gone out over it
        self._outbox = Outbox(self._limits.max_queued, self._limits.max_queued_bytes)
        self._last_reason: Reason | None = None
        self._close_frames: tuple[Close | None, Close | None] = (None, None)  # sent, received; of the last connection
        self._final: ConnectionClosed | None = None  # set when it is over for good
        self._monitor: HeartbeatMonitor | None = None
        self._rtt: float | None = None
        self._counters = dict.fromkeys(COUNTERS, 0)  # over the connections that have ended
        _clients.add(self)

    # -- opening and closing --------------------------------------------------------------------------------------

    def open(self, timeout: float | None = None) -> Client:
        """Connect, and wait until the connection is open, through as many attempts as ``reconnect`` allows.

        ``timeout``: seconds to wait for it, None for as long as it takes, 0 not to wait at all (the client goes on
        trying in the background).  HandshakeTimeout after it, and HandshakeError when the client gave up or was closed
        meanwhile; the client is closed then.  RuntimeError when it was opened before.
        """
        self._start()
        if timeout == 0:
            return self
        deadline = Deadline(timeout)
        try:
            with self._cond:
                settled = self._cond.wait_for(
                    lambda: self._channel or self._final or self._closing, deadline.remaining()
                )
            if not settled:
                last = self._last_reason or "the first attempt is under way"
                raise HandshakeTimeout(f"no open connection within {timeout:g} s; last: {last}")
        except BaseException:
            self.close()
            raise
        with self._cond:
            ended = self._closing or self._final is not None
            if not ended or self._channel is not None or self._counters["opened"]:
                return self
            reason = CLOSED_BY_US if self._final is None else self._final.reason
        if isinstance(reason.error, HandshakeError):
            raise reason.error
        raise HandshakeError(reason)

    def _start(self) -> None:
        with self._cond:
            if self._state is not ClientState.IDLE:
                raise RuntimeError(f"a client is opened once; this one is {self._state.value}")
            self._become(ClientState.CONNECTING)
        try:
            self._driver.start()
        except RuntimeError as exc:  # the system has no thread to give
            with self._cond:
                self._final = ConnectionClosed(Reason(str(exc), error=exc))
                self._become(ClientState.CLOSED)
            raise

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float | None = None) -> None:
        """End the conversation for good, in whatever state it is; idempotent, from any thread.

        Back within ``timeout`` seconds (None: ``close_timeout``).  Afterwards nothing is dialled, and one ``close``
        event is the last there is.  What was queued and never sent is in that event.
        """
        deadline = Deadline(self._limits.close_timeout if timeout is None else timeout)
        with self._cond:
            if self._state is ClientState.IDLE:
                self._become(ClientState.CLOSED)
                self._final = ConnectionClosed(CLOSED_BY_US)
            self._closing = True
            if self._state is not ClientState.CLOSED:
                self._become(ClientState.CLOSING)
            dial, channel, monitor = self._dial, self._reading, self._monitor
            self._cond.notify_all()
        if monitor is not None:
            monitor.stop()
        if dial is not None:
            dial.cancel()
        if channel is not None:
            patience = deadline.remaining() or 0.0
            # a part of it is for the driver, which has to tidy up behind a handshake that was given up
            channel.close(code, reason, patience - min(0.25, patience / 4))
        if self._driver is not threading.current_thread() and self._driver.ident is not None:
            self._driver.join(deadline.remaining())

    def __enter__(self) -> Client:
        return self.open() if self._state is ClientState.IDLE else self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run_forever(self) -> None:
        """Open, if that has not been done, and return when the conversation is over: after ``close`` or giving up.

        For programs that live in their event functions.  An interrupt (Ctrl-C) closes the client and is passed on.
        """
        if self._state is ClientState.IDLE:
            self._start()
        try:
            with self._cond:
                self._cond.wait_for(lambda: self._state is ClientState.CLOSED)
            if self._driver is not threading.current_thread() and self._driver.ident is not None:
                self._driver.join()
        except BaseException:
            self.close()
            raise

    # -- talking --------------------------------------------------------------------------------------------------

    def send(self, data: Data) -> None:
        """Send one message: str as text, bytes as binary.  Safe from any thread, in order for each.

        Back when it is in the kernel, or, while there is no connection, in the queue (``offline="queue"``), which goes
        out first after the reconnect.  QueueFull when that is full; NotConnected with ``offline="raise"``;
        ConnectionClosed when it is over for good; SendTimeout when the server does not read for ``send_timeout``
        seconds.
        """
        while True:
            channel = self._channel
            if channel is not None:
                try:
                    return channel.send(data)
                except ConnectionClosed:
                    if self._closing:
                        raise
            if self._send_offline(data, channel):
                return None

    def _send_offline(self, data: Data, tried: Channel | None) -> bool:
        """Queue it, or raise; False when there is a new connection to try instead of ``tried``."""
        with self._cond:
            if self._channel is not None and self._channel is not tried:
                return False
            if self._closing or self._final is not None:
                raise self._over_error()
            if self._state is ClientState.IDLE:
                raise NotConnected("the client has not been opened; call open() or use it as a context manager")
            greeting = self._reading if threading.current_thread() is self._driver else None
            if greeting is None or not greeting.open:
                if self._offline == "raise":
                    raise NotConnected(f"not connected now: {self._last_reason or 'the first attempt is under way'}")
                self._outbox.put(data)
                return True
        greeting.send(data)  # from an "open" function: it goes out before what was queued
        return True

    def _over_error(self) -> ConnectionClosed:
        """What to raise now that it is over: a new one each time, for raising adds to an exception's traceback."""
        final = self._final
        return ConnectionClosed(CLOSED_BY_US) if final is None else ConnectionClosed(final.reason, *self._close_frames)

    def batch(self) -> AbstractContextManager[None]:
        """As ``Connection.batch``, over the present connection; without one, messages are queued as ever."""
        channel = self._channel
        return nullcontext() if channel is None else channel.writer.batch()

    def _next_message(self, timeout: float | None) -> Message:
        in_driver = threading.current_thread() is self._driver
        if not in_driver and self._bus.has("message"):
            raise ConcurrentReceive('messages go to the "message" function; recv() is for clients without one')
        deadline: Deadline | None = None
        while True:
            channel = self._reading
            if channel is not None:
                try:
                    message = channel.read(timeout if deadline is None else deadline.remaining())
                except ConnectionClosed:
                    message = None
                if message is not None:
                    return message
            if deadline is None:
                deadline = Deadline(timeout)
            self._await_channel(channel, deadline, in_driver)
            if self._inbox and self._reading is None:
                return self._inbox.popleft()

    def _await_channel(self, ended: Channel | None, deadline: Deadline, in_driver: bool) -> None:
        """Until there is another connection to read from than ``ended``, or something received from an earlier one."""
        with self._cond:
            while self._reading is ended and not self._inbox:
                if ended is not None and not ended.ended:
                    ended.notices = False  # the driver tells the application of them
                    return
                if self._final is not None:
                    raise self._over_error()
                if self._state is ClientState.IDLE:
                    raise NotConnected("the client has not been opened; call open() or use it as a context manager")
                if in_driver:  # it would wait for itself
                    raise NotConnected("recv() in an event function, and there is no connection now")
                if not self._cond.wait(deadline.remaining()) or deadline.passed:
                    raise TimeoutError("no message within the timeout")

    # -- events and state -----------------------------------------------------------------------------------------

    def on(self, event: str, function: H) -> H:
        """Call ``function`` at every ``event``.

        ``message(message)``; all others get one object: ``open``, ``close``, ``error``, ``reconnecting``,
        ``reconnected``, ``gave_up``, ``heartbeat`` (see ``sync_ws.client_events``).  Called by the client's own thread,
        one at a time, in order.  What a function raises is logged and emitted as ``error``.
        """
        return self._bus.on(event, function)

    def off(self, event: str, function: Callable[..., Any]) -> bool:
        """Take a subscription back; whether there was one."""
        return self._bus.off(event, function)

    @property
    def state(self) -> ClientState:
        """Where the client is in its life; see ``ClientState``."""
        return self._state

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on for the present connection, or None."""
        return self._subprotocol

    _subprotocol: str | None = None

    def stats(self) -> dict[str, Any]:
        """Counters over all connections so far; ``rtt`` in seconds, of the last answered heartbeat."""
        with self._cond:
            totals = dict(self._counters)
            if self._reading is not None:
                _add_counters(totals, self._reading)
            return {
                **totals,
                "state": self._state.value,
                "rtt": self._rtt,
                "reconnects": max(0, totals["opened"] - 1),
                "queued_messages": len(self._outbox),
                "queued_bytes": self._outbox.size,
            }

    def __repr__(self) -> str:
        shown = "(callable)" if callable(self._url) else parse_url(self._url).shown
        return f"<Client of {shown}, {self._state.value}>"

    # -- the driver: everything from here on runs in its thread -----------------------------------------------------

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
            if isinstance(outcome, Opened):
                lived, reason = self._converse(outcome)
                if self._backoff is not None and lived >= self._backoff.stable:
                    failed = 0
            else:
                reason, lived = outcome, None
                self._counters["attempts_failed"] += 1
            again = not self._closing and self._backoff is not None and self._wants_again(reason)
            exhausted = again and self._backoff is not None and self._backoff.exhausted(failed)
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
            return bool(self._should_reconnect(reason))
        except Exception as exc:
            self._function_raised("should_reconnect", (reason,), exc)
            return should_reconnect(reason)

    def _attempt(self) -> Opened | Reason:
        """One attempt to connect."""
        with self._cond:
            if self._closing:
                return CLOSED_BY_US
            if self._state is not ClientState.CONNECTING:
                self._become(ClientState.CONNECTING)
        made = False
        try:
            url = self._url() if callable(self._url) else self._url
            headers = self._headers() if callable(self._headers) else self._headers
            made = True
            dial = self._make_dial(url, headers)
        except Exception as exc:
            log.error("the address or headers could not be made", exc_info=exc)
            self._emit("error", Error(exc))
            # a callable that raised may do better next time; what cannot be used will not get better
            return Reason(f"the address or headers could not be made: {exc}", permanent=made, error=exc)
        with self._cond:
            if self._closing:
                return CLOSED_BY_US
            self._dial = dial
        try:
            return dial.run()
        except HandshakeError as exc:
            self._last_reason = Reason(**{**vars(exc.reason), "error": exc})
            return self._last_reason
        finally:
            with self._cond:
                self._dial = None

    def _make_dial(self, url: str, given: Headers | None) -> Dial:
        target = parse_url(url)
        headers = check_headers(given)
        if target.basic_auth and not any(name.lower() == "authorization" for name, _ in headers):
            headers.append(("Authorization", f"Basic {target.basic_auth}"))
        proxy: Target | None = None
        if self._proxy is not None:
            proxy = environment_proxy(target) if self._proxy == "environment" else parse_proxy(self._proxy)
        return Dial(target, headers=headers, proxy=proxy, **self._dial_options)

    def _converse(self, opened: Opened) -> tuple[float, Reason]:
        """From an open connection to its end: how many seconds it lived, and why it ended."""
        channel = Channel(
            transport_for(opened.sock),
            self,
            self._inbox,
            client=True,
            limits=self._limits,
            deflate=Deflate(opened.deflate) if opened.deflate else None,
            early=opened.early,
        )
        opened_at = self._clock.monotonic()
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
                self._emit("open", OpenedEvent(opened.subprotocol, opened.headers))
                if self._counters["opened"] > 1:
                    self._emit("reconnected", Reconnected(self._counters["opened"] - 1))
                self._send_queued(channel)
                self._attend(channel)
        finally:
            self._part_with(channel)
        assert channel.reason is not None
        return self._clock.monotonic() - opened_at, channel.reason

    def _watch(self, channel: Channel) -> HeartbeatMonitor | None:
        policy = self._heartbeat
        if policy is None:
            return None
        opcode = Opcode.TEXT if policy.kind == "message" else Opcode.PING
        monitor = HeartbeatMonitor(
            policy,
            self._clock,
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
            self._emit_notes(channel)
            if self._monitor is not None:
                self._monitor.revive()
            if self._bus.has("message"):
                lost = self._monitor is not None and self._monitor.lost
                try:
                    message = channel.read(TICK if lost else None)
                except ConnectionClosed:
                    return
                except TimeoutError:
                    continue
                if message is not None:
                    self._emit("message", message)
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
        channel.release()
        self._emit_notes(channel)
        with self._cond:
            self._monitor = None
            self._reading = self._channel = None
            self._last_reason = channel.reason
            ended = channel.closed_error()
            self._close_frames = ended.sent, ended.received
            _add_counters(self._counters, channel)
            self._cond.notify_all()

    def _wait_before(self, attempt: int, reason: Reason) -> bool:
        """Wait out the delay before ``attempt``; False when the client was closed meanwhile."""
        assert self._backoff is not None
        delay = max(self._backoff.delay(attempt), reason.retry_after or 0.0)
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
            timer = self._clock.timer(delay, time_is_up)
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
        if channel is not None and self._housekeeper is None:
            close_timeout = self._limits.close_timeout
            keeper = Housekeeper("sync_ws-client", ping_interval=None, ping_timeout=1.0, close_timeout=close_timeout)
            try:
                keeper.start()
                self._housekeeper = keeper
            except RuntimeError as exc:
                log.warning("no thread to answer while a function runs: %s", exc)
        if channel is not None and self._housekeeper is not None:
            self._housekeeper.add(channel)
        self._bus.emit(event, *args)

    def _emit_notes(self, channel: Channel) -> None:
        channel.notices = False
        while self._notes:
            self._emit("heartbeat", self._notes.popleft())

    def _function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        log.error("a function for the event %r raised", event, exc_info=exc)
        if event != "error":
            self._emit("error", Error(exc))

    # -- ChannelOwner: called from whichever thread reads -----------------------------------------------------------

    def note_heart_beat(self, text: str, binary: bytes) -> None:
        self._answered(text)

    def note_pong(self, payload: bytes) -> None:
        self._answered(payload.decode("latin-1"))

    def _answered(self, payload: str) -> None:
        monitor = self._monitor
        rtt = monitor.answered(payload) if monitor is not None else None
        if rtt is not None:
            self._rtt = rtt
            self._notes.append(HeartbeatAnswered(rtt))
            channel = self._reading
            if channel is not None and self._bus.has("message"):
                channel.notices = True

    def note_end(self, reason: Reason) -> None:
        with self._cond:
            self._channel = None
            self._cond.notify_all()

    def _become(self, state: ClientState) -> None:
        """With _cond held."""
        check_transition(self._state, state)
        self._state = state
        self._cond.notify_all()

    def _forget_in_child(self) -> None:
        """After fork: the conversation is the parent's; here it is over."""
        self._cond = threading.Condition()
        self._receive_lock = threading.Lock()
        self._state = ClientState.CLOSED
        self._closing = True
        self._reading = self._channel = self._monitor = self._dial = None
        self._final = ConnectionClosed(Reason("the connection belongs to the parent process"))


def check_context(context: Any) -> Any:
    """An SSLContext or None; TypeError for anything else, and a warning for one that verifies nothing."""
    if context is None:
        return None
    import ssl
    import warnings

    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        text = "this ssl_context does not verify the server's certificate and host name"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return context


def _add_counters(totals: dict[str, int], channel: Channel) -> None:
    totals["messages_received"] += channel.messages_received
    totals["messages_sent"] += channel.writer.messages_sent
    totals["bytes_received"] += channel.bytes_received
    totals["bytes_sent"] += channel.writer.bytes_sent


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
