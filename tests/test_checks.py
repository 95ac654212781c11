"""Checks of what the application gives: the value itself, or an error that names the parameter and what came."""

from __future__ import annotations

import math
import unittest
from typing import Any

from sync_ws.checks import (
    FOREVER,
    check_count,
    check_flag,
    check_pairs,
    check_seconds,
    check_strings,
    check_timeout,
    check_token,
    check_value,
)


class SecondsTest(unittest.TestCase):
    def test_they_are_finite_numbers_above_zero(self) -> None:
        self.assertEqual(check_seconds("x", 3), 3.0)
        self.assertIsInstance(check_seconds("x", 3), float)
        self.assertEqual(check_seconds("x", 0, zero=True), 0.0)
        for bad in (0, -1, math.nan, math.inf, -math.inf, 10**400, 10**5000):
            with self.assertRaisesRegex(ValueError, "my_timeout"):
                check_seconds("my_timeout", bad)
        with self.assertRaises(ValueError):
            check_seconds("x", -0.1, zero=True)

    def test_those_of_another_type_are_refused(self) -> None:
        wrong: list[Any] = ["1", None, True, [1]]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_timeout"):
                check_seconds("my_timeout", bad)

    def test_what_came_is_shown_up_to_a_length(self) -> None:
        with self.assertRaises(TypeError) as caught:
            check_seconds("x", "y" * 1000)  # type: ignore[arg-type]
        self.assertLess(len(str(caught.exception)), 120)


class TimeoutTest(unittest.TestCase):
    def test_none_and_what_no_clock_sees_pass_are_for_ever(self) -> None:
        for timeout in (None, math.inf, 1e300, 10**400, FOREVER):
            self.assertIsNone(check_timeout("x", timeout))

    def test_a_number_is_itself_and_what_has_passed_stays_below_zero(self) -> None:
        for timeout in (0, 1, 0.5, -1, 30 * 24 * 3600):
            self.assertEqual(check_timeout("x", timeout), timeout)
        for timeout in (-math.inf, -(10**400)):
            self.assertEqual(check_timeout("x", timeout), -FOREVER)

    def test_what_is_no_time_is_refused(self) -> None:
        wrong: list[Any] = ["1", True, [1], b"1"]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_timeout"):
                check_timeout("my_timeout", bad)
        with self.assertRaisesRegex(ValueError, "my_timeout"):
            check_timeout("my_timeout", math.nan)


class CountTest(unittest.TestCase):
    def test_counts_are_whole_numbers_from_one(self) -> None:
        self.assertEqual(check_count("x", 3), 3)
        with self.assertRaisesRegex(ValueError, "my_count"):
            check_count("my_count", 0)
        wrong: list[Any] = [1.0, "1", None, True]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_count"):
                check_count("my_count", bad)


class FlagTest(unittest.TestCase):
    def test_true_and_false_and_nothing_that_passes_for_them(self) -> None:
        self.assertEqual((check_flag("x", True), check_flag("x", False)), (True, False))
        wrong: list[Any] = [1, 0, None, "", "no"]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_flag"):
                check_flag("my_flag", bad)


class ListTest(unittest.TestCase):
    def test_strings(self) -> None:
        self.assertEqual(check_strings("x", ("a", "b")), ["a", "b"])
        self.assertEqual(check_strings("x", iter("ab")), ["a", "b"])
        wrong: list[Any] = ["ab", b"ab", None, 5]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_list"):
                check_strings("my_list", bad)

    def test_pairs(self) -> None:
        good: list[Any] = [{"a": "b"}, [("a", "b")], [["a", "b"]], iter([("a", "b")]), {"a": "b"}.items()]
        for given in good:
            self.assertEqual(check_pairs("x", given), [("a", "b")])
        self.assertEqual((check_pairs("x", None), check_pairs("x", ())), ([], []))
        wrong: list[Any] = ["a: b", b"a: b", 5, True, ["a: b"], ["ab"], [5], [("a",)], [("a", "b", "c")], [{"a", "b"}]]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, r"my_pairs is .*\(name, value\) pairs"):
                check_pairs("my_pairs", bad)

    def test_pairs_may_be_secrets(self) -> None:
        with self.assertRaises(TypeError) as caught:
            check_pairs("headers", [("Authorization", "s3cret", "x")])  # type: ignore[list-item]
        self.assertNotIn("s3cret", str(caught.exception))


class TextTest(unittest.TestCase):
    def test_a_value_fits_in_one_line(self) -> None:
        self.assertEqual(check_value("x", "a\tb ü"), "a\tb ü")
        for bad in ("a\r\n", "a\nb", "\x00", "\x7f"):
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_value"):
                check_value("my_value", bad)
        with self.assertRaisesRegex(TypeError, "my_value"):
            check_value("my_value", b"x")  # type: ignore[arg-type]

    def test_a_token_has_no_separators(self) -> None:
        self.assertEqual(check_token("x", "a-b.c"), "a-b.c")
        wrong: list[Any] = ["", "a b", "a,b", "ü", b"a", None]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_token"):
                check_token("my_token", bad)


if __name__ == "__main__":
    unittest.main()
