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

from .channel import Limits
from .connection import Connection
from .errors import CloseCode, ConnectionClosed, Reason, Refusal, SendTimeout
from .events import EventBus, H
from .frames import Message, encode_frame
from .housekeeper import Housekeeper
from .listener import Listener
from .pages import check_pages
from .registry import Claim, NameTaken, NoPlace, Registry
from .request import Request
from .timing import Deadline, check_count, check_seconds
from .upgrade import Upgrade, UpgradeHandler, UpgradePolicy
from .writer import Data, as_payload

__all__ = ["Delivery", "Server"]

log = logging.getLogger("sync_ws.server")
EVENTS = ("open", "message", "close", "error", "heartbeat")
RETRY_AFTER = 5  # seconds, in the 503 of a full server
FULL = "the server is full, try again later"
# for a connection that gets no thread, in which its request could be read
NO_THREAD = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Retry-After: {RETRY_AFTER}\r\nContent-Length: {len(FULL) + 1}\r\nConnection: close\r\n\r\n{FULL}\n"
).encode()


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
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError(f"path is an absolute path without a query, such as /ws/, not {path!r}")
        check_count("max_connections", max_connections)
        if isinstance(origins, str) or isinstance(subprotocols, str):
            raise TypeError("origins and subprotocols are lists of strings, not a string")
        self._limits = Limits(
            max_message=check_count("max_message", max_message),
            max_fragments=check_count("max_fragments", max_fragments),
            send_timeout=check_seconds("send_timeout", send_timeout),
            close_timeout=check_seconds("close_timeout", close_timeout),
        )
        self._handshake_timeout = check_seconds("handshake_timeout", handshake_timeout)
        self._policy = UpgradePolicy(path, origins, require_name, authenticate, check_pages(pages))
        self._handler = handler
        self._ssl_context = ssl_context
        self._subprotocols = tuple(subprotocols)
        self._compression = compression
        self._max_connections = max_connections
        self._ping = (
            None if ping_interval is None else check_seconds("ping_interval", ping_interval),
            check_seconds("ping_timeout", ping_timeout),
        )
        self._bus = EventBus(EVENTS, on_error=self._event_function_raised)
        self._registry: Registry[Connection] = Registry(name_policy, max_connections)
        # guards _threads, _handshakes and _state; any thread, for set operations and assignments only
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._handshakes: set[socket.socket] = set()  # sockets that are not WebSockets yet, to be cut at shutdown
        self._state = "new"  # new -> running -> stopped
        self._pid = os.getpid()
        self._ended = threading.Event()
        self._numbers = itertools.count(1)
        self._counters = {"accepted": 0, "refused": 0, "opened": 0, "broadcasts": 0, "broadcasts_refused": 0}
        # a client that expects TLS could not read it
        self._listener = Listener(host, port, self._accepted, NO_THREAD if ssl_context is None else b"")
        self.host, self.port = self._listener.address
        self._housekeeper: Housekeeper | None = None

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients find it, such as ``ws://127.0.0.1:1024/ws/``."""
        return f"{'ws' if self._ssl_context is None else 'wss'}://{self._place}{self._policy.path}"

    @property
    def page_url(self) -> str:
        """Where browsers find its pages, such as ``http://127.0.0.1:1024/``."""
        return f"{'http' if self._ssl_context is None else 'https'}://{self._place}/"

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
            handshakes = list(self._handshakes)
        self._listener.stop(deadline)
        for sock in handshakes:
            _cut(sock)
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
        """Counters of this server, and how many connections and threads there are now."""
        with self._lock:
            threads, handshakes = len(self._threads), len(self._handshakes)
        return {
            **self._counters,
            "connections": len(self._registry.everyone()),
            "clients": len(self._registry),
            "handshakes": handshakes,
            "threads": threads,
        }

    # -- one connection, in its own thread ------------------------------------------------------------------------

    def _accepted(self, sock: socket.socket, peer: Any) -> bool:
        """In the accepting thread: give the connection a thread; False when there are too many already.  RuntimeError
        when the system has none."""
        self._counters["accepted"] += 1
        thread = threading.Thread(
            target=self._serve, args=(sock, peer), name=f"sync_ws-{self.port}-{next(self._numbers)}", daemon=True
        )
        with self._lock:
            # twice the connections: as many may be in their handshake
            full = len(self._threads) >= 2 * self._max_connections or self._state != "running"
            if not full:
                self._threads.add(thread)
                self._handshakes.add(sock)
        if full:
            self._counters["refused"] += 1
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
            self._handshakes.discard(sock)

    def _serve(self, sock: socket.socket, peer: Any) -> None:
        connection = claim = None
        try:
            connection, claim = self._open(sock, peer)
        except (OSError, ssl.SSLError) as exc:
            log.debug("%s left during its opening handshake: %s", peer[0], exc)
        except Exception:
            log.exception("the opening handshake of %s failed", peer[0])
        try:
            if connection is not None and claim is not None:
                self._converse(connection, claim)
        finally:
            self._forget(threading.current_thread(), sock)
            sock.close()

    def _open(self, sock: socket.socket, peer: Any) -> tuple[Connection, Claim[Connection]] | tuple[None, None]:
        """TLS and the opening handshake, under one deadline; (None, None) when it was answered with a refusal."""
        deadline = Deadline(self._handshake_timeout)
        plain, stopped = sock, False
        if self._ssl_context is not None:
            with self._lock:  # wrapping detaches the plain socket: the new one has the descriptor, for shutdown to cut
                sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                self._handshakes.discard(plain)
                self._handshakes.add(sock)
                stopped = self._state != "running"  # then shutdown may have found the plain one only
        try:
            if stopped:
                raise ConnectionAbortedError("the server is shutting down")
            if isinstance(sock, ssl.SSLSocket):
                sock.settimeout(deadline.remaining())
                sock.do_handshake()
            handler = UpgradeHandler(sock, peer, self._policy, deadline, secure=self._ssl_context is not None)
            connection, claim = self._admit(sock, handler, deadline)
        except BaseException:
            sock.close()
            raise
        finally:
            with self._lock:
                self._handshakes.discard(sock)
        if connection is None:
            self._counters["refused"] += 1
            sock.close()
        return connection, claim  # type: ignore[return-value]

    def _admit(
        self, sock: socket.socket, handler: UpgradeHandler, deadline: Deadline
    ) -> tuple[Connection | None, Claim[Connection] | None]:
        """Give an accepted request its place and its name, and answer it with 101; or refuse it."""
        upgrade = handler.upgrade
        if upgrade is None:
            return None, None
        try:
            if self._state != "running":
                raise NoPlace("the server is shutting down")
            claim = self._registry.claim(upgrade.name)
        except NoPlace:
            handler.refuse(Refusal(503, FULL, {"Retry-After": str(RETRY_AFTER)}))
            return None, None
        except NameTaken:
            handler.refuse(Refusal(409, "expected a name that is not in use"))
            return None, None
        try:
            return self._make_connection(sock, upgrade, deadline, claim), claim
        except BaseException:
            self._registry.release(claim)
            raise

    def _make_connection(
        self, sock: socket.socket, upgrade: Upgrade, deadline: Deadline, claim: Claim[Connection]
    ) -> Connection:
        return Connection(
            sock,
            upgrade.request,
            name=upgrade.name,
            identity=upgrade.identity,
            subprotocols=self._subprotocols,
            compression=self._compression,
            limits=self._limits,
            deadline=deadline,
            early=upgrade.early,
            on_heart_beat=lambda conn, text: self._heart_beat(conn, text),
            # the name is free as soon as the connection has ended, though its handler may still be at work
            on_end=lambda conn, reason: self._registry.release(claim),
        )

    def _heart_beat(self, connection: Connection, text: str) -> None:
        self._bus.emit("heartbeat", connection, text)

    def _converse(self, connection: Connection, claim: Claim[Connection]) -> None:
        """From the 101 to the last byte."""
        channel = connection.channel
        assert self._housekeeper is not None
        try:
            self._housekeeper.add(channel)
            replaced = self._registry.open(claim, connection)
            self._counters["opened"] += 1
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
            connection.emit_notes()
            self._bus.emit("close", connection, channel.reason)
            channel.release()

    def _run_handler(self, connection: Connection) -> None:
        try:
            self._bus.emit("open", connection)
            if self._handler is not None:
                self._handler(connection)
            else:
                for message in connection:
                    self._emit_message(connection, message)
        except Exception as exc:
            if isinstance(exc, ConnectionClosed) and not connection.connected:  # else another one's end came out here
                log.debug("%r: the handler ended with its connection: %s", connection, exc)
                return
            log.exception("the handler of %r raised", connection)
            self._bus.emit("error", connection, exc)
            connection.channel.close(CloseCode.INTERNAL_ERROR, "the handler failed")

    def _emit_message(self, connection: Connection, message: Message) -> None:
        self._bus.emit("message", connection, message)

    def _event_function_raised(self, event: str, args: tuple[Any, ...], exc: Exception) -> None:
        if isinstance(exc, ConnectionClosed) and event != "error" and not args[0].connected:
            log.debug("%s function of %r: %s", event, args[0], exc)
            return
        log.error("a function for the event %r of %r raised", event, args[0], exc_info=exc)
        if event != "error":
            self._bus.emit("error", args[0], exc)


def _cut(sock: socket.socket) -> None:
    """End both directions of a socket that another thread may be blocked in."""
    try:
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it is not connected any more
