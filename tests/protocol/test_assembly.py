"""A message in several frames, or compressed: put together as it arrives, and never beyond a limit."""

from __future__ import annotations

import itertools
import unittest
import zlib

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.assembly import Assembly, Failure
from sync_ws.protocol.deflate import Deflate, Negotiation
from tests.support.wire import deflated

TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


def make(max_message: int = 1000, max_fragments: int = 10) -> Assembly:
    return Assembly(max_message, max_fragments, Deflate(Negotiation()))


def add_all(assembly: Assembly, opcode: int, pieces: list[bytes], compressed: bool = False) -> Message | None:
    """What comes of a message in these fragments; nothing may come before the last one."""
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        message = assembly.add(CONT if number else opcode, compressed and not number, piece, number == last)
        assert number == last or message is None
    return message


def each_cut(data: bytes) -> list[list[bytes]]:
    """The bytes cut in two at every place, and into single bytes."""
    return [*([data[:at], data[at:]] for at in range(len(data) + 1)), [bytes([byte]) for byte in data]]


class Together(unittest.TestCase):
    def test_fragments_are_one_message_wherever_it_is_cut(self) -> None:
        text = "é€😀"
        for pieces in each_cut(text.encode()):
            self.assertEqual(add_all(make(), TEXT, pieces), text)
            self.assertEqual(add_all(make(), BINARY, pieces), text.encode())

    def test_a_compressed_one_too(self) -> None:
        text = "héllo " * 20
        data = deflated(text.encode())
        for pieces in each_cut(data):
            self.assertEqual(add_all(make(max_fragments=200), TEXT, pieces, compressed=True), text)
            self.assertEqual(add_all(make(max_fragments=200), BINARY, pieces, compressed=True), text.encode())

    def test_an_empty_one_is_a_message_of_its_kind(self) -> None:
        for pieces in ([b""], [b"", b"", b""]):
            self.assertEqual((add_all(make(), TEXT, pieces), add_all(make(), BINARY, pieces)), ("", b""))

    def test_it_says_what_is_under_way_and_how_much_of_it_there_is(self) -> None:
        assembly = make()
        self.assertEqual((assembly.opcode, assembly.gathered), (0, 0))
        assembly.add(TEXT, True, deflated(b"x" * 300), False)
        self.assertEqual((assembly.opcode, assembly.compressed, assembly.gathered), (TEXT, True, 300))
        self.assertEqual(assembly.add(CONT, False, b"", True), "x" * 300)
        self.assertEqual((assembly.opcode, assembly.gathered), (0, 0))
        assembly.add(BINARY, False, b"ab", False)
        self.assertEqual((assembly.opcode, assembly.compressed, assembly.gathered), (BINARY, False, 2))

    def test_one_after_the_other_and_each_begins_anew(self) -> None:
        assembly, text = Assembly(10, 2, Deflate(Negotiation(receive_takeover=False))), "é" * 4
        for opcode, compressed in itertools.product((TEXT, BINARY, TEXT), (True, False)):
            data = deflated(text.encode()) if compressed else text.encode()
            message = add_all(assembly, opcode, [data[:3], data[3:]], compressed)
            self.assertEqual(message, text if opcode == TEXT else text.encode())


class Refused(unittest.TestCase):
    def refused(self, code: int, assembly: Assembly, *frames: tuple[int, bool, bytes, bool]) -> Failure:
        """The failure of the last of these frames."""
        for frame in frames[:-1]:
            assembly.add(*frame)
        with self.assertRaises(Failure) as caught:
            assembly.add(*frames[-1])
        self.assertEqual(caught.exception.close.code, code)
        self.assertLessEqual(len(caught.exception.close.reason.encode()), 123)
        return caught.exception

    def test_text_that_is_not_utf_8_in_the_frame_that_shows_it(self) -> None:
        self.refused(1007, make(), (TEXT, False, b"ok\xff", False))
        self.refused(1007, make(), (TEXT, False, b"\xf4", False), (CONT, False, b"\x90", False))
        self.refused(1007, make(), (TEXT, False, b"\xe2\x82", False), (CONT, False, b"", True))
        self.refused(1007, make(), (TEXT, True, deflated(b"\xff" * 100), False))

    def test_a_fragment_too_many(self) -> None:
        frames = [(CONT, False, b"", False)] * 3
        failure = self.refused(1009, make(max_fragments=3), (TEXT, False, b"", False), *frames)
        self.assertEqual(failure.about, "max_fragments")

    def test_what_inflates_beyond_the_limit_of_the_whole_message(self) -> None:
        half = zlib.compressobj(wbits=-15)
        first = half.compress(b"a" * 600) + half.flush(zlib.Z_SYNC_FLUSH)
        second = half.compress(b"b" * 401) + half.flush(zlib.Z_SYNC_FLUSH)
        failure = self.refused(1009, make(), (BINARY, True, first, False), (CONT, False, second, True))
        self.assertEqual(failure.about, "max_message")
        self.assertEqual(add_all(make(1001), BINARY, [first, second], compressed=True), b"a" * 600 + b"b" * 401)

    def test_what_is_no_deflate_data(self) -> None:
        self.refused(1007, make(), (BINARY, True, b"\xff" * 20, True))
        self.refused(1007, make(), (TEXT, True, deflated(b"fine"), False), (CONT, False, b"\xff" * 20, True))

    def test_a_failure_is_about_a_limit_only_where_there_is_one(self) -> None:
        self.assertEqual(self.refused(1007, make(), (TEXT, False, b"\xff", True)).about, "")


if __name__ == "__main__":
    unittest.main()
