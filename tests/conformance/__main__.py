"""Run Autobahn's wstest against sync_ws and compare with the pinned results; the package says more.

The main thread waits for one thread a role; whatever ends it (done, the deadline, Ctrl-C, SIGTERM), the
child processes are ended first, which lets those threads end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from tests.conformance import autobahn, results, roles
from tests.conformance.testee import AGENT

EXPECTED = Path(__file__).with_name("expected.json")
EXPLAINED = 10  # cases of a role that are explained when they fail or differ; the others are only named


def _arguments() -> argparse.Namespace:
    summary = str(__doc__).partition(";")[0]
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=summary)
    parser.add_argument("--role", choices=(*roles.ROLES, "both"), default="both", help="the part of sync_ws")
    parser.add_argument("--cases", default="*", help="patterns of case ids, as in 1.*,2.*,9.1.1")
    parser.add_argument("--out", type=Path, help="keep reports and logs here (else: only after a failure)")
    parser.add_argument("--update", action="store_true", help="pin what comes out now")
    parser.add_argument("--deadline", type=float, default=45.0, help="minutes until everything is stopped")
    parser.add_argument("--python2", help="the Python 2.7 to use (else: from PATH, or pyenv's)")
    parser.add_argument(
        "--wstest",
        type=Path,
        default=autobahn.default_directory(),
        help="where wstest is, or is put (else: under the system's temporary directory)",
    )
    return parser.parse_args()


def _skip(reason: str) -> int:
    """wstest cannot run here: a skip, unless the environment insists on it."""
    if os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        print(f"FAILED: {reason}")
        return 1
    print(f"SKIPPED: {reason}")
    return 0


def _run_roles(names: list[str], wstest: list[str], cases: list[str], out: Path, deadline: float) -> dict[str, str]:
    """Run the roles side by side; the errors of those that did not get through."""
    env = autobahn.environment()
    with ThreadPoolExecutor() as pool, contextlib.closing(roles.Children()) as children:
        runs = {role: roles.Run(role, wstest, env, cases, out / role, children, _say) for role in names}
        futures = {role: pool.submit(run.start) for role, run in runs.items()}
        late = wait(futures.values(), timeout=60 * deadline).not_done
    errors = {role: f"not done after {deadline:g} minutes" for role in names if futures[role] in late}
    for role in names:
        if error := futures[role].exception():
            errors.setdefault(role, f"{type(error).__name__}: {error}")
    return errors


def _judge(role: str, pinned: results.Results, found: results.Results, directory: Path) -> bool:
    """Print a role's counts, failures and differences from what is pinned; whether all is well."""
    bad, differing = results.failed(found), results.compare(pinned, found)
    print(f"\n{role}: {results.counts(found)}")
    print(f"{role}: {len(bad)} failed, {len(differing)} differ from the {len(pinned)} that are pinned")
    shown = [*bad, *(case for case in differing if case not in bad)]
    for case in shown[:EXPLAINED]:
        print("  " + results.explain(case, pinned, found, directory).replace("\n", "\n  "))
    if len(shown) > EXPLAINED:
        print(f"  and {len(shown) - EXPLAINED} more: {' '.join(shown[EXPLAINED:])}")
    return bool(found) and not shown


def _say(text: str) -> None:
    print(text, flush=True)


def _conformance(arguments: argparse.Namespace, wstest: list[str], out: Path) -> bool:
    """Run the roles, print what came out, compare with what is pinned or pin it; whether all is well."""
    names = list(roles.ROLES) if arguments.role == "both" else [arguments.role]
    patterns = [pattern.strip() for pattern in arguments.cases.split(",")]
    errors = _run_roles(names, wstest, patterns, out, arguments.deadline)

    pinned = results.load(EXPECTED)
    good = not errors
    for role in names:
        found = results.read(out / role, AGENT)
        known = pinned.get(role, {})
        selected = {case: pair for case, pair in known.items() if results.matches(case, patterns)}
        if arguments.update and role not in errors:
            others = {case: pair for case, pair in known.items() if case not in selected}
            selected = results.updated(selected, found)
            pinned[role] = others | selected
        good = _judge(role, selected, found, out / role) and good
    for role, text in errors.items():
        print(f"{role}: {text}")
    if arguments.update:
        results.save(EXPECTED, pinned)
    return good


def main() -> int:
    """Run as the command line says; exit code 0: all is as pinned and no failure, or skipped."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # to unwind as after Ctrl-C
    try:
        wstest = autobahn.ensure(autobahn.find_python2(arguments.python2), arguments.wstest)
    except autobahn.Unavailable as error:
        return _skip(str(error))
    out = (arguments.out or Path(tempfile.mkdtemp(prefix="sync_ws-conformance-"))).resolve()
    good = _conformance(arguments, wstest, out)
    if not good:
        print(f"reports and logs: {out}")
    elif arguments.out is None:
        shutil.rmtree(out)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
