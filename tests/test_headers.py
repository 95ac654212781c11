"""Header fields: by name without case, joined where that says the same, and every value of a repeated one."""

from __future__ import annotations

import unittest

from sync_ws.headers import Headers


class HeadersTest(unittest.TestCase):
    def test_names_are_case_insensitive_and_repeated_values_are_joined(self) -> None:
        headers = Headers([("Accept", "a"), ("X-One", "1"), ("aCCept", "b, c")])
        self.assertEqual(headers["ACCEPT"], "a, b, c")
        self.assertEqual(headers.get_all("accept"), ["a", "b, c"])
        self.assertEqual(headers.tokens("accept"), ["a", "b", "c"])
        self.assertEqual(sorted(headers), ["accept", "x-one"])
        self.assertEqual(len(headers), 2)
        self.assertIn("x-ONE", headers)

    def test_a_missing_header_is_nothing(self) -> None:
        headers = Headers()
        self.assertEqual(headers.get_all("x"), [])
        self.assertEqual(headers.tokens("x"), [])
        self.assertIsNone(headers.get("x"))
        with self.assertRaises(KeyError):
            headers["x"]

    def test_empty_list_elements_are_left_out(self) -> None:
        self.assertEqual(Headers([("a", " ,x,, y ,")]).tokens("a"), ["x", "y"])

    def test_a_cookie_that_is_set_cannot_be_joined_it_is_the_first_and_all_are_there(self) -> None:
        cookies = ["a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2; Path=/", "c=3"]
        headers = Headers(
            [("Set-Cookie", cookies[0]), ("set-cookie", cookies[1]), ("X", "y"), ("SET-COOKIE", cookies[2])]
        )
        self.assertEqual(headers["Set-Cookie"], cookies[0])
        self.assertEqual(headers.get_all("Set-Cookie"), cookies)
        self.assertEqual(dict(headers), {"set-cookie": cookies[0], "x": "y"})

    def test_repr_shows_no_value(self) -> None:
        self.assertNotIn("hush", repr(Headers([("Authorization", "Bearer hush")])))


if __name__ == "__main__":
    unittest.main()
