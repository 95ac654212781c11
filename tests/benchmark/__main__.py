"""``python -m tests.benchmark``: measures, prints the table, writes the figures (JSON) and the chart (SVG).

Examples::

    python -m tests.benchmark --quick                 the headline rows, about two minutes
    python -m tests.benchmark                         all of it, about an hour
    python -m tests.benchmark --quick --against PATH  this checkout against another one, about three minutes
    python -m tests.benchmark --only ping-pong --only "growth-*" --rounds 3 --seconds 1
    python -m tests.benchmark --load build/benchmark.json --markdown

Contenders that cannot be imported are left out, with a note. Ctrl-C ends everything.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fnmatch
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from tests.benchmark import chart, machine, report, trees
from tests.benchmark.contenders import CONTENDERS
from tests.benchmark.generator import Figures, find_generator, make_pem
from tests.benchmark.measures import Bench, Load
from tests.benchmark.processes import MeasureError
from tests.benchmark.rows import Row, rows

BUSY = 0.7


def main() -> int:
    """Command line."""
    options = parse_arguments()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        if options.against:
            return compare(options)
        document = json.loads(options.load.read_text()) if options.load else run(options)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written", file=sys.stderr)
        return 130
    print(report.as_markdown(document) if options.markdown else report.as_text(document))
    if not options.load:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    options.chart.parent.mkdir(parents=True, exist_ok=True)
    options.chart.write_text(chart.draw(document))
    written = [options.chart] if options.load else [options.json, options.chart]
    print("written:", *written, file=sys.stderr)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Defaults depend on ``--quick``."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description="Benchmark of sync_ws.")
    add = parser.add_argument
    add("--quick", action="store_true", help="headline rows and their targets only, about two minutes")
    add(
        "--only",
        action="append",
        metavar="ROW",
        help="a row, or a pattern such as 'growth-*'; may be repeated",
    )
    add(
        "--against",
        type=Path,
        metavar="PATH",
        help="compare this checkout with another one, see tests.benchmark.trees; --quick: about three minutes",
    )
    add("--list", action="store_true", help="name the rows and leave")
    add("--rounds", type=int, help="rounds, of which the median counts (5; quick: 3)")
    add("--seconds", type=float, help="measured time of one contender in one round (1.5; quick: 0.35)")
    add("--warmup", type=float, help="time before that which is not counted (0.5; quick: 0.1)")
    add(
        "--pin",
        choices=("one", "split", "none"),
        default="one",
        help="server and load generator on one core (default), on two, or wherever the system puts them",
    )
    add("--cpu", type=int, help="which core (default: the last one we may use)")
    add("--generator", choices=("auto", "c", "picows"), default="auto", help="load generator")
    add(
        "--json",
        type=Path,
        default=Path("build/benchmark.json"),
        metavar="FILE",
        help="figures of every round",
    )
    add("--chart", type=Path, default=Path("build/benchmark.svg"), metavar="FILE", help="chart, SVG")
    add("--markdown", action="store_true", help="print the tables as Markdown, for the README")
    add(
        "--load",
        type=Path,
        metavar="FILE",
        help="measure nothing: table and chart from an earlier --json FILE",
    )
    options = parser.parse_args()
    if options.chart.suffix != ".svg":
        parser.error("the chart is an SVG: --chart FILE.svg")
    if options.list:
        print("\n".join(f"{row.key:<24} {row.title}" for row in rows(options.quick)))
        parser.exit()
    if options.against:
        if not (options.against / "sync_ws").is_dir():
            parser.error(f"{options.against} has no sync_ws")
        options.rounds = options.rounds or (8 if options.quick else 30)
        options.seconds, options.warmup = options.seconds or 0.2, 0.05 if options.warmup is None else options.warmup
        return options
    options.rounds = options.rounds or (3 if options.quick else 5)
    options.seconds = options.seconds or (0.35 if options.quick else 1.5)
    options.warmup = options.warmup if options.warmup is not None else 0.1 if options.quick else 0.5
    return options


def run(options: argparse.Namespace) -> report.Document:
    """Measures what the options ask for; every child process is gone when this returns or raises."""
    described = machine.describe()  # now: the load average is that of others
    chosen, notes = choose(options)
    notes += [f"without its compiled part: {name}" for name, there in described["compiled"].items() if not there]
    if (load := described["load_average"]) is not None and load > BUSY:
        notes.append(f"the machine was not idle: load average {load} at the start")
    with tempfile.TemporaryDirectory(prefix="sync_ws-benchmark-") as scratch:
        bench, pinning = make_bench(options, options.pin, Path(scratch))
        chosen, impossible = possible(chosen, bench)
        notes += impossible
        apart = on_a_core_each(bench, options.cpu) if any(row.split for row in chosen) else bench
        progress = Progress(sum(rounds_of(row, options) * len(row.contenders) for row in chosen))
        documents = [measure_row(row, apart if row.split else bench, options, progress) for row in chosen]
        progress.done()
    return {
        "machine": described,
        "settings": {
            "quick": options.quick,
            "rounds": options.rounds,
            "seconds": options.seconds,
            "warmup": options.warmup,
            "generator": bench.generator.description,
            "pinning": pinning,
        },
        "labels": {key: one.label for key, one in CONTENDERS.items()},
        "rows": documents,
        "notes": notes,
    }


def compare(options: argparse.Namespace) -> int:
    """``--against``: prints the table; the figures of every slice go beside those of a full run."""
    with tempfile.TemporaryDirectory(prefix="sync_ws-benchmark-") as scratch, contextlib.ExitStack() as stack:
        bench, pinning = make_bench(options, options.pin, Path(scratch))
        bench.keep = True
        stack.callback(bench.stop_servers)
        rows_of_a_round = [row.key for row in trees.COMPARISONS if _wanted(options, row.key)]
        progress = Progress(options.rounds * len(rows_of_a_round))
        document = trees.compare(
            bench, options.against, options.rounds, lambda key: _wanted(options, key), progress.show
        )
        progress.done()
    document["pinning"] = pinning
    target = options.json.with_name("trees.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(document, indent=1) + "\n")
    print(trees.as_text(document))
    return 0


def _wanted(options: argparse.Namespace, key: str) -> bool:
    return not options.only or any(fnmatch.fnmatch(key, pattern) for pattern in options.only)


def make_bench(options: argparse.Namespace, placing: str, scratch: Path) -> tuple[Bench, str]:
    """For one placing, and how to say where that is."""
    server_cpus, generator_cpus, pinning = pin(placing, options.cpu)
    generator = find_generator(options.generator, scratch, generator_cpus)
    pem = make_pem(scratch) if "tls" in generator.features else None
    return Bench(generator, server_cpus, options.seconds, options.warmup, pem), pinning


def on_a_core_each(bench: Bench, cpu: int | None) -> Bench:
    """The same in the other placing."""
    server_cpus, generator_cpus, _ = pin("split", cpu)
    generator = dataclasses.replace(bench.generator, cpus=generator_cpus)
    return dataclasses.replace(bench, generator=generator, cpus=server_cpus)


def possible(chosen: list[Row], bench: Bench) -> tuple[list[Row], list[str]]:
    """The rows that this machine and the load generator can do; and notes on the others."""
    several = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else False
    lacking = {row.key: row.measure.needs - bench.generator.features for row in chosen if isinstance(row.measure, Load)}
    notes = [
        f"left out: {row.title} (no {' and '.join(sorted(lacks))} in the load generator)"
        for row in chosen
        if (lacks := lacking.get(row.key))
    ]
    if not several and any(row.split for row in chosen):
        notes.append("left out: the rows on a core each (there is one core)")
    return [row for row in chosen if not lacking.get(row.key) and (several or not row.split)], notes


def choose(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The rows to measure, without contenders that are not there; and notes on those."""
    chosen: list[Row] = []
    absent: dict[str, str] = {}
    for row in rows(options.quick):
        if not _wanted(options, row.key):
            continue
        here = []
        for key in row.contenders:
            if missing := CONTENDERS[key].missing():
                absent[CONTENDERS[key].label] = ", ".join(missing)
            else:
                here.append(key)
        if here:
            chosen.append(dataclasses.replace(row, contenders=tuple(here)))
    if not chosen:
        raise SystemExit("nothing to measure: see --list")
    return chosen, [f"left out: {label} (cannot import {missing})" for label, missing in absent.items()]


def pin(how: str, cpu: int | None) -> tuple[frozenset[int], frozenset[int], str]:
    """Cores for servers and clients, cores for the load generator, and how to say so."""
    if how == "none" or not hasattr(os, "sched_setaffinity"):
        return frozenset(), frozenset(), "not pinned"
    usable = sorted(os.sched_getaffinity(0))
    last = usable[-1] if cpu is None else cpu
    if how == "one":
        return (
            frozenset({last}),
            frozenset({last}),
            "it and the process under test pinned to one and the same core",
        )
    other = next((one for one in usable if one != last), None)
    if other is None:
        raise SystemExit("--pin split needs two cores")
    return frozenset({last}), frozenset({other}), "it and the process under test pinned to a core each"


def rounds_of(row: Row, options: argparse.Namespace) -> int:
    """A row may need fewer than the usual number."""
    rounds: int = options.rounds
    return rounds if row.rounds is None else min(rounds, row.rounds)


def measure_row(row: Row, bench: Bench, options: argparse.Namespace, progress: Progress) -> report.RowDocument:
    """A B C B C A C A B ...: everybody has every place in turn."""
    figures: dict[str, list[dict[str, float | str]]] = {key: [] for key in row.contenders}
    rounds = rounds_of(row, options)
    for number in range(rounds):
        first = number % len(row.contenders)
        for key in row.contenders[first:] + row.contenders[:first]:
            progress.show(f"{row.key}, round {number + 1} of {rounds}: {CONTENDERS[key].label}")
            figures[key].append(measure_one(row, bench, key))
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "metric": row.metric,
        "figures": figures,
        "targets": [dataclasses.asdict(target) for target in row.targets],
    }


def measure_one(row: Row, bench: Bench, key: str) -> dict[str, float | str]:
    """The figures, or why there are none."""
    try:
        figures: Figures = row.measure(bench, CONTENDERS[key])
    except MeasureError as exc:
        return {"error": str(exc)}
    return dict(figures)


class Progress:
    """One line on stderr: rewritten in place on a terminal, a line each elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._count = 0
        self._began = time.monotonic()

    def show(self, text: str) -> None:
        self._count += 1
        self._write(f"[{self._count:>3}/{self._total} {time.monotonic() - self._began:5.0f} s] {text}")

    def done(self) -> None:
        self._write(f"measured in {time.monotonic() - self._began:.0f} s")
        if sys.stderr.isatty():
            print(file=sys.stderr)

    def _write(self, text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def _terminated(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
