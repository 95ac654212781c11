"""The stress tests, again and again, under schedules of threads that a quiet machine never shows.

    python -m tests.strength.schedules [--minutes 10] [--seed 1] [test ...]

Why so: threads of Python change over every 5 ms, so most of the instants at which two of them could meet are never
tried.  Here they change over a thousand times as often, and whoever takes or gives back one of the package's locks may
lose its turn just before or just after.  Tests that have each instruction interrupted are left out: they need locks
that are objects of C.

Threading: the tests run in the main thread, one after the other, in an order that the seed gives.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import threading
import time
import unittest
from types import TracebackType
from typing import Any
from unittest import mock

__all__ = ["STRESS", "YieldingLock", "schedules"]

STRESS = (
    "tests.channel.test_channel", "tests.channel.test_channel_pair", "tests.channel.test_batch",
    "tests.channel.test_housekeeper_channels", "tests.channel.test_receiver_reading", "tests.channel.test_writer",
    "tests.client.test_client", "tests.client.test_client_close", "tests.client.test_client_ends",
    "tests.client.test_client_faults", "tests.client.test_client_offline", "tests.client.test_client_reconnect",
    "tests.client.test_client_word", "tests.client.test_teller", "tests.client.test_thread",
    "tests.hardening.test_batches", "tests.hardening.test_drains", "tests.server.test_connection_wire",
    "tests.server.test_hub", "tests.server.test_registry", "tests.server.test_server_events",
    "tests.server.test_server_load", "tests.server.test_server_names", "tests.test_model",
)  # fmt: skip
SWITCH = 1e-6  # seconds after which a thread must let another have its turn
CHANCE = 0.2  # that an operation on a lock gives the turn away
make_lock = threading.RLock


class YieldingLock:
    """An RLock before and after whose operations another thread may have its turn."""

    def __init__(self, chance: random.Random) -> None:
        self._lock: Any = make_lock()
        self._chance = chance

    def _may_yield(self) -> None:
        if self._chance.random() < CHANCE:
            time.sleep(self._chance.choice((0, 0, 0, 1e-5, 1e-4)))

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._may_yield()
        taken: bool = self._lock.acquire(blocking, timeout)
        self._may_yield()
        return taken

    def release(self) -> None:
        self._may_yield()
        self._lock.release()
        self._may_yield()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())


def schedules(names: list[str], seconds: float, seed: int) -> tuple[int, list[str]]:
    """How many tests were run until the time was up or something failed, and what failed."""
    chance = random.Random(seed)

    def rlock() -> Any:
        module = sys._getframe(1).f_globals.get("__name__", "")
        ours = module.startswith("sync_ws.") and not module.startswith("sync_ws.testing")
        return YieldingLock(random.Random(chance.random())) if ours else make_lock()

    before, ran = sys.getswitchinterval(), 0
    end = time.monotonic() + seconds
    with mock.patch("threading.RLock", rlock):
        try:
            sys.setswitchinterval(SWITCH)
            while time.monotonic() < end:
                for name in chance.sample(names, len(names)):
                    output = io.StringIO()
                    suite = unittest.defaultTestLoader.loadTestsFromName(name)
                    result = unittest.TextTestRunner(stream=output, failfast=True).run(suite)
                    ran += result.testsRun
                    if not result.wasSuccessful():
                        return ran, [output.getvalue()]
                    if time.monotonic() >= end:
                        break
        finally:
            sys.setswitchinterval(before)
    return ran, []


def main() -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.strength.schedules", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("tests", nargs="*", help="names of test modules, in place of the stress tests")
    options = parser.parse_args()
    ran, failures = schedules(options.tests or list(STRESS), options.minutes * 60, options.seed)
    print(f"{ran} tests under seed {options.seed}: {'nothing failed' if not failures else failures[0]}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
