"""The settings of one direction: what they say about bytes, by offset; pure."""

from __future__ import annotations

import dataclasses
import unittest

from sync_ws.testing._faults import DIRECTIONS, THROTTLE_STEP, Ending, Faults, Totals


class FaultsTest(unittest.TestCase):
    def test_without_any_all_that_is_there_may_go_unchanged(self) -> None:
        faults = Faults()
        for available, forwarded in ((0, 0), (1, 0), (70_000, 5), (3, 1 << 40)):
            self.assertEqual(faults.piece_size(available, forwarded), available)
            self.assertIsNone(faults.reached(forwarded))
        self.assertEqual(faults.corrupted(bytearray(b"abc"), 0), b"abc")

    def test_an_ending_is_due_from_its_offset_on_and_a_reset_before_a_cut(self) -> None:
        for faults, expected in (
            (Faults(cut_at=3), [None, None, None, Ending.FIN, Ending.FIN]),
            (Faults(reset_at=3), [None, None, None, Ending.RESET, Ending.RESET]),
            (Faults(cut_at=0), [Ending.FIN] * 5),
            (Faults(cut_at=2, reset_at=4), [None, None, Ending.FIN, Ending.FIN, Ending.RESET]),
            (Faults(cut_at=3, reset_at=3), [None, None, None, Ending.RESET, Ending.RESET]),
        ):
            with self.subTest(faults):
                self.assertEqual([faults.reached(forwarded) for forwarded in range(5)], expected)

    def test_a_piece_is_as_large_as_every_setting_allows(self) -> None:
        for faults, available, forwarded, size in (
            (Faults(piece=4), 10, 0, 4),
            (Faults(piece=4), 3, 0, 3),
            (Faults(rate=100), 50, 0, int(100 * THROTTLE_STEP)),
            (Faults(rate=1), 50, 0, 1),  # slower than a byte a step: a byte all the same
            (Faults(rate=1e9), 50, 0, 50),
            (Faults(cut_at=7), 10, 4, 3),
            (Faults(reset_at=6), 10, 4, 2),
            (Faults(cut_at=7, reset_at=6, piece=1, rate=1000), 10, 4, 1),
        ):
            with self.subTest(faults):
                self.assertEqual(faults.piece_size(available, forwarded), size)

    def test_flips_hit_their_offsets_however_the_stream_is_cut(self) -> None:
        faults, data = Faults(flips=((0, 1), (5, 0x80), (5, 1), (9, 0xFF), (12, 1))), bytes(10)
        for size in (1, 3, 10):
            got = b"".join(faults.corrupted(bytearray(data[at : at + size]), at) for at in range(0, 10, size))
            self.assertEqual(got, bytes([1, 0, 0, 0, 0, 0x81, 0, 0, 0, 0xFF]))

    def test_settings_are_replaced_never_changed(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            Faults().piece = 1  # type: ignore[misc]

    def test_totals_begin_at_nothing_and_there_are_two_directions(self) -> None:
        self.assertEqual(Totals(), Totals(received=0, forwarded=0, discarded=0))
        self.assertEqual(DIRECTIONS, ("to_server", "to_client"))


if __name__ == "__main__":
    unittest.main()
