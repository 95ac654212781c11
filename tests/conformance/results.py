"""What wstest found: read its reports, count, compare with the pinned results, explain a difference.

A result is a pair: how the connection behaved and how it was closed. Everything outside ACCEPTABLE is a
failure, even when it is pinned. A case that got better than pinned is a difference too: the file says what
is true.

A few cases have two right results, and which one comes is a matter of time: a good message, then a broken
frame. If the two arrive together, the connection is failed before the message is echoed (NON-STRICT); if
not, after it (OK). For these both are pinned, by hand: "OK|NON-STRICT".
"""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Results", "compare", "counts", "explain", "failed", "load", "matches", "read", "save", "updated"]

Results = dict[str, tuple[str, str]]  # case id -> (behavior, behaviorClose), in wstest's words

DETAILS = ("description", "expectation", "result", "resultClose", "remoteCloseCode", "wasNotCleanReason")
ACCEPTABLE = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")


def _in_order(cases: Iterable[str]) -> list[str]:
    return sorted(cases, key=lambda case: [int(part) for part in case.split(".")])


def read(directory: Path, agent: str) -> Results:
    """The results in the reports that wstest wrote to directory; none when it wrote none."""
    index = directory / "index.json"
    found = json.loads(index.read_text()).get(agent, {}) if index.exists() else {}
    return {case: (found[case]["behavior"], found[case]["behaviorClose"]) for case in _in_order(found)}


def load(path: Path) -> dict[str, Results]:
    """The pinned results of each role."""
    if not path.exists():
        return {}
    pinned = json.loads(path.read_text())
    return {role: {case: (a, b) for case, (a, b) in cases.items()} for role, cases in pinned.items()}


def save(path: Path, pinned: dict[str, Results]) -> None:
    """Write the pinned results, a line for each case, so that a change shows as one."""
    roles = []
    for role, results in sorted(pinned.items()):
        lines = [f"  {json.dumps(case)}: {json.dumps(results[case])}" for case in _in_order(results)]
        roles.append(f"{json.dumps(role)}: {{\n" + ",\n".join(lines) + "\n}")
    path.write_text("{\n" + ",\n".join(roles) + "\n}\n")


def matches(case: str, patterns: Iterable[str]) -> bool:
    """Whether wstest takes the case for one of these patterns (as it reads them: `*` leaves the end open)."""
    return any(
        re.match(pattern.replace(".", r"\.").replace("*", ".*"), case) if "*" in pattern else pattern == case
        for pattern in patterns
    )


def failed(results: Results) -> list[str]:
    """The cases that are not acceptable, in behavior or in behaviorClose."""
    return [case for case, pair in results.items() if not set("|".join(pair).split("|")) <= set(ACCEPTABLE)]


def counts(results: Results) -> str:
    """One line: how many cases of each outcome."""
    bad = set(failed(results))
    number = collections.Counter("FAILED" if case in bad else pair[0] for case, pair in results.items())
    numbers = ", ".join(f"{outcome} {number[outcome]}" for outcome in (*ACCEPTABLE, "FAILED"))
    return f"{len(results)} cases: {numbers}"


def compare(pinned: Results, found: Results) -> list[str]:
    """The cases whose results differ, or that are in only one of the two."""
    return [case for case in _in_order({*pinned, *found}) if not _agree(pinned.get(case), found.get(case))]


def updated(pinned: Results, found: Results) -> Results:
    """What to pin for the cases found: the result, or what was pinned where that allows it among others."""
    kept = {case: pair for case, pair in pinned.items() if _agree(pair, found.get(case))}
    return found | kept


def _agree(pinned: tuple[str, str] | None, found: tuple[str, str] | None) -> bool:
    if pinned is None or found is None:
        return False
    return all(result in allowed.split("|") for allowed, result in zip(pinned, found, strict=True))


def explain(case: str, pinned: Results, found: Results, directory: Path) -> str:
    """What was pinned and what was found for a case, and what wstest says about it."""

    def words(results: Results) -> str:
        return " / ".join(results[case]) if case in results else "no result"

    lines = [f"{case}: pinned {words(pinned)}, now {words(found)}"]
    for report in directory.glob(f"*_case_{case.replace('.', '_')}.json"):
        detail = json.loads(report.read_text())
        for key in DETAILS:
            text = " ".join(re.sub(r"<[^>]*>", " ", str(detail.get(key))).split())
            lines.append(f"    {key}: {text[:300]}")
        lines.append(f"    the wire log: {report.with_suffix('.html')}")
    return "\n".join(lines)
