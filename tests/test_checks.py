"""Checks of what the application gives: the value itself, or an error that names the parameter and what came."""

from __future__ import annotations

import functools
import math
import unittest
from typing import Any

from sync_ws.checks import (
    FOREVER,
    check_count,
    check_flag,
    check_function,
    check_pairs,
    check_seconds,
    check_strings,
    check_timeout,
    check_token,
    check_value,
    shown,
)


class ChecksTest(unittest.TestCase):
    def test_seconds_are_finite_numbers_above_zero(self) -> None:
        self.assertEqual(check_seconds("x", 3), 3.0)
        self.assertIsInstance(check_seconds("x", 3), float)
        self.assertEqual(check_seconds("x", 0, zero=True), 0.0)
        for bad in (0, -1, math.nan, math.inf, -math.inf, 10**400, 10**5000):
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_timeout"):
                check_seconds("my_timeout", bad)
        with self.assertRaises(ValueError):
            check_seconds("x", -0.1, zero=True)

    def test_seconds_of_another_type_are_refused(self) -> None:
        wrong: list[Any] = ["1", None, True, [1]]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_timeout"):
                check_seconds("my_timeout", bad)

    def test_a_timeout_is_none_or_a_number_that_a_clock_can_reach(self) -> None:
        for forever in (None, math.inf, 1e300, 10**400, FOREVER):
            self.assertIsNone(check_timeout("x", forever))
        for timeout in (0, 1, 0.5, -1, 30 * 24 * 3600):
            self.assertEqual(check_timeout("x", timeout), timeout)
        for passed in (-math.inf, -(10**400)):
            self.assertEqual(check_timeout("x", passed), -FOREVER)
        wrong: list[Any] = ["1", True, [1], b"1"]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(TypeError, "my_timeout"):
                check_timeout("my_timeout", bad)
        with self.assertRaisesRegex(ValueError, "my_timeout"):
            check_timeout("my_timeout", math.nan)

    def test_what_goes_into_a_header_line_has_no_control_characters_and_is_not_shown(self) -> None:
        for good in ("", "a\tb ü", "\x80"):
            self.assertEqual(check_value("x", good), good)
        for bad in ("se\ncret", "se\rcret", "secret\0", "\x7fsecret"):
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_value") as caught:
                check_value("my_value", bad)
            self.assertNotIn("cret", str(caught.exception))
        with self.assertRaisesRegex(TypeError, "my_value is a string, not bytes"):
            check_value("my_value", b"secret")  # type: ignore[arg-type]

    def test_half_a_character_is_no_value_and_is_not_shown(self) -> None:
        for bad in ("\ud800", "a\udfffb"):
            with self.assertRaisesRegex(
                ValueError, r"\Amy_value must not contain lone surrogates, which are no characters\Z"
            ):
                check_value("my_value", bad)

    def test_a_token_has_no_separators(self) -> None:
        self.assertEqual(check_token("x", "a-b.c!#$%&'*+^_`|~9"), "a-b.c!#$%&'*+^_`|~9")
        wrong: list[Any] = ["", "a b", "a,b", "a\n", "ü", "a;b", '"a"', b"a", None]
        for bad in wrong:
            with self.subTest(bad), self.assertRaisesRegex(ValueError, "my_token"):
                check_token("my_token", bad)

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

    def test_pairs_of_a_mapping_or_a_list(self) -> None:
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


if __name__ == "__main__":
    unittest.main()
