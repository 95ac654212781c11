"""All of a server but the listening socket: who is here, their events, their names, and their end.

Why so: connections come from more than one door (a server's own port, an http.server handler, a WSGI application), and
whoever holds the door needs to know nothing of what is behind it.  A guest's way: ``admit`` gives it a place and its
name before the opening handshake is answered with 101, ``connect`` makes its connection afterwards, and ``run``
converses with it in the caller's thread to the last byte.  ``opened``, ``message`` and ``ended`` are what ``run`` is
made of, for a caller that has no thread to spare for each connection.

Nothing runs before the first guest: processes fork, and a copy of a hub that is still new is as good as the original.
Once it runs, its copies are stopped and empty, for threads and sockets are the original process's.

Threading: every method may be called from any thread, ``shutdown`` from a handler or a signal's handler too.  What is
called for one connection (``connect``, then ``run``, or its parts) must come in that order; the application's
functions run in the thread of the caller, under no lock.  No lock is ever taken while another one is held here.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..channel.housekeeper import Housekeeper
from ..checks import check_function, check_seconds
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed, Refusal, SendTimeout
from ..events import EventBus, H
from ..forking import ToldOfForks
from ..interrupts import Waiters
from ..messages import Data, Message, as_payload
from ..protocol.frames import encode_frame
from ..protocol.handshake import Agreed
from ..protocol.http_head import Request
from ..timing import Deadline
from ..weak import Weakly
from . import voice
from .answers import come_again
from .connection import Connection
from .options import HubOptions
from .registry import Claim, NameTaken, NoPlace, Registry
from .state import Life, ServerState

__all__ = ["Delivery", "Hub"]

log = logging.getLogger("sync_ws.server")
EVENTS = ("open", "message", "close", "error", "heartbeat")
COUNTERS = ("opened", "broadcasts", "broadcasts_refused")
GRACE = 0.5  # seconds, for threads to notice that their connection was cut off


@dataclass(frozen=True)
class Delivery:
    """Where a broadcast went: ``taken`` counts the connections that have it in the kernel or in their bounded queue;
    ``refused`` lists those that do not, for their queue was full or they were closing."""

    taken: int
    refused: tuple[Connection, ...] = field(default=())


class Hub:
    """See the module.  ``handler`` and the options are the server's; ``name``: how the names of its threads begin.

    ValueError or TypeError for an option out of its bounds.
    """

    def __init__(
        self,
        handler: Callable[[Connection], Any] | None = None,
        *,
        name_policy: str = "replace",
        max_message: int = 1 << 20,
        max_fragments: int = 1024,
        max_frame: int | None = None,
        max_connections: int = 1000,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float = 20.0,
        name: str = "sync_ws-hub",
    ) -> None:
        self._options = HubOptions(
            name_policy=name_policy,
            max_connections=max_connections,
            max_message=max_message,
            max_fragments=max_fragments,
            max_frame=max_frame,
            send_timeout=send_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        self._limits = self._options.limits
        if handler is not None:
            check_function("handler", handler, "a connection")
        self._handler = handler
        self._name = name
        self._bus = EventBus(EVENTS, on_error=Weakly(self._event_function_raised))
        self._registry: Registry[Connection] = Registry(name_policy, max_connections)
        self._housekeeper: Housekeeper | None = None  # set with RUNNING, for good
        self._life = Life()
        self._unclean_ends, self._trouble = voice.Sparing(), voice.Sparing()
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._guests: dict[Claim[Connection], int] = {}  # admitted and not ended -> whose thread has it in hand, or 0
        self._claims: dict[Connection, Claim[Connection]] = {}
        self._make_locks()
        _hubs.add(self)

    def _make_locks(self) -> None:
        # guards _life, _counters, _guests and _claims; any thread, for dictionary operations and assignments only.
        # Reentrant: a signal's handler that calls shutdown may have interrupted the thread that holds it
        self._lock = threading.RLock()
        self._leaving = Waiters()  # for _guests to become fewer

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin now, not with the first guest: what can fail fails here.  Nothing after ``shutdown``.

        RuntimeError or OSError when the system has no thread or no pipe to give.
        """
        with self._lock:
            if self._state is not ServerState.NEW:
                return
        options = self._options
        housekeeper = Housekeeper(
            self._name,
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            close_timeout=options.close_timeout,
        )
        kept = False
        try:
            housekeeper.start()
            with self._lock:
                if self._state is ServerState.NEW:
                    self._housekeeper, kept = housekeeper, True
                    self._life.reach(ServerState.RUNNING)
        finally:
            # an interrupt, or another thread was faster, or it was shut down meanwhile, by a signal's handler perhaps
            if not kept or self._state in (ServerState.STOPPING, ServerState.STOPPED):
                housekeeper.stop(GRACE)

    def shutdown(self, timeout: float = 5.0) -> tuple[Connection, ...]:
        """Admit nobody any more, close every connection with 1001, and wait until they have ended.

        Back within ``timeout`` seconds (a little more when connections must be cut); returns the connections whose
        handler does not return: empty when clean.  Idempotent; from any thread, the one that the calling thread
        itself converses with is not waited for.
        """
        self.end_all(Deadline(check_seconds("timeout", timeout, zero=True)), self._wait_for_departures)
        with self._lock:
            here = threading.get_ident()
            return tuple(conn for conn, claim in list(self._claims.items()) if self._guests.get(claim) != here)

    def end_all(self, deadline: Deadline, wait: Callable[[Deadline], object]) -> None:
        """``shutdown``, with ``wait`` to wait for the guests to leave: called twice, until ``deadline`` and then, when
        whoever had not left by it has been cut off, for a moment."""
        with self._lock:
            self._life.reach(ServerState.STOPPING)
        for connection in self._registry.everyone():
            connection.channel.start_close(CloseCode.GOING_AWAY, "the server is shutting down")
        wait(deadline)
        with self._lock:
            self._life.reach(ServerState.STOPPED)
        for connection in self._registry.everyone():
            self._cut_off(connection)
        wait(Deadline(GRACE))
        if self._housekeeper is not None:
            self._housekeeper.stop(GRACE)

    @property
    def _state(self) -> ServerState:
        return self._life.state

    def _wait_for_departures(self, deadline: Deadline) -> None:
        here = threading.get_ident()
        self._leaving.wait(lambda: all(thread == here for thread in list(self._guests.values())), deadline)

    def _cut_off(self, connection: Connection) -> None:
        connection.channel.abort(Reason("the server was shut down", CloseCode.GOING_AWAY, by_us=True))

    def _forget_in_child(self) -> None:
        """After fork: connections and threads are the parent's, and its threads may have held the locks."""
        self._make_locks()
        self._registry.forget_in_child(empty=self._state is not ServerState.NEW)
        if self._state is not ServerState.NEW:
            self._guests, self._claims, self._housekeeper = {}, {}, None
            self._life.reach(ServerState.STOPPED)

    def __enter__(self) -> Hub:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    # -- the application's side -----------------------------------------------------------------------------------

    def on(self, event: str, function: H) -> H:
        """Call ``function`` at every ``event``: ``open(conn)``, ``message(conn, message)``, ``close(conn, reason)``,
        ``error(conn, exception)``, ``heartbeat(conn, text)``.  What it raises is logged and emitted as ``error``.

        ValueError for ``message`` beside a handler: that one receives the messages.
        """
        if event == "message" and self._handler is not None:
            raise ValueError("the handler receives the messages, so nobody would be called: give one of the two")
        return self._bus.on(event, check_function("an event's function", function, "a connection, and what it is told"))

    def off(self, event: str, function: Callable[..., Any]) -> bool:
        """Take a subscription back; whether there was one."""
        return self._bus.off(event, function)

    @property
    def clients(self) -> Mapping[str, Connection]:
        """The named connections that are open: a read-only view, name -> Connection.

        ``items()`` and ``values()`` are of one moment, so ``dict(clients.items())`` is a copy; ``clients[name]`` is a
        KeyError once that client has left.
        """
        return self._registry

    @property
    def connections(self) -> frozenset[Connection]:
        """All connections that are open, named or not."""
        return frozenset(self._registry.everyone())

    def broadcast(self, data: Data, *, to: Iterable[Connection] | None = None) -> Delivery:
        """Send one message to every open connection, or to those in ``to``, without waiting for any of them.

        A client that reads slowly gets it from a queue of at most 64 messages and 1 MiB; beyond that it is
        in the result's ``refused``, and after ``send_timeout`` seconds of that its connection is given up (1013).
        """
        opcode, payload = as_payload(data)
        frame = encode_frame(opcode, payload, masked=False)  # once for all
        connections = self._registry.everyone() if to is None else list(to)
        refused = tuple(conn for conn in connections if not conn.channel.writer.post(opcode, payload, frame))
        with self._lock:
            self._counters["broadcasts"] += 1
            self._counters["broadcasts_refused"] += len(refused)
        return Delivery(len(connections) - len(refused), refused)

    def send_to(self, name: str, data: Data) -> None:
        """Send one message to the client of that name (to each of them, where several may have it).

        KeyError if there is none; else as ``Connection.send``, after every holder had its turn.
        """
        holders = self._registry.holders(name)
        if not holders:
            raise KeyError(f"no client is named {name!r}")
        failures = []
        for connection in holders:
            try:
                connection.send(data)
            except (ConnectionClosed, SendTimeout) as exc:
                failures.append(exc)
        if failures:
            raise failures[0]

    def stats(self) -> dict[str, Any]:
        """Counters of this hub, and how many connections there are now."""
        with self._lock:
            counters = dict(self._counters)
        return {**counters, "connections": len(self._registry.everyone()), "clients": len(self._registry)}

    # -- a guest's way, in the caller's thread --------------------------------------------------------------------

    def admit(self, name: str | None = None) -> Claim[Connection]:
        """A place for a guest, and its name, before its opening handshake is answered with 101.

        Refusal, to be answered instead, when there is no place or the name is taken.  Whoever does not go on to
        ``connect`` gives the claim back with ``withdraw``.
        """
        try:
            self.start()
            claim = self._registry.claim(name)
        except (NoPlace, RuntimeError, OSError) as exc:
            if not isinstance(exc, NoPlace):
                voice.accept_trouble("no thread or pipe to look after connections", exc, self._trouble)
            raise come_again() from None
        except NameTaken:
            raise Refusal(409, "expected a name that is not in use") from None
        with self._lock:
            running = self._state is ServerState.RUNNING
            if running:
                self._guests[claim] = threading.get_ident()
        if not running:
            self._registry.release(claim)
            raise come_again("the server is shutting down, try again later")
        return claim

    def withdraw(self, claim: Claim[Connection]) -> None:
        """Give the claim of a guest back that did not get as far as ``connect``."""
        self._registry.release(claim)
        with self._lock:
            self._guests.pop(claim, None)
        self._leaving.wake()

    def connect(
        self,
        claim: Claim[Connection],
        sock: socket.socket,
        request: Request,
        *,
        identity: Any = None,
        subprotocols: Iterable[str] = (),
        agreed: Agreed = Agreed(),
        early: bytes = b"",
    ) -> Connection:
        """The connection of an admitted guest whose request was answered with 101.  From here on ``ended`` gives back
        the claim and closes ``sock``; if this raises, the claim has been withdrawn.

        ``subprotocols``: what there was to choose from; ``agreed``: what was; ``early``: what came behind the request.
        """
        try:
            connection = Connection(
                sock,
                request,
                name=claim.name,
                identity=identity,
                subprotocols=subprotocols,
                agreed=agreed,
                limits=self._limits,
                early=early,
                on_heart_beat=self._heart_beat,
                # the name is free as soon as the connection has ended, though its handler may still be at work
                on_end=lambda reason: self._registry.release(claim),
            )
        except BaseException:
            self.withdraw(claim)
            raise
        with self._lock:
            self._claims[connection] = claim
            self._guests[claim] = 0
        return connection

    def run(self, connection: Connection) -> None:
        """Converse in this thread, from the ``open`` event to the last byte: by the handler, or by the ``message``
        event.  The connection has ended when this returns or raises."""
        with self._lock:
            self._guests[self._claims[connection]] = threading.get_ident()
        try:
            self.opened(connection)
            self._handle(connection)
        finally:
            self.ended(connection)

    def opened(self, connection: Connection) -> None:
        """Show the connection and look after it; the ``open`` event."""
        channel = connection.channel
        assert self._housekeeper is not None  # it was there when its claim was made
        self._housekeeper.add(channel)
        replaced = self._registry.open(self._claims[connection], connection)
        with self._lock:
            self._counters["opened"] += 1
        voice.opened(connection)
        for old in replaced:
            # it may have been too late itself: then a newer one of its name is open already
            voice.taken_over(connection if old is not connection else self._registry.get(str(old.name), old), old)
            old.channel.start_close(CloseCode.REPLACED, "replaced by a newer connection of this name")
        # shown first, asked then: a shutdown either sees it or is seen here
        if (state := self._state) is not ServerState.RUNNING:
            channel.start_close(CloseCode.GOING_AWAY, "the server is shutting down")
            if state is ServerState.STOPPED:
                self._cut_off(connection)
        self._bus.emit("open", connection)

    def message(self, connection: Connection, message: Message) -> None:
        """The ``message`` event."""
        self._bus.emit("message", connection, message)

    def ended(self, connection: Connection) -> None:
        """Close the connection, if that has not been done, and forget it; the ``close`` event."""
        claim = self._claims.get(connection)
        if claim is None:  # its handler has forked, and in the child it is nobody's
            return
        try:
            self._part(connection, claim)
        finally:
            with self._lock:
                self._claims.pop(connection, None)  # an event's function has forked: in the child it is gone already
                self._guests.pop(claim, None)
            self._leaving.wake()

    def _part(self, connection: Connection, claim: Claim[Connection]) -> None:
        channel = connection.channel
        try:
            if not channel.ended:
                channel.close()
        finally:
            if not channel.ended:  # an interrupt
                channel.abort(Reason("interrupted while closing", CloseCode.ABNORMAL, by_us=True))
            self._registry.release(claim)
            if self._housekeeper is not None:
                self._housekeeper.discard(channel)
            try:
                connection.tell_notes()
                self._bus.emit("close", connection, channel.reason)
            finally:
                voice.ended(connection, self._unclean_ends)
                channel.release()

    def _handle(self, connection: Connection) -> None:
        try:
            if self._handler is not None:
                self._handler(connection)
            else:
                emit = self._bus.emit
                for message in connection:
                    emit("message", connection, message)
        except Exception as exc:
            if isinstance(exc, ConnectionClosed) and not connection.connected:  # else another one's end came out here
                log.debug("%r: the handler ended with its connection: %s", connection, exc)
                return
            log.exception("the handler of %r raised", connection)
            self._bus.emit("error", connection, exc)
            connection.channel.close(CloseCode.INTERNAL_ERROR, "the handler failed")

    def _heart_beat(self, connection: Connection, text: str) -> None:
        self._bus.emit("heartbeat", connection, text)

    def _event_function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        if isinstance(exc, ConnectionClosed) and event != "error" and not args[0].connected:
            log.debug("%s function of %r: %s", event, args[0], exc)
            return
        log.error("a function for the event %r of %r raised", event, args[0], exc_info=exc)
        if event != "error":
            self._bus.emit("error", args[0], exc)


_hubs: ToldOfForks[Hub] = ToldOfForks()
