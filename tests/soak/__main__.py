"""Run a soak: a server and clients under random faults, an oracle and a ledger; the package says more.

The main thread watches; when the run does not end in time, a watchdog prints the stacks of all threads and exits.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import tempfile
from collections import Counter

from sync_ws.testing import make_certificates
from tests.soak.run import INVARIANTS, Report, Settings, run

GRACE = 150.0  # seconds that a run may take beyond its time: settling, closing, a slow machine


def main() -> int:
    """0 when the invariants held."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=str(__doc__).partition(";")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random but time")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--compression", action="store_true")
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.minutes * 60 + GRACE, exit=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            seconds=options.minutes * 60,
            seed=options.seed,
            clients=options.clients,
            compression=options.compression,
            certificates=make_certificates(folder) if options.tls else None,
        )
        report = run(settings, lambda line: print(line, flush=True))
    faulthandler.cancel_dump_traceback_later()
    _show(report)
    return 1 if report.violations else 0


def _show(report: Report) -> None:
    print(f"\nran {report.seconds:.0f} s")
    print(f"faults: {_listed(report.faults)}")
    print(f"did: {_listed(report.counts)}")
    print(f"used: {report.resources}")
    if report.violations:
        print(f"\nVIOLATIONS ({report.counts['violations']} by the oracle, {len(report.violations)} shown):")
        for line in report.violations:
            print(f"  {line}")
        return
    print("\nheld:")
    for line in INVARIANTS:
        print(f"  {line}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()) if count)


if __name__ == "__main__":
    sys.exit(main())
