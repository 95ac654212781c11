"""One client of the stateful model: a real Client behind a proxy of its own, with a clock that is advanced by hand.

It records what its client tells the application, and checks on the spot that this comes in a legal order.

Threading: the event functions run in the client's thread and only append to lists; the rest is the machine's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from sync_ws import Client, ClientState, Heartbeat
from sync_ws.client.events import Closed, GaveUp
from sync_ws.client.state import TRANSITIONS
from sync_ws.testing import FaultProxy, ManualClock, wait_until

__all__ = ["CLOSE_YOURSELF", "DELAY", "Player", "Slot"]

DELAY = 5.0  # seconds of the player's clock before each reconnect
HEARTBEAT = Heartbeat(interval=10.0, timeout=3.0)
CLOSE_YOURSELF = "close yourself"  # told to a client, it closes in its message function; told to the server, likewise

# which event may follow which; "close for good" (by the application) and "gave_up" are last
_TALK = {"message", "heartbeat"}
_CLOSES = {"close", "close of the last", "close for good"}
_AFTER: dict[str, set[str]] = {
    "start": {"open", "reconnecting", "gave_up", "close for good"},
    "open": {"reconnected", *_CLOSES, *_TALK},
    "reconnected": {*_CLOSES, *_TALK},
    "message": {*_CLOSES, *_TALK},
    "heartbeat": {*_CLOSES, *_TALK},
    "close": {"reconnecting", "close for good"},
    "close of the last": {"gave_up"},
    "reconnecting": {"open", "reconnecting", "gave_up", "close for good"},
    "close for good": set(),
    "gave_up": set(),
}


def _reachable() -> dict[ClientState, set[ClientState]]:
    """Each state -> those that some transitions of the client's table lead to, and itself."""
    found = {state: {state, *TRANSITIONS[state]} for state in ClientState}
    for middle, first, last in itertools.product(ClientState, repeat=3):
        if middle in found[first] and last in found[middle]:
            found[first].add(last)
    return found


_REACHABLE = _reachable()


@dataclass
class Slot:
    """What the model knows of a player. `state` is None before its first client."""

    state: ClientState | None = None
    name: str = ""
    to_server: list[str | bytes] = field(default_factory=list)  # accepted while there was a connection
    to_client: list[str | bytes] = field(default_factory=list)
    queued: list[str | bytes] = field(default_factory=list)


class Player:
    """A slot of the model: at most one client at a time, each with a key of its own."""

    def __init__(self, number: int, port: int) -> None:
        self.number = number
        self.proxy = FaultProxy("127.0.0.1", port)
        self.clock = ManualClock()
        self.key = ""
        self.dialled = 0  # how often its client has made its URL: each connection tells its number
        self.client: Client | None = None
        self.received: list[str | bytes] = []
        self.heartbeats = 0
        self.problems: list[str] = []
        self.undelivered: tuple[str | bytes, ...] | None = None
        self._by_function = True
        self._last = "start"
        self._state = ClientState.IDLE

    def make(self, key: str, name: str, by_function: bool) -> Client:
        """Another client; `by_function`: it gets its messages by the message event, not by recv()."""
        assert not self.clock.pending, f"timers left armed: {self.clock.pending}"
        self.key, self._by_function, self.dialled = key, by_function, 0
        self.clock = ManualClock()
        self.received, self.heartbeats, self.undelivered = [], 0, None
        self._last, self._state = "start", ClientState.IDLE
        url = self.proxy.url(f"/ws/?name={name}&id={key}")
        client = self.client = Client(
            lambda: self._numbered(url), heartbeat=HEARTBEAT, reconnect=DELAY, clock=self.clock
        )
        client.on("open", lambda event: self._saw("open"))
        client.on("reconnected", lambda event: self._saw("reconnected"))
        client.on("reconnecting", lambda event: self._saw("reconnecting"))
        client.on("error", lambda event: self.problems.append(f"error event: {event.exception!r}"))
        client.on("heartbeat", lambda event: self._heartbeat())
        client.on("close", self._closed)
        client.on("gave_up", self._gave_up)
        if by_function:
            client.on("message", self._message)
        return client

    def _numbered(self, url: str) -> str:
        self.dialled += 1
        return f"{url}&number={self.dialled}"

    def _saw(self, event: str) -> None:
        if event not in _AFTER[self._last]:
            self.problems.append(f"{self.key}: the event {event!r} after {self._last!r}")
        self._last = event
        self.look()

    def look(self) -> None:
        """Check that the state is one that the last one seen can lead to. From one thread at a time."""
        assert self.client is not None
        state = self.client.state
        if state not in _REACHABLE[self._state]:
            self.problems.append(f"{self.key}: from {self._state} to {state}")
        self._state = state

    def _heartbeat(self) -> None:
        self._saw("heartbeat")
        self.heartbeats += 1

    def _closed(self, event: Closed) -> None:
        last = not event.reconnecting and self.client is not None and self.client.state is ClientState.CLOSING
        self._saw("close" if event.reconnecting else "close for good" if last else "close of the last")
        if last:
            self.undelivered = event.undelivered

    def _gave_up(self, event: GaveUp) -> None:
        self._saw("gave_up")
        self.undelivered = event.undelivered

    def _message(self, message: str | bytes) -> None:
        self._saw("message")
        self.received.append(message)
        if message == CLOSE_YOURSELF:
            assert self.client is not None
            self.client.close()

    # for the machine

    @property
    def by_function(self) -> bool:
        return self._by_function

    def expect(self, expected: Sequence[str | bytes]) -> None:
        """Wait until exactly these messages have come so far."""
        assert self.client is not None
        if self._by_function:
            wait_until(lambda: len(self.received) >= len(expected), message=f"{self.key}: messages")
        while len(self.received) < len(expected):
            self.received.append(self.client.recv(timeout=5.0))
        assert self.received == list(expected), f"{self.key} received {self.received}, expected {expected}"

    def wait_for(self, state: ClientState) -> None:
        """Until the client is in this state and has as many timers armed as that takes."""
        timers = 1 if state in (ClientState.OPEN, ClientState.WAITING) else 0
        client, clock = self.client, self.clock
        assert client is not None
        wait_until(
            lambda: client.state is state and len(clock.pending) == timers,
            message=f"{self.key} {state.value} with {timers} timers",
        )

    def step(self, seconds: float) -> bool:
        """Advance the clock, but to one timer at most; whether that timer ran. What it begins is waited for."""
        (due,) = self.clock.pending
        armed, heartbeats = self.clock.armed, self.heartbeats
        self.clock.advance(min(seconds, due))
        if seconds < due:
            return False
        assert self.client is not None
        if self.client.state is ClientState.OPEN and self.clock.pending == [HEARTBEAT.timeout]:
            wait_until(lambda: self.heartbeats > heartbeats, message=f"{self.key}: the answer to a heartbeat")
        self.clock.wait_for_timer(after=armed)
        return True

    def starve(self) -> None:
        """Advance the clock until the client has given a silent connection up."""
        assert self.client is not None
        for _ in range(4):
            if self.client.state is not ClientState.OPEN:
                break
            armed = self.clock.armed
            self.clock.advance(self.clock.pending[0])
            self.clock.wait_for_timer(after=armed)
        self.wait_for(ClientState.WAITING)
