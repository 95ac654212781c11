"""What a connection on the server makes of what is on the wire: violations, limits and compression."""

from __future__ import annotations

import os
import struct
import time
import zlib
from typing import Any

from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame
from tests.support.server_case import ServerTestCase
from tests.support.wire import deflated


class WireTest(ServerTestCase):
    """RFC 6455: what breaks it, and what only looks as if."""

    def close_after(self, data: bytes, **options: Any) -> tuple[int, str]:
        client = self.client(self.serve(**options))
        client.send(data)
        got = client.read_frame()
        while got.opcode != CLOSE:
            got = client.read_frame()
        self.assertEqual(client.read_to_end(), b"", "nothing may follow a Close frame")
        client.close()
        return got.close

    def test_what_breaks_the_protocol_is_1002(self) -> None:
        for what, data in (
            ("unmasked", frame(TEXT, b"hello", masked=False)),
            ("unmasked and empty", frame(TEXT, b"", masked=False)),
            ("unmasked control", frame(PING, b"x", masked=False)),
            *((f"reserved bits {rsv:03b}", frame(TEXT, b"x", rsv=rsv)) for rsv in (4, 2, 1, 7)),
            *((f"opcode {opcode:#x}", frame(opcode, b"x")) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
            ("long Ping", frame(PING, b"x" * 126)),
            ("long Close", frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124)),
            ("fragmented Ping", frame(PING, b"x", fin=False)),
            ("fragmented Close", frame(CLOSE, b"", fin=False)),
            ("length of 5 in two bytes", b"\x81\xfe\x00\x05" + b"\0" * 9),
            ("length of 125 in eight bytes", b"\x82\xff" + struct.pack("!Q", 125) + b"\0" * 129),
            ("length of 65535 in eight bytes", b"\x82\xff" + struct.pack("!Q", 65535) + b"\0" * 20),
            ("highest bit of the length", b"\x82\xff" + struct.pack("!Q", 1 << 63) + b"\0" * 4),
            ("nothing to continue", frame(CONTINUATION, b"x")),
            ("a message inside a message", frame(TEXT, b"a", fin=False) + frame(TEXT, b"b")),
            ("Close with one byte", frame(CLOSE, b"x")),
            *((f"close code {code}", frame(CLOSE, struct.pack("!H", code))) for code in (0, 999, 1004, 1005, 1006, 1015,
                                                                                        1016, 2999, 5000, 65535)),
        ):  # fmt: skip
            with self.subTest(what):
                self.assertEqual(self.close_after(data)[0], 1002)
        self.assertEqual(self.log.tracebacks, [])

    def test_bad_utf_8_is_1007_also_split_over_frames(self) -> None:
        for what, data in (
            ("in one frame", frame(TEXT, b"\xc3\x28")),
            ("surrogate", frame(TEXT, b"\xed\xa0\x80")),
            ("overlong", frame(TEXT, b"\xc0\xaf")),
            ("beyond Unicode", frame(TEXT, b"\xf4\x90\x80\x80")),
            ("cut off", frame(TEXT, b"\xe2\x82")),
            ("in a fragment", frame(TEXT, b"ok\xff", fin=False)),
            ("across fragments", frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x28\xa1")),
            ("cut off at the last fragment", frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"\x82")),
            ("in a close reason", frame(CLOSE, struct.pack("!H", 1000) + b"\xff")),
            ("long", frame(TEXT, b"a" * 70_000 + b"\xff")),
        ):
            with self.subTest(what):
                self.assertEqual(self.close_after(data)[0], 1007)

    def test_utf_8_cut_between_frames_is_put_together(self) -> None:
        client = self.client(self.serve())
        for byte in range(1, 4):
            text = "€𝄞".encode()
            client.send(frame(TEXT, text[:byte], fin=False) + frame(CONTINUATION, text[byte:]))
            self.assertEqual(client.read_text(), "€𝄞")

    def test_announced_lengths_beyond_the_limit_are_refused_from_the_header(self) -> None:
        for length in ((1 << 63) - 1, 1 << 40, (1 << 20) + 1):
            with self.subTest(length=length):
                header = b"\x82\xff" + struct.pack("!Q", length)
                self.assertEqual(self.close_after(header)[0], 1009)
        self.assertEqual(self.close_after(b"\x81\xfe\x04\x01" + b"key!", max_message=1024)[0], 1009)

    def test_many_small_frames_above_the_limit_are_1009(self) -> None:
        data = frame(BINARY, b"x" * 400, fin=False) + frame(CONTINUATION, b"x" * 400, fin=False) * 2
        self.assertEqual(self.close_after(data, max_message=1024)[0], 1009)

    def test_a_message_of_exactly_the_limit_passes(self) -> None:
        client = self.client(self.serve(max_message=1024))
        client.send_frame(BINARY, b"x" * 1024)
        self.assertEqual(client.read_frame().payload, b"x" * 1024)
        client.send(frame(BINARY, b"y" * 1000, fin=False) + frame(CONTINUATION, b"y" * 24))
        self.assertEqual(client.read_frame().payload, b"y" * 1024)

    def test_endless_fragments_end_at_the_limit_in_linear_time(self) -> None:
        for payload in (b"", b"x"):
            started = time.process_time()
            data = frame(TEXT, b"", fin=False) + frame(CONTINUATION, payload, fin=False) * 5000
            self.assertEqual(self.close_after(data)[0], 1009)
            self.assertLess(time.process_time() - started, 5)

    def test_fragments_up_to_the_limit_pass_with_controls_between(self) -> None:
        client = self.client(self.serve(max_fragments=4))
        client.send(
            frame(TEXT, b"a", fin=False)
            + frame(PING, b"p1")
            + frame(CONTINUATION, b"", fin=False)
            + frame(CONTINUATION, b"b", fin=False)
            + frame(PONG, b"unasked")
            + frame(CONTINUATION, b"c")
        )
        self.assertEqual(client.read_frame().payload, b"p1")
        self.assertEqual(client.read_text(), "abc")

    def test_pings_are_answered_with_their_payload(self) -> None:
        client = self.client(self.serve())
        for payload in (b"", b"x", bytes(range(125))):
            client.send_frame(PING, payload)
            got = client.read_frame()
            self.assertEqual((got.opcode, got.payload), (PONG, payload))


class CompressionTest(ServerTestCase):
    OFFER = "Sec-WebSocket-Extensions: permessage-deflate"

    def test_compressed_messages_both_ways(self) -> None:
        client = self.client(self.serve(compression=True), None, self.OFFER)
        text = "compress me " * 100
        client.send_frame(TEXT, deflated(text.encode()), rsv=4)
        got = client.read_frame()
        self.assertEqual(got.first, 0xC1)
        self.assertLess(len(got.payload), 200)
        self.assertEqual(zlib.decompressobj(-15).decompress(got.payload + b"\0\0\xff\xff").decode(), text)
        client.send_text("as it is")
        self.assertEqual(client.read_text(), "as it is")

    def test_a_compressed_message_may_be_fragmented(self) -> None:
        client = self.client(self.serve(compression=True), None, self.OFFER)
        data = deflated(b"fragmented")
        client.send(frame(TEXT, data[:3], fin=False, rsv=4) + frame(PING) + frame(CONTINUATION, data[3:]))
        self.assertEqual(client.read_frame().opcode, PONG)
        self.assertEqual(client.read_text(), "fragmented")

    def test_what_is_no_deflate_is_1007_and_a_reserved_bit_on_a_continuation_1002(self) -> None:
        for data, code in (
            (frame(TEXT, b"\xff\xff\xff", rsv=4), 1007),
            (frame(TEXT, deflated(b"\xff\xfe"), rsv=4), 1007),
            (frame(TEXT, deflated(b"x"), fin=False, rsv=4) + frame(CONTINUATION, b"", rsv=4), 1002),
            (frame(PING, deflated(b"x"), rsv=4), 1002),
        ):
            client = self.client(self.serve(compression=True), None, self.OFFER)
            client.send(data)
            self.assertEqual(client.read_close()[0], code)

    def test_a_deflate_bomb_is_1009_and_memory_stays_flat(self) -> None:
        mebibyte = zlib.compressobj(9, wbits=-15)
        piece = mebibyte.compress(b"\0" * (1 << 20)) + mebibyte.flush(zlib.Z_FULL_FLUSH)  # repeats as it is
        bomb = piece * 256
        self.assertLess(len(bomb), 300_000)
        client = self.client(self.serve(compression=True), None, self.OFFER)
        data = frame(BINARY, bomb, rsv=4)
        client.send(frame(BINARY, bomb))  # what a message of its size takes is not the question
        client.read_frame()
        before = resident()
        client.send(data)
        self.assertEqual(client.read_close()[0], 1009)
        self.assertLess(resident(peak=True) - before, 8 << 20)


def resident(peak: bool = False) -> int:
    """Bytes of memory this process has now, and begins a new peak; or the highest since then. 0 where unknown."""
    if not os.path.exists("/proc/self/clear_refs"):
        return 0
    if not peak:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    with open("/proc/self/status") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields["VmHWM" if peak else "VmRSS"].split()[0]) * 1024
