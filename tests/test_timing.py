"""Deadlines and the clock."""

from __future__ import annotations

import math
import threading
import time
from unittest import mock

from sync_ws.testing import LedgerTestCase, wait_until
from sync_ws.timing import SYSTEM_CLOCK, Deadline, SystemClock


class Deadlines(LedgerTestCase):
    def test_a_deadline_counts_down_to_zero_and_stays_there(self) -> None:
        deadline = Deadline(0.02)
        first = deadline.remaining()
        assert first is not None
        self.assertTrue(0 <= first <= 0.02)
        wait_until(lambda: deadline.passed)
        self.assertEqual(deadline.remaining(), 0.0)

    def test_a_deadline_of_none_never_comes(self) -> None:
        self.assertIsNone(Deadline(None).remaining())
        self.assertFalse(Deadline(None).passed)

    def test_one_beyond_all_clocks_can_be_waited_for(self) -> None:
        lock = threading.Lock()
        for timeout in (1e300, 10**30, 9.5e9, math.inf):
            deadline = Deadline(timeout)
            self.assertFalse(deadline.passed)
            remaining = deadline.remaining()
            assert remaining is not None
            self.assertGreater(remaining, 300 * 86400)
            self.assertTrue(lock.acquire(timeout=remaining))
            lock.release()

    def test_zero_and_the_past_have_passed(self) -> None:
        for timeout in (0, 0.0, -5):
            self.assertTrue(Deadline(timeout).passed)
            self.assertEqual(Deadline(timeout).remaining(), 0.0)

    def test_a_stepped_wall_clock_changes_nothing(self) -> None:
        deadline = Deadline(100)
        with mock.patch.object(time, "time", return_value=0.0):
            self.assertFalse(deadline.passed)
            self.assertGreater(deadline.remaining() or 0, 90)


class Clocks(LedgerTestCase):
    def test_a_timer_calls_back_from_a_daemon_thread_of_its_own(self) -> None:
        called: list[threading.Thread] = []
        handle = SYSTEM_CLOCK.timer(0.01, lambda: called.append(threading.current_thread()))
        wait_until(lambda: called)
        self.assertIsNot(called[0], threading.current_thread())
        self.assertTrue(called[0].daemon)
        self.assertTrue(called[0].name.startswith("sync_ws-"))
        wait_until(lambda: not handle.is_alive())

    def test_a_cancelled_timer_does_not_call_and_its_thread_ends(self) -> None:
        handle = SYSTEM_CLOCK.timer(60, lambda: self.fail("called"))
        self.assertTrue(handle.is_alive())
        handle.cancel()
        wait_until(lambda: not handle.is_alive())

    def test_a_delay_beyond_what_a_thread_can_wait_is_a_very_long_one(self) -> None:
        for delay in (1e300, threading.TIMEOUT_MAX * 2):
            handle = SYSTEM_CLOCK.timer(delay, lambda: self.fail("called"))
            time.sleep(0.01)  # for its thread to begin to wait; one that cannot dies of it
            self.assertTrue(handle.is_alive())
            handle.cancel()

    def test_the_system_clock_is_the_monotonic_one(self) -> None:
        before = time.monotonic()
        self.assertTrue(before <= SystemClock().monotonic() <= time.monotonic())
