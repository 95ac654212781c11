"""A base for tests of a hub without a server: guests over socket pairs, in threads of their own.

Threading: for the test's own thread.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

from sync_ws import Connection, Headers, Hub, Request
from sync_ws.server.registry import Claim
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.raw import RawClient
from tests.support.server_case import LogLines, echo
from tests.support.wire import join

__all__ = ["REQUEST", "HubTestCase", "housekeepers"]

REQUEST = Request("GET", "/ws/", {}, Headers(), ("a door", 0))


def housekeepers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.endswith("-housekeeper")]


class HubTestCase(LedgerTestCase):
    """`hub` makes one, `guest` brings one in by a thread of its own; all are gone at the end of the test."""

    timeout = 45.0

    def setUp(self) -> None:
        super().setUp()
        self.threads: list[threading.Thread] = []
        self.addCleanup(lambda: join(*self.threads))
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.log = self.stack.enter_context(LogLines())

    def hub(self, handler: Callable[[Connection], Any] | None = echo, **options: Any) -> Hub:
        return self.stack.enter_context(Hub(handler, **options))

    def pair(self) -> tuple[socket.socket, RawClient]:
        """The hub's end of a connection whose 101 has been sent, and the guest's."""
        ours, theirs = socket.socketpair()
        return ours, self.stack.enter_context(RawClient.over(theirs))

    def connect(self, hub: Hub, claim: Claim[Connection]) -> tuple[Connection, RawClient]:
        ours, client = self.pair()
        return hub.connect(claim, ours, REQUEST), client

    def guest(self, hub: Hub, name: str | None = None) -> RawClient:
        """The peer of a connection that runs in a thread, and is known to the hub."""
        before = hub.stats()["opened"]
        connection, client = self.connect(hub, hub.admit(name))
        self.threads.append(self.spawn(lambda: hub.run(connection)))
        wait_until(lambda: hub.stats()["opened"] > before)
        return client

    def spawn(self, function: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=function)
        thread.start()
        return thread
