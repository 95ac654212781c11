"""The client's thread with a line of its own and no face.

Threading: for the test's own thread; ``told`` is appended to by the client's.
"""

from __future__ import annotations

from typing import Any

from sync_ws import should_reconnect
from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.client.events import EVENTS
from sync_ws.client.line import Line
from sync_ws.client.options import ClientOptions
from sync_ws.client.outbox import Offline
from sync_ws.client.thread import ClientThread
from sync_ws.events import EventBus
from sync_ws.testing import wait_until
from sync_ws.timing import SYSTEM_CLOCK
from tests.support.client_case import SOON, GuardedLine
from tests.support.quick import QuickTestCase
from tests.support.wire import join

__all__ = ["ThreadTestCase"]


class ThreadTestCase(QuickTestCase):
    """A thread, its line and what it has told; not yet begun."""

    def make(self, url: Any, *, messages: bool = False, **options: Any) -> ClientThread:
        defaults: dict[str, Any] = {
            "url": url, "headers": None, "subprotocols": (), "origin": None, "cookie": None, "proxy": None,
            "ssl_context": None, "compression": False, "open_timeout": SOON, "limits": Limits(), "heartbeat": None,
            "backoff": None, "should_reconnect": should_reconnect, "offline": Offline(), "clock": SYSTEM_CLOCK,
        }  # fmt: skip
        chosen = ClientOptions(**{**defaults, **options})
        self.line: Line = GuardedLine(chosen.limits, chosen.offline)
        self.thread = ClientThread(chosen, self.line, EventBus(EVENTS))
        self.told: list[tuple[str, Any]] = []
        for name in EVENTS:
            if name != "message" or messages:
                self.thread._bus.on(name, lambda what, name=name: self.told.append((name, what)))
        return self.thread

    def begin(self, url: Any, **options: Any) -> ClientThread:
        thread = self.make(url, **options)
        self.line.begin()
        thread.start()
        self.addCleanup(self.end)
        return thread

    def end(self) -> None:
        """As a client's close() does."""
        dial, channel, monitor = self.line.close()
        if monitor is not None:
            monitor.stop()
        if dial is not None:
            dial.cancel()
        if channel is not None:
            channel.close(timeout=SOON)
        join(self.thread)

    def sending_channel(self) -> Channel:
        """Once everybody may send over it."""
        channel = wait_until(lambda: self.line.sending_channel)
        assert channel is not None
        return channel

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    def events(self, name: str) -> list[Any]:
        """What functions for ``name`` were given so far."""
        return [what for told, what in self.told if told == name]

    def wait_for(self, name: str, count: int = 1) -> None:
        wait_until(lambda: self.names.count(name) >= count, 10.0, f"{name} number {count}")
