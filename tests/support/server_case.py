"""A base for tests of a running server: a server, raw clients and a record of its events, all cleaned up.

Threading: events are noted in the connections' threads; the rest is for the test's own.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from sync_ws import Connection, Hub, Server
from sync_ws.testing import serving, wait_until
from tests.support.quick import QuickTestCase
from tests.support.raw import RawClient

__all__ = ["Events", "LogLines", "ServerTestCase", "echo", "wait_until"]


def echo(connection: Connection) -> None:
    for message in connection:
        connection.send(message)


class Events:
    """Notes every event of a server or a hub, and the thread it came in; no messages where there is a handler."""

    def __init__(self, server: Server | Hub) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.threads: dict[Connection, set[int]] = {}
        for name in ("open", "message", "close", "error", "heartbeat"):
            with contextlib.suppress(ValueError):
                server.on(name, self._noter(name))

    def _noter(self, name: str) -> Callable[..., None]:
        def note(connection: Connection, *args: Any) -> None:
            self.threads.setdefault(connection, set()).add(threading.get_ident())
            self.log.append((name, connection, *args))

        return note

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """What came with the events of that name, the connection first."""
        return [entry[1:] for entry in list(self.log) if entry[0] == name]

    def wait(self, name: str, count: int = 1) -> list[tuple[Any, ...]]:
        wait_until(lambda: len(self.of(name)) >= count, 10.0, f"{count} {name} events never came")
        return self.of(name)


class LogLines(logging.Handler):
    """Collects what `logger` and those below it log, formatted as a log file would have it; nobody else gets it."""

    def __init__(self, logger: str = "sync_ws") -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
        self.lines: list[str] = []
        self.records: list[logging.LogRecord] = []
        self._logger = logging.getLogger(logger)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.lines.append(self.format(record))

    @property
    def tracebacks(self) -> list[str]:
        return [line for line in self.lines if "Traceback" in line]

    def __enter__(self) -> LogLines:
        self._before = self._logger.level, self._logger.propagate, self._logger.handlers
        self._logger.setLevel(logging.DEBUG)
        self._logger.propagate = False
        self._logger.handlers = [self]
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._logger.setLevel(self._before[0])
        self._logger.propagate, self._logger.handlers = self._before[1:]


class ServerTestCase(QuickTestCase):
    """`serve` starts a server, `client` opens a connection to it; both are gone at the end of the test, in the
    order in which they came, backwards."""

    timeout = 45.0

    def setUp(self) -> None:
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self._gates: list[threading.Event] = []
        self.addCleanup(self._open_gates)  # before the server is shut down
        self.log = self.stack.enter_context(LogLines())

    def serve(self, handler: Callable[[Connection], Any] | None = echo, **options: Any) -> Server:
        return self.stack.enter_context(serving(handler, **options))

    def serve_events(self, **options: Any) -> tuple[Server, Events]:
        server = self.serve(None, **options)
        return server, Events(server)

    def _open_gates(self) -> None:
        for gate in self._gates:
            gate.set()

    def gate(self) -> threading.Event:
        """What a handler of this test waits for: opened at the end of the test, whatever happens."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    def raw(self, server: Server, **options: Any) -> RawClient:
        """A connected socket."""
        return self.stack.enter_context(RawClient(server.port, **options))

    def client(self, server: Server, name: str | None = None, *lines: str, early: bytes = b"") -> RawClient:
        """An open WebSocket, known to the server."""
        before = server.stats()["opened"]
        query = "" if name is None else f"?name={name}"
        client = self.raw(server).upgrade(f"/ws/{query}", *lines, early=early)
        wait_until(lambda: server.stats()["opened"] > before, message="the connection was never opened")
        return client
