"""What may be sent as a message, and what it is on the wire: opcode and bytes, or an error that says what came."""

from __future__ import annotations

import unittest
from typing import Any

from sync_ws.messages import Opcode, as_payload, as_pieces, as_whole, listed

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY


class WholeTest(unittest.TestCase):
    def test_as_payload_gives_opcode_and_bytes(self) -> None:
        self.assertEqual(as_payload("é"), (TEXT, b"\xc3\xa9"))
        self.assertEqual(as_payload(memoryview(b"abcd")[::2]), (BINARY, b"ac"))
        self.assertEqual(as_payload(bytearray(b"ab")), (BINARY, b"ab"))
        for empty in ("", b""):
            self.assertEqual(as_payload(empty)[1], b"")

    def test_what_is_given_is_copied_unless_nobody_can_change_it(self) -> None:
        data, fixed = bytearray(b"ab"), b"ab"
        payload = as_payload(data)[1]
        data[:] = b"xy"
        self.assertEqual(payload, b"ab")
        self.assertIs(as_payload(fixed)[1], fixed)

    def test_what_is_no_message_is_refused_by_its_type(self) -> None:
        wrong: list[Any] = [None, 1, ["a"], {"a": "b"}, object]
        for data in wrong:
            with self.subTest(data), self.assertRaisesRegex(TypeError, f"not {type(data).__name__}"):
                as_payload(data)
        with self.assertRaises(ValueError):
            as_payload("\ud800")

    def test_pieces_can_be_joined(self) -> None:
        self.assertEqual(as_whole("é"), (TEXT, b"\xc3\xa9"))
        self.assertEqual(as_whole(b"ab"), (BINARY, b"ab"))
        self.assertEqual(as_whole(iter(["a", "é"])), (TEXT, b"a\xc3\xa9"))
        self.assertEqual(as_whole([b"a", b"b"]), (BINARY, b"ab"))
        self.assertEqual(as_whole([]), (TEXT, b""))


class PiecesTest(unittest.TestCase):
    def test_all_of_them_are_text_or_all_of_them_bytes(self) -> None:
        in_bytes: list[bytes | bytearray | memoryview] = [b"a", bytearray(b"b"), memoryview(b"c")]
        self.assertEqual(as_pieces(["a", "", "é"]), (TEXT, [b"a", b"", b"\xc3\xa9"]))
        self.assertEqual(as_pieces(in_bytes), (BINARY, [b"a", b"b", b"c"]))
        self.assertEqual(as_pieces([]), (TEXT, []))
        mixed: Any = ["a", b"b"]
        with self.assertRaisesRegex(TypeError, "all str or all bytes"):
            as_pieces(mixed)

    def test_a_piece_that_is_no_message_is_refused(self) -> None:
        wrong: list[Any] = [[1], ["a", None], [["a"]]]
        for pieces in wrong:
            with self.subTest(pieces), self.assertRaises(TypeError):
                as_pieces(pieces)

    def test_a_mapping_is_not_taken_for_its_keys_nor_anything_else_for_pieces(self) -> None:
        wrong: list[Any] = [{"a": "b"}, None, 5, object()]
        for data in wrong:
            for take in (listed, as_pieces, as_whole):
                with self.subTest(data), self.assertRaisesRegex(TypeError, f"not {type(data).__name__}"):
                    take(data)

    def test_an_iterator_is_taken_once_and_may_raise(self) -> None:
        pieces = iter(["a", "b"])
        self.assertEqual((listed(pieces), list(pieces)), (["a", "b"], []))
        with self.assertRaises(ZeroDivisionError):
            listed(str(1 // n) for n in (1, 0))


class OpcodeTest(unittest.TestCase):
    def test_those_of_our_own_cannot_be_on_the_wire(self) -> None:
        codes = {name: code for name, code in vars(Opcode).items() if name.isupper()}
        self.assertEqual({name for name, code in codes.items() if code > 15}, {"INTERCEPTED", "FAIL"})
        self.assertEqual(len(set(codes.values())), 8)


if __name__ == "__main__":
    unittest.main()
