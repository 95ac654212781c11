"""A thread that is interrupted while it sends, at each instant: whole frames in order, or the end, and it says so."""

from __future__ import annotations

import os
import time
import zlib
from functools import partial
from typing import Any

from sync_ws.errors import ConnectionClosed
from tests.support.interrupted_case import BINARY, CLOSE, InterruptedTestCase, alarm


class Sending(InterruptedTestCase):
    def send(self, payload: bytes) -> None:
        self.channel.send(payload)

    def assert_whole(self, expected: list[list[bytes]], **options: Any) -> None:
        """What arrived is one of these sequences of payloads, in whole frames."""
        self.channel.writer.flush()
        self.end.sock.settimeout(5)
        got: list[bytes] = []
        while not any(got == payloads[: len(got)] and len(got) == len(payloads) for payloads in expected):
            arrived = self.end.read(1)
            self.assertEqual(len(arrived), 1, f"only {len(got)} frames")
            got.append(arrived[0].payload)
            self.assertTrue(any(got == payloads[: len(got)] for payloads in expected), [len(item) for item in got])
        self.assertEqual(self.end.pending(), [])

    def test_a_message_is_sent_whole_or_not_at_all(self) -> None:
        for client in (False, True):
            for size in (10, 5000, 70_000):
                payload = os.urandom(size)
                for _ in self.each_instant(lambda: self.channel.send(payload), alarm, client=client):  # noqa: B023
                    self.channel.send(b"next")
                    self.assert_whole([[payload, b"next"], [b"next"]])

    def test_a_message_that_the_kernel_took_in_part_is_completed_first(self) -> None:
        first, payload = os.urandom(400_000), os.urandom(100)

        def work() -> None:
            self.channel.writer.post(BINARY, first)  # more than the kernel takes
            self.channel.writer.post(BINARY, payload)

        for _ in self.each_instant(work, alarm, max_queued_bytes=1 << 30):
            self.channel.writer.post(BINARY, b"next")
            sender = self.end
            got: list[bytes] = []
            while not got or got[-1] != b"next":
                self.channel.writer.flush()
                got += [frame.payload for frame in sender.pending()]
            self.assertIn(got, ([first, payload, b"next"], [first, b"next"], [payload, b"next"], [b"next"]))

    def test_a_batch_is_written_as_a_whole_or_not_at_all_and_ends(self) -> None:
        def work() -> None:
            with self.channel.writer.batch():
                self.channel.send(b"one")
                self.channel.send(b"two")

        for _ in self.each_instant(work, alarm):
            self.channel.send(b"next")
            self.assertEqual(self.channel.writer.batches.open, {})
            self.assert_whole([[b"one", b"two", b"next"], [b"one", b"next"], [b"next"]])

    def test_compressed_messages_stay_readable_or_the_connection_ends(self) -> None:
        text = "the same words again " * 20
        ended = 0
        for _ in self.each_instant(lambda: self.channel.send(text), alarm, deflate=True):
            try:
                self.channel.send(text)
            except ConnectionClosed as exc:
                self.assertIn("an interrupt came", str(exc))
                ended += 1
                continue
            inflater = zlib.decompressobj(wbits=-15)
            for frame in self.end.pending():
                self.assertEqual(inflater.decompress(frame.payload + b"\0\0\xff\xff").decode(), text)
        self.assertGreater(ended, 0)  # the compressor's state is lost with an interrupt in the middle of it

    def test_a_close_in_the_middle_of_a_send_waits_for_nothing(self) -> None:
        """The handler's close is back at once, the message goes out whole, and the Close frame behind it."""
        took = []

        def act() -> None:
            began = time.monotonic()
            self.channel.start_close(1001, "told to")
            took.append(time.monotonic() - began)

        for size in (10, 70_000):
            for raised in self.each_instant(partial(self.send, bytes(size)), act):
                got = [frame.opcode for frame in self.end.pending()]
                self.assertIn(got, ([BINARY, CLOSE], [CLOSE]) if raised is None else ([CLOSE],))
                self.assertFalse(self.channel.open)
                with self.assertRaises(ConnectionClosed):
                    self.channel.send("late")
        self.assertLess(max(took), 5.0)

    def test_a_send_in_the_middle_of_a_send_goes_out_whole(self) -> None:
        payload = b"interrupted"
        for _ in self.each_instant(
            lambda: self.channel.send(payload),
            lambda: self.channel.send(b"from a handler"),
        ):
            got = [frame.payload for frame in self.end.pending()]
            self.assertEqual(sorted(got), [b"from a handler", payload])
