"""Real signals whose handlers close the client, or raise, at random instants of what the main thread does with it.

``SYNC_WS_SIGNAL_ROUNDS``: rounds for each place and each kind of handler, thousands when there is time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path

from sync_ws import Client, ClientState
from sync_ws.channel import channel, receiver, writer
from sync_ws.client import client as client_module
from sync_ws.client import dial, heartbeat, line
from sync_ws.net import waiting
from sync_ws.testing import LedgerTestCase, serving, wait_until
from tests.client.signal_rounds import CLOSE, SOON
from tests.support.client_case import echo
from tests.support.interrupt import Interrupt
from tests.support.uncovered import uncovered

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = int(os.environ.get("SYNC_WS_SIGNAL_ROUNDS", "20"))
# Python 3.10 looks for signals in more places than later ones, and a handler that raises there may leave a lock held
KINDS = ("closes",) if sys.version_info < (3, 11) else ()
OURS = (channel, client_module, dial, heartbeat, line, receiver, waiting, writer)
ENOUGH = 5000  # instants: more than there are


class SignalTest(unittest.TestCase):
    def test_whatever_a_handler_interrupts_nothing_is_left_behind(self) -> None:
        """In a process of its own: a signal would come to the tests' main thread, and so would its failure."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.client.signal_rounds", str(ROUNDS), *KINDS],
            cwd=ROOT, env=uncovered(), capture_output=True, text=True, timeout=120 + 10 * ROUNDS,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.returncode), ("nothing\n", 0), done.stderr)


class EachInstantTest(LedgerTestCase):
    """A handler's close(), which is back soon wherever in close() it comes, though the client's thread may need what
    the interrupted function holds."""

    timeout = 180.0

    def each(self, make: Callable[[], Client]) -> None:
        for number in range(1, ENOUGH):
            client, took = make(), list[float]()

            def close(client: Client = client, took: list[float] = took) -> None:
                begun = time.monotonic()
                client.close(timeout=CLOSE)
                took.append(time.monotonic() - begun)

            interrupt = Interrupt(OURS, number, close, signals_only=True)
            with interrupt:
                close()
            self.assertLess(max(took), SOON)
            close()
            self.assertIs(client.state, ClientState.CLOSED)
            if not interrupt.came:
                return
        self.fail("there is no end of instants")

    def test_in_the_close_of_an_open_client(self) -> None:
        with serving(echo) as server:
            self.each(lambda: Client(server.url, heartbeat=30).open(10))

    def test_in_the_close_of_one_that_is_dialling(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=ENOUGH) as nobody:
            url = f"ws://127.0.0.1:{nobody.getsockname()[1]}/"

            def dialling() -> Client:
                client = Client(url, open_timeout=60.0).open(0)
                wait_until(lambda: client._line._dial is not None and client._line._dial._waker is not None)
                return client

            self.each(dialling)


if __name__ == "__main__":
    unittest.main()
