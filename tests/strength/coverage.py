"""What the tests of each module cover of it, alone: a run of the suite under coverage, and then

    python -m tests.strength.coverage [--fail-under 97] [--missing]

Why so: a module that is covered only because everything else uses it is a module whose tests would not find what is
wrong with it.  The one run of the suite notes which test it was in (a context in the sense of coverage), so this needs
no run of its own.  What is run once, at import, belongs to everybody.

Threading: none.
"""

from __future__ import annotations

import argparse
import io
import re
import sys

import coverage

from tests.strength.own import PACKAGE, ROOT, modules, own_tests

__all__ = ["covered_by_its_own"]

IMPORTING = r"^$"  # the context in which no test runs


def covered_by_its_own(data: coverage.Coverage, module: str, show_missing: bool = False) -> tuple[float, str]:
    """Per cent of a module's lines and branches that its own tests covered, and coverage's own report."""
    contexts = [IMPORTING, *(rf"^{re.escape(name)}\." for name in own_tests(module))]
    report = io.StringIO()
    percent = data.report(
        include=[str(PACKAGE / f"{module}.py")], contexts=contexts, file=report, show_missing=show_missing
    )
    return percent, report.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.strength.coverage", description=__doc__)
    parser.add_argument("--fail-under", type=float, default=0.0, metavar="PERCENT")
    parser.add_argument("--missing", action="store_true", help="show which lines")
    parser.add_argument("modules", nargs="*", metavar="room/module")
    options = parser.parse_args()
    data = coverage.Coverage(config_file=str(ROOT / "setup.cfg"))
    data.load()
    low = []
    for module in options.modules or modules():
        percent, report = covered_by_its_own(data, module, options.missing)
        below = percent < options.fail_under
        low += [module] * below
        print(f"{percent:6.1f} %  {module}{'   too little' if below else ''}")
        if options.missing:
            print(report)
    if low:
        print(f"less than {options.fail_under:g} % by their own tests: {', '.join(low)}", file=sys.stderr)
    return bool(low)


if __name__ == "__main__":
    sys.exit(main())
