"""What is gathered and written at once, what is sent as it lies, and what is compressed on the way."""

from __future__ import annotations

import unittest
import zlib
from unittest import mock

from sync_ws.channel.batch import MAX_HEADER, Batch
from sync_ws.channel.writer import BATCH_BYTES, LARGE, Writer
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.messages import Opcode
from tests.support.wire import Frame
from tests.support.writer_case import LoneWriterTestCase

CONT, TEXT, BINARY, PING = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY, Opcode.PING


class Gathering(LoneWriterTestCase):
    def test_pieces_go_behind_what_was_gathered_before_them(self) -> None:
        writer = self.make()
        with writer.batch():
            writer.send("one")
            writer.send(["two", "three"])
            writer.send("four")
        self.assertEqual([frame.payload for frame in self.sent()], [b"one", b"two", b"three", b"four"])

    def test_a_thread_that_gathers_nothing_writes_nothing(self) -> None:
        writer = self.make()
        writer.write_batch()
        with Batch(writer.batches, writer.write_batch):
            writer.batches.open[1] = writer.batches.open.pop(next(iter(writer.batches.open)))  # another thread's
            writer.write_batch()
            writer.send("at once")
            self.assertEqual(self.sent(), [Frame(TEXT, b"at once")])
            writer.batches.open.clear()

    def test_a_batch_is_written_as_soon_as_it_has_gathered_enough(self) -> None:
        for size in (BATCH_BYTES - MAX_HEADER - 1, BATCH_BYTES - MAX_HEADER):
            writer = self.make()
            with writer.batch():
                writer.send(bytes(size))
                self.assertEqual(bool(self.transport.writes), size + MAX_HEADER == BATCH_BYTES)

    def test_who_need_not_wait_for_a_batch_does_not(self) -> None:
        writer = self.make(None)
        told = writer.on_queued = mock.Mock()
        with mock.patch.object(self.transport, "wait_writable") as wait:
            with writer.batch():
                writer.send("gathered")
                writer.write_batch(wait=False)
                self.assertEqual(writer.queued[0], 1)
                told.assert_called_once_with()
            wait.assert_not_called()
            with writer.batch():
                writer.send("gathered, too")
            wait.assert_called_once()
        self.assertEqual(writer.queued, (0, 0))

    def test_who_does_not_wait_for_a_batch_is_told_all_the_same_that_it_was_refused(self) -> None:
        writer = self.make()
        with writer.batch():
            writer.send("gathered")
            writer.finish(b"")
            self.assertRaises(ConnectionClosed, writer.write_batch, wait=False)

    def test_nobody_waits_for_what_whoever_was_told_has_written(self) -> None:
        writer = self.make(None)
        writer.on_queued = lambda: self.assertTrue(writer.flush())
        with mock.patch.object(self.transport, "wait_writable") as wait, writer.batch():
            writer.send("gathered")
        wait.assert_not_called()
        self.assertEqual(self.sent(), [Frame(TEXT, b"gathered")])

    def test_a_message_for_a_batch_is_refused_at_once_when_none_may_follow(self) -> None:
        writer = self.make()
        writer.finish(b"")
        with writer.batch():
            self.assertRaises(ConnectionClosed, writer.send, "x")


class Outliving(LoneWriterTestCase):
    """A batch that is to be written over the next connection, should this one end."""

    def gathered(self, writer: Writer, outlives: bool = True) -> list[bytes]:
        """Gather three messages of 5, 7 and 5 bytes on the wire, and write them in vain: what is gathered then."""
        batch = Batch(writer.batches, lambda: None, outlives)
        with batch:
            for data in ("one", "three", "six"):
                writer.send(data)
            self.assertRaises(ConnectionClosed, writer.write_batch)
            return [payload for _, payload in batch.items]

    def test_what_was_not_written_as_a_whole_stays_gathered(self) -> None:
        one, three, six = b"one", b"three", b"six"
        for taken, left in ((4, [one, three, six]), (5, [three, six]), (11, [three, six]), (12, [six]), (16, [six])):
            for outlives in (True, False):
                for before in (False, True):
                    writer = self.make(*[None] * before, *([3] * before), taken, ConnectionResetError())
                    if before:  # something that has to go first, and a part of it went
                        writer.post(TEXT, b"waits")
                        writer.flush()
                        self.transport.takes.insert(0, 4)
                    self.assertEqual(self.gathered(writer, outlives), left if outlives else [])

    def test_of_what_a_peer_did_not_read_in_time_nothing_stays_gathered(self) -> None:
        writer = self.make(6, *[None] * 9, send_timeout=0.0)
        batch = Batch(writer.batches, lambda: None, outlives=True)
        with batch:
            writer.send("one")
            writer.send("two")
            self.assertRaises(SendTimeout, writer.write_batch)
            self.assertEqual((batch.items, writer.queued), ([], (0, 0)))

    def test_it_gathers_on_when_the_connection_has_ended(self) -> None:
        writer = self.make()
        writer.finish(b"")
        self.assertEqual(self.gathered(writer), [b"one", b"three", b"six"])


class Large(LoneWriterTestCase):
    def test_a_large_message_is_not_copied_to_stand_behind_its_header(self) -> None:
        for size, writes in ((LARGE - 1, [LARGE + 3]), (LARGE, [10, LARGE])):
            for piece in (False, True):
                writer = self.make()
                if piece:
                    writer.post(BINARY, bytes(size))
                else:
                    writer.send(bytes(size))
                self.assertEqual([count for _, count in self.transport.writes], writes)
                self.assertEqual(self.sent(), [Frame(BINARY, bytes(size))])

    def test_a_large_message_that_the_kernel_takes_in_part_is_waited_for(self) -> None:
        writer = self.make(10, 4000, None, 1)
        writer.send(bytes(LARGE))
        self.assertEqual((self.sent(), writer.queued), ([Frame(BINARY, bytes(LARGE))], (0, 0)))

    def test_a_large_message_is_cut_where_a_frame_may_not_be_so_long(self) -> None:
        writer = self.make(max_frame=LARGE)
        writer.send(bytes(LARGE + 1))
        self.assertEqual(self.sent(), [Frame(BINARY, bytes(LARGE), fin=False), Frame(CONT, bytes(1))])

    def test_a_message_of_very_many_pieces_goes_out_in_as_many_frames(self) -> None:
        writer = self.make()
        writer.send([b""] * LARGE)
        self.assertEqual(len(self.transport.sent), 2 * LARGE)
        self.assertEqual(self.transport.sent[:3] + self.transport.sent[-2:], b"\x02\x00\x00\x80\x00")


class Compressed(LoneWriterTestCase):
    def messages(self) -> list[bytes]:
        inflater = zlib.decompressobj(wbits=-15)
        return [
            inflater.decompress(frame.payload + b"\0\0\xff\xff") if frame.rsv else frame.payload
            for frame in self.sent()
        ]

    def test_one_message_after_the_other_each_way_and_control_frames_among_them(self) -> None:
        writer = self.make(deflate=True)
        texts = [f"{number} the same words again and again and again" * 9 for number in range(9)]
        writer.send(texts[0])
        writer.send(texts[1])
        with writer.batch():
            for number in (2, 3, 4):
                writer.send(texts[number])
        writer.post(PING, b"ping")
        writer.send([texts[5][:9], texts[5][9:]])
        writer.post(TEXT, texts[6].encode())
        writer.post(TEXT, texts[7].encode(), b"encoded, but not compressed")
        writer.send(texts[8])
        expected = [text.encode() for text in texts]
        self.assertEqual(self.messages(), [*expected[:5], b"ping", *expected[5:]])

    def test_a_large_message_is_compressed_too(self) -> None:
        writer = self.make(deflate=True)
        writer.send(bytes(LARGE))
        self.assertEqual(self.messages(), [bytes(LARGE)])
        self.assertLess(len(self.transport.sent), 1000)

    def test_a_batch_whose_writing_was_interrupted_ends_the_connection(self) -> None:
        writer = self.make(deflate=True)
        self.interrupt(mock.Mock(side_effect=KeyboardInterrupt))
        with self.assertRaises(KeyboardInterrupt), writer.batch():
            writer.send("gathered and " * 9)
            writer.send("compressed " * 9)
        self.assertRaises(ConnectionClosed, writer.send, "the peer could not read it")


if __name__ == "__main__":
    unittest.main()
