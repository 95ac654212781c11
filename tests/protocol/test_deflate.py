"""permessage-deflate: strict in what it agrees to, bounded in what it inflates."""

from __future__ import annotations

import random
import time
import tracemalloc
import unittest
import zlib
from collections import deque

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.deflate import OFFER, Deflate, Negotiation, TooBig, accept_first, accept_offer, check_answer
from sync_ws.protocol.frames import Control
from sync_ws.protocol.masking import apply_mask
from tests.support.wire import frame, make_reader

LIMIT = 1 << 20


def raw(*pieces: bytes, wbits: int = -15, mode: int = zlib.Z_SYNC_FLUSH, level: int = -1) -> bytes:
    """Deflate data of a message, made with zlib alone."""
    packer = zlib.compressobj(level, wbits=wbits)
    data = b"".join(map(packer.compress, pieces)) + packer.flush(mode)
    return data[:-4] if mode == zlib.Z_SYNC_FLUSH else data


class Offers(unittest.TestCase):
    def test_what_a_server_answers(self) -> None:
        name = "permessage-deflate"
        for offer, answer, agreed in (
            (name, name, Negotiation()),
            (OFFER, name, Negotiation()),
            (f"{name}; client_max_window_bits=10", name, Negotiation()),
            (f'{name}; server_max_window_bits="9"', f"{name}; server_max_window_bits=9", Negotiation(send_bits=9)),
            (f"{name};server_max_window_bits=8", f"{name}; server_max_window_bits=8", Negotiation(send_bits=8)),
            (
                f" {name} ; server_no_context_takeover ;client_no_context_takeover",
                f"{name}; server_no_context_takeover; client_no_context_takeover",
                Negotiation(send_takeover=False, receive_takeover=False),
            ),
        ):
            with self.subTest(offer):
                self.assertEqual(accept_offer(offer), (answer, agreed))

    def test_anything_malformed_is_declined_quickly(self) -> None:
        name = "permessage-deflate"
        began = time.monotonic()
        for offer in (
            "", ";", "x", "permessage-deflate2", "permessage-bzip2", ";constructor", f"{name};", f"{name}; ;",
            f"{name}; unknown", f"{name}; client_max_window_bits=abc", f"{name}; client_max_window_bits=99",
            f"{name}; client_max_window_bits=7", f"{name}; client_max_window_bits=016",
            f"{name}; server_max_window_bits",
            f"{name}; server_max_window_bits=", f"{name}; client_max_window_bits=",
            f"{name}; client_max_window_bits=-9", f"{name}; client_max_window_bits=९",
            f"{name}; server_no_context_takeover=1", f"{name}; server_no_context_takeover=",
            f"{name}; client_max_window_bits; client_max_window_bits", f'{name}; client_max_window_bits="9',
            f"{name}; __class__", f"{name}; _fields=8", f"{name}; client_max_window_bits={'9' * 100_000}",
            f"{name}; {'a' * 100_000}", f"{name}{';' * 100_000}", f"{name}; {' ' * 100_000}x",
        ):  # fmt: skip
            with self.subTest(offer[:60]):
                self.assertIsNone(accept_offer(offer))
        self.assertLess(time.monotonic() - began, 5)

    def test_of_several_offers_the_first_that_can_be_accepted_is_answered(self) -> None:
        name = "permessage-deflate"
        offers = ["permessage-bzip2", f"{name}; unknown", f"{name}; server_max_window_bits=10", name]
        self.assertEqual(accept_first(offers), (f"{name}; server_max_window_bits=10", Negotiation(send_bits=10)))
        self.assertIsNone(accept_first(offers[:2]))
        self.assertIsNone(accept_first([]))

    def test_what_a_client_accepts_as_an_answer(self) -> None:
        name = "permessage-deflate"
        for answer, agreed in (
            (name, Negotiation()),
            (f"{name}; client_max_window_bits=12", Negotiation(send_bits=12)),
            (f"{name}; server_max_window_bits=12", Negotiation()),
            (f"{name}; server_no_context_takeover", Negotiation(receive_takeover=False)),
            (f"{name}; client_no_context_takeover", Negotiation(send_takeover=False)),
        ):
            with self.subTest(answer):
                self.assertEqual(check_answer(answer), agreed)

    def test_an_answer_that_the_offer_does_not_allow_is_an_error(self) -> None:
        name = "permessage-deflate"
        for answer in (
            "", "x", f"{name}; client_max_window_bits", f"{name}; client_max_window_bits=7", f"{name}; x=1",
            f"{name}; server_no_context_takeover; server_no_context_takeover", f"{name}, {name}",
        ):  # fmt: skip
            with self.subTest(answer), self.assertRaises(ValueError):
                check_answer(answer)


class RoundTrips(unittest.TestCase):
    def test_what_is_compressed_inflates_to_the_same(self) -> None:
        rng = random.Random(3)
        payloads = [rng.choice([b"ab", rng.randbytes(5)]) * rng.randrange(32, 4000) for _ in range(30)]
        for bits in range(9, 16):
            for takeover in (True, False):
                ours = Deflate(Negotiation(send_bits=bits, send_takeover=takeover))
                theirs = Deflate(Negotiation(receive_takeover=takeover))
                for payload in payloads:
                    compressed = ours.compress(payload)
                    assert compressed is not None
                    self.assertLess(len(compressed), len(payload))
                    self.assertEqual(theirs.inflate(compressed, True, LIMIT), payload)

    def test_the_agreed_window_is_kept_to(self) -> None:
        block = random.Random(1).randbytes(2000)  # its repetition is 2000 bytes away: out of reach of 9 bits
        small, large = Deflate(Negotiation(send_bits=9)), Deflate(Negotiation())
        self.assertGreater(len(small.compress(block * 2) or b""), 3900)
        self.assertLess(len(large.compress(block * 2) or b""), 2200)
        compressed = Deflate(Negotiation(send_bits=9)).compress(b"hello world " * 1000) or b""
        self.assertEqual(zlib.decompressobj(wbits=-9).decompress(compressed + b"\0\0\xff\xff"), b"hello world " * 1000)

    def test_a_window_of_eight_bits_means_no_compression_by_us(self) -> None:
        self.assertIsNone(Deflate(Negotiation(send_bits=8)).compress(b"a" * 10_000))

    def test_short_messages_go_out_as_they_are(self) -> None:
        self.assertIsNone(Deflate(Negotiation()).compress(b"a" * 63))
        self.assertIsNotNone(Deflate(Negotiation()).compress(b"a" * 64))

    def test_without_takeover_each_message_stands_alone(self) -> None:
        ours = Deflate(Negotiation(send_takeover=False))
        first, second = ours.compress(b"hello" * 50), ours.compress(b"hello" * 50)
        self.assertEqual(first, second)
        shared = Deflate(Negotiation())
        self.assertEqual(shared.compress(b"hello" * 50), first)
        self.assertLess(len(shared.compress(b"hello" * 50) or b""), len(first or b""))

    def test_the_examples_of_the_rfc(self) -> None:
        for text, payloads in (
            ("one block", ["f248cdc9c90700"]),
            ("context kept", ["f248cdc9c90700", "f200110000"]),
            ("no compression", ["000500faff48656c6c6f00"]),
            ("BFINAL set", ["f348cdc9c9070000", "f248cdc9c90700"]),
            ("two blocks", ["f248050000 00ffffcac9c90700"]),
        ):
            inflater = Deflate(Negotiation())
            for payload in payloads:
                with self.subTest(text):
                    self.assertEqual(inflater.inflate(bytes.fromhex(payload), True, LIMIT), b"Hello")

    def test_a_message_in_fragments(self) -> None:
        data, payload = raw(b"fragmented " * 1000), b"fragmented " * 1000
        for size in (1, 2, 7, len(data)):
            inflater, got = Deflate(Negotiation()), b""
            pieces = [data[at : at + size] for at in range(0, len(data), size)]
            for index, piece in enumerate(pieces):
                got += inflater.inflate(piece, index == len(pieces) - 1, LIMIT - len(got))
            self.assertEqual(got, payload)
            self.assertEqual(inflater.inflate(b"", True, LIMIT), b"")

    def test_a_peer_that_ends_the_deflate_stream_loses_nothing(self) -> None:
        ended = raw(b"one " * 100, mode=zlib.Z_FINISH)
        for tail in (b"", b"\0"):  # with the empty block of RFC 7692 section 7.2.3.4, and without it
            inflater = Deflate(Negotiation())
            for _ in range(3):
                self.assertEqual(inflater.inflate(ended + tail, True, LIMIT), b"one " * 100)
            self.assertEqual(inflater.inflate(raw(b"two " * 100), True, LIMIT), b"two " * 100)
        with self.subTest("blocks behind the end in the same message"):
            inflater = Deflate(Negotiation())
            self.assertEqual(inflater.inflate(ended + raw(b"two " * 100), True, LIMIT), b"one " * 100 + b"two " * 100)
            self.assertEqual(inflater.inflate(raw(b"three"), True, LIMIT), b"three")
        with self.subTest("between fragments"):
            inflater = Deflate(Negotiation())
            got = inflater.inflate(ended, False, LIMIT) + inflater.inflate(ended + b"\0", True, LIMIT)
            self.assertEqual(got, b"one " * 200)


class Bounds(unittest.TestCase):
    def test_exactly_the_limit_passes_and_one_byte_more_does_not(self) -> None:
        for size in (0, 1, 63, 64, 1000, 65536):
            for payload in (b"a" * size, random.Random(size).randbytes(size)):
                with self.subTest(size):
                    self.assertEqual(Deflate(Negotiation()).inflate(raw(payload), True, size), payload)
                    with self.assertRaises(TooBig):
                        Deflate(Negotiation()).inflate(raw(payload + b"x"), True, size)

    def test_the_limit_counts_over_ended_streams_too(self) -> None:
        ended = raw(b"a" * 600, mode=zlib.Z_FINISH)
        with self.assertRaises(TooBig):
            Deflate(Negotiation()).inflate(ended * 2, True, 1199)
        self.assertEqual(len(Deflate(Negotiation()).inflate(ended * 2, True, 1200)), 1200)

    def test_a_frame_of_endless_tiny_streams_is_refused_not_copied_half_a_million_times(self) -> None:
        began = time.monotonic()
        with self.assertRaises(zlib.error):
            Deflate(Negotiation()).inflate(b"\x03\x00" * (1 << 19), True, LIMIT)
        self.assertLess(time.monotonic() - began, 2)

    def test_what_is_no_deflate_data_is_an_error(self) -> None:
        for data in (b"\xff" * 20, b"\x07", b"\x01\x05\x00\x00\x00", random.Random(2).randbytes(500)):
            with self.subTest(data[:8]), self.assertRaises(zlib.error):
                Deflate(Negotiation()).inflate(data, True, LIMIT)


class Bomb(unittest.TestCase):
    def test_260_kb_that_inflate_to_256_mib_are_refused_in_less_than_8_mib(self) -> None:
        packer = zlib.compressobj(9, wbits=-15)
        block = bytes(1 << 20)
        bomb = b"".join([packer.compress(block) for _ in range(256)]) + packer.flush(zlib.Z_SYNC_FLUSH)
        self.assertLess(len(bomb), 270_000)
        for server in (True, False):
            for pieces in (1, 3):
                with self.subTest(server=server, fragments=pieces):
                    self.check_bomb(bomb, server, pieces)

    def check_bomb(self, bomb: bytes, server: bool, pieces: int) -> None:
        reader = make_reader(server=server, deflate=Deflate(Negotiation()))
        step = -(-len(bomb) // pieces)
        data = b"".join(
            frame(
                Opcode.CONTINUATION if at else Opcode.BINARY, bomb[at : at + step], masked=server,
                fin=at + step >= len(bomb), rsv=0 if at else 4,
            )
            for at in range(0, len(bomb), step)
        )  # fmt: skip
        messages: deque[Message] = deque()
        apply_mask(bytes(1 << 20), b"mask")  # what numpy takes, if it is there, is not the question
        tracemalloc.start()
        try:
            controls: list[Control] = []
            for at in range(0, len(data), 16384):
                reader.feed(data[at : at + 16384])
                controls += reader.parse(messages, 256)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        [control] = controls
        assert control.close is not None
        self.assertEqual((control.opcode, control.close.code, list(messages)), (Opcode.FAIL, 1009, []))
        self.assertLess(peak, 8 << 20)


if __name__ == "__main__":
    unittest.main()
