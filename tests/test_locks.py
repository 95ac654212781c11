"""The order in which locks are taken, recorded while a part of the suite runs: no circle, and as the design has it.

Why so: two threads that take two locks in opposite orders wait for each other once in a blue moon.  The order in which
each thread takes them shows it every time.  It shows all of it soon, too: of what takes long the part is chosen that
takes locks like no other, heartbeats and eight threads that send at once while Pings come in; a pair of locks that the
design names and this part no longer takes would be noticed.
"""

from __future__ import annotations

import _thread
import io
import re
import sys
import threading
import unittest
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

from sync_ws.testing import LedgerTestCase

DESIGN = Path(__file__).parents[1] / "docs" / "design.md"
SUITE = (
    "tests.channel.test_channel.PeerCloses", "tests.channel.test_channel.Aborting",
    "tests.channel.test_channel.Pinging", "tests.client.test_client.ConversationTest",
    "tests.client.test_client.RunForeverTest",
    "tests.client.test_client_heartbeat.HeartbeatTest.test_both_kinds_are_answered_and_the_round_trip_is_measured",
    "tests.client.test_client_heartbeat.HeartbeatTest.test_no_answer_gives_the_connection_up_at_once_and_reconnects",
    "tests.client.test_client_close", "tests.server.test_server_events", "tests.server.test_server_names",
    "tests.server.test_server_load.ManySendersTest", "tests.server.test_server_tls.TlsTest",
)  # fmt: skip
Edge = tuple[str, str]


class Recorder:
    """Which lock was taken while which other was held, by any thread."""

    def __init__(self) -> None:
        self.edges: set[Edge] = set()
        self.names: set[str] = set()
        self._held = threading.local()

    def taking(self, lock: NamedLock) -> None:
        held: list[NamedLock] = self._held.__dict__.setdefault("locks", [])
        if not any(other is lock for other in held):  # taking it again waits for nobody
            self.edges |= {(other.name, lock.name) for other in held}
        held.append(lock)

    def dropped(self, lock: NamedLock) -> None:
        held: list[NamedLock] = self._held.__dict__.get("locks", [])
        for at in range(len(held) - 1, -1, -1):
            if held[at] is lock:
                del held[at]
                return


class NamedLock:
    """An RLock that tells when it is taken; named after the module that made it."""

    def __init__(self, name: str, recorder: Recorder) -> None:
        self.name = name
        self._lock: Any = _thread.RLock()
        self._recorder = recorder
        recorder.names.add(name)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return self._acquire(sys._getframe(1), blocking, timeout)

    def _acquire(self, taker: FrameType, *how: Any) -> bool:
        taken: bool = self._lock.acquire(*how)
        if taken and not str(taker.f_globals.get("__name__")).startswith("tests."):  # a test may hold what it likes
            self._recorder.taking(self)
        return taken

    def release(self) -> None:
        self._recorder.dropped(self)
        self._lock.release()

    def __enter__(self) -> bool:
        return self._acquire(sys._getframe(1))

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())


def documented() -> set[Edge]:
    """What docs/design.md says: ``a -> b, c`` in its block."""
    [block] = re.findall(r"<!-- lock order.*?-->\n```\n(.*?)```", DESIGN.read_text(encoding="utf-8"), re.DOTALL)
    edges = set()
    for line in block.strip().splitlines():
        before, _, after = line.partition(" -> ")
        edges |= {(before.strip(), name.strip()) for name in after.split(",")}
    return edges


def circle(edges: set[Edge]) -> set[Edge]:
    """The edges of a circle, if there is one."""
    left = set(edges)
    while True:
        outer = {edge for edge in left if edge[1] not in {before for before, _ in left}}
        if not outer:
            return left
        left -= outer


class LockOrderTest(LedgerTestCase):
    timeout = 120.0

    def test_locks_are_taken_in_the_order_of_the_design(self) -> None:
        recorder = Recorder()
        make = threading.RLock

        def rlock() -> Any:
            module = sys._getframe(1).f_globals.get("__name__", "")
            if not module.startswith("sync_ws.") or module.startswith("sync_ws.testing"):
                return make()
            return NamedLock(module.rpartition(".")[2], recorder)

        with mock.patch("threading.RLock", rlock):
            suite = unittest.TestLoader().loadTestsFromNames(SUITE)
            result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
        self.assertEqual([str(test) for test, _ in [*result.errors, *result.failures]], [])
        self.assertGreater(len(recorder.names), 8, "locks are not recorded")
        self.assertEqual(circle(recorder.edges), set())
        self.assertEqual(recorder.edges, documented())

    def test_a_circle_would_be_found(self) -> None:
        self.assertEqual(circle({("a", "b"), ("b", "c")}), set())
        self.assertEqual(circle({("a", "b"), ("b", "c"), ("c", "a"), ("c", "d")}), {("a", "b"), ("b", "c"), ("c", "a")})


if __name__ == "__main__":
    unittest.main()
