"""One ``parse`` at a time: how far it goes, what the reader says of itself in between, and what an interrupt costs."""

from __future__ import annotations

import unittest
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from sys import getsizeof
from unittest import mock

from sync_ws.messages import Message, Opcode
from sync_ws.protocol import frames as frames_module
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.frames import LARGE_BLOCK
from sync_ws.protocol.intercepts import HEART_BEAT, MAX_LENGTH, Intercept
from tests.support.reader_case import BothRoles, failure, read
from tests.support.wire import deflated, frame, make_reader

TEXT, BINARY, CONT, CLOSE, PING = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION, Opcode.CLOSE, Opcode.PING
BEAT = b'{"ModeCode":"heart_beat","msg":1}'
Told = list[tuple[int, bytes, bool]]


class Turns(BothRoles):
    """Where a parse comes back."""

    def test_never_are_there_more_messages_than_there_was_room_for(self) -> None:
        for server in self.roles():
            large, a = frame(BINARY, bytes(9000), masked=server), frame(TEXT, b"a", masked=server)
            fragments = frame(TEXT, b"", masked=server, fin=False) + frame(CONT, b"", masked=server)
            for data in (a * 5, large + a * 3, fragments * 3 + a):
                for at in range(30):
                    reader, messages = make_reader(server=server), deque[Message]()
                    for piece in (data[:at], data[at:], b"", b""):
                        before = len(messages)
                        reader.feed(piece)
                        reader.parse(messages, 1)
                        self.assertLessEqual(len(messages), before + 1)

    def test_all_that_there_is_room_for_comes_of_one_parse(self) -> None:
        parts: Told = [
            (TEXT, b"a", True), (PING, b"", True), (BINARY, bytes(200), True), (TEXT, b"b", False), (CONT, b"c", True),
            (TEXT, BEAT, True), (TEXT, b"d", True),
        ]  # fmt: skip
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message]()
            reader.feed(b"".join(frame(opcode, payload, masked=server, fin=fin) for opcode, payload, fin in parts))
            controls = reader.parse(messages, 4)
            self.assertEqual(list(messages), ["a", bytes(200), "bc", "d"])
            self.assertEqual([control.opcode for control in controls], [PING, Opcode.INTERCEPTED])
            self.assertEqual((reader.buffered, reader.more), (False, False))

    def test_a_budget_is_used_up_by_exactly_so_many_bytes(self) -> None:
        size = getsizeof(bytes(200))
        for server in self.roles():
            one = frame(BINARY, bytes(200), masked=server)
            for budget, count in ((size - 1, 1), (size, 1), (size + 1, 2), (2 * size, 2), (2 * size + 1, 3)):
                for at in (0, len(one) - 10):  # the first one's end comes later
                    reader, messages = make_reader(server=server), deque[Message]()
                    reader.feed(one[:at])
                    reader.parse(messages, 256)
                    reader.feed((one * 4)[at:])
                    reader.parse(messages, 256, budget)
                    self.assertEqual(len(messages), count)

    def test_what_a_peer_can_send_without_end_takes_several_parses(self) -> None:
        ping, beat, part = (PING, b"", True), (TEXT, BEAT, True), (CONT, b"x", False)
        begin, end = (TEXT, b"x", False), (CONT, b"x", True)
        for server in self.roles():
            for frames in ([ping] * 700, [beat, *[ping] * 700], [ping, *[beat] * 700], [begin, *[part] * 700, end]):
                told: Told = []
                reader, messages = watched(server, noting(told)), deque[Message]()
                reader.feed(b"".join(frame(opcode, payload, masked=server, fin=fin) for opcode, payload, fin in frames))
                self.assertFalse(reader.more)
                turns = []
                while reader.buffered:
                    before = len(told)
                    reader.parse(messages, 256)
                    turns.append(len(told) - before)
                    self.assertEqual(reader.more, reader.buffered)
                self.assertEqual(sum(turns), len(frames))
                self.assertLess(max(turns), 500)
                self.assertEqual(len(messages), frames[-1] == end)

    def test_bytes_left_in_fresh_are_taken_by_the_next_parse(self) -> None:
        """The channel does so: it saves a call for each message."""
        for server in self.roles():
            data = frame(TEXT, b"first", masked=server) + frame(BINARY, bytes(200), masked=server)
            data += frame(PING, b"ping", masked=server) + frame(TEXT, b"last", masked=server)
            for at in range(len(data) + 1):
                reader, messages = make_reader(server=server), deque[Message]()
                reader.fresh = data[:at]
                controls = reader.parse(messages, 1)  # some of it stays in the buffer
                self.assertFalse(reader.missing and reader.buffered)
                reader.fresh = data[at:]
                for _ in range(3):
                    controls = reader.parse(messages, 1, controls=controls)
                    self.assertIsNone(reader.fresh)
                self.assertEqual((list(messages), len(controls)), (["first", bytes(200), "last"], 1))

    def test_a_large_message_may_come_in_large_pieces(self) -> None:
        payload = bytes(range(250)) * 1000
        for server in self.roles():
            data = frame(BINARY, payload, masked=server) + frame(TEXT, b"next", masked=server)
            for cuts in ((20, 100_000), (20, 20, 250_000), (150_000, 250_005)):
                pieces = [data[begin:end] for begin, end in pairwise((0, *cuts, len(data)))]
                self.assertEqual(read(make_reader(server=server), *pieces), [payload, "next"])

    def test_what_was_received_and_not_parsed_can_be_forgotten(self) -> None:
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message]()
            reader.feed(frame(TEXT, b"a", masked=server) * 3)
            reader.parse(messages, 1)
            reader.fresh = frame(PING, masked=server)
            reader.forget()
            self.assertFalse(reader.buffered or reader.fresh)
            self.assertEqual((reader.parse(messages, 256), list(messages)), ([], ["a"]))


class Headers(BothRoles):
    """What a header alone decides."""

    def test_it_is_refused_as_soon_as_its_length_is_there(self) -> None:
        for server in self.roles():
            mask = 0x80 if server else 0
            for form, width, size, code in (
                (126, 2, 125, 1002), (126, 2, 1001, 1009), (127, 8, 65535, 1002), (127, 8, 70_000, 1009),
            ):  # fmt: skip
                # no payload, and of a masking key only what a server needs to have six bytes, before which it looks at
                # the first two alone
                header = (
                    bytes([0x82, mask | form]) + size.to_bytes(width, "big") + bytes(2 if server and width == 2 else 0)
                )
                reader = make_reader(server=server, max_message=1000)
                self.assertEqual(read(reader, header[:-1]), [])
                self.assertEqual(failure(reader, header[-1:]), code)

    def test_as_long_as_it_is_not_whole_there_is_nothing_more_to_do(self) -> None:
        for server in self.roles():
            for size in (5, 300, 70_000):
                header = frame(BINARY, b"", masked=server, size=size)
                for at in range(len(header)):
                    reader, messages = make_reader(server=server), deque[Message]()
                    reader.feed(header[:at])
                    self.assertEqual((reader.parse(messages, 256), reader.more, reader.missing), ([], False, 0))

    def test_the_refusal_of_the_wrong_mask_bit_says_which_is_right(self) -> None:
        for server, says in ((True, "frames to this side are masked"), (False, "frames to this side are unmasked")):
            [item] = read(make_reader(server=server), frame(TEXT, b"", masked=not server))
            assert isinstance(item, tuple)
            self.assertEqual(item[1].reason, says)

    def test_more_than_deflate_could_need_for_the_limit_is_refused(self) -> None:
        for server in self.roles():
            for opening in (b"", frame(BINARY, b"", masked=server, rsv=4, fin=False)):
                reader = make_reader(server=server, max_message=1000, deflate=Deflate(Negotiation()))
                rsv, opcode = (0, CONT) if opening else (4, BINARY)
                data = opening + frame(opcode, b"", masked=server, rsv=rsv, size=1200)
                self.assertEqual(failure(reader, data), 1009)

    def test_a_plain_message_after_a_compressed_one_has_the_plain_limit(self) -> None:
        for server in self.roles():
            reader = make_reader(server=server, max_message=1000, deflate=Deflate(Negotiation()))
            packed = deflated(b"hello")
            data = frame(TEXT, packed[:2], masked=server, rsv=4, fin=False) + frame(CONT, packed[2:], masked=server)
            self.assertEqual(read(reader, data), ["hello"])
            self.assertEqual(failure(reader, frame(BINARY, b"", masked=server, size=1001)), 1009)

    def test_memory_for_large_messages_is_kept_from_the_first_one_on(self) -> None:
        for server in self.roles():
            for size, kept in ((LARGE_BLOCK - 1, False), (LARGE_BLOCK, True)):
                with mock.patch.object(frames_module, "_blocks_kept", False):
                    read(make_reader(server=server), frame(BINARY, b"", masked=server, size=size))
                    self.assertEqual(frames_module._blocks_kept, kept)


class Interrupted(BothRoles):
    """A signal's handler that raises at the instant at which the payload is there in the clear."""

    def interrupted(self, server: bool, data: bytes, at: int) -> tuple[FrameReader, deque[Message]]:
        left = 1

        def on_frame(opcode: int, payload: bytes, fin: bool) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt

        reader, messages = watched(server, on_frame), deque[Message]()
        reader.feed(data[:at])
        reader.parse(messages, 256)
        reader.feed(data[at:])
        self.assertRaises(KeyboardInterrupt, reader.parse, messages, 256)
        self.assertTrue(reader.buffered, "there is still something to parse")
        return reader, messages

    def test_what_is_not_unmasked_in_place_is_read_again(self) -> None:
        for server in self.roles():
            for size, at in ((9000, 0), (300, 100), (4000, 100), (5, 1)):
                with self.subTest(server=server, size=size):
                    payload = bytes(range(250)) * 40
                    data = frame(BINARY, payload[:size], masked=server) + frame(TEXT, b"next", masked=server)
                    reader, messages = self.interrupted(server, data, at)
                    self.assertEqual((reader.parse(messages, 256), list(messages)), ([], [payload[:size], "next"]))

    def test_whatever_its_size_a_message_is_right_or_the_connection_is_over(self) -> None:
        for server in self.roles():
            over = []
            for size in (*range(4090, 4103), 9000):
                payload = (bytes(range(250)) * 40)[:size]
                reader, messages = self.interrupted(server, frame(BINARY, payload, masked=server), 100)
                try:
                    self.assertEqual((reader.parse(messages, 256), list(messages)), ([], [payload]))
                except ConnectionAbortedError:
                    over.append(size)
            self.assertIn(9000, over)


class Intercepted(BothRoles):
    """Several kinds of messages that the library takes itself."""

    ACK = Intercept("ack", "ack!", lambda text: text.startswith("ack!"))
    RAW = Intercept("raw", "raw!", lambda message: isinstance(message, bytes), verbatim=True)

    def reader(self, server: bool, *intercepts: Intercept) -> FrameReader:
        return FrameReader(expect_masked=server, max_message=1 << 20, max_fragments=9, intercepts=intercepts)

    def test_each_kind_is_recognised_wherever_it_stands_in_the_table(self) -> None:
        parts: list[tuple[int, bytes, str | None]] = [
            (TEXT, b"ack! 1", "ack"), (BINARY, b"ack! 2", "ack"), (TEXT, BEAT, "heart_beat"), (TEXT, b"raw!", None),
            (BINARY, BEAT, "heart_beat"), (BINARY, b"raw!\xff", "raw"), (TEXT, b"no ack!", None), (BINARY, b"x", None),
        ]  # fmt: skip
        expected = [kind for _, _, kind in parts if kind]
        for server in self.roles():
            for table in (
                (self.ACK, HEART_BEAT, self.RAW),
                (self.RAW, HEART_BEAT, self.ACK),
                (HEART_BEAT, self.RAW, self.ACK),
            ):
                whole = [frame(opcode, payload, masked=server) for opcode, payload, _ in parts]
                halves = [
                    frame(opcode, payload[:1], masked=server, fin=False) + frame(CONT, payload[1:], masked=server)
                    for opcode, payload, _ in parts
                ]
                for data in (whole, halves):
                    reader, messages = self.reader(server, *table), deque[Message]()
                    reader.feed(b"".join(data))
                    controls = reader.parse(messages, 256)
                    self.assertEqual([control.intercept.name for control in controls if control.intercept], expected)
                    self.assertEqual([control.payload for control in controls][1], b"ack! 2")
                    self.assertEqual(list(messages), ["raw!", "no ack!", b"x"])

    def test_of_two_kinds_both_are_recognised(self) -> None:
        for server in self.roles():
            data = frame(TEXT, b"ack! 1", masked=server) + frame(TEXT, BEAT, masked=server)
            for table in ((self.ACK, HEART_BEAT), (HEART_BEAT, self.ACK)):
                kinds = [item[0] for item in read(self.reader(server, *table), data) if isinstance(item, tuple)]
                self.assertEqual(kinds, [Opcode.INTERCEPTED] * 2)

    def test_only_what_has_its_mark_is_looked_at_by_a_kind(self) -> None:
        for server in self.roles():
            seen: list[tuple[str, str]] = []
            table = [Intercept(name, f"{name}!", partial(refuse, seen, name)) for name in "abc"]
            data = b"".join(frame(TEXT, text, masked=server) for text in (b"b!", b"none", b"a! and c!", b"c!"))
            self.assertEqual(len(read(self.reader(server, *table), data)), 4)
            self.assertEqual(seen, [("b", "b!"), ("a", "a! and c!"), ("c", "a! and c!"), ("c", "c!")])

    def test_what_has_1024_characters_is_a_message_whatever_it_contains(self) -> None:
        beat = '{"ModeCode":"heart_beat","msg":"%s"}'
        for size, taken in ((MAX_LENGTH - 1, True), (MAX_LENGTH, False)):
            text = beat % ("x" * (size - len(beat) + 2))
            self.assertEqual(len(text), size)
            self.check([(Opcode.INTERCEPTED, text) if taken else text], (TEXT, text.encode()))


def refuse(seen: list[tuple[str, str]], name: str, text: str) -> bool:
    seen.append((name, text))
    return False


def noting(told: Told) -> Callable[[int, bytes, bool], None]:
    return lambda opcode, payload, fin: told.append((opcode, payload, fin))


def watched(server: bool, on_frame: Callable[[int, bytes, bool], None]) -> FrameReader:
    return FrameReader(
        expect_masked=server, max_message=1 << 20, max_fragments=1 << 20, intercepts=(HEART_BEAT,), on_frame=on_frame
    )


if __name__ == "__main__":
    unittest.main()
