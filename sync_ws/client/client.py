"""The client: one conversation over as many connections as it takes.

Why so: what the application calls is here; what it shares with the client's thread is the line, and ``thread`` says
how the two share the work.

Threading: every method from any thread, also from the functions subscribed with ``on``; ``recv`` by one thread at a
time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from ..channel.batch import Batch
from ..channel.channel import Channel
from ..channel.conversation import Conversation
from ..channel.inbox import Note
from ..channel.limits import Limits
from ..channel.writer import BATCH_BYTES
from ..checks import FOREVER, check_count, check_seconds, check_timeout
from ..endings import CloseCode, Reason
from ..errors import ConcurrentReceive, ConnectionClosed, HandshakeError, HandshakeTimeout, NotConnected
from ..events import EventBus, H
from ..forking import ToldOfForks
from ..messages import Data, Message, Pieces, as_whole, listed
from ..protocol.closing import check_close
from ..timing import SYSTEM_CLOCK, Clock, Deadline
from .backoff import Backoff
from .events import EVENTS
from .heartbeat import Heartbeat
from .line import CLOSED_BY_US, Line, OpenedBefore
from .options import ClientOptions, HeaderFields
from .outbox import Offline
from .state import ClientState, should_reconnect
from .thread import ClientThread

__all__ = ["Client"]

LAST_MOMENT = 1.0  # seconds at most for a thread's last instructions


class Client(Conversation):
    """A WebSocket client that stays connected.  The options and their defaults are in the README.

    Opened once, with ``open``, ``run_forever`` or as a context manager; closed for good with ``close``.  ValueError or
    TypeError for an option out of its bounds.
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        *,
        headers: HeaderFields | Callable[[], HeaderFields] | None = None,
        subprotocols: Iterable[str] | Callable[[], Iterable[str]] = (),
        origin: str | Callable[[], str | None] | None = None,
        cookie: str | Callable[[], str | None] | None = None,
        proxy: str | Callable[[], str | None] | None = None,
        ssl_context: Any = None,
        heartbeat: Heartbeat | float | None = Heartbeat(),
        reconnect: Backoff | float | None = Backoff(),
        should_reconnect: Callable[[Reason], bool] = should_reconnect,
        offline: Offline | str = Offline(),
        compression: bool = False,
        max_message: int = 1 << 20,
        max_fragments: int = 1024,
        max_frame: int | None = None,
        open_timeout: float = 10.0,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        limits = Limits(
            max_message=check_count("max_message", max_message),
            max_fragments=check_count("max_fragments", max_fragments),
            max_frame=None if max_frame is None else check_count("max_frame", max_frame),
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
            heartbeat=Heartbeat.of(heartbeat),
            backoff=Backoff.of(reconnect),
            should_reconnect=should_reconnect,
            offline=Offline.of(offline),
            clock=clock,
        )
        self._options = options
        self._line = Line(limits, options.offline)
        super().__init__(self._line.inbox)
        self._bus = EventBus(EVENTS)
        self._thread = ClientThread(options, self._line, self._bus)
        _clients.add(self)

    # -- opening and closing --------------------------------------------------------------------------------------

    def open(self, timeout: float | None = None) -> Client:
        """Connect, and wait until the connection is open, through as many attempts as ``reconnect`` allows.

        ``timeout``: seconds to wait for it, None for as long as it takes, 0 not to wait at all (the client goes on
        trying in the background).  HandshakeTimeout after it, and HandshakeError when the client gave up or was closed
        meanwhile; the client is closed then.  RuntimeError when it was opened before.

        It gives up where trying again cannot help (see ``should_reconnect``); and so as not to wait for ever for a
        misspelt name, without ``timeout`` also when the very first attempt finds that there is no such host.
        """
        timeout = check_timeout("timeout", timeout)
        try:
            self._start(awaited=timeout is None)
            if timeout == 0:
                return self
            if not self._line.await_open(Deadline(timeout)):
                raise HandshakeTimeout(f"no open connection within {timeout:g} s; last: {self._line.last_trouble}")
            reason = self._line.never_opened()
            if reason is None:
                return self
            raise _once_more(reason.error) if isinstance(reason.error, HandshakeError) else HandshakeError(reason)
        except OpenedBefore:
            raise
        except BaseException:
            self.close()  # where it gave up, its thread may still be telling so
            raise

    def _start(self, awaited: bool = False) -> None:
        """Whoever calls it closes the client should it raise anything but OpenedBefore."""
        self._line.begin(awaited)
        try:
            self._thread.start()
        except RuntimeError as exc:  # the system has no thread to give
            self._line.over(Reason(str(exc), error=exc))
            raise

    def close(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float | None = None) -> None:
        """End the conversation for good, in whatever state it is; idempotent, from any thread.

        Back within ``timeout`` seconds (None: ``close_timeout``).  Afterwards nothing is dialled, and one ``close``
        event is the last there is.  What was queued and never sent is in that event.  ValueError, and nothing is
        changed, for a code that must not be sent (RFC 6455 section 7.4) or a reason of more than 123 bytes.
        """
        _check_goodbye(code, reason)
        timeout = check_timeout("timeout", timeout)
        timeout = self._options.limits.close_timeout if timeout is None else timeout
        deadline = Deadline(min(timeout, threading.TIMEOUT_MAX))
        dial, channel, monitor = self._line.close()
        if self._thread.ident is None and self.state is not ClientState.CLOSED:  # it was never started, or
            self._line.over(CLOSED_BY_US)  # is about to find that it is over
        if monitor is not None:
            monitor.stop()
        if dial is not None:
            dial.cancel()
        if channel is not None:
            patience = deadline.remaining() or 0.0
            # a part of it is for the client's thread, which tidies up behind a handshake that was given up
            channel.close(code, reason, patience - min(0.25, patience / 4))
            if channel.interrupted:
                return  # a signal's handler, and the frame that it interrupted has to go on first
        if (monitor is not None and monitor.held_here) or (dial is not None and dial.held_here):
            return  # likewise
        self._join(deadline)

    def reconnect(self, code: int = CloseCode.NORMAL, reason: str = "", timeout: float | None = None) -> None:
        """Drop the present connection and come back at once: whatever connection there is afterwards is another one.

        By the application's own word: ``should_reconnect`` is not asked, and it works with ``reconnect=None``, too.
        What is queued stays queued.  While open: the closing handshake with ``code`` and ``reason``, then an attempt
        without a delay; the ``close`` event has ``reconnecting=True`` and says why.  While an attempt is under way:
        that one is given up for a new one, with what the functions among the options say now.  While waiting: the wait
        is over.

        From any thread, the event functions and a signal's handler; back within ``timeout`` seconds (None:
        ``close_timeout``), which is how long the closing handshake may take.  It does not wait for the new connection.
        NotConnected before ``open``; ConnectionClosed once it is over for good.
        """
        _check_goodbye(code, reason)
        timeout = check_timeout("timeout", timeout)
        dial, channel = self._line.reconnect()
        if dial is not None:
            dial.cancel()
        if channel is not None:
            channel.close(code, reason, timeout)

    def _join(self, deadline: Deadline) -> None:
        """Wait for the client's thread to end, unless it would wait for us."""
        if self._thread is threading.current_thread() or self._line.held_here:
            return
        # joined only when it is as good as gone: a join that an interrupt ends leaves a thread that passes for stopped
        if self._thread.ident is not None and self._thread.gone.wait(deadline.remaining()):
            self._thread.join(LAST_MOMENT)

    def __enter__(self) -> Client:
        return self.open() if self.state is ClientState.IDLE else self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def run_forever(self) -> Reason:
        """Open, if that has not been done, and return when the conversation is over: why it is.

        For programs that live in their event functions.  The result is what ``reason`` is from then on: its ``text``,
        or ``str`` of it, says why in words; ``code`` is 1000 after a clean end; ``error`` is what a function raised
        that ended the client, SystemExit say.  Raises nothing but an interrupt (Ctrl-C), which closes the client and
        is passed on.
        """
        if self._thread is threading.current_thread():
            raise RuntimeError("run_forever() in an event function would wait for itself")
        try:
            if self.state is ClientState.IDLE:
                self._start()
            self._line.await_closed(Deadline(None))
            self._join(Deadline(None))
        except BaseException:
            self.close()
            raise
        return self._line.reason or CLOSED_BY_US

    # -- talking --------------------------------------------------------------------------------------------------

    def send(self, data: Data | Pieces) -> None:
        """Send one message: str as text, bytes as binary.  Safe from any thread, in order for each.

        Back when it is in the kernel, or, while there is no connection, in the queue, which goes out first after the
        reconnect; when that is full, as ``offline`` says (see ``Offline``).  QueueFull when there is no room in it;
        NotConnected with ``offline="raise"``; ConnectionClosed when it is over for good; SendTimeout when the server
        does not read for ``send_timeout`` seconds.
        """
        if not isinstance(data, (str, bytes, bytearray, memoryview)):
            data = listed(data)  # type: ignore[assignment]  # an iterator can be asked only once
            if not data:
                return None
        while True:
            channel = self._line.sending_channel
            if channel is not None:
                try:
                    return channel.send(data)
                except ConnectionClosed:
                    if self._line.closing:
                        raise
            if self._send_offline(data, channel):
                return None

    def _send_offline(self, data: Data | Pieces, tried_channel: Channel | None) -> bool:
        """Queue it, or raise; False when there is a new connection to try instead of ``tried_channel``."""
        batch = self._line.batches.mine() if self._line.batches.open else None
        if batch is not None:
            self._line.check_going_on()
            batch.add(*as_whole(data))
            if batch.size >= BATCH_BYTES:
                batch.write()
            return True
        greeting_channel = self._thread.greeting_channel
        if greeting_channel is None:
            in_our_thread = threading.current_thread() is self._thread
            return self._line.put_offline(data, tried_channel, may_wait=not in_our_thread)
        self._line.check_going_on()
        greeting_channel.send(data)
        return True

    def ping(self, timeout: float = 10.0) -> float:
        """The round-trip time of a Ping (RFC 6455 section 5.5.2), in seconds.

        From any thread; reads if nobody else does.  NotConnected while there is no connection; TimeoutError when no
        Pong comes within ``timeout`` seconds; ConnectionClosed when the connection ends meanwhile, or it is over.
        """
        channel = self._line.reading_channel
        if channel is None:
            self._line.check_going_on()
            raise NotConnected(f"not connected now: {self._line.last_trouble}")
        return channel.ping(timeout)

    def batch(self) -> AbstractContextManager[None]:
        """As ``Connection.batch``; it outlives a connection.

        What was gathered is in the kernel as a whole, or, where there is no connection or it ends, queued as a whole,
        in order, less the messages that were in the kernel already; or leaving the block raises, as ``send`` would, and
        none of these is queued.
        """
        return Batch(self._line.batches, self._write_batch, outlives=True)

    def _write_batch(self) -> None:
        """Write what this thread has gathered over the connection there is, or queue it."""
        line = self._line
        batch = line.batches.mine()
        while batch is not None and batch.items:
            greeting_channel = self._thread.greeting_channel
            channel = greeting_channel or line.sending_channel
            if channel is not None:
                try:
                    channel.writer.write_batch()
                    return
                except ConnectionClosed:
                    if line.closing or greeting_channel is not None:
                        batch.take()
                        raise
            in_our_thread = threading.current_thread() is self._thread
            line.put_batch_offline(batch, channel, may_wait=not in_our_thread)

    def _next_message(self, timeout: float | None) -> Message:
        if timeout is not None and (timeout.__class__ is not float or not 0.0 <= timeout < FOREVER):
            timeout = check_timeout("timeout", timeout)
        if self._bus.has("message") and threading.current_thread() is not self._thread:
            raise ConcurrentReceive('messages go to the "message" function; recv() is for clients without one')
        deadline: Deadline | None = None
        item: Message | Note | None
        while True:
            item = None
            channel = self._line.reading_channel
            if channel is not None:
                try:
                    item = channel.read_kept(timeout if deadline is None else deadline.remaining())
                except ConnectionClosed:
                    item = None
                if item is not None and item.__class__ is not Note:
                    return item  # type: ignore[return-value]
            if deadline is None:
                deadline = Deadline(timeout)
            if item is None:
                if self._line.batches.open:
                    self._write_batch()
                in_our_thread = threading.current_thread() is self._thread
                item = self._line.take_left(channel, deadline, may_wait=not in_our_thread)
            if isinstance(item, Note):
                self._line.put_aside(item)
                self._inbox.kept = None
            elif item is not None:
                return item

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
        return self._line.state

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._line.connected

    @property
    def reason(self) -> Reason | None:
        """Why it is over.  Before that, why the last attempt failed or the last connection ended; None if none has."""
        return self._line.reason

    @property
    def url(self) -> str | None:
        """The address as it was given, with all secrets that are in it.

        With a function for it, the one of the present attempt or connection, else of the last; None before the first.
        """
        given = self._options.url
        return given if isinstance(given, str) else self._line.url

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol agreed on for the present connection, or None."""
        return self._line.subprotocol

    def stats(self) -> dict[str, Any]:
        """Counters over all connections so far; ``rtt`` in seconds, of the last answered heartbeat."""
        return self._line.stats()

    def __repr__(self) -> str:
        return f"<Client of {self._options.shown_url}, {self.state.value}>"

    def _forget_in_child(self) -> None:
        """After fork: the rest is the line's to forget."""
        if self.state is ClientState.IDLE:  # Python takes a thread that was never started for one that has ended
            self._thread = ClientThread(self._options, self._line, self._bus)
        else:
            self._thread.gone.set()


def _check_goodbye(code: int, reason: str) -> None:
    """See ``close``."""
    if not isinstance(reason, str) or isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"a close code is a whole number and its reason a string, not {code!r} and {reason!r}")
    check_close(code, reason)


def _once_more(error: HandshakeError) -> HandshakeError:
    """The same to be raised: raising adds a traceback, which would keep the client alive that keeps the error."""
    another = type(error).__new__(type(error), *error.args)
    another.__dict__.update(error.__dict__)
    another.__cause__ = error.__cause__
    return another


_clients: ToldOfForks[Client] = ToldOfForks()
