"""Programs that live under gevent, which puts its own in place of the standard library's sockets, locks and threads.

They are scenes in processes of their own, which play some each at the same time: see ``tests.support.green``.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from sync_ws.testing import serving
from tests.support import green
from tests.support.optional import needs
from tests.support.server_case import ServerTestCase, echo
from tests.support.uncovered import uncovered

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120.0  # seconds for one process: some five, where there is nothing else to do
TROUPES = 2  # processes at a time: they wait more than they compute


class GreenTestCase(ServerTestCase):
    timeout = TIMEOUT

    def play(self, order: str, scenes: Iterable[str], url: str = "") -> None:
        program = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.support.green", order, url]
        parts = [list(scenes)[first::TROUPES] for first in range(TROUPES)]
        with contextlib.ExitStack() as stack:
            troupes = []
            for part in filter(None, parts):
                troupe = subprocess.Popen(
                    [*program, *part], cwd=ROOT, env=uncovered(), text=True,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip
                troupes.append(stack.enter_context(troupe))
                stack.callback(troupe.kill)
            for troupe in troupes:
                self.assertEqual((troupe.communicate(timeout=TIMEOUT)[0], troupe.returncode), ("", 0))


@needs("gevent")
class Gevent(GreenTestCase):
    def test_client_and_server_in_one_process(self) -> None:
        self.play("before", green.SCENES)

    def test_patched_after_the_library_was_imported(self) -> None:
        self.play("after", ("both_in_one_process", "a_server_broadcasts_and_shuts_down", "a_client_comes_back"))

    def test_a_server_of_another_process(self) -> None:
        with serving(echo, **green.ROOM) as server:
            self.play("before", green.SCENES_WITH_A_SERVER, server.url)
