"""Messages that are sent in several frames: given in pieces, or longer than a frame may be."""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Iterator
from typing import Any

from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.messages import Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase
from tests.support.wire import End, Frame, join, make_channel

CONT, TEXT, BINARY, PING = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY, Opcode.PING


class FragmentsSentTest(LedgerTestCase):
    def make(self, client: bool = False, deflate: bool = False, **limits: Any) -> tuple[Channel, End]:
        ours, theirs = socket.socketpair()
        channel, _ = make_channel(
            ours, client=client, limits=Limits(**limits), deflate=Deflate(Negotiation()) if deflate else None
        )

        def clean() -> None:
            theirs.close()
            channel.abort()
            channel.release()

        self.addCleanup(clean)
        return channel, End(theirs, client=client)

    def test_pieces_are_the_fragments_of_one_message(self) -> None:
        for client in (False, True):
            channel, end = self.make(client)
            channel.send(iter(["one ", "two ", "", "three"]))
            in_bytes: list[bytes | bytearray | memoryview] = [b"a", bytearray(b"b"), memoryview(b"c")]
            channel.send(in_bytes)
            channel.send(["alone"])
            self.assertEqual(
                end.read(8),
                [
                    Frame(TEXT, b"one ", fin=False), Frame(CONT, b"two ", fin=False), Frame(CONT, b"", fin=False),
                    Frame(CONT, b"three"),
                    Frame(BINARY, b"a", fin=False), Frame(CONT, b"b", fin=False), Frame(CONT, b"c"),
                    Frame(TEXT, b"alone"),
                ],
            )  # fmt: skip
            self.assertEqual(channel.writer.messages_sent, 3)

    def test_no_pieces_are_no_message(self) -> None:
        channel, end = self.make()
        channel.send([])
        self.assertEqual((end.pending(), channel.writer.messages_sent), ([], 0))

    def test_an_iterator_that_raises_has_sent_nothing(self) -> None:
        def pieces() -> Iterator[str]:
            yield "one"
            raise OverflowError

        channel, end = self.make()
        with self.assertRaises(OverflowError):
            channel.send(pieces())
        channel.send("next")
        self.assertEqual(end.read(1), [Frame(TEXT, b"next")])

    def test_a_frame_has_at_most_so_many_bytes(self) -> None:
        for client in (False, True):
            channel, end = self.make(client, max_frame=100)
            for size, sizes in ((0, [0]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])):
                payload = bytes(range(256))[:size]
                channel.send(payload)
                frames = end.read(len(sizes))
                self.assertEqual([len(frame.payload) for frame in frames], sizes)
                self.assertEqual(b"".join(frame.payload for frame in frames), payload)
                self.assertEqual([frame.opcode for frame in frames], [BINARY] + [CONT] * (len(sizes) - 1))
                self.assertEqual([frame.fin for frame in frames], [False] * (len(sizes) - 1) + [True])
            channel.send(["x" * 150, "y"])
            self.assertEqual([len(frame.payload) for frame in end.read(3)], [100, 50, 1])
            channel.writer.post(PING, bytes(120))
            self.assertEqual([len(frame.payload) for frame in end.read(1)], [120])  # control frames are never cut

    def test_large_messages_batches_and_broadcasts_are_cut_too(self) -> None:
        channel, end = self.make(max_frame=50_000, max_queued_bytes=1 << 30)
        payload = bytes(120_000)
        channel.writer.post(BINARY, payload, b"the same, encoded for many")

        def send() -> None:
            with channel.writer.batch():
                channel.send(payload)

        sender = threading.Thread(target=send)
        sender.start()
        frames = end.read(6)
        join(sender)
        self.assertEqual([len(frame.payload) for frame in frames], [50_000, 50_000, 20_000] * 2)

    def test_a_compressed_message_is_cut_behind_the_compression(self) -> None:
        channel, end = self.make(deflate=True, max_frame=10)
        text = "".join(chr(65 + number % 50) for number in range(400))
        channel.send(text)
        channel.send([text[:200], text[200:]])
        inflater = zlib.decompressobj(wbits=-15)
        frames: list[Frame] = end.pending()
        self.assertEqual([frame.rsv for frame in frames].count(4), 2)  # RSV1 on the first frame of each
        self.assertLessEqual(max(len(frame.payload) for frame in frames), 10)
        for _ in range(2):
            compressed = b""
            while True:
                frame = frames.pop(0)
                compressed += frame.payload
                if frame.fin:
                    break
            self.assertEqual(inflater.decompress(compressed + b"\0\0\xff\xff").decode(), text)
        self.assertEqual(frames, [])


if __name__ == "__main__":
    import unittest

    unittest.main()
