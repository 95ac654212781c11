"""How one figure is measured: each function takes a contender and returns the figures of one round.

Where a server and the load generator run on one core, they never run at the same time: a round trip costs the
CPU time of both plus two context switches, and no figure depends on how long a sleeping core takes to wake
up.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

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
    """What every measurement needs: the generator, the cores, how long; and the servers that are up."""

    generator: Generator
    cpus: frozenset[int]
    seconds: float
    warmup: float
    _running: dict[tuple[str, str], Child] = field(default_factory=dict)
    _ports: dict[tuple[str, str], int] = field(default_factory=dict)
    _warm: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)

    def start(self, contender: Contender, role: str) -> Child:
        """A new server process, which the caller stops."""
        if contender.program == GENERATOR:
            return Child([*self.generator.command, "serve"], cpus=self.cpus)
        return Child([*_SERVER, contender.program, contender.role or role], cpus=self.cpus, env=contender.env)

    def server(self, contender: Contender, role: str) -> tuple[Child, int]:
        """The server of this contender, started unless it is up already, and its port."""
        key = (contender.key, role)
        if key not in self._running:
            self._running[key] = self.start(contender, role)
            self._ports[key] = self._running[key].wait_ready()
        return self._running[key], self._ports[key]

    def warm(self, contender: Contender, role: str, arguments: tuple[str, ...]) -> None:
        """A few connections that come, echo messages such as are measured next, and go; once for each server."""
        if (key := (contender.key, role, arguments)) not in self._warm:
            for _ in range(WARM_CONNECTIONS):
                times = ["--seconds", str(WARM_SECONDS), "--warmup", "0"]
                self.generator.run("echo", self._ports[contender.key, role], [*arguments, *times], WARM_SECONDS)
            self._warm.add(key)

    def stop_servers(self) -> None:
        """Ends all that ``server`` started."""
        while self._running:
            self._running.popitem()[1].stop()
        self._ports.clear()
        self._warm.clear()


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
    share: float = 1.0  # of the usual time

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        server, port = bench.server(contender, self.role)
        seconds, warmup = bench.seconds * self.share, bench.warmup
        shape = ("--in-flight", str(self.in_flight), "--size", str(self.size), *(["--binary"] if self.binary else []))
        arguments = [
            "--connections",
            str(self.connections),
            *shape,
            "--seconds",
            str(seconds),
            "--warmup",
            str(warmup),
            "--watch",
            str(server.pid),
            *contender.load,
        ]
        try:
            bench.warm(contender, self.role, shape)
            return bench.generator.run(self.mode, port, arguments, seconds + warmup)
        except MeasureError:
            bench.stop_servers()  # whatever state it is in, the next round starts with a new one
            raise


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
    """A client against the echo server of the load generator."""

    size: int = 100
    binary: bool = False

    def __call__(self, bench: Bench, contender: Contender) -> Figures:
        with bench.generator.start("serve", []) as echo:
            port = echo.wait_ready()
            command = [
                *_CLIENT,
                contender.program,
                "--port",
                str(port),
                "--size",
                str(self.size),
                *(["--binary"] if self.binary else []),
                "--seconds",
                str(bench.seconds),
                "--warmup",
                str(bench.warmup),
            ]
            line = run_once(command, cpus=bench.cpus, env=contender.env, timeout=bench.seconds + bench.warmup + 30)
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
