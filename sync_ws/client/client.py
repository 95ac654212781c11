"""The client: one conversation over as many connections as it takes.

Why so: what the application calls is here; the thread that keeps the conversation connected is the driver's, and
``driver`` says how the two share the work.

Threading: every method from any thread, also from the functions subscribed with ``on``; ``recv`` by one thread at a
time.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Callable, Iterable

from ..channel.channel import Channel
from ..channel.conversation import Conversation
from ..channel.inbox import Note
from ..channel.limits import Limits
from ..checks import check_count, check_seconds
from ..endings import CloseCode, Reason
from ..errors import ConcurrentReceive, ConnectionClosed, HandshakeError, HandshakeTimeout, NotConnected
from ..events import H
from ..forking import ToldOfForks
from ..messages import Data, Message
from ..timing import SYSTEM_CLOCK, Clock, Deadline
from .backoff import Backoff
from .heartbeat import Heartbeat
from .options import ClientOptions, HeaderFields
from .state import ClientState, should_reconnect
from .thread import CLOSED_BY_US, Driver, add_counters

__all__ = ["Client"]

STEP = 0.5  # seconds: how long a wait may overlook a signal that came as it began


class Client(Driver, Conversation):
    """A WebSocket client that stays connected.  The options and their defaults are in the README.

    Opened once, with ``open``, ``run_forever`` or as a context manager; closed for good with ``close``.  ValueError or
    TypeError for an option out of its bounds.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        headers: HeaderFields | Callable[[], HeaderFields] | None = None,
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
        limits = Limits(
            max_message=check_count("max_message", max_message),
            max_fragments=check_count("max_fragments", max_fragments),
            send_timeout=check_seconds("send_timeout", send_timeout),
            close_timeout=check_seconds("close_timeout", close_timeout),
        )
        options = ClientOptions(
            url=url,
            headers=headers,
            subprotocols=subprotocols,
            origin=origin,
            cookie=cookie,
            proxy=proxy,
            ssl_context=ssl_context,
            compression=compression,
            open_timeout=open_timeout,
            limits=limits,
            heartbeat=heartbeat,
            backoff=Backoff.of(reconnect),
            should_reconnect=should_reconnect,
            offline=offline,
            clock=clock,
        )
        Conversation.__init__(self)
        Driver.__init__(self, options)
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
            if not self._wait_until(lambda: self._channel or self._final or self._closing, deadline):
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
            self._thread.start()
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
        deadline = Deadline(self._options.limits.close_timeout if timeout is None else timeout)
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
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(deadline.remaining())

    def __enter__(self) -> Client:
        return self.open() if self._state is ClientState.IDLE else self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run_forever(self) -> None:
        """Open, if that has not been done, and return when the conversation is over: after ``close`` or giving up.

        For programs that live in their event functions.  An interrupt (Ctrl-C) closes the client and is passed on.
        """
        try:
            if self._state is ClientState.IDLE:
                self._start()
            self._wait_until(lambda: self._state is ClientState.CLOSED, Deadline(None))
            if self._thread is not threading.current_thread() and self._thread.ident is not None:
                self._thread.join()
        except BaseException:
            self.close()
            raise

    def _wait_until(self, settled: Callable[[], object], deadline: Deadline) -> bool:
        """Whether ``settled`` came true before the deadline."""
        with self._cond:
            while not settled():
                remaining = deadline.remaining()
                if remaining == 0.0:
                    return False
                # in steps: Python does not see a signal that comes just before a wait begins until the wait ends
                self._cond.wait(STEP if remaining is None else min(STEP, remaining))
        return True

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
            greeting = self._greeting if threading.current_thread() is self._thread else None
            if greeting is None:
                if self._options.offline == "raise":
                    why = (tried.reason if tried is not None else None) or self._last_reason
                    raise NotConnected(f"not connected now: {why or 'the first attempt is under way'}")
                self._outbox.put(data)
                return True
        # From an "open" function: before what was queued, over this connection or not at all.  The next one is
        # greeted anew, and a greeting that was left over must not follow that one.
        greeting.send(data)
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
        in_driver = threading.current_thread() is self._thread
        if not in_driver and self._bus.has("message"):
            raise ConcurrentReceive('messages go to the "message" function; recv() is for clients without one')
        deadline: Deadline | None = None
        item: Message | Note | None
        while True:
            item = None
            channel = self._reading
            if channel is not None:
                try:
                    item = channel.read(timeout if deadline is None else deadline.remaining())
                except ConnectionClosed:
                    item = None
                if item is not None and not isinstance(item, Note):
                    return item
                if item is not None:
                    self._aside.append(item)
            if deadline is None:
                deadline = Deadline(timeout)
            if item is None:
                self._await_channel(channel, deadline, in_driver)
            if self._inbox and self._reading is None:
                item = self._inbox.popleft()
                if not isinstance(item, Note):
                    return item
                self._aside.append(item)

    def _await_channel(self, ended: Channel | None, deadline: Deadline, in_driver: bool) -> None:
        """Until there is another connection to read from than ``ended``, or something received from an earlier one."""
        with self._cond:
            while self._reading is ended and not self._inbox:
                if self._final is not None:
                    raise self._over_error()
                if self._state is ClientState.IDLE:
                    raise NotConnected("the client has not been opened; call open() or use it as a context manager")
                if in_driver:  # it would wait for itself
                    raise NotConnected("recv() in an event function, and there is no connection now")
                remaining = deadline.remaining()
                if remaining == 0.0:
                    raise TimeoutError("no message within the timeout")
                self._cond.wait(STEP if remaining is None else min(STEP, remaining))

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

    def stats(self) -> dict[str, Any]:
        """Counters over all connections so far; ``rtt`` in seconds, of the last answered heartbeat."""
        with self._cond:
            totals = dict(self._counters)
            if self._reading is not None:
                add_counters(totals, self._reading)
            return {
                **totals,
                "state": self._state.value,
                "rtt": self._rtt,
                "reconnects": max(0, totals["opened"] - 1),
                "queued_messages": len(self._outbox),
                "queued_bytes": self._outbox.size,
            }

    def __repr__(self) -> str:
        return f"<Client of {self._options.shown_url}, {self._state.value}>"

    def _forget_in_child(self) -> None:
        """After fork: the conversation is the parent's; here it is over."""
        self._cond = threading.Condition()
        self._receive_lock = threading.Lock()
        self._state = ClientState.CLOSED
        self._closing = True
        self._reading = self._channel = self._monitor = self._dial = None
        self._final = ConnectionClosed(Reason("the connection belongs to the parent process"))


_clients: ToldOfForks[Client] = ToldOfForks()
