"""One soak from beginning to end, and what came of it.

Threading: `run` in one thread, which only starts, watches and stops the others.
"""

from __future__ import annotations

import gc
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sync_ws.testing import Certificates, ResourceLedger, UncaughtThreadErrors
from tests.soak.faults import Faults
from tests.soak.host import Host
from tests.soak.oracle import Oracle
from tests.soak.resources import Resources
from tests.soak.slots import Slot

__all__ = ["INVARIANTS", "Report", "Settings", "run"]

SETTLE = 40.0  # seconds from the last fault until every stream must flow again
PROGRESS = 5.0  # seconds between two lines

INVARIANTS = (
    "every stream arrived in order: nothing twice, nothing late, no gap within a connection",
    "every hash was right",
    "what was sent over a connection that ended by a closing handshake was delivered",
    "what was queued was delivered, or reported as undelivered, or lost with a connection that died",
    "what was reported as undelivered, or whose send raised, did not arrive",
    "no peer broke the protocol (close codes 1002, 1003, 1007 to 1010); no client stopped without a reason to",
    "after the last fault every client was open again and every stream flowed",
    "close() and shutdown() were back in time and left no thread",
    "no thread died of an exception, no application function failed, the library logged no error",
    "threads, descriptors and memory were bounded during the run, threads and descriptors at the baseline after it",
)


@dataclass(frozen=True)
class Settings:
    """What to run. `certificates` means TLS; `kinds` restricts the faults, `pause` is the mean time between two."""

    seconds: float
    seed: int = 1
    clients: int = 6
    compression: bool = False
    certificates: Certificates | None = None
    kinds: tuple[str, ...] | None = None
    pause: float = 0.25


@dataclass
class Report:
    """What a soak did; it has held the invariants when there are no violations."""

    violations: list[str]
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    resources: str = ""


class _ErrorRecords(logging.Handler):
    """Turns each error that the library logs into a violation."""

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(logging.ERROR)
        self._oracle = oracle
        self.setFormatter(logging.Formatter("logged by %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._oracle.violated(self.format(record))


def run(settings: Settings, say: Callable[[str], None] = lambda line: None) -> Report:
    """Run a soak; `say` gets the lines of progress."""
    oracle = Oracle()
    resources = Resources(settings.clients)
    errors = _ErrorRecords(oracle)
    logger = logging.getLogger("sync_ws")
    logger.addHandler(errors)
    ledger = ResourceLedger()
    begun = time.monotonic()
    try:
        with UncaughtThreadErrors() as uncaught:
            faults = _run(settings, oracle, resources, say)
            oracle.judge()
            left = ledger.leftovers()
    finally:
        logger.removeHandler(errors)
    problems = [f"left behind: {line}" for line in left] + [str(error) for error in uncaught.errors]
    problems += resources.problems(oracle.counts["connections"])
    return Report(oracle.violations + problems, time.monotonic() - begun, oracle.counts, faults.counts, str(resources))


def _run(settings: Settings, oracle: Oracle, resources: Resources, say: Callable[[str], None]) -> Faults:
    names = [f"c{number}" for number in range(1, settings.clients + 1)]
    server_context: ssl.SSLContext | None = None
    client_context: ssl.SSLContext | None = None
    if settings.certificates is not None:
        server_context = settings.certificates.server_context()
        client_context = settings.certificates.client_context()
    host = Host(oracle, names, seed=settings.seed, context=server_context, compression=settings.compression)
    slots = [
        Slot(name, host.port, oracle, seed=settings.seed, context=client_context, compression=settings.compression)
        for name in names
    ]
    try:
        for slot in slots:
            slot.add()
        faults = Faults(slots, host, oracle, seed=settings.seed, kinds=settings.kinds, pause=settings.pause)
        try:
            _watch(settings.seconds, oracle, resources, faults, say)
        finally:
            faults.stop()
        say("no more faults: everything has to flow again")
        _settle(slots, host, oracle)
        resources.take()
    finally:
        for slot in slots:
            slot.close_clients()
        host.stop()
        for slot in slots:
            slot.proxy.close()
        gc.collect()
    return faults


def _watch(seconds: float, oracle: Oracle, resources: Resources, faults: Faults, say: Callable[[str], None]) -> None:
    begun = said = time.monotonic()
    while (now := time.monotonic()) < begun + seconds:
        time.sleep(max(0.0, min(1.0, begun + seconds - now)))
        sample = resources.take()
        if now - said >= PROGRESS:
            said = now
            counts = oracle.counts
            say(
                f"{now - begun:5.0f} s: {counts['connections']} connections, {sum(faults.counts.values())} faults,"
                f" {counts['received']} messages, {counts['bytes'] / 1e6:.0f} MB, {sample},"
                f" {counts['violations']} violations"
            )


def _settle(slots: list[Slot], host: Host, oracle: Oracle) -> None:
    """Without faults, wait until of every stream something new has arrived."""
    for slot in slots:
        slot.tidy()
        for client in slot.clients:
            client.settle()
    host.settle()
    marks: dict[str, int] = {}
    deadline = time.monotonic() + SETTLE
    waiting = slots
    while waiting and time.monotonic() < deadline:
        time.sleep(0.1)
        for slot in waiting:
            slot.tidy()
        waiting = [slot for slot in waiting if len(slot.clients) != 1 or not slot.clients[0].up_to_date(marks)]
    for slot in waiting:
        states = ", ".join(f"{client.key} {client.client.state.value}" for client in slot.clients)
        oracle.violated(f"{SETTLE:g} s after the last fault not every stream of {slot.name} flows: {states}")
