"""What goes wrong in a soak, at random: one thread begins faults and ends them again.

A fault has a kind and, for most kinds, a slot, on which there is no other one meanwhile. Bytes are never discarded in
the middle of a connection that goes on, nor altered: TCP does neither, and WebSocket has no checksum. What a
blackhole has swallowed is followed by a reset.

Threading: one thread, which `stop` joins; everything it calls may be called from any thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sync_ws.testing import Direction
from tests.soak.host import Host, identity
from tests.soak.oracle import Oracle
from tests.soak.slots import Slot

__all__ = ["PLANTED", "Faults"]

PLANTED = "bytes vanish"  # no fault that TCP has: for showing that the oracle finds something


class _Running(NamedTuple):
    slot: Slot
    until: float  # monotonic
    end: Callable[[], object]


class Faults:
    """Begins to inject at once, every `pause` seconds on the average. `counts`: how many of each kind."""

    def __init__(
        self, slots: list[Slot], host: Host, oracle: Oracle, *, seed: int, kinds: tuple[str, ...] | None, pause: float
    ) -> None:
        self._slots = slots
        self._host = host
        self._oracle = oracle
        self._rng = random.Random(f"{seed} faults")
        self._pause = pause
        self.counts: Counter[str] = Counter()
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._tables: dict[str, tuple[int, Callable[[Slot], None]]] = {
            "stall": (3, self._stall),
            "blackhole": (3, self._blackhole),
            "cut": (3, lambda slot: slot.proxy.cut_all()),
            "cut at a byte": (4, self._cut_at_byte),
            "reset": (3, lambda slot: slot.proxy.reset_all()),
            "reset at a byte": (4, self._reset_at_byte),
            "throttle": (3, self._throttle),
            "split": (3, self._split),
            "refuse": (3, self._refuse),
            "takeover": (3, lambda slot: slot.add()),
            "client restart": (2, self._restart_client),
            "server closes": (2, self._server_closes),
            "server restart": (1, lambda slot: self._host.restart()),
        }
        if kinds is not None:
            table = {**self._tables, PLANTED: (1, self._lose_bytes)}
            self._tables = {kind: table[kind] for kind in kinds}
        self._thread = threading.Thread(target=self._run, name="soak-faults", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End all faults and the thread."""
        self._stopping.set()
        self._thread.join(30.0)
        if self._thread.is_alive():
            self._oracle.violated("the thread of the faults is stuck")

    def _run(self) -> None:
        try:
            for kind, slot in self._choices():
                self.counts[kind] += 1
                self._tables[kind][1](slot)
        finally:
            self._end_those_due(float("inf"))
            for slot in self._slots:
                slot.proxy.both.clear()
                slot.proxy.accept()

    def _choices(self) -> Iterator[tuple[str, Slot]]:
        kinds = list(self._tables)
        weights = [weight for weight, _ in self._tables.values()]
        while not self._stopping.wait(self._rng.expovariate(1 / self._pause)):
            self._end_those_due(time.monotonic())
            for slot in self._slots:
                slot.tidy()
            (kind,) = self._rng.choices(kinds, weights)
            slot = self._rng.choice(self._slots)
            if all(running.slot is not slot for running in self._running):
                yield kind, slot

    def _end_those_due(self, now: float) -> None:
        due = [running for running in self._running if running.until <= now]
        self._running = [running for running in self._running if running.until > now]
        for running in due:
            running.end()

    def _for_a_while(self, slot: Slot, end: Callable[[], object]) -> None:
        self._running.append(_Running(slot, time.monotonic() + self._rng.uniform(0.2, 2.5), end))

    # the kinds

    def _direction(self, slot: Slot) -> Direction:
        return self._rng.choice((slot.proxy.to_server, slot.proxy.to_client, slot.proxy.both))

    def _stall(self, slot: Slot) -> None:
        self._direction(slot).stall()
        self._for_a_while(slot, slot.proxy.both.resume)

    def _blackhole(self, slot: Slot) -> None:
        self._direction(slot).blackhole()

        def end() -> None:
            # new connections first: one that came between the two would go on after bytes were swallowed
            slot.proxy.both.resume(scope="new")
            slot.proxy.reset_all()

        self._for_a_while(slot, end)

    def _lose_bytes(self, slot: Slot) -> None:
        slot.proxy.both.blackhole()
        self._stopping.wait(0.2)
        slot.proxy.both.resume()

    def _offset(self) -> int:
        """In the handshake, among the first messages, or far on."""
        return int(self._rng.choice((600, 5_000, 300_000)) * self._rng.random())

    def _cut_at_byte(self, slot: Slot) -> None:
        self._rng.choice((slot.proxy.to_server, slot.proxy.to_client)).cut_at(self._offset(), scope="next")
        slot.proxy.reset_all()

    def _reset_at_byte(self, slot: Slot) -> None:
        self._rng.choice((slot.proxy.to_server, slot.proxy.to_client)).reset_at(self._offset(), scope="next")
        slot.proxy.cut_all()

    def _throttle(self, slot: Slot) -> None:
        self._direction(slot).throttle(self._rng.choice((500.0, 20_000.0, 200_000.0)))
        self._for_a_while(slot, lambda: slot.proxy.both.throttle(None))

    def _split(self, slot: Slot) -> None:
        slot.proxy.both.split(self._rng.choice((1, 3, 50, 1000)))
        self._for_a_while(slot, lambda: slot.proxy.both.split(None))

    def _refuse(self, slot: Slot) -> None:
        slot.proxy.refuse()
        if self._rng.random() < 0.5:
            slot.proxy.reset_all()
        self._for_a_while(slot, slot.proxy.accept)

    def _restart_client(self, slot: Slot) -> None:
        slot.close_clients()
        slot.add()

    def _server_closes(self, slot: Slot) -> None:
        connection = self._host.server.clients.get(slot.name)
        if connection is not None:
            client, attempt = identity(connection)
            self._oracle.excuse("up", client, attempt)  # who closes discards what still comes
            connection.close(self._rng.choice((1001, 1011, 1012, 4000)), "soak")
