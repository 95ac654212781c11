"""Deadlines and the clock."""

from __future__ import annotations

import functools
import math
import threading
import time
from typing import Any
from unittest import mock

from sync_ws.checks import check_count, check_flag, check_function, check_seconds, check_strings, shown
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


class Checks(LedgerTestCase):
    def test_seconds_are_finite_numbers_above_zero(self) -> None:
        self.assertEqual(check_seconds("x", 3), 3.0)
        self.assertIsInstance(check_seconds("x", 3), float)
        self.assertEqual(check_seconds("x", 0, zero=True), 0.0)
        for bad in (0, -1, math.nan, math.inf, -math.inf):
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_timeout"):
                check_seconds("my_timeout", bad)
        with self.assertRaises(ValueError):
            check_seconds("x", -0.1, zero=True)

    def test_seconds_of_another_type_are_refused(self) -> None:
        wrong: list[Any] = ["1", None, True, [1]]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_timeout"):
                check_seconds("my_timeout", bad)

    def test_flags_are_true_or_false(self) -> None:
        self.assertIs(check_flag("my_flag", True), True)
        self.assertIs(check_flag("my_flag", False), False)
        for bad in ("no", 1, 0, None):
            with self.subTest(bad), self.assertRaisesRegex(TypeError, f"my_flag is True or False, not {bad!r}"):
                check_flag("my_flag", bad)  # type: ignore[arg-type]

    def test_functions_can_be_called_and_do_their_work_then(self) -> None:
        async def coroutine() -> None:
            """Does nothing when it is called."""

        for good in (print, lambda: None, self.test_flags_are_true_or_false, dict, functools.partial(print)):
            self.assertIs(check_function("f", good, "nothing"), good)
        with self.assertRaisesRegex(TypeError, "f is a function that takes nothing, not str") as caught:
            check_function("f", "hush", "nothing")  # type: ignore[type-var]
        self.assertNotIn("hush", str(caught.exception))
        for bad in (coroutine, functools.partial(coroutine)):
            with self.assertRaisesRegex(
                TypeError, "f is a plain function that takes nothing, not a coroutine function"
            ):
                check_function("f", bad, "nothing")

    def test_lists_of_strings_are_neither_strings_nor_of_anything_else(self) -> None:
        for good in (["a", "b"], ("a", "b"), iter("ab"), {"a": 1, "b": 2}):
            self.assertEqual(check_strings("x", good, "[]"), ("a", "b"))
        for bad in ("ab", b"ab", 5, None, [1], ["a", None]):
            with self.subTest(bad), self.assertRaisesRegex(TypeError, r"x is a list of strings, such as \[\], not"):
                check_strings("x", bad, "[]")  # type: ignore[arg-type]

    def test_a_value_is_shown_on_one_short_line(self) -> None:
        for value, text in (
            ("a\nb\u202e", r"'a\nb\u202e'"),
            (10**5000, "a number that large"),
            ("x" * 100, f"'{'x' * 56}..."),
            (0.5, "0.5"),
        ):
            self.assertEqual(shown(value), text)

    def test_counts_are_whole_numbers_from_one(self) -> None:
        self.assertEqual(check_count("x", 1), 1)
        with self.assertRaisesRegex(ValueError, "my_count"):
            check_count("my_count", 0)
        wrong: list[Any] = [1.0, "1", None, True]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_count"):
                check_count("my_count", bad)


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

    def test_the_system_clock_is_the_monotonic_one(self) -> None:
        before = time.monotonic()
        self.assertTrue(before <= SystemClock().monotonic() <= time.monotonic())
