"""A base for tests of a client, which is closed at their end, and the servers that they mostly talk to.

Threading: for the test's own thread.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, ClassVar

from sync_ws import Client, ClientState, Connection
from sync_ws.client.line import Line
from sync_ws.testing import ManualClock, wait_until
from tests.support.quick import QuickTestCase
from tests.support.scripted import Wire, frame

__all__ = ["FINAL_CODES", "SOON", "ClientTestCase", "GuardedLine", "ReconnectTestCase", "echo", "obey", "silent"]

SOON = 4.0  # seconds: an upper bound for "at once", on a machine with other things to do
FINAL_CODES = {1000, 1002, 1003, 1007, 1008, 1009, 1010, 4009}  # close codes that lead to no reconnect


def echo(conn: Connection) -> None:
    for message in conn:
        conn.send(message)


def obey(wire: Wire) -> None:
    """Answer pings and Close frames; "drop": end the stream, "close CODE": close, "burst": three messages at once."""
    wire.switch()
    while True:
        opcode, payload = wire.read_frame()
        if opcode == 9:
            wire.send_frame(10, payload)
        elif opcode == 8:
            wire.send_frame(8, payload)
            return
        elif payload == b"drop":
            return
        elif payload == b"burst":
            wire.send(b"".join(frame(1, f"m{number}".encode()) for number in range(3)))
        elif payload.startswith(b"close "):
            wire.send_frame(8, int(payload[6:]).to_bytes(2, "big") + b"as told")
            wire.wait_for_end()
            return


def silent(wire: Wire) -> None:
    """Open, and never answer anything."""
    wire.switch()
    wire.wait_for_end()


class ClientTestCase(QuickTestCase):
    """One connection, unless told otherwise."""

    defaults: ClassVar[dict[str, Any]] = {"heartbeat": None, "reconnect": None}

    def client(self, url: Any, **options: Any) -> Client:
        """A client that is closed at the end of the test."""
        client = Client(url, **{**self.defaults, **options})
        self.addCleanup(client.close, timeout=1.0)
        return client

    @contextlib.contextmanager
    def within(self, seconds: float = SOON) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.assertLess(time.monotonic() - started, seconds)


class ReconnectTestCase(ClientTestCase):
    """As many connections as it takes."""

    defaults: ClassVar[dict[str, Any]] = {"heartbeat": None, "close_timeout": 1.0}

    def wait_for_timers(self, clock: ManualClock, *delays: float) -> None:
        wait_until(lambda: clock.pending == list(delays), message=f"armed: {delays}")

    def wait_for_state(self, client: Client, state: ClientState) -> None:
        wait_until(lambda: client.state is state, message=str(state))


class GuardedLine(Line):
    """A line that insists on its lock for every field that is set."""

    _guarded = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._guarded = True

    def __setattr__(self, name: str, value: object) -> None:
        if self._guarded and name != "_guarded" and not self.held_here:
            raise AssertionError(f"{name} was set without the lock")
        super().__setattr__(name, value)

    def _forget_in_child(self) -> None:
        self._guarded = False  # there is but one thread
        super()._forget_in_child()
