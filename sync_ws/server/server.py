"""The server: accept, a thread per connection, wiring, shutdown.

Why so: a connection is one plain thread from its first byte to its last: TLS, opening handshake, handler, closing
handshake.  Whatever needs a second pair of hands (busy handlers, slow readers, deadlines) is the housekeeper's.

Threading: every method may be called from any thread, ``shutdown`` from a handler too.  Handlers and event functions
of one connection run in that connection's thread, in order, and under no lock.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Collection, Iterable, Mapping

from ..channel.housekeeper import Housekeeper
from ..channel.limits import Limits
from ..checks import check_count, check_seconds
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed, SendTimeout
from ..events import EventBus, H
from ..messages import Data, as_payload
from ..protocol.frames import encode_frame
from ..protocol.http_head import Request
from ..timing import Deadline
from .admission import Reception
from .answers import NO_THREAD
from .connection import Connection
from .listener import Listener
from .pages import check_pages
from .policy import make_policy
from .registry import Claim, Registry

__all__ = ["Delivery", "Server"]

log = logging.getLogger("sync_ws.server")
EVENTS = ("open", "message", "close", "error", "heartbeat")
COUNTERS = ("accepted", "refused", "opened", "broadcasts", "broadcasts_refused")


@dataclass(frozen=True)
class Delivery:
    """Where a broadcast went: ``taken`` counts the connections that have it in the kernel or in their bounded queue;
    ``refused`` lists those that do not, for their queue was full or they were closing."""

    taken: int
    refused: tuple[Connection, ...] = field(default=())


class Server:
    """A WebSocket server on threads.

    ``handler(conn)`` runs in each connection's own thread; when it returns, the connection is closed with 1000, when it
    raises, with 1011.  Without a handler, subscribe with ``on``.  The options and their defaults are in the README.
    ValueError or TypeError for an option out of its bounds, OSError when the address cannot be bound.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        handler: Callable[[Connection], Any] | None = None,
        *,
        path: str = "/ws/",
        ssl_context: ssl.SSLContext | None = None,
        name_policy: str = "replace",
        require_name: bool = False,
        origins: Collection[str] | None = None,
        authenticate: Callable[[Request], Any] | None = None,
        subprotocols: Iterable[str] = (),
        compression: bool = False,
        pages: str | Path | Mapping[str, str | Path] | None = None,
        max_message: int = 1 << 20,
        max_fragments: int = 1024,
        max_connections: int = 1000,
        handshake_timeout: float = 10.0,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float = 20.0,
    ) -> None:
        policy = make_policy(
            path, origins=origins, require_name=require_name, subprotocols=subprotocols, compression=compression
        )
        check_count("max_connections", max_connections)
        self._limits = Limits(
            max_message=check_count("max_message", max_message),
            max_fragments=check_count("max_fragments", max_fragments),
            send_timeout=check_seconds("send_timeout", send_timeout),
            close_timeout=check_seconds("close_timeout", close_timeout),
        )
        self._path = path
        self._handler = handler
        self._secure = ssl_context is not None
        self._max_connections = max_connections
        self._ping = (
            None if ping_interval is None else check_seconds("ping_interval", ping_interval),
            check_seconds("ping_timeout", ping_timeout),
        )
        self._bus = EventBus(EVENTS, on_error=self._event_function_raised)
        self._registry: Registry[Connection] = Registry(name_policy, max_connections)
        self._reception = Reception(
            policy,
            self._registry,
            authenticate=authenticate,
            pages=check_pages(pages),
            ssl_context=ssl_context,
            timeout=check_seconds("handshake_timeout", handshake_timeout),
            limits=self._limits,
            on_heart_beat=lambda conn, text: self._emit("heartbeat", conn, text),
        )
        # guards _threads, _counters and _state; any thread, for set operations and assignments only
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._state = "new"  # new -> running -> stopped
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._numbers = itertools.count(1)
        self._counters = dict.fromkeys(COUNTERS, 0)
        # a client that expects TLS could not read it
        self._listener = Listener(host, port, self._accepted, NO_THREAD if ssl_context is None else b"")
        self.host, self.port = self._listener.address
        self._housekeeper: Housekeeper | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients find it, such as ``ws://127.0.0.1:1024/ws/``."""
        return f"{'wss' if self._secure else 'ws'}://{self._place}{self._path}"

    @property
    def page_url(self) -> str:
        """Where browsers find its pages, such as ``http://127.0.0.1:1024/``."""
        return f"{'https' if self._secure else 'http'}://{self._place}/"

    @property
    def _place(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def start(self) -> Server:
        """Accept connections in background threads; returns at once.

        RuntimeError if it was started before, or when the system has no thread to give: it is shut down then.
        """
        with self._lock:
            if self._state != "new":
                raise RuntimeError(f"a server is started once; this one is {self._state}")
            self._state = "running"
            self._pid = os.getpid()
        interval, timeout = self._ping
        try:
            self._housekeeper = Housekeeper(
                f"sync_ws-{self.port}",
                ping_interval=interval,
                ping_timeout=timeout,
                close_timeout=self._limits.close_timeout,
            )
            self._housekeeper.start()
            self._listener.start(f"sync_ws-{self.port}-accept")
        except BaseException:  # an interrupt too
            self.shutdown()
            raise
        if self._state != "running":  # shut down meanwhile, by a signal's handler perhaps
            self.shutdown()
        return self

    def serve_forever(self) -> None:
        """Start, if that has not been done; returns after ``shutdown``, and shuts down at an interrupt (Ctrl-C), which
        it passes on."""
        try:
            if self._state == "new":
                self.start()
            # in steps: Python does not see a signal that comes just before a wait begins, or to another thread,
            # until the wait ends
            while not self._ended.wait(0.5):
                pass
        except BaseException:
            self.shutdown()
            raise

    def shutdown(self, timeout: float = 5.0) -> tuple[threading.Thread, ...]:
        """Stop accepting, close every connection with 1001, and wait for their threads.

        Back within ``timeout`` seconds (a little more when connections must be cut); returns the threads that are
        still alive, because a handler does not return: empty when clean.  Idempotent; from any thread, a handler's
        own is not waited for.
        """
        deadline = Deadline(check_seconds("timeout", timeout, zero=True))
        if self._pid != os.getpid():
            return ()  # a fork's copy: connections and threads are the parent's
        with self._lock:
            self._state = "stopped"
        self._listener.stop(deadline)
        self._reception.close()
        for connection in self._registry.everyone():
            connection.channel.start_close(CloseCode.GOING_AWAY, "the server is shutting down")
        self._join(deadline)
        for connection in self._registry.everyone():
            connection.channel.abort(Reason("the server was shut down", CloseCode.GOING_AWAY, by_us=True))
        self._join(Deadline(0.5))
        if self._housekeeper is not None:
            self._housekeeper.stop(1.0)
        self._ended.set()
        with self._lock:
            threads = self._threads - {threading.current_thread()}
            return tuple(thread for thread in threads if thread.is_alive())

    def _join(self, deadline: Deadline) -> None:
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            # one without an ident is about to be started, or could not be; it will find the server stopped
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(deadline.remaining())

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    # -- the application's side -----------------------------------------------------------------------------------

    def on(self, event: str, function: H) -> H:
        """Call ``function`` at every ``event``: ``open(conn)``, ``message(conn, message)``, ``close(conn, reason)``,
        ``error(conn, exception)``, ``heartbeat(conn, text)``.  What it raises is logged and emitted as ``error``."""
        return self._bus.on(event, function)

    def off(self, event: str, function: Callable[..., Any]) -> bool:
        """Take a subscription back; whether there was one."""
        return self._bus.off(event, function)

    @property
    def clients(self) -> Mapping[str, Connection]:
        """The named connections that are open: a read-only view, name -> Connection."""
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
        frame = encode_frame(opcode, payload, masked=False)
        connections = self._registry.everyone() if to is None else list(to)
        refused = tuple(conn for conn in connections if not conn.channel.writer.post(opcode, payload, frame))
        self._count("broadcasts")
        self._count("broadcasts_refused", len(refused))
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
        """Counters of this server, and how many connections and threads there are now."""
        with self._lock:
            counters, threads = dict(self._counters), len(self._threads)
        return {
            **counters,
            "connections": len(self._registry.everyone()),
            "clients": len(self._registry),
            "handshakes": self._reception.pending,
            "threads": threads,
        }

    def _count(self, counter: str, by: int = 1) -> None:
        with self._lock:  # += is several steps, and threads may change between them
            self._counters[counter] += by

    # -- one connection, in its own thread ------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, peer: Any) -> bool:
        """In the accepting thread: give the connection a thread; False when there are too many already.  RuntimeError
        when the system has none."""
        self._count("accepted")
        thread = threading.Thread(
            target=self._serve, args=(sock, peer), name=f"sync_ws-{self.port}-{next(self._numbers)}", daemon=True
        )
        with self._lock:
            # twice the connections: as many may be in their handshake
            full = len(self._threads) >= 2 * self._max_connections or self._state != "running"
            if not full:
                self._threads.add(thread)
                self._reception.expect(sock)
        if full:
            self._count("refused")
            return False
        try:
            thread.start()
        except BaseException:
            self._forget(thread, sock)
            raise
        return True

    def _forget(self, thread: threading.Thread, sock: socket.socket) -> None:
        with self._lock:
            self._threads.discard(thread)
        self._reception.forget(sock)

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        admitted = None
        try:
            admitted = self._reception.receive(sock, peer)
            if admitted is None:
                self._count("refused")
        except OSError as exc:  # ssl.SSLError is one
            log.debug("%s left during its opening handshake: %s", peer[0], exc)
        except Exception:
            log.exception("the opening handshake of %s failed", peer[0])
        try:
            if admitted is not None:
                self._converse(*admitted)
        finally:
            self._forget(threading.current_thread(), sock)
            sock.close()

    def _converse(self, connection: Connection, claim: Claim[Connection]) -> None:
        """From the 101 to the last byte."""
        channel = connection.channel
        assert self._housekeeper is not None
        try:
            self._housekeeper.add(channel)
            replaced = self._registry.open(claim, connection)
            self._count("opened")
            for old in replaced:
                old.channel.start_close(CloseCode.REPLACED, "replaced by a newer connection of this name")
            if self._state != "running":
                channel.start_close(CloseCode.GOING_AWAY, "the server is shutting down")
            self._run_handler(connection)
        finally:
            if not channel.ended:
                channel.close()
            self._registry.release(claim)
            self._housekeeper.discard(channel)
            connection.tell_notes()
            self._bus.emit("close", connection, channel.reason)
            channel.release()

    def _run_handler(self, connection: Connection) -> None:
        try:
            self._bus.emit("open", connection)
            if self._handler is not None:
                self._handler(connection)
            else:
                for message in connection:
                    self._emit("message", connection, message)
        except Exception as exc:
            if isinstance(exc, ConnectionClosed) and not connection.connected:  # else another one's end came out here
                log.debug("%r: the handler ended with its connection: %s", connection, exc)
                return
            log.exception("the handler of %r raised", connection)
            self._bus.emit("error", connection, exc)
            connection.channel.close(CloseCode.INTERNAL_ERROR, "the handler failed")

    def _emit(self, event: str, connection: Connection, what: str | bytes) -> None:
        self._bus.emit(event, connection, what)

    def _event_function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        if isinstance(exc, ConnectionClosed) and event != "error" and not args[0].connected:
            log.debug("%s function of %r: %s", event, args[0], exc)
            return
        log.error("a function for the event %r of %r raised", event, args[0], exc_info=exc)
        if event != "error":
            self._bus.emit("error", args[0], exc)
