"""The server: accept, a thread per connection, wiring, shutdown.

Why so: a connection is one plain thread from its first byte to its last: TLS, opening handshake, handler, closing
handshake.  All that comes after the opening handshake is the hub's, which knows no listening socket; here is the door.

Threading: every method may be called from any thread, ``shutdown`` from a handler too.  Handlers and event functions
of one connection run in that connection's thread, in order, and under no lock.
"""

from __future__ import annotations

import itertools
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checks import check_function, check_seconds
from ..events import H
from ..forking import ToldOfForks, close_fully
from ..interrupts import Flag
from ..messages import Data
from ..protocol.http_head import Request
from ..timing import Deadline
from ..weak import Weakly
from . import voice
from .admission import Reception
from .answers import NO_THREAD
from .connection import Connection
from .hub import Delivery, Hub
from .joining import join
from .listener import Listener
from .options import ServerOptions, check_address
from .policy import hosts_for
from .state import Life, ServerState
from .termination import Termination

__all__ = ["Server"]

log = logging.getLogger("sync_ws.server")


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
        hosts: Collection[str] | None = None,
        authenticate: Callable[[Request], Any] | None = None,
        subprotocols: Iterable[str] = (),
        compression: bool = False,
        pages: str | Path | Mapping[str, str | Path] | None = None,
        max_message: int = 1 << 20,
        max_fragments: int = 1024,
        max_frame: int | None = None,
        max_connections: int = 1000,
        handshake_timeout: float = 10.0,
        send_timeout: float = 10.0,
        close_timeout: float = 5.0,
        ping_interval: float | None = 20.0,
        ping_timeout: float = 20.0,
    ) -> None:
        self._options = options = ServerOptions(
            path=path,
            ssl_context=ssl_context,
            name_policy=name_policy,
            require_name=require_name,
            origins=origins,
            hosts=hosts,
            authenticate=authenticate,
            subprotocols=subprotocols,
            compression=compression,
            pages=pages,
            max_message=max_message,
            max_fragments=max_fragments,
            max_frame=max_frame,
            max_connections=max_connections,
            handshake_timeout=handshake_timeout,
            send_timeout=send_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
        )
        check_address(host, port)
        if handler is not None:
            check_function("handler", handler, "a connection")
        self._life = Life()
        self._accepted = self._refused = 0
        self._threads: set[threading.Thread] = set()
        self._numbers = itertools.count(1)
        self._make_locks()
        # a client that expects TLS could not read the refusal
        refusal = NO_THREAD if ssl_context is None else b""
        self._listener = Listener(host, port, Weakly(self._accept), refusal, Weakly(self._accepts_no_more))
        self.host, self.port = self._listener.address
        self._hub = Hub(
            handler,
            name_policy=name_policy,
            max_message=max_message,
            max_fragments=max_fragments,
            max_frame=max_frame,
            max_connections=max_connections,
            send_timeout=send_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            name=f"sync_ws-{self.port}",
        )
        names = hosts_for(options.host_names, host, self._listener.address, options.policy.origins)
        self._reception = Reception(options, replace(options.policy, hosts=names), self._hub)
        _servers.add(self)

    def _make_locks(self) -> None:
        # guards _life, _threads and the two counters; any thread, for set operations and assignments only.
        # Reentrant: a signal's handler that calls shutdown may have interrupted the thread that holds it
        self._lock = threading.RLock()
        self._leave = Flag()  # serve_forever is to end: shutdown has done what it could, or SIGTERM came

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients find it, such as ``ws://127.0.0.1:1024/ws/``."""
        return f"{'wss' if self._options.ssl_context else 'ws'}://{self._place}{self._options.path}"

    @property
    def page_url(self) -> str:
        """Where browsers find its pages, such as ``http://127.0.0.1:1024/``."""
        return f"{'https' if self._options.ssl_context else 'http'}://{self._place}/"

    @property
    def _place(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def start(self) -> Server:
        """Accept connections in background threads; returns at once.

        RuntimeError if it was started before, or when the system has no thread to give: it is shut down then.
        """
        with self._lock:
            state = self._state
            if state is not ServerState.NEW:
                raise RuntimeError(f"a server is started once; this one is {state.value}")
            self._life.reach(ServerState.RUNNING)
        try:
            self._hub.start()
            self._listener.start(f"sync_ws-{self.port}-accept", owner=self)
        except BaseException:  # an interrupt too
            self.shutdown()
            raise
        if self._state is not ServerState.RUNNING:  # shut down meanwhile, by a signal's handler perhaps
            self.shutdown()
        else:
            voice.listening(self.url)
        return self

    def serve_forever(self) -> None:
        """Start, if that has not been done; returns after ``shutdown``.

        An interrupt (Ctrl-C) shuts it down and is passed on.  SIGTERM, in the main thread and unless the application
        has a handler for it, shuts it down, and this returns.
        """
        with Termination(self._leave.set):
            try:
                if self._state is ServerState.NEW:
                    self.start()
                self._leave.wait()
            finally:
                if self._state is not ServerState.STOPPED:
                    self.shutdown()

    def shutdown(self, timeout: float = 5.0) -> tuple[threading.Thread, ...]:
        """Stop accepting, close every connection with 1001, and wait for their threads.

        Back within ``timeout`` seconds (a little more when connections must be cut); returns the threads that are
        still alive, because a handler does not return: empty when clean.  Idempotent; from any thread, a handler's
        own is not waited for, and from a signal's handler.
        """
        deadline = Deadline(check_seconds("timeout", timeout, zero=True))
        with self._lock:
            self._life.reach(ServerState.STOPPING)
        self._listener.stop(deadline)
        self._reception.close()
        self._hub.end_all(deadline, self._join)
        with self._lock:
            self._life.reach(ServerState.STOPPED)
            threads = self._threads - {threading.current_thread()}
        self._leave.set()
        return tuple(thread for thread in threads if thread.is_alive())

    @property
    def _state(self) -> ServerState:
        return self._life.state

    def _join(self, deadline: Deadline) -> None:
        with self._lock:
            threads = list(self._threads)
        join(threads, deadline)  # one that could not begin, or is about to, finds the server stopped

    def _accepts_no_more(self) -> None:
        """In the accepting thread, and not in the one that calls shutdown: see ``voice``."""
        voice.stopped(self.url, len(self._hub.connections))

    def _forget_in_child(self) -> None:
        """After fork: threads are the parent's, and may have held the lock."""
        self._make_locks()
        self._reception.forget_in_child()
        if self._state is not ServerState.NEW:
            self._life.reach(ServerState.STOPPED)
            self._threads = set()
            self._leave.set()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    # -- the application's side -----------------------------------------------------------------------------------

    def on(self, event: str, function: H) -> H:
        """Call ``function`` at every ``event``: ``open(conn)``, ``message(conn, message)``, ``close(conn, reason)``,
        ``error(conn, exception)``, ``heartbeat(conn, text)``.  What it raises is logged and emitted as ``error``."""
        return self._hub.on(event, function)

    def off(self, event: str, function: Callable[..., Any]) -> bool:
        """Take a subscription back; whether there was one."""
        return self._hub.off(event, function)

    @property
    def clients(self) -> Mapping[str, Connection]:
        """The named connections that are open: a read-only view, name -> Connection.

        ``items()`` and ``values()`` are of one moment, so ``dict(clients.items())`` is a copy; ``clients[name]`` is a
        KeyError once that client has left.
        """
        return self._hub.clients

    @property
    def connections(self) -> frozenset[Connection]:
        """All connections that are open, named or not."""
        return self._hub.connections

    def broadcast(self, data: Data, *, to: Iterable[Connection] | None = None) -> Delivery:
        """Send one message to every open connection, or to those in ``to``, without waiting for any of them.

        A client that reads slowly gets it from a queue of at most 64 messages and 1 MiB; beyond that it is
        in the result's ``refused``, and after ``send_timeout`` seconds of that its connection is given up (1013).
        """
        return self._hub.broadcast(data, to=to)

    def send_to(self, name: str, data: Data) -> None:
        """Send one message to the client of that name (to each of them, where several may have it).

        KeyError if there is none; else as ``Connection.send``, after every holder had its turn.
        """
        self._hub.send_to(name, data)

    def stats(self) -> dict[str, Any]:
        """Counters of this server, and how many connections and threads there are now."""
        with self._lock:
            accepted, refused, threads = self._accepted, self._refused, len(self._threads)
        handshakes = self._reception.pending
        return {
            "accepted": accepted,
            "refused": refused,
            **self._hub.stats(),
            "handshakes": handshakes,
            "threads": threads,
        }

    # -- one connection -------------------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket, peer: Any) -> bool:
        """In the accepting thread: give the connection a thread; False when there are too many already.  RuntimeError
        when the system has none."""
        thread = threading.Thread(
            target=self._serve, args=(sock, peer), name=f"sync_ws-{self.port}-{next(self._numbers)}", daemon=True
        )
        with self._lock:
            self._accepted += 1
            # twice the connections: as many may be in their handshake
            full = len(self._threads) >= 2 * self._options.max_connections or self._state is not ServerState.RUNNING
            if full:
                self._refused += 1
                return False
            self._threads.add(thread)
        self._reception.expect(sock)
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
        """In the connection's thread: from its first byte to its last."""
        connection = None
        try:
            connection = self._reception.receive(sock, peer)
            if connection is None:
                with self._lock:
                    self._refused += 1
        except OSError as exc:
            log.debug("%s left during its opening handshake: %s", voice.place(peer), exc)
        except Exception:
            log.exception("the opening handshake of %s failed", voice.place(peer))
        try:
            if connection is not None:
                self._hub.run(connection)
        finally:
            self._forget(threading.current_thread(), sock)
            close_fully(sock)


_servers: ToldOfForks[Server] = ToldOfForks()
