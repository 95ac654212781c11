"""Two checkouts of sync_ws against each other: ``python -m tests.benchmark --quick --against PATH``.

Made to see a difference of 2 % on a machine that is noisy by more than that:

* Both are measured in one run, in slices of a fraction of a second that alternate, new old old new; a ratio is
  formed within each pair of slices, and the median of the ratios counts.
* Every round has new server processes: two processes of the same program differ by a percent or two, for as long
  as they live, in where things lie in memory. The hash seed is the same for both, another one in each round.
* Two figures for each row: throughput, and the CPU time that the process under test used for one message. The
  latter does not see what other programs do on the core, except through its caches; the former also sees waiting.
* The interval shown with each ratio says where its true value lies in 95 of 100 cases: a bootstrap over rounds,
  since what is measured with the same two processes is not independent.

A row is ``slower`` when the whole interval of any figure is beyond the bound, ``same`` when the whole interval of
one of them is within it (or better), else ``unclear``: more ``--rounds`` help. ``--against .`` compares this
checkout with itself and shows how much to believe.
"""

from __future__ import annotations

import dataclasses
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmark.contenders import Contender
from tests.benchmark.generator import Figures
from tests.benchmark.measures import Bench, Client, Idle, Import, Load, Measure
from tests.benchmark.processes import ROOT, MeasureError
from tests.benchmark.servers import TREE

BOUND = 0.02
RESAMPLES = 2000
ORDER = ("new", "old", "old", "new")  # repeated: a drift of the machine hits both alike


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row. ``figures``: metric, and whether more of it is better; the first is shown with its medians."""

    key: str
    title: str
    measure: Measure
    figures: tuple[tuple[str, bool], ...]
    program: str = "sync_ws"
    slices: int = 4  # of each tree in each round
    every: int = 1  # in every so many rounds only: costly, or nearly exact


_SERVER = (("per_second", True), ("server_cpu_us", False))
_CLIENT = (("per_second", True), ("client_cpu_us", False))

COMPARISONS = (
    Comparison("ping-pong", "ping-pong, 1 connection, 100 B", Load(), _SERVER),
    Comparison("pipelined", "64 in flight, 1 connection, 100 B", Load(in_flight=64), _SERVER),
    Comparison("connections-100", "ping-pong, 100 connections, 100 B", Load(connections=100), _SERVER),
    Comparison("size-64k", "ping-pong, 1 connection, 64 KiB", Load(size=65536, binary=True), _SERVER),
    Comparison("tls-100", "TLS, ping-pong, 1 connection, 100 B", Load(tls=True), _SERVER),
    Comparison("tls-64k", "TLS, ping-pong, 1 connection, 64 KiB", Load(size=65536, binary=True, tls=True), _SERVER),
    Comparison("handshakes", "opening handshakes", Load("handshake"), _SERVER),
    Comparison("client-100", "client ping-pong, 100 B", Client(), _CLIENT, slices=2),
    Comparison("idle", "idle memory, 500 connections, KiB each", Idle(500, 500), (("kib", False),), slices=1, every=4),
    Comparison("import", "import time, ms", Import(1), (("ms", False), ("cpu_ms", False)), slices=4),
)


class Interval(NamedTuple):
    """A median, and where the true one lies in 95 of 100 cases."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}..{self.high:.3f})"


Rounds = list[list[float]]


def interval(rounds: Rounds, seed: int = 1) -> Interval:
    """The median of all values, with a bootstrap over the rounds they come from."""
    draw = random.Random(seed)
    medians = sorted(
        statistics.median([value for one in draw.choices(rounds, k=len(rounds)) for value in one])
        for _ in range(RESAMPLES)
    )
    middle = statistics.median([value for one in rounds for value in one])
    return Interval(middle, medians[RESAMPLES // 40], medians[-1 - RESAMPLES // 40])


def verdict(found: Sequence[tuple[Interval, bool]], bound: float = BOUND) -> str:
    """Of ratios new to old, and whether more is better; see the module."""
    as_speed = [one if better else Interval(1 / one.median, 1 / one.high, 1 / one.low) for one, better in found]
    if any(one.high < 1 - bound for one in as_speed):
        return "slower"
    if any(one.low > 1 + bound for one in as_speed):
        return "faster"
    return "same" if any(one.low >= 1 - bound for one in as_speed) else "unclear"


def contender(side: str, tree: Path, program: str, seed: int) -> Contender:
    """sync_ws as that checkout has it."""
    return Contender(side, side, program, ("sync_ws",), env={TREE: str(tree), "PYTHONHASHSEED": str(seed)})


def compare(
    bench: Bench, against: Path, rounds: int, only: Callable[[str], bool], show: Callable[[str], None]
) -> dict[str, Any]:
    """All pairs of all rounds, as a document for ``as_text``."""
    trees = {"new": ROOT, "old": against.resolve()}
    pairs: dict[str, list[list[dict[str, Figures]]]] = {one.key: [] for one in COMPARISONS if only(one.key)}
    errors: list[str] = []
    for number in range(rounds):
        for row in COMPARISONS:
            if row.key not in pairs or number % row.every:
                continue
            if isinstance(row.measure, Load) and (missing := row.measure.needs - bench.generator.features):
                errors += [f"{row.key}: the load generator has no {', '.join(missing)}"] * (number == 0)
                continue
            show(f"round {number + 1} of {rounds}: {row.key}")
            sides = {side: contender(side, tree, row.program, number + 1) for side, tree in trees.items()}
            try:
                pairs[row.key].append(measure_pairs(bench, row, sides))
            except MeasureError as exc:
                errors.append(f"{row.key}, round {number + 1}: {exc}")
            finally:
                bench.stop_servers()
    return {"against": str(against), "pairs": pairs, "errors": errors}


def measure_pairs(bench: Bench, row: Comparison, sides: dict[str, Contender]) -> list[dict[str, Figures]]:
    """new old, old new, new old ..."""
    slices = [{} for _ in range(row.slices)]  # type: list[dict[str, Figures]]
    for index in range(row.slices * 2):
        side = ORDER[index % len(ORDER)]
        slices[index // 2][side] = row.measure(bench, sides[side])
    return slices


def as_text(document: dict[str, Any]) -> str:
    """The table."""
    out = [
        f"new: this checkout; old: {document['against']}; ratios new to old",
        f"{'':<40} {'old':>10} {'new':>10}  {'throughput, ratio':<24} {'CPU time, ratio':<24} verdict",
    ]
    for row in COMPARISONS:
        measured = document["pairs"].get(row.key)
        if not measured:
            continue
        compared = [(ratios(measured, metric), better) for metric, better in row.figures]
        found = [(interval(rounds), better) for rounds, better in compared if rounds]
        if len(found) < len(compared):
            out.append(f"{row.title:<40} too slow to be measured in so short a time")
            continue
        first = row.figures[0][0]
        old, new = (
            statistics.median([pair[side][first] for one in measured for pair in one]) for side in ("old", "new")
        )
        shown = [str(one) for one, _ in found]
        out.append(
            f"{row.title:<40} {old:>10,.1f} {new:>10,.1f}  {shown[0]:<24} {(shown + [''])[1]:<24} {verdict(found)}"
        )
    return "\n".join(out + [f"note: {error}" for error in document["errors"]])


def ratios(measured: list[list[dict[str, Figures]]], metric: str) -> Rounds:
    """New to old, pair by pair; without a pair in which one of them came to nothing."""
    rounds = [
        [
            pair["new"][metric] / pair["old"][metric]
            for pair in one
            if pair["new"].get(metric) and pair["old"].get(metric)
        ]
        for one in measured
    ]
    return [one for one in rounds if one]
