"""Real signals whose handlers close the client, or raise, at random instants of what the main thread does with it.

``SYNC_WS_SIGNAL_ROUNDS``: rounds for each place and each kind of handler, thousands when there is time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path

from tests.support.uncovered import uncovered

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("SYNC_WS_SIGNAL_ROUNDS", "20"))
# Python 3.10 looks for signals in more places than later ones, and a handler that raises there may leave a lock held
KINDS = ("closes",) if sys.version_info < (3, 11) else ()


class SignalTest(unittest.TestCase):
    def test_whatever_a_handler_interrupts_nothing_is_left_behind(self) -> None:
        """In a process of its own: a signal would come to the tests' main thread, and so would its failure."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.client.signal_rounds", str(ROUNDS), *KINDS],
            cwd=ROOT, env=uncovered(), capture_output=True, text=True, timeout=120 + 10 * ROUNDS,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.returncode), ("nothing\n", 0), done.stderr)


if __name__ == "__main__":
    unittest.main()
