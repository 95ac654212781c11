"""Locks and waits under signals: nothing is left held, nothing waits for itself, nobody who waits is forgotten."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import unittest
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from sync_ws import interrupts
from sync_ws.interrupts import STEP, Flag, Waiters, owned
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline
from tests.support.wire import fork, join


class Alarm(Exception):
    """What a signal's handler raises."""


class OwnedTest(LedgerTestCase):
    def test_a_lock_is_owned_by_the_thread_that_holds_it(self) -> None:
        lock = threading.RLock()
        self.assertFalse(owned(lock))
        seen = []
        with lock:
            self.assertTrue(owned(lock))
            other = threading.Thread(target=lambda: seen.append(owned(lock)))
            other.start()
            join(other)
        self.assertEqual((seen, owned(lock)), ([False], False))


class MainThreadTest(LedgerTestCase):
    def test_it_is_the_one_that_runs_handlers_in_a_forked_child_too(self) -> None:
        self.assertEqual(interrupts.main_ident, threading.main_thread().ident)
        status: list[int] = []

        def make_child() -> None:
            child = fork()
            if not child:
                os._exit(0 if interrupts.main_ident == threading.get_ident() == threading.main_thread().ident else 1)
            status.append(os.waitpid(child, 0)[1])

        thread = threading.Thread(target=make_child)
        thread.start()
        join(thread)
        self.assertEqual(status, [0])
        self.assertEqual(interrupts.main_ident, threading.main_thread().ident)


class WaitersTest(LedgerTestCase):
    def test_what_is_settled_is_not_waited_for(self) -> None:
        self.assertTrue(Waiters().wait(lambda: True, Deadline(0)))

    def test_the_deadline_ends_a_wait(self) -> None:
        begun = time.monotonic()
        self.assertFalse(Waiters().wait(lambda: False, Deadline(0.05)))
        self.assertGreaterEqual(time.monotonic() - begun, 0.05)

    def test_all_who_wait_are_woken(self) -> None:
        waiters, settled = Waiters(), Flag()
        done: list[bool] = []
        threads = [
            threading.Thread(target=lambda: done.append(waiters.wait(settled.is_set, Deadline(10)))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        settled.set()
        waiters.wake()
        join(*threads)
        self.assertEqual(done, [True] * 5)

    def test_a_change_between_the_look_and_the_wait_is_seen(self) -> None:
        waiters = Waiters()
        looks = []

        def settled() -> bool:
            looks.append(1)
            if len(looks) == 1:
                waiters.wake()  # as if another thread had come in here: nobody waits yet
            return len(looks) > 1

        begun = time.monotonic()
        self.assertTrue(waiters.wait(settled, Deadline(10)))
        self.assertLess(time.monotonic() - begun, STEP)

    def test_two_that_wake_at_once_do_not_get_in_each_others_way(self) -> None:
        waiters = Waiters()

        class Taken(deque[Any]):
            """By the other one, between the look and the taking."""

            def __len__(self) -> int:
                return 1

        waiters._waiting = Taken()
        waiters.wake()  # raises nothing

    def test_a_handler_may_wake_in_the_middle_of_a_wait_of_its_own_thread(self) -> None:
        flag = Flag()
        with alarms(lambda: flag.set()) as after:
            after(0.02)
            begun = time.monotonic()
            self.assertTrue(flag.wait(10))
        self.assertLess(time.monotonic() - begun, 5)

    def test_handlers_that_raise_leave_nothing_behind(self) -> None:
        """At random instants, in wait and in wake: the next use works as if nothing had happened."""
        waiters, chance = Waiters(), random.Random(1)

        def fail() -> None:
            raise Alarm

        raised = 0
        with alarms(fail) as after:
            for _ in range(300):
                try:
                    after(chance.uniform(1e-6, 2e-4))
                    for _ in range(50):
                        waiters.wait(lambda: False, Deadline(1e-6))
                        waiters.wake()
                except Alarm:
                    raised += 1
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                waiters.wake()
                self.assertTrue(waiters.wait(lambda: True, Deadline(1)))
        self.assertGreater(raised, 10)


class FlagTest(LedgerTestCase):
    def test_it_is_set_once_and_for_all(self) -> None:
        flag = Flag()
        self.assertFalse(flag.is_set() or flag.wait(0))
        flag.set()
        flag.set()
        self.assertTrue(flag.is_set() and flag.wait() and flag.wait(0))


class alarms:
    """Inside, ``after(seconds)`` has ``function`` called by a signal's handler that much later, in the main thread.

    Nothing is traced meanwhile: an interrupt inside a tracer (coverage's) would leave that one's lock held for ever.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __enter__(self) -> Callable[[float], None]:
        self._tracer = sys.gettrace()
        sys.settrace(None)
        self._before = signal.signal(signal.SIGALRM, self._handle)
        return lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None

    def __exit__(self, *exc_info: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        sys.settrace(self._tracer)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._function()


if __name__ == "__main__":
    unittest.main()
