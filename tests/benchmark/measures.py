"""How one figure is measured: each function takes a contender and returns the figures of one round.

Where a server and the load generator run on one core, they never run at the same time: a round trip costs the
CPU time of both plus two context switches, and no figure depends on how long a sleeping core takes to wake
up. Where they run on a core each, they work at the same time, but each waits for the other core to wake up.

Nobody is measured cold: see ``Bench.server`` for what a server goes through before its turn, and ``clients`` for a
client. And nobody is measured beside another: a server is started for its turn and gone afterwards. Some hundred
threads of one server that end, or quarrel about the interpreter's lock, would otherwise slow down the next one.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmark.contenders import GENERATOR, Contender
from tests.benchmark.generator import Figures, Generator
from tests.benchmark.processes import ROOT, Child, MeasureError, run_once
from tests.benchmark.servers import TREE

RECONNECT_DELAY = 0.05
SETTLED_KIB = 64
WARM_CONNECTIONS = 4
WARM_SECONDS = 0.05
_SERVER = (sys.executable, "-m", "tests.benchmark.servers")
_CLIENT = (sys.executable, "-m", "tests.benchmark.clients")


@dataclass
class Bench:
    """What every measurement needs: the generator, the cores, how long.

    ``pem``: certificate and key, where the generator has TLS. ``keep``: servers stay until ``stop_servers``, for
    those that are measured in short turns.
    """

    generator: Generator
    cpus: frozenset[int]
    seconds: float
    warmup: float
    pem: Path | None
    keep: bool = False
    _running: dict[tuple[str, ...], tuple[Child, int]] = field(default_factory=dict)

    def start(self, contender: Contender, role: str, tls: bool = False) -> Child:
        """A new server process, which the caller stops."""
        if contender.program == GENERATOR:
            pem = ["--pem", str(self.pem)] if tls else []
            return Child([*self.generator.command, "serve", *pem], cpus=self.cpus)
        command = [*_SERVER, contender.program, contender.role or role, *([str(self.pem)] if tls else [])]
        return Child(command, cpus=self.cpus, env=contender.env)

    @contextlib.contextmanager
    def server(self, contender: Contender, role: str, shape: tuple[str, ...] = ()) -> Iterator[tuple[Child, int]]:
        """A server of this contender that is warm, and its port. ``shape``: of messages, as the generator takes it."""
        key = (contender.key, role, *shape)
        server, port = self._running.get(key) or self._start_warm(contender, role, shape)
        try:
            yield server, port
        except BaseException:
            self._running.pop(key, None)  # whatever state it is in, the next round starts with a new one
            server.stop()
            raise
        if self.keep:
            self._running[key] = server, port
        else:
            server.stop()

    def _start_warm(self, contender: Contender, role: str, shape: tuple[str, ...]) -> tuple[Child, int]:
        server = self.start(contender, role, "--tls" in shape)
        try:
            port = server.wait_ready()
            self.warm(port, shape)
        except BaseException:
            server.stop()
            raise
        return server, port

    def warm(self, port: int, shape: tuple[str, ...] = ()) -> None:
        """Some connections that come, echo messages such as are measured next, and go: every other one with a Close
        frame, the others without. To asyncio the latter make the difference: its reads of 256 KiB are mapped and
        unmapped each time, until one of them is freed as large as it was made, which is at the end of a stream.
        """
        for number in range(WARM_CONNECTIONS):
            leaving = ["--abrupt"] if number % 2 else []
            times = ["--seconds", str(WARM_SECONDS), "--warmup", "0"]
            self.generator.run("echo", port, [*shape, *leaving, *times], WARM_SECONDS)

    def stop_servers(self) -> None:
        """Ends all that are kept."""
        while self._running:
            self._running.popitem()[1][0].stop()


Measure = Callable[[Bench, Contender], Figures]


@dataclass(frozen=True)
class Load:
    """A server under the load generator."""

    mode: str = "echo"
    role: str = "echo"
    connections: int = 1
    in_flight: int = 1
    size: int = 100
    binary: bool = False
    tls: bool = False
    share: float = 1.0  # of the usual time

    @property
    def needs(self) -> frozenset[str]:
        """Features of the generator."""
        wanted = {"tls": self.tls, "deflate": self.role == "deflate"}
        return frozenset(name for name, yes in wanted.items() if yes)

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        flags = {"--binary": self.binary, "--tls": self.tls, "--deflate": self.role == "deflate"}
        shape = (
            "--in-flight",
            str(self.in_flight),
            "--size",
            str(self.size),
            *(name for name, yes in flags.items() if yes),
        )
        seconds, warmup = bench.seconds * self.share, bench.warmup
        times = ["--seconds", str(seconds), "--warmup", str(warmup)]
        with bench.server(contender, self.role, shape) as (server, port):
            arguments = [*shape, "--connections", str(self.connections), "--watch", str(server.pid), *contender.load]
            return bench.generator.run(self.mode, port, [*arguments, *times], seconds + warmup)


@dataclass(frozen=True)
class Idle:
    """Memory and threads of connections that have echoed one message each and then keep still.

    The first hundred are not counted: they pay for what is imported and allocated once. In the end each of
    them has to echo again, or the figure is void.
    """

    ours: int
    others: int

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        count = self.ours if contender.program == "sync_ws" else self.others
        with bench.start(contender, "echo") as server:
            port = server.wait_ready()
            bench.warm(port)
            with self._hold(bench, port, 100):
                rss, threads = settled_rss(server), server.status("Threads")
                with self._hold(bench, port, count - 100) as many:
                    grown, more = settled_rss(server) - rss, server.status("Threads") - threads
                    many.write_line("check")
                    alive = json.loads(many.read_line(60))["alive"]
        if alive != count - 100:
            raise MeasureError(f"only {alive} of {count - 100} still answer")
        return {"kib": grown / alive, "threads": more / alive, "held": float(count)}

    @staticmethod
    def _hold(bench: Bench, port: int, count: int) -> Child:
        holder = bench.generator.start("idle", ["--port", str(port), "--connections", str(count)])
        try:
            answer = json.loads(holder.read_line(120))
            if answer.get("alive") != count:
                raise MeasureError(answer.get("error", f"only {answer.get('alive')} of {count} answer"))
        except BaseException:
            holder.stop()
            raise
        return holder


def settled_rss(server: Child) -> int:
    """Resident KiB once it no longer grows; waits 3 s at most."""
    last = server.status("VmRSS")
    for _ in range(12):
        time.sleep(0.25)
        now = server.status("VmRSS")
        if abs(now - last) < SETTLED_KIB:
            return now
        last = now
    return last


@dataclass(frozen=True)
class Client:
    """A client, or many in one process, against the echo server of the load generator."""

    size: int = 100
    binary: bool = False
    clients: int = 1
    share: float = 1.0  # of the usual time

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        with bench.generator.start("serve", []) as echo:
            port = echo.wait_ready()
            seconds, warmup = bench.seconds * self.share, bench.warmup * self.share
            command = [
                *_CLIENT,
                contender.program,
                "--port",
                str(port),
                "--size",
                str(self.size),
                *(["--binary"] if self.binary else []),
                "--seconds",
                str(seconds),
                "--warmup",
                str(warmup),
                "--clients",
                str(self.clients),
            ]
            line = run_once(command, cpus=bench.cpus, env=contender.env, timeout=seconds + warmup + 30)
        figures: Figures = json.loads(line)
        return figures


@dataclass(frozen=True)
class Reconnect:
    """A server goes, stays away for some attempts, and is back: how long after its delay is the client open?

    ``ms`` is from the end of the announced delay to the open event, that is timer, dial and handshake.
    ``wall_ms`` is from the moment the server is back: up to one delay more than that.
    """

    times: int = 5

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        over: list[float] = []
        wall: list[float] = []
        echo = bench.generator.start("serve", [])
        try:
            port = echo.wait_ready()
            command = [*_CLIENT, "reconnect", "--port", str(port), "--delay", str(RECONNECT_DELAY)]
            with Child(command, cpus=bench.cpus) as client:
                events = _Events(client)
                events.until("open")
                for _ in range(self.times):
                    echo.stop()
                    for _ in range(3):  # refused at least twice
                        events.until("reconnecting")
                    echo = bench.generator.start("serve", ["--port", str(port)])
                    echo.wait_ready()
                    back = time.monotonic()
                    opened = events.until("open")
                    over.append((opened - events.due) * 1e3)
                    wall.append((opened - back) * 1e3)
        finally:
            echo.stop()
        return {"ms": statistics.median(over), "ms_max": max(over), "wall_ms": statistics.median(wall)}


class _Events:
    """The lines of the client that stays connected."""

    def __init__(self, client: Child) -> None:
        self._client = client
        self.due = 0.0  # when the delay announced last is over

    def until(self, wanted: str) -> float:
        """Reads on to that event and returns when it came."""
        while True:
            event = json.loads(self._client.read_line(10))
            at: float = event["at"]
            if event["event"] == "reconnecting":
                self.due = at + event["delay"]
            if event["event"] == wanted:
                return at


@dataclass(frozen=True)
class Import:
    """Time an import takes in a fresh interpreter, without the start of the interpreter itself."""

    times: int = 5

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        tree = contender.env.get(TREE, str(ROOT))
        code = (
            f"import sys; sys.path.insert(0, {tree!r}); from time import perf_counter as t, process_time as c; "
            f"t0, c0 = t(), c(); import {contender.program}; print(t() - t0, c() - c0)"
        )
        runs = [
            [float(word) * 1e3 for word in run_once([sys.executable, "-c", code], cpus=bench.cpus, timeout=20).split()]
            for _ in range(self.times)
        ]
        return {"ms": statistics.median(run[0] for run in runs), "cpu_ms": statistics.median(run[1] for run in runs)}
