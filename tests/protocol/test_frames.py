"""Frames as they are written: judged by a reader that shares no code with the library."""

from __future__ import annotations

import unittest
from unittest import mock

from sync_ws.endings import Close
from sync_ws.messages import Opcode
from sync_ws.protocol import frames
from sync_ws.protocol.frames import (
    KEPT_BLOCK,
    LARGE_BLOCK,
    close_payload,
    encode_fragments,
    encode_frame,
    encode_large_frame,
    keep_large_blocks,
)
from tests.support.wire import KEY, Frame, frame, read_frames, xor

SIZES = (0, 1, 125, 126, 127, 65535, 65536)
TEXT, BINARY, CONT, CLOSE, PING, PONG = (
    Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION, Opcode.CLOSE, Opcode.PING, Opcode.PONG,
)  # fmt: skip


class Whole(unittest.TestCase):
    def test_what_is_encoded_reads_back_the_same(self) -> None:
        for size in SIZES:
            for opcode in (TEXT, BINARY, *((CLOSE, PING, PONG) if size <= 125 else ())):
                for masked in (True, False):
                    for rsv1 in (False, True):
                        with self.subTest(size=size, opcode=opcode, masked=masked, rsv1=rsv1):
                            payload = b"\x03\xe8" + b"x" * (size - 2) if size > 1 else b"x" * size
                            data = encode_frame(opcode, payload, masked, rsv1)
                            expected = [Frame(opcode, payload, True, 4 if rsv1 else 0)]
                            self.assertEqual(read_frames(data, masked=masked), (expected, b""))
                            if not masked and not rsv1:
                                self.assertEqual(data, frame(opcode, payload, masked=False))

    def test_each_masked_frame_has_a_key_of_its_own(self) -> None:
        keys = {encode_frame(BINARY, b"", masked=True)[2:6] for _ in range(500)}
        self.assertGreater(len(keys), 495)

    def test_the_key_of_the_examples_masks_as_the_rfc_says(self) -> None:
        self.assertEqual(xor(b"Hello", KEY), b"\x7f\x9f\x4d\x51\x58")


class Large(unittest.TestCase):
    def test_head_and_body_make_the_same_frame(self) -> None:
        for size in (0, 125, 126, 65536, LARGE_BLOCK):
            payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
            for masked in (True, False):
                with self.subTest(size=size, masked=masked):
                    head, body = encode_large_frame(BINARY, payload, masked)
                    self.assertEqual(read_frames(head + body, masked=masked), ([Frame(BINARY, payload)], b""))

    def test_what_is_masked_is_a_copy_and_what_is_not_is_no_copy(self) -> None:
        payload = bytes(1000)
        self.assertIs(encode_large_frame(BINARY, payload, False)[1], payload)
        encode_large_frame(BINARY, payload, True)
        self.assertEqual(payload, bytes(1000))

    def test_the_c_library_is_taught_once_and_by_large_payloads_alone(self) -> None:
        with mock.patch.object(frames, "_blocks_kept", False):
            encode_large_frame(BINARY, bytes(LARGE_BLOCK - 1), False)
            self.assertFalse(frames._blocks_kept)
            with mock.patch.object(frames, "bytearray", create=True) as block:
                encode_large_frame(BINARY, bytes(LARGE_BLOCK), False)
                keep_large_blocks()
            block.assert_called_once_with(KEPT_BLOCK)


class Fragments(unittest.TestCase):
    def check(
        self, pieces: list[bytes], expected: list[Frame], rsv1: bool = False, max_frame: int | None = None
    ) -> None:
        for masked in (True, False):
            with self.subTest(masked=masked):
                data = encode_fragments(TEXT, pieces, masked, rsv1, max_frame)
                self.assertEqual(read_frames(data, masked=masked), (expected, b""))

    def test_each_piece_is_a_frame_and_the_last_one_is_marked(self) -> None:
        self.check([b"alone"], [Frame(TEXT, b"alone")])
        self.check(
            [b"one", b"", b"x" * 70_000],
            [Frame(TEXT, b"one", fin=False), Frame(CONT, b"", fin=False), Frame(CONT, b"x" * 70_000)],
        )

    def test_only_the_first_one_says_that_the_message_is_compressed(self) -> None:
        self.check([b"one", b"two"], [Frame(TEXT, b"one", fin=False, rsv=4), Frame(CONT, b"two")], rsv1=True)

    def test_a_piece_longer_than_a_frame_may_be_goes_into_several(self) -> None:
        expected = [Frame(TEXT, b"abc", False), Frame(CONT, b"d", False), Frame(CONT, b"", False), Frame(CONT, b"ef")]
        self.check([b"abcd", b"", b"ef"], expected, max_frame=3)

    def test_each_masked_one_has_a_key_of_its_own(self) -> None:
        data = encode_fragments(TEXT, [b""] * 100, masked=True)
        self.assertGreater(len({data[at + 2 : at + 6] for at in range(0, len(data), 6)}), 95)


class CloseFrames(unittest.TestCase):
    def test_what_we_send_has_at_most_123_bytes_of_whole_characters(self) -> None:
        self.assertEqual(close_payload(None), b"")
        self.assertEqual(close_payload(Close(1000)), b"\x03\xe8")
        for reason in ("x" * 200, "é" * 100, "x" + "é" * 100, "😀" * 50, "xx" + "😀" * 50):
            payload = close_payload(Close(4000, reason))
            self.assertLessEqual(len(payload), 125)
            self.assertGreater(len(payload), 120)
            self.assertTrue(reason.startswith(payload[2:].decode()))


if __name__ == "__main__":
    unittest.main()
