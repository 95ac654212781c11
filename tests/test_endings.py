"""The words for an end: codes that may be on the wire, what a Close frame says, and reasons."""

from __future__ import annotations

import dataclasses
import unittest

from sync_ws.endings import Close, CloseCode, Reason


class Codes(unittest.TestCase):
    def test_which_codes_may_be_on_the_wire(self) -> None:
        allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
        self.assertEqual({code for code in range(-1, 70000) if CloseCode.may_be_sent(code)}, allowed)

    def test_our_own_code_is_in_the_private_range(self) -> None:
        self.assertTrue(4000 <= CloseCode.REPLACED <= 4999)

    def test_those_that_have_a_name_and_are_not_for_the_wire(self) -> None:
        names = {name: code for name, code in vars(CloseCode).items() if name.isupper()}
        unsendable = {name for name, code in names.items() if not CloseCode.may_be_sent(code)}
        self.assertEqual(unsendable, {"NO_STATUS", "ABNORMAL"})
        self.assertEqual(len(set(names.values())), len(names))


class Words(unittest.TestCase):
    def test_a_close_reads_as_its_code_and_reason(self) -> None:
        self.assertEqual((str(Close(1000)), str(Close(4009, "replaced"))), ("1000", "4009 replaced"))

    def test_reasons_compare_by_what_they_say_not_by_the_exception(self) -> None:
        self.assertEqual(Reason("x", error=OSError()), Reason("x"))
        self.assertNotIn("secret", repr(Reason("x", error=OSError("secret"))))
        self.assertEqual(str(Reason("in words")), "in words")

    def test_a_close_is_its_two_parts_and_has_no_reason_unless_told(self) -> None:
        code, reason = Close(1001)
        self.assertEqual((code, reason, Close(1001)), (1001, "", (1001, "")))

    def test_a_reason_cannot_be_changed(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            Reason("x").text = "y"  # type: ignore[misc]


if __name__ == "__main__":
    unittest.main()
