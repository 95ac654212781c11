"""The bounds of one connection."""

from __future__ import annotations

import dataclasses
import unittest

from sync_ws.channel.limits import Limits


class LimitsTest(unittest.TestCase):
    def test_nothing_is_without_a_bound_unless_it_is_told(self) -> None:
        for field in dataclasses.fields(Limits):
            with self.subTest(field.name):
                value = getattr(Limits(), field.name)
                if field.name == "max_frame":  # not a bound on what comes, but on how messages are cut
                    self.assertIsNone(value)
                else:
                    self.assertGreater(value, 0)

    def test_what_may_wait_unread_holds_the_largest_message(self) -> None:
        self.assertGreaterEqual(Limits().max_waiting_bytes, Limits().max_message)

    def test_one_may_serve_any_number_for_it_cannot_be_changed(self) -> None:
        limits = Limits(max_message=5)
        with self.assertRaises(dataclasses.FrozenInstanceError):
            limits.max_message = 6  # type: ignore[misc]
        self.assertEqual((limits, hash(limits)), (Limits(max_message=5), hash(Limits(max_message=5))))
        self.assertNotEqual(limits, Limits())


if __name__ == "__main__":
    unittest.main()
