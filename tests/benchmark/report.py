"""Medians, ratios and verdicts of a run, and its tables in text and in Markdown.

Works on the document that ``--json`` writes, so that a table can be made again from an earlier run. A ratio
is formed within each round, between neighbours in time, and the median over the rounds is what counts; lowest
and highest are shown with it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.benchmark.machine import one_line

Document = dict[str, Any]
RowDocument = dict[str, Any]

UNITS = {"kib": "KiB resident each", "threads": "thread(s) each", "held": "held at once", "ms": "ms"}
LOWER_IS_BETTER = ("kib", "ms", "p50_us")


class Ratio(NamedTuple):
    """Over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} x" + (f" ({self.low:.2f}..{self.high:.2f})" if self.low != self.high else "")


class Verdict(NamedTuple):
    """One target and how it came out."""

    what: str
    target: str
    measured: str
    verdict: str


def values(row: RowDocument, contender: str, metric: str) -> list[float | None]:
    """One figure a round; None for a round without it."""
    return [figures.get(metric) for figures in row["figures"].get(contender, [])]


def median(row: RowDocument, contender: str, metric: str) -> float | None:
    """Median over the rounds that have the figure."""
    known = [value for value in values(row, contender, metric) if value is not None]
    return statistics.median(known) if known else None


def ratio(row: RowDocument, ours: str, theirs: str, metric: str) -> Ratio | None:
    """Ours to theirs, round by round."""
    pairs = zip(values(row, ours, metric), values(row, theirs, metric), strict=False)
    known = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return Ratio(statistics.median(known), min(known), max(known)) if known else None


def verdicts(document: Document) -> Iterator[Verdict]:
    """All targets of the rows that were measured."""
    labels = document["labels"]
    for row in document["rows"]:
        for target in row["targets"]:
            ours, theirs, metric = target["ours"], target["theirs"], target["metric"]
            name = labels[ours]
            if theirs is None:
                value = median(row, ours, metric)
                wanted = f"{target['op']} {target['bound']:g} {UNITS[metric]}"
                measured = None if value is None else f"{value:.4g}"
            else:
                found = ratio(row, ours, theirs, metric)
                value = found.median if found else None
                wanted = f"{target['op']} {target['bound']:g} x {labels[theirs]}"
                measured = None if found is None else str(found)
            yield Verdict(f"{row['title']}: {name}", wanted, measured or "-", _verdict(target, value))


def _verdict(target: dict[str, Any], value: float | None) -> str:
    if value is None:
        return "not measured"
    met = value >= target["bound"] if target["op"] == ">=" else value <= target["bound"]
    return "met" if met else "missed"


def cell(row: RowDocument, contender: str, metric: str, places: int = 0) -> str:
    """A median for a table; what went wrong where there is none."""
    value = median(row, contender, metric)
    if value is not None:
        return f"{value:,.{places if value < 1000 else 0}f}"
    errors = [figures["error"] for figures in row["figures"].get(contender, []) if "error" in figures]
    return "" if not errors else errors[0] if metric == row["metric"] else ""


class Line(NamedTuple):
    """One contender in one row."""

    label: str
    figure: str
    rounds: str
    p50: str
    p99: str
    cpu: str  # of the process under test, for one message
    compared: str


def lines(document: Document, row: RowDocument) -> Iterator[Line]:
    """The contenders of a row in the order they were measured; each compared with the first."""
    first = next(iter(row["figures"]), None)
    for key in row["figures"]:
        compared = ratio(row, first, key, row["metric"]) if first not in (None, key) else None
        threads = median(row, key, "threads")
        figure = cell(row, key, row["metric"], 1) + (
            "" if threads is None else f", {threads:.0f} thread{'s' * (threads != 1)}"
        )
        wire = median(row, key, "wire_bytes") if row["key"].startswith("deflate-") else None
        yield Line(
            document["labels"][key],
            figure + ("" if wire is None else f", {wire:,.0f} B"),
            spread(row, key, row["metric"]),
            cell(row, key, "p50_us", 1),
            cell(row, key, "p99_us", 1),
            cell(row, key, "server_cpu_us", 1) or cell(row, key, "client_cpu_us", 1),
            f"{compared.median:.2f} x" if compared else "",
        )


def spread(row: RowDocument, contender: str, metric: str) -> str:
    """Lowest and highest round: with a thousand threads one server can do ten times as much as in the next round."""
    known = [value for value in values(row, contender, metric) if value is not None]
    return (
        f"{min(known):,.{0 if min(known) >= 1000 else 1}f}..{max(known):,.{0 if max(known) >= 1000 else 1}f}"
        if known[1:]
        else ""
    )


def method(document: Document) -> str:
    """How it was measured, in one sentence or two."""
    settings = document["settings"]
    return (
        f"Median of {settings['rounds']} rounds of {settings['seconds']:g} s after "
        f"{settings['warmup']:g} s of warm-up, contenders taking turns; ratios within a round. Load "
        f"generator: {settings['generator']}; "
        f"{settings['pinning']}."
    )


def as_text(document: Document) -> str:
    """For the terminal."""
    out = [one_line(document["machine"]), method(document), ""]
    for row in document["rows"]:
        table = list(lines(document, row))
        timed = any(line.p50 for line in table)
        head = f"{'p50 us':>10} {'p99 us':>10} {'CPU us':>10}" if timed else ""
        out.append(f"{row['title']}\n  {'':<36} {row['unit']:>20} {'rounds':>20} {head}  first to this")
        for line in table:
            more = f"{line.p50:>10} {line.p99:>10} {line.cpu:>10}" if timed else ""
            out.append(f"  {line.label:<36} {line.figure:>20} {line.rounds:>20} {more}  {line.compared:>8}".rstrip())
        out.append("")
    found = list(verdicts(document))
    if found:
        width = max(len(one.what) for one in found)
        other = max(len(one.target) for one in found)
        out.append(f"{'targets':<{width}}  {'target':<{other}}  {'measured':<22} verdict")
        out += [f"{one.what:<{width}}  {one.target:<{other}}  {one.measured:<22} {one.verdict}" for one in found]
    return "\n".join([*out, *(f"note: {note}" for note in document["notes"])])


def as_markdown(document: Document) -> str:
    """The tables of the README: targets first, then all medians (growth is in the chart)."""
    out = [f"{method(document)} Machine: {one_line(document['machine'])}.", ""]
    out += ["| what | target | measured (lowest..highest round) | verdict |", "|---|---|---|---|"]
    for one in verdicts(document):
        verdict = one.verdict if one.verdict == "met" else f"**{one.verdict}**"
        out.append(f"| {one.what} | {one.target} | {one.measured} | {verdict} |")
    out += [
        "",
        "| what | contender | median | rounds | p50 us | p99 us | its CPU us a message | ratio, first to this |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in document["rows"]:
        if row["key"].startswith("growth-"):
            continue
        title = f"{row['title']} ({row['unit']})"
        for line in lines(document, row):
            out.append(
                f"| {title} | {line.label} | {line.figure} | {line.rounds} | {line.p50} | {line.p99} | {line.cpu} "
                f"| {line.compared} |"
            )
            title = ""
    return "\n".join([*out, "", *(f"- {note}" for note in document["notes"])]).rstrip()
