"""The environment of a child process that coverage is to leave alone.

Why so: a signal's handler that raises in the middle of coverage's own functions leaves its lock held, and then the
child waits for ever; and coverage knows nothing of green threads.
"""

from __future__ import annotations

import os

__all__ = ["uncovered"]


def uncovered() -> dict[str, str]:
    """Ours, without what tells coverage to measure children too."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
