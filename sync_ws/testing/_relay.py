"""The thread behind a FaultProxy: its listener, its selector and all its connections.

Why one thread and a selector, not two threads a connection: what a control does (cut, reset, stall) then
happens between two events, never beside one, and no socket is ever closed under another thread's hands.

Threading: everything belongs to the relay's own thread but `call` and `close`, which any other thread may
use. The state therefore needs no lock; the only lock guards the queue of commands.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal

from ._faults import DIRECTIONS, DirectionName, Faults, Totals
from ._flow import Link, LinkState

__all__ = ["HOST", "Change", "Relay", "RelayClosed", "Scope"]

Scope = Literal["all", "current", "new", "next"]
Change = Callable[[Faults], Faults]

HOST = "127.0.0.1"
BACKLOG = 128
CONTROL_TIMEOUT = 10.0  # seconds; the thread never blocks for long, so this passes only when it has died
ACCEPT_PAUSE = 0.1  # seconds without accepting after a failed accept: the process may have no descriptor left


class RelayClosed(RuntimeError):
    """A command came after close()."""


class Relay:
    """Listens on a free port of 127.0.0.1, carries each connection to the upstream address. Runs at once."""

    def __init__(self, family: int, upstream: tuple[Any, ...]) -> None:
        self._family = family
        self._upstream = upstream
        # Guards _commands and _closed, held for a few instructions by any thread: no command enters the queue
        # once the thread has emptied it for the last time.
        self._lock = threading.Lock()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._closed = False

        self.accepted = 0
        self.totals = {name: Totals() for name in DIRECTIONS}
        self._faults = {name: Faults() for name in DIRECTIONS}  # of new connections
        self._next_changes: list[tuple[DirectionName, Change]] = []  # for the next connection alone
        self._links: set[Link] = set()
        self._timed: set[Link] = set()  # those that want a turn at some time, whatever their sockets do
        self._listening = True
        self._accept_again: float | None = None  # monotonic time at which the pause of accepting is over
        self._stopping = False

        with contextlib.ExitStack() as undo:
            self._listener = undo.enter_context(_bound_socket(0))
            self.port: int = self._listener.getsockname()[1]
            self._listener.listen(BACKLOG)
            self._waker, self._wakened = (undo.enter_context(end) for end in socket.socketpair())
            self._waker.setblocking(False)
            self._selector = undo.enter_context(selectors.DefaultSelector())
            self._watch(self._wakened, selectors.EVENT_READ)
            self._watch(self._listener, selectors.EVENT_READ)
            self._thread = threading.Thread(target=self._run, name=f"FaultProxy-{self.port}", daemon=True)
            self._thread.start()
            undo.pop_all()  # from here on the thread closes them

    # For any thread.

    def call(self, command: Callable[[], Any]) -> Any:
        """Run a command in the relay's thread; what it returns or raises. RelayClosed after close()."""
        outcome: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise RelayClosed("the proxy is closed")
            self._commands.append((command, outcome))
            with contextlib.suppress(BlockingIOError):  # full of wake-ups already
                self._waker.send(b"\0")
        return outcome.result(CONTROL_TIMEOUT)

    def close(self) -> None:
        """Close all sockets and join the thread. Idempotent; RuntimeError if the thread does not end."""
        with contextlib.suppress(RelayClosed):
            self.call(self._stop)
        self._thread.join(CONTROL_TIMEOUT)
        if self._thread.is_alive():
            raise RuntimeError(f"the thread {self._thread.name} did not end")

    # Commands: the functions to hand to call().

    def configure(self, names: Sequence[DirectionName], scope: Scope, change: Change) -> None:
        """Change the settings of these directions for the connections in the scope."""
        for name in names:
            if scope in ("all", "new"):
                self._faults[name] = change(self._faults[name])
            if scope in ("all", "current"):
                for link in self._links:
                    if link.state is not LinkState.LINGERING:
                        flow = link.to_server if name == "to_server" else link.to_client
                        flow.configure(change(flow.faults))
            if scope == "next":
                self._next_changes.append((name, change))

    def count_open(self) -> int:
        """How many connections are neither closed nor cut."""
        return sum(link.state is not LinkState.LINGERING for link in self._links)

    def cut_all(self) -> None:
        """FIN to both peers of every connection."""
        for link in self._links:
            link.cut(time.monotonic())

    def reset_all(self) -> None:
        """RST to both peers of every connection."""
        for link in self._links:
            link.abort()

    def refuse(self) -> None:
        """Stop listening. A bound socket that does not listen keeps the port from everyone else meanwhile."""
        if self._listening:
            self._listening = False
            self._watch(self._listener, 0)
            self._listener.close()
            self._listener = _bound_socket(self.port)

    def accept(self) -> None:
        """Listen again on the same port."""
        if not self._listening:
            self._listener.listen(BACKLOG)
            self._watch(self._listener, selectors.EVENT_READ)
            self._listening = True

    def _stop(self) -> None:
        self._stopping = True

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            with self._lock:
                self._closed = True
            self._selector.close()
            for link in self._links:
                link.release()
            self._links.clear()
            for end in (self._listener, self._waker, self._wakened):
                end.close()
            for _, outcome in self._commands:
                outcome.set_exception(RelayClosed("the proxy is closed"))

    def _turn(self) -> None:
        """Wait for what happens next and deal with it; commands come last, on settled connections."""
        command_waiting = False
        touched: set[Link] = set()
        for key, events in self._selector.select(self._seconds_to_wait()):
            if key.fileobj is self._wakened:
                command_waiting = True
            elif key.fileobj is self._listener:
                touched.update(self._accept_one())
            else:
                key.data.handle(key.fileobj, events)
                touched.add(key.data)
        for link in touched | self._timed:  # a timed one that is not due yet does nothing
            self._settle(link)
        if self._accept_again is not None and time.monotonic() >= self._accept_again:
            self._accept_again = None
            self._watch(self._listener, selectors.EVENT_READ if self._listening else 0)
        if command_waiting:
            self._run_commands()

    def _seconds_to_wait(self) -> float | None:
        times = [at for link in self._timed if (at := link.wants_turn_at()) is not None]
        if self._accept_again is not None:
            times.append(self._accept_again)
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _settle(self, link: Link) -> None:
        """Let a connection do what it can, then wait for what it needs next."""
        link.pump(time.monotonic())
        for sock in (link.client, link.server):
            self._watch(sock, link.interest(sock), link)
        if link.state is LinkState.CLOSED:
            link.release()
            self._links.discard(link)
        if link.wants_turn_at() is None:
            self._timed.discard(link)
        else:
            self._timed.add(link)

    def _watch(self, sock: socket.socket, events: int, data: Link | None = None) -> None:
        """Have the selector wait for exactly these events of the socket."""
        known = None if sock.fileno() < 0 else self._selector.get_map().get(sock)
        if known is None:
            if events:
                self._selector.register(sock, events, data)
        elif not events:
            self._selector.unregister(sock)
        elif known.events != events:
            self._selector.modify(sock, events, data)

    def _run_commands(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakened.recv(4096)
        while True:
            with self._lock:
                if not self._commands or self._stopping:
                    return
                command, outcome = self._commands.popleft()
            try:
                result = command()
                for link in tuple(self._links):
                    self._settle(link)
                outcome.set_result(result)
            except OSError as error:  # from listening again, say: it is the caller's
                outcome.set_exception(error)
            finally:
                if not outcome.done():  # a defect here: it ends this thread, and no caller may wait for that
                    outcome.set_exception(RelayClosed("the proxy has failed"))

    def _accept_one(self) -> list[Link]:
        """The accepted connection, dialling; an empty list when there is none after all."""
        with contextlib.ExitStack() as undo:
            try:
                client = undo.enter_context(self._listener.accept()[0])
                server = undo.enter_context(socket.socket(self._family, socket.SOCK_STREAM))
            except BlockingIOError:
                return []  # it was reset before we came
            except OSError:
                self._accept_again = time.monotonic() + ACCEPT_PAUSE
                self._watch(self._listener, 0)
                return []
            for sock in (client, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            undo.pop_all()
        self.accepted += 1
        faults = dict(self._faults)
        for name, change in self._next_changes:
            faults[name] = change(faults[name])
        self._next_changes.clear()
        link = Link(client, server, faults, self.totals)
        self._links.add(link)
        link.dial(self._upstream)
        return [link]


def _bound_socket(port: int) -> socket.socket:
    """A non-blocking socket on a port of loopback, 0 for a free one, that does not listen yet."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock
