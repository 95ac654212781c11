"""What the frame reader makes of what comes, as a server's and as a client's: every rule of RFC 6455, every limit."""

from __future__ import annotations

import random
import time
import tracemalloc
import unittest
import zlib
from collections import deque
from collections.abc import Callable
from unittest import mock

from sync_ws.endings import Close
from sync_ws.messages import Message, Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.frames import Control, encode_frame
from tests.support.reader_case import BothRoles, each_byte, failure, read
from tests.support.wire import frame, make_reader

SIZES = (0, 1, 125, 126, 127, 65535, 65536)
TEXT, BINARY, CONT, CLOSE, PING, PONG = (
    Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION, Opcode.CLOSE, Opcode.PING, Opcode.PONG,
)  # fmt: skip


class Messages(BothRoles):
    def test_text_and_binary_of_every_size_boundary(self) -> None:
        for size in SIZES:
            payload = random.Random(size).randbytes(size)
            text = "".join(random.Random(size).choices("abc", k=size))
            for server in self.roles():
                with self.subTest(size=size, server=server):
                    data = frame(BINARY, payload, masked=server) + frame(TEXT, text.encode(), masked=server)
                    self.assertEqual(read(make_reader(server=server), data), [payload, text])
                    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
                    self.assertEqual(read(make_reader(server=server), *pieces), [payload, text])

    def test_the_engine_reads_what_it_writes(self) -> None:
        for size in SIZES:
            payload = bytes(size)
            for server in self.roles():
                data = encode_frame(BINARY, payload, masked=server)
                self.assertEqual(read(make_reader(server=server), data), [payload])

    def test_messages_are_bytes_and_str_not_views(self) -> None:
        for size in SIZES:
            for server in self.roles():
                [got] = read(make_reader(server=server), frame(BINARY, bytes(size), masked=server))
                self.assertIs(type(got), bytes)

    def test_the_examples_of_the_rfc(self) -> None:
        self.assertEqual(read(make_reader(server=False), b"\x81\x05Hello"), ["Hello"])
        self.assertEqual(read(make_reader(server=True), bytes.fromhex("818537fa213d7f9f4d5158")), ["Hello"])
        self.assertEqual(read(make_reader(server=False), b"\x01\x03Hel\x80\x02lo"), ["Hello"])
        self.assertEqual(read(make_reader(server=False), b"\x89\x05Hello"), [(PING, b"Hello")])

    def test_fragments_make_one_message_with_controls_in_between(self) -> None:
        self.check(
            ["Hello", b"\x00\x01", (PING, b"p"), (PONG, b"")],
            (TEXT, b"He", {"fin": False}), (PING, b"p"), (CONT, b"", {"fin": False}), (PONG, b""), (CONT, b"llo"),
            (BINARY, b"\0", {"fin": False}), (CONT, b"\1"),
        )  # fmt: skip

    def test_empty_messages_and_empty_fragments(self) -> None:
        self.check(
            ["", b"", "", b""],
            (TEXT, b""),
            (BINARY, b""),
            (TEXT, b"", {"fin": False}),
            (CONT, b""),
            (BINARY, b"", {"fin": False}),
            (CONT, b"", {"fin": False}),
            (CONT, b""),
        )

    def test_a_room_of_one_gives_the_messages_one_by_one(self) -> None:
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message]()
            reader.feed(b"".join(frame(TEXT, b"%d" % n, masked=server) for n in range(5)))
            for n in range(5):
                self.assertTrue(reader.buffered)
                reader.parse(messages, 1)
                self.assertEqual(list(messages), [str(i) for i in range(n + 1)])
            self.assertFalse(reader.buffered)

    def test_wanted_says_how_much_is_missing_to_the_frame_under_way(self) -> None:
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message]()
            data = frame(BINARY, bytes(1000), masked=server)
            self.assertEqual(reader.wanted, 0)
            reader.feed(data[:-10])
            reader.parse(messages, 1)
            self.assertEqual(reader.wanted, 10)
            reader.feed(data[-10:])
            reader.parse(messages, 1)
            self.assertEqual((reader.wanted, len(messages)), (0, 1))

    def test_bytes_read_straight_into_the_vacancy_are_the_same_as_fed_ones(self) -> None:
        for server in self.roles():
            for size in (300, 200_000):
                payload = random.Random(size).randbytes(size)
                data, at = frame(BINARY, payload, masked=server) + frame(TEXT, b"next", masked=server), 20
                reader, messages = make_reader(server=server), deque[Message]()
                reader.feed(data[:at])
                reader.parse(messages, 1)
                while reader.wanted:
                    with reader.vacancy() as room:
                        self.assertTrue(0 < len(room) <= reader.wanted)
                        part = data[at : at + max(1, len(room) // 2)]
                        room[: len(part)] = part
                    reader.present += len(part)
                    reader.missing -= len(part)
                    at += len(part)
                    self.assertEqual(len(messages), 0)
                    reader.parse(messages, 256)
                reader.feed(data[at:])
                reader.parse(messages, 256)
                self.assertEqual(list(messages), [payload, "next"])


class Watched(BothRoles):
    """``on_frame`` is told of each frame, and may raise, as a signal's handler may at that instant."""

    def make(self, server: bool, on_frame: Callable[[int, bytes, bool], None]) -> FrameReader:
        return FrameReader(expect_masked=server, max_message=1 << 20, max_fragments=9, on_frame=on_frame)

    def test_each_frame_is_told_with_its_payload_in_the_clear(self) -> None:
        large = bytes(range(256)) * 40
        for server in self.roles():
            told: list[tuple[int, bytes, bool]] = []

            def on_frame(opcode: int, payload: bytes, fin: bool, told: list[tuple[int, bytes, bool]] = told) -> None:
                told.append((opcode, payload, fin))

            frames = [
                (TEXT, b"short", True), (BINARY, large, True), (TEXT, b"a", False), (PING, b"p", True),
                (CONT, b"b", True), (CLOSE, b"", True),
            ]  # fmt: skip
            data = b"".join(frame(opcode, payload, masked=server, fin=fin) for opcode, payload, fin in frames)
            for pieces in ([data], each_byte(data)):
                read(self.make(server, on_frame), *pieces)
                self.assertEqual(told, frames)
                self.assertEqual({type(payload) for _, payload, _ in told}, {bytes})
                told.clear()

    def interrupted(self, server: bool, *frames: bytes) -> tuple[FrameReader, deque[Message]]:
        """A reader, and what it had put out, that was interrupted at the last of these frames."""
        left = len(frames)

        def on_frame(opcode: int, payload: bytes, fin: bool) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt

        reader, messages = self.make(server, on_frame), deque[Message]()
        with self.assertRaises(KeyboardInterrupt):
            for data in frames:
                reader.feed(data)
                reader.parse(messages, 256)
        return reader, messages

    def test_after_an_interrupt_the_next_parse_goes_on_as_if_there_had_been_none(self) -> None:
        for server in self.roles():
            for opcode, payload, expected in ((TEXT, b"x", ["a", "x"]), (BINARY, bytes(3000), ["a", bytes(3000)])):
                one, two = frame(TEXT, b"a", masked=server), frame(opcode, payload, masked=server)
                reader, messages = self.interrupted(server, one, two)
                self.assertEqual(reader.parse(messages, 256), [])
                self.assertEqual(list(messages), expected)
            reader, messages = self.interrupted(server, frame(TEXT, b"a", masked=server), frame(PING, masked=server))
            self.assertEqual([control.opcode for control in reader.parse(messages, 256)], [PING])

    def test_an_interrupt_in_what_cannot_be_done_twice_ends_it(self) -> None:
        for server in self.roles():
            begun, large = frame(TEXT, b"a", masked=server, fin=False), frame(BINARY, bytes(9000), masked=server)
            for frames in ((begun,), (begun, frame(CONT, masked=server))):
                reader, messages = self.interrupted(server, *frames)
                with self.assertRaises(ConnectionAbortedError):
                    reader.parse(messages, 256)
            reader = self.make(server, mock.Mock(side_effect=KeyboardInterrupt))
            reader.feed(large[:100])
            reader.parse(messages, 256)
            reader.feed(large[100:])
            for error in (KeyboardInterrupt, ConnectionAbortedError):  # unmasked where it lay
                with self.assertRaises(error):
                    reader.parse(messages, 256)
            self.assertEqual(list(messages), [])


class Bounded(BothRoles):
    def test_a_parse_pauses_when_its_messages_have_taken_the_budget(self) -> None:
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message]()
            reader.feed(frame(BINARY, bytes(1000), masked=server) * 5)
            for count in (2, 4, 5):
                reader.parse(messages, 256, 1500)
                self.assertEqual(len(messages), count)
            self.assertFalse(reader.buffered)

    def test_controls_are_added_to_those_that_were_there(self) -> None:
        for server in self.roles():
            reader = make_reader(server=server)
            earlier = Control(PING, b"earlier")
            reader.feed(frame(PONG, b"now", masked=server))
            controls = [earlier]
            self.assertIs(reader.parse(deque(), 1, controls=controls), controls)
            self.assertEqual(controls, [earlier, Control(PONG, b"now")])

    def test_nothing_fresh_is_nothing_to_take(self) -> None:
        reader, messages = make_reader(server=False), deque[Message]()
        reader.take_fresh()
        self.assertEqual((reader.parse(messages, 1), list(messages), reader.buffered), ([], [], False))

    def test_controls_say_how_many_messages_stand_before_them(self) -> None:
        for server in self.roles():
            reader, messages = make_reader(server=server), deque[Message](["kept"])
            a, ping = frame(TEXT, b"a", masked=server), frame(PING, masked=server)
            reader.feed(ping + a + ping + a + a + ping + b"\xff\xff")
            self.assertEqual([control.at for control in reader.parse(messages, 256)], [1, 2, 4, 4])


class HeartBeats(BothRoles):
    BEAT = '{"ModeCode":"heart_beat","msg":1}'

    def test_a_heartbeat_is_no_message_whole_or_in_fragments(self) -> None:
        beat = self.BEAT.encode()
        self.check(
            ["x", (Opcode.INTERCEPTED, self.BEAT), (Opcode.INTERCEPTED, self.BEAT)],
            (TEXT, beat),
            (TEXT, beat[:9], {"fin": False}),
            (CONT, beat[9:]),
            (TEXT, b"x"),
        )

    def test_a_heartbeat_that_came_as_binary_keeps_its_bytes(self) -> None:
        for server in self.roles():
            reader = make_reader(server=server)
            reader.feed(frame(BINARY, self.BEAT.encode(), masked=server))
            [control] = reader.parse(deque(), 1)
            self.assertEqual(
                (control.opcode, control.payload, control.text), (Opcode.INTERCEPTED, self.BEAT.encode(), self.BEAT)
            )

    def test_what_only_speaks_of_heartbeats_is_a_message(self) -> None:
        long = '{"ModeCode":"heart_beat","msg":"' + "x" * 1024 + '"}'
        others = ['"heart_beat"', '{"ModeCode":"message","msg":"heart_beat"}', long]
        self.check(
            [*others, b'\xff"heart_beat"'], *((TEXT, other.encode()) for other in others), (BINARY, b'\xff"heart_beat"')
        )


class Refused(BothRoles):
    """What RFC 6455 forbids: 1002, or 1007 for what is not UTF-8; what came before it is delivered."""

    def test_the_wrong_mask_bit(self) -> None:
        for server in self.roles():
            for opcode in (TEXT, BINARY, PING, CLOSE):
                for payload in (b"", b"x" * 10, b"x" * 200):
                    reader = make_reader(server=server)
                    self.assertEqual(failure(reader, frame(opcode, payload[:125], masked=not server)), 1002)

    def test_reserved_bits(self) -> None:
        for rsv in range(1, 8):
            for opcode in (TEXT, BINARY, PING, CLOSE):
                self.refused(1002, (TEXT, b"ok"), (opcode, b"", {"rsv": rsv}), messages=("ok",))
            self.refused(1002, (TEXT, b"a", {"fin": False}), (CONT, b"b", {"rsv": rsv}))

    def test_with_compression_only_rsv1_on_the_first_frame_of_a_message(self) -> None:
        for rsv in (1, 2, 3, 5, 6, 7):
            self.refused(1002, (TEXT, b"", {"rsv": rsv}), deflate=Deflate(Negotiation()))
        for opcode in (PING, PONG, CLOSE):
            self.refused(1002, (opcode, b"", {"rsv": 4}), deflate=Deflate(Negotiation()))
        self.refused(1002, (TEXT, b"", {"fin": False}), (CONT, b"", {"rsv": 4}), deflate=Deflate(Negotiation()))

    def test_unknown_opcodes(self) -> None:
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            for payload in (b"", b"x", b"x" * 126):
                self.refused(1002, (opcode, payload))
            self.refused(1002, (opcode, b"", {"fin": False}))

    def test_long_control_frames(self) -> None:
        for opcode in (CLOSE, PING, PONG):
            self.refused(1002, (opcode, b"x" * 126))
            self.refused(1002, (opcode, b"x", {"form": 16}))
            self.refused(1002, (opcode, b"x" * 70_000))

    def test_fragmented_control_frames(self) -> None:
        for opcode in (CLOSE, PING, PONG):
            self.refused(1002, (opcode, b"", {"fin": False}))
            self.refused(1002, (TEXT, b"", {"fin": False}), (opcode, b"", {"fin": False}))

    def test_lengths_not_in_their_shortest_form(self) -> None:
        for size, form in ((0, 16), (5, 16), (125, 16), (0, 64), (125, 64), (126, 64), (65535, 64)):
            self.refused(1002, (BINARY, b"x" * size, {"form": form}), max_message=1 << 20)
            self.refused(1002, (BINARY, b"x", {"form": form, "size": size}), max_message=10)

    def test_a_continuation_of_nothing(self) -> None:
        for fin in (True, False):
            self.refused(1002, (CONT, b"x", {"fin": fin}))
            self.refused(1002, (TEXT, b"a", {"fin": False}), (CONT, b"b"), (CONT, b"", {"fin": fin}), messages=("ab",))
            self.refused(1002, (TEXT, b"a"), (CONT, b"", {"fin": fin}), messages=("a",))

    def test_a_new_message_inside_a_fragmented_one(self) -> None:
        for opcode in (TEXT, BINARY):
            for fin in (True, False):
                self.refused(1002, (TEXT, b"a", {"fin": False}), (opcode, b"b", {"fin": fin}))

    def test_text_that_is_not_utf_8(self) -> None:
        for bad in (
            b"\x80", b"\xff", b"\xc0\xaf", b"\xe0\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"ok\xc3", "κόσμε".encode() + b"\xed\xa0\x80edited", b"\xe2\x82", b"x" * 200 + b"\xf0\x9f\x98",
        ):  # fmt: skip
            self.refused(1007, (TEXT, bad))
            for at in range(len(bad) + 1 if len(bad) < 20 else 2):
                self.refused(1007, (TEXT, bad[:at], {"fin": False}), (CONT, bad[at:]))

    def test_bad_utf_8_in_a_fragment_is_noticed_before_the_message_is_complete(self) -> None:
        self.refused(1007, (TEXT, b"abc\xff", {"fin": False}))
        self.refused(1007, (TEXT, b"\xf4", {"fin": False}), (CONT, b"\x90", {"fin": False}))

    def test_good_utf_8_split_inside_a_character(self) -> None:
        text = "κόσμε 😀 ￿ \U0010ffff \x00"
        data = text.encode()
        for at in range(len(data) + 1):
            self.check([text], (TEXT, data[:at], {"fin": False}), (CONT, data[at:]))
        self.check(
            [text], (TEXT, b"", {"fin": False}), *((CONT, b, {"fin": False}) for b in each_byte(data)), (CONT, b"")
        )

    def test_binary_may_be_anything(self) -> None:
        self.check([b"\xff\xfe"], (BINARY, b"\xff", {"fin": False}), (CONT, b"\xfe"))


class CloseFrames(BothRoles):
    def test_a_good_close_ends_it_and_nothing_after_counts(self) -> None:
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
            for reason in ("", "bye ☃", "x" * 123):
                payload = code.to_bytes(2, "big") + reason.encode()
                self.check([(CLOSE, Close(code, reason))], (CLOSE, payload), (TEXT, b"late"), b"\xff\xff\xff")

    def test_an_empty_close_has_no_code(self) -> None:
        self.check([(CLOSE, b"")], (CLOSE, b""), (PING, b"late"))

    def test_a_close_inside_a_fragmented_message(self) -> None:
        self.check([(CLOSE, Close(1000))], (TEXT, b"a", {"fin": False}), (CLOSE, b"\x03\xe8"))

    def test_messages_before_it_are_delivered(self) -> None:
        self.check(["a", b"b", (CLOSE, Close(1000))], (TEXT, b"a"), (BINARY, b"b"), (CLOSE, b"\x03\xe8"))

    def test_codes_that_must_not_be_sent(self) -> None:
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
            self.refused(1002, (CLOSE, code.to_bytes(2, "big")))
            self.refused(1002, (CLOSE, code.to_bytes(2, "big") + b"why"))

    def test_a_payload_of_one_byte(self) -> None:
        self.refused(1002, (CLOSE, b"\x03"))

    def test_a_reason_that_is_not_utf_8(self) -> None:
        self.refused(1007, (CLOSE, b"\x03\xe8\xff"))
        self.refused(1007, (CLOSE, b"\x03\xe8" + "é".encode()[:1]))


class Limits(BothRoles):
    def test_exactly_the_limit_passes_and_one_byte_more_is_1009(self) -> None:
        for limit in (1, 10, 125, 126, 1000, 65536):
            self.check([b"x" * limit], (BINARY, b"x" * limit), max_message=limit)
            self.refused(1009, (BINARY, b"x" * (limit + 1)), max_message=limit)

    def test_fragments_below_the_limit_whose_sum_is_above_it(self) -> None:
        part = (CONT, b"x" * 40, {"fin": False})
        self.check([b"x" * 100], (BINARY, b"x" * 40, {"fin": False}), part, (CONT, b"x" * 20), max_message=100)
        self.refused(1009, (BINARY, b"x" * 40, {"fin": False}), part, (CONT, b"x" * 21), max_message=100)
        self.refused(1009, (TEXT, b"x" * 40, {"fin": False}), part, part, max_message=100)

    def test_the_sum_begins_anew_with_each_message(self) -> None:
        self.check([b"x" * 80] * 3, *[(BINARY, b"x" * 40, {"fin": False}), (CONT, b"x" * 40)] * 3, max_message=100)

    def test_a_limit_below_that_of_control_frames_leaves_those_alone(self) -> None:
        self.check([(PING, b"x" * 125)], (PING, b"x" * 125), max_message=10)

    def test_an_announced_length_is_refused_from_the_header(self) -> None:
        for size in (1 << 63, (1 << 64) - 1):
            self.refused(1002, (BINARY, b"", {"size": size}))
        for size in ((1 << 63) - 1, 1 << 40, (1 << 20) + 1):
            self.refused(1009, (BINARY, b"", {"size": size}))
            self.refused(1009, (BINARY, b"", {"fin": False}), (CONT, b"", {"size": size, "fin": False}))

    def test_nothing_is_allocated_for_what_was_announced_only(self) -> None:
        for server in self.roles():
            for size in ((1 << 63) - 1, 1 << 40, 1 << 30):
                reader = make_reader(server=server, max_message=1 << 30)
                tracemalloc.start()
                try:
                    read(reader, frame(BINARY, b"x" * 100, masked=server, size=size))
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                self.assertLess(peak, 100_000)
                self.assertEqual(reader.finished, size > 1 << 30)

    def test_endless_fragments_end_at_the_fragment_limit(self) -> None:
        for payload in (b"", b"x"):
            more = [(CONT, payload, {"fin": False})] * 8
            self.check([payload * 10], (BINARY, payload, {"fin": False}), *more, (CONT, payload), max_fragments=10)
            self.refused(1009, (BINARY, payload, {"fin": False}), *more, *more[:2], max_fragments=10)

    def test_a_million_fragments_cost_linear_time(self) -> None:
        for server in self.roles():
            one = frame(CONT, b"x", masked=server, fin=False)
            times = []
            for count in (4_000, 40_000):
                reader = make_reader(server=server, max_fragments=1 << 30)
                reader.feed(frame(TEXT, b"x", masked=server, fin=False) + one * count)
                began = time.process_time()
                self.assertEqual(reader.parse(deque(), 1), [])
                times.append(time.process_time() - began)
            self.assertLess(times[1], max(60 * times[0], 1.0))  # 10 times as many; a quadratic one takes 100 times

    def test_a_large_message_byte_by_byte_costs_linear_time(self) -> None:
        for server in self.roles():
            data = frame(BINARY, bytes(100_000), masked=server)
            began = time.process_time()
            self.assertEqual(read(make_reader(server=server), *each_byte(data)), [bytes(100_000)])
            self.assertLess(time.process_time() - began, 3)


class Compressed(BothRoles):
    def test_compressed_messages_among_plain_ones(self) -> None:
        for server in self.roles():
            text = "compressed ☃ " * 100
            data = Deflate(Negotiation()).compress(text.encode()) or b""
            stream = (
                frame(TEXT, data, masked=server, rsv=4)
                + frame(TEXT, b"plain", masked=server)
                + frame(BINARY, b"a", masked=server, fin=False) + frame(CONT, b"b", masked=server)
            )  # fmt: skip
            for pieces in ([stream], each_byte(stream)):
                reader = make_reader(server=server, deflate=Deflate(Negotiation()))
                self.assertEqual(read(reader, *pieces), [text, "plain", b"ab"])

    def test_a_compressed_message_in_fragments(self) -> None:
        payload = random.Random(1).randbytes(300) * 20
        data = Deflate(Negotiation()).compress(payload) or b""
        for server in self.roles():
            stream = frame(BINARY, data[:5], masked=server, fin=False, rsv=4)
            stream += frame(PING, b"", masked=server) + frame(CONT, data[5:100], masked=server, fin=False)
            stream += frame(CONT, data[100:], masked=server)
            self.assertEqual(
                read(make_reader(server=server, deflate=Deflate(Negotiation())), *each_byte(stream)),
                [payload, (PING, b"")],
            )

    def test_a_compressed_heartbeat_is_a_heartbeat(self) -> None:
        beat = '{"ModeCode":"heart_beat","msg":"%s"}' % ("1" * 100)
        data = Deflate(Negotiation()).compress(beat.encode()) or b""
        for server in self.roles():
            reader = make_reader(server=server, deflate=Deflate(Negotiation()))
            self.assertEqual(read(reader, frame(TEXT, data, masked=server, rsv=4)), [(Opcode.INTERCEPTED, beat)])

    def test_what_cannot_be_compressed_may_have_the_whole_limit_too(self) -> None:
        for limit in (100, 70_000, 1 << 20):
            payload = random.Random(limit).randbytes(limit)
            data = Deflate(Negotiation()).compress(payload) or b""
            self.assertGreater(len(data), limit)
            for server in self.roles():
                whole = frame(BINARY, data, masked=server, rsv=4)
                halves = frame(BINARY, data[:50], masked=server, rsv=4, fin=False) + frame(
                    CONT, data[50:], masked=server
                )
                for stream in (whole, halves):
                    reader = make_reader(server=server, max_message=limit, deflate=Deflate(Negotiation()))
                    self.assertEqual(read(reader, stream), [payload])

    def test_the_limit_is_that_of_the_inflated_message(self) -> None:
        for server in self.roles():
            for size, fine in ((1000, True), (1001, False)):
                data = Deflate(Negotiation()).compress(b"a" * size) or b""
                reader = make_reader(server=server, max_message=1000, deflate=Deflate(Negotiation()))
                stream = frame(BINARY, data, masked=server, rsv=4)
                if fine:
                    self.assertEqual(read(reader, stream), [b"a" * size])
                else:
                    self.assertEqual(failure(reader, stream), 1009)

    def test_what_is_no_deflate_data_or_no_utf_8_inside_is_1007(self) -> None:
        self.refused(1007, (BINARY, b"\xff" * 20, {"rsv": 4}), deflate=Deflate(Negotiation()))
        packer = zlib.compressobj(wbits=-15)
        bad = packer.compress(b"\xff" * 100) + packer.flush(zlib.Z_SYNC_FLUSH)
        for server in self.roles():
            reader = make_reader(server=server, deflate=Deflate(Negotiation()))
            self.assertEqual(failure(reader, frame(TEXT, bad[:-4], masked=server, rsv=4)), 1007)


if __name__ == "__main__":
    unittest.main()
