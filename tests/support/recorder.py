"""Notes every event of a client, with the thread it came from.

Threading: events arrive in the client's thread; the rest may be called from any.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from sync_ws import Client
from sync_ws.client.events import EVENTS
from sync_ws.testing import wait_until

__all__ = ["Recorder", "send_all", "sender"]


def send_all(client: Client, messages: Iterable[str | bytes]) -> None:
    for message in messages:
        client.send(message)


def sender(client: Client, messages: Iterable[str | bytes]) -> threading.Thread:
    """A thread, not started, that sends them."""
    return threading.Thread(target=send_all, args=(client, messages))


class Recorder:
    """Subscribes to the events of `client` (without `message` unless told: that decides who reads)."""

    def __init__(self, client: Client, *, messages: bool = False) -> None:
        self.log: list[tuple[str, Any]] = []
        self.threads: set[int | None] = set()
        for name in EVENTS:
            if name != "message" or messages:
                client.on(name, self._noter(name))

    def _noter(self, name: str) -> Any:
        def note(what: Any) -> None:
            self.threads.add(threading.get_ident())
            self.log.append((name, what))

        return note

    @property
    def names(self) -> list[str]:
        return [name for name, _ in list(self.log)]

    def of(self, name: str) -> list[Any]:
        """What came with the events of that name."""
        return [what for event, what in list(self.log) if event == name]

    def wait_for(self, name: str, count: int = 1, timeout: float = 10.0) -> Any:
        """The `count`-th event of that name."""
        wait_until(lambda: len(self.of(name)) >= count, timeout, f"event {name!r} number {count} in {self.names}")
        return self.of(name)[count - 1]
