"""Batches: what one thread sends inside is written at once, and nobody else waits for it."""

from __future__ import annotations

import threading
import time
import unittest
from unittest import mock

from sync_ws.channel.batch import Batch, Batches
from sync_ws.channel.writer import BATCH_BYTES, Writer
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.messages import Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import wait_until
from tests.support.wire import Frame, join
from tests.support.writer_case import KB, WriterTestCase

MAX_HEADER = 14  # bytes: two, eight for the length, four for the mask (RFC 6455 section 5.2)
CONT, TEXT, BINARY = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY


class Alone(unittest.TestCase):
    """Without a writer: what the calling thread has gathered is taken by the test's own function."""

    def setUp(self) -> None:
        self.written: list[list[tuple[int, bytes]]] = []
        self.batches = Batches()

    def write(self) -> None:
        batch = self.batches.mine()
        assert batch is not None
        self.written.append(batch.take())

    def test_what_was_gathered_is_written_when_the_block_is_left(self) -> None:
        self.assertIsNone(self.batches.mine())
        with (batch := Batch(self.batches, self.write)):
            self.assertIs(self.batches.mine(), batch)
            batch.add(1, b"one")
            batch.add(2, b"")
            self.assertEqual((batch.size, self.written), (3 + 2 * MAX_HEADER, []))
        self.assertEqual((self.written, batch.size, batch.take()), ([[(1, b"one"), (2, b"")]], 0, []))
        self.assertEqual((self.batches.mine(), self.batches.open), (None, {}))

    def test_what_is_put_back_comes_first_and_counts_again_towards_the_bound(self) -> None:
        batch = Batch(self.batches, self.write)
        batch.add(1, b"one")
        taken = batch.take()
        batch.add(2, b"three")
        batch.put_back(taken)
        self.assertEqual(batch.size, 3 + 5 + 2 * MAX_HEADER)
        self.assertEqual(batch.take(), [(1, b"one"), (2, b"three")])

    def test_an_inner_one_does_nothing(self) -> None:
        with (outer := Batch(self.batches, self.write)):
            with Batch(self.batches, self.write):
                self.assertIs(self.batches.mine(), outer)
            self.assertEqual(self.written, [])
        self.assertEqual(self.written, [[]])

    def test_a_write_that_raises_ends_it_all_the_same(self) -> None:
        with self.assertRaises(ConnectionError), Batch(self.batches, mock.Mock(side_effect=ConnectionError)):
            pass
        self.assertEqual(self.batches.open, {})

    def test_one_that_was_left_by_an_interrupt_is_no_batch_any_more(self) -> None:
        left = Batch(self.batches, self.write)
        left.__enter__()
        del left
        self.assertEqual(len(self.batches.open), 1)
        self.assertIsNone(self.batches.mine())
        self.assertEqual(self.batches.open, {})

    def test_it_belongs_to_the_thread_that_opened_it(self) -> None:
        seen: list[object] = []
        with Batch(self.batches, self.write):
            other = threading.Thread(target=lambda: seen.append(self.batches.mine()))
            other.start()
            join(other)
        self.assertEqual(seen, [None])


class WithWriter(WriterTestCase):
    def test_a_batch_is_written_at_its_end(self) -> None:
        writer = self.make()
        with writer.batch():
            writer.send("a")
            writer.send(b"b")
            self.assertEqual(self.end.pending(), [])
        self.assertEqual(self.end.read(2), [Frame(Opcode.TEXT, b"a"), Frame(Opcode.BINARY, b"b")])
        writer.send("c")
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"c")])
        self.assertEqual(writer.messages_sent, 3)

    def test_an_empty_batch_writes_nothing(self) -> None:
        writer = self.make()
        with writer.batch():
            pass
        self.assertEqual((self.end.pending(), writer.bytes_sent), ([], 0))

    def test_a_nested_batch_is_written_with_the_outer_one(self) -> None:
        writer = self.make()
        with writer.batch():
            with writer.batch():
                writer.send("inner")
            self.assertEqual(self.end.pending(), [])
            writer.send("outer")
        self.assertEqual([frame.payload for frame in self.end.read(2)], [b"inner", b"outer"])

    def test_other_threads_send_at_once(self) -> None:
        writer = self.make()
        with writer.batch():
            writer.send("batched")
            join(self.start(lambda: writer.send("other")))
            self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"other")])
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"batched")])

    def test_two_threads_have_a_batch_each(self) -> None:
        writer = self.make()
        inside, leave = threading.Event(), threading.Event()

        def other() -> None:
            with writer.batch():
                writer.send("other")
                inside.set()
                leave.wait(5)

        thread = self.start(other)
        self.assertTrue(inside.wait(5))
        with writer.batch():
            writer.send("mine")
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"mine")])
        leave.set()
        join(thread)
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"other")])

    def test_a_batch_is_written_when_256_kib_have_gathered_whatever_the_size_of_its_messages(self) -> None:
        for size in (10 * KB, 100 * KB, BATCH_BYTES):
            writer, leave, waiting = self.make(), threading.Event(), list[int]()
            count = -(-BATCH_BYTES // (size + 14))  # a header has at most 14 bytes

            def send(writer: Writer = writer, size: int = size, count: int = count) -> None:
                with writer.batch():
                    for _ in range(count - 1):
                        writer.send(bytes(size))
                    waiting.append(writer.messages_sent)  # noqa: B023
                    writer.send(bytes(size))
                    leave.wait(5)  # noqa: B023

            thread = self.start(send)
            self.assertEqual([len(frame.payload) for frame in self.end.read(count)], [size] * count)
            self.assertEqual(waiting, [0])
            self.assertTrue(thread.is_alive())
            leave.set()
            join(thread)

    def test_very_many_empty_messages_are_bounded_and_cost_linear_time(self) -> None:
        writer = self.make()
        reader = self.start(lambda: self.end.read(60_000))
        began = time.process_time()
        with writer.batch():
            for _ in range(60_000):
                writer.send(b"")
            self.assertGreater(writer.messages_sent, 0)
        join(reader, timeout=30)
        self.assertLess(time.process_time() - began, 10)

    def test_what_was_gathered_is_written_though_the_block_raised(self) -> None:
        writer = self.make()
        with self.assertRaises(ZeroDivisionError), writer.batch():
            writer.send("before")
            1 // 0  # noqa: B018
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"before")])

    def test_a_batch_that_cannot_be_written_raises(self) -> None:
        writer = self.make()
        with self.assertRaises(ConnectionClosed), writer.batch():
            writer.send("gathered")
            writer.fail()
        with self.assertRaises(ConnectionClosed), writer.batch():
            writer.send("refused at once")
        self.assertEqual((self.end.pending(), writer.batches.open), ([], {}))

    def test_what_a_closed_writer_did_not_take_stays_in_a_batch_that_outlives_it(self) -> None:
        batches = Batches()
        writer = self.make(batches=batches)
        batch = Batch(batches, writer.write_batch, outlives=True)
        with self.assertRaises(ConnectionClosed), batch:
            writer.send("one")
            writer.fail()
            writer.send("two")
        self.assertEqual(batch.take(), [(TEXT, b"one"), (TEXT, b"two")])

    def test_a_batch_outlives_its_writer_only_where_that_is_said(self) -> None:
        writer = self.make()
        batch = Batch(writer.batches, writer.write_batch)
        with self.assertRaises(ConnectionClosed), batch:
            writer.send("gathered")
            writer.fail()
            with self.assertRaises(ConnectionClosed):
                writer.send("refused at once")
        self.assertEqual(batch.take(), [])

    def test_only_what_is_in_the_kernel_as_a_whole_is_gathered_no_more(self) -> None:
        batches = Batches()
        writer = self.make(batches=batches)
        batch = Batch(batches, writer.write_batch, outlives=True)
        payloads = [b"%03d" % number + bytes(KB) for number in range(100)]

        def send() -> None:
            with self.assertRaises(ConnectionClosed), batch:
                for payload in payloads:
                    writer.send(payload)

        thread = self.start(send)
        wait_until(lambda: writer.queued[0] > 0)
        writer.fail()
        self.transport.shutdown()
        join(thread)
        whole = [frame.payload for frame in self.end.read(1 << 30)]
        self.assertEqual(whole + [payload for _, payload in batch.take()], payloads)
        self.assertGreater(len(whole), 0)

    def test_pieces_go_out_behind_what_was_gathered_before(self) -> None:
        writer = self.make()
        with writer.batch():
            writer.send("one")
            writer.send(["tw", "o"])
        self.assertEqual([frame.payload for frame in self.end.read(3)], [b"one", b"tw", b"o"])

    def test_a_batch_keeps_the_write_deadline(self) -> None:
        writer = self.make(send_timeout=0.1)
        with self.assertRaises(SendTimeout), writer.batch():
            writer.send(bytes(800 * KB))

    def test_a_compressed_batch(self) -> None:
        writer = self.make(deflate=True)
        with writer.batch():
            writer.send("a" * 100)
            writer.send("b")
            writer.send("a" * 100)
        frames, inflater = self.end.read(3), Deflate(Negotiation())
        self.assertEqual([frame.rsv for frame in frames], [4, 0, 4])
        self.assertEqual(inflater.inflate(frames[0].payload, True, 1000), b"a" * 100)
        self.assertEqual(inflater.inflate(frames[2].payload, True, 1000), b"a" * 100)


if __name__ == "__main__":
    unittest.main()
