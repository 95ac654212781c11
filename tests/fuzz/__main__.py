"""Fuzz sync_ws: frames against `websockets`, bytes at a server's port, a stateful model; the package says more.

Each of the three gets a third of the time. What a run finds depends on --seed alone, as far as threads allow. When
one does not end, a watchdog prints the stacks of all threads and exits.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import os
import sys

PARTS = ("frames", "requests", "model")
GRACE = 180.0  # seconds for what is under way when the time is up
NEEDED = {"frames": "websockets", "model": "hypothesis"}


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=str(__doc__).partition(";")[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part; may be repeated")
    options = parser.parse_args()
    parts = tuple(options.only or PARTS)
    faulthandler.dump_traceback_later(options.seconds + GRACE, exit=True)
    found = [_run(part, options.seconds / len(parts), options.seed) for part in parts]
    faulthandler.cancel_dump_traceback_later()
    return 1 if any(found) else 0


def _run(part: str, seconds: float, seed: int) -> bool:
    """Whether something was found, or the part could not run although it has to."""
    try:
        module = importlib.import_module(f"tests.fuzz.{part}")
    except ImportError as exc:
        if exc.name is None or exc.name.partition(".")[0] != NEEDED.get(part):
            raise
        required = os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1"
        print(f"{part}: {'FAILED' if required else 'SKIPPED'}: the package {exc.name} is not installed")
        return required
    counts, findings = module.run(seconds, seed)
    print(f"{part}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    for finding in findings:
        print(f"{part}: FOUND {finding}")
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
