"""The writer: whole frames in order from any number of threads, deadlines, bounds and batches."""

from __future__ import annotations

import logging
import random
import threading
import time
import unittest
import zlib
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from sync_ws.channel.frame_log import FrameLog
from sync_ws.channel.frame_queue import FrameQueue
from sync_ws.channel.writer import BATCH_BYTES, Writer
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.messages import Opcode
from sync_ws.net.transport import Transport
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import wait_until
from tests.support.wire import Frame, join
from tests.support.writer_case import KB, LoneWriterTestCase, WriterTestCase

CONT, TEXT, BINARY = Opcode.CONTINUATION, Opcode.TEXT, Opcode.BINARY


class Sending(WriterTestCase):
    def test_each_kind_of_message_is_one_frame(self) -> None:
        for client in (True, False):
            writer = self.make(client=client)
            messages: list[Any] = ["text ☃", b"bytes", bytearray(b"array"), memoryview(b"a view")[2:], "", b""]
            messages.append("x" * 500)
            for message in messages:
                writer.send(message)
            frames = self.end.read(len(messages))
            expected = [
                Frame(*((Opcode.TEXT, m.encode()) if isinstance(m, str) else (Opcode.BINARY, bytes(m))))
                for m in messages
            ]
            self.assertEqual(frames, expected)
            self.assertEqual((writer.messages_sent, writer.bytes_sent), (len(messages), self.end.received))

    def test_what_is_no_message_is_refused_and_nothing_is_sent(self) -> None:
        writer = self.make()
        wrong: list[Any] = [None, 1, [1], {"a": "b"}, ["x", b"y"], object()]
        for data in wrong:
            with self.assertRaises(TypeError):
                writer.send(data)
        with self.assertRaises(ValueError):
            writer.send("\ud800")
        self.assertEqual(self.end.pending(), [])
        self.assertTrue(writer.open)

    def test_a_mutable_message_is_taken_as_it_is_at_the_call(self) -> None:
        writer = self.make()
        for size in (10, 200 * KB):
            data = bytearray(size)
            sender = self.start(lambda data=data: writer.send(data))  # type: ignore[misc]
            wait_until(lambda: writer.messages_sent)
            data[:] = b"x" * size
            self.assertEqual(self.end.read(), [Frame(Opcode.BINARY, bytes(size))])
            join(sender)
            writer.messages_sent = 0

    def test_messages_of_64_kib_and_more_are_whole_and_unharmed(self) -> None:
        for client in (True, False):
            writer = self.make(client=client)
            payloads = [random.Random(size).randbytes(size) for size in (64 * KB - 1, 64 * KB, 64 * KB + 3, 300_001)]

            def send(writer: Writer = writer, payloads: list[bytes] = payloads) -> None:
                for payload in payloads:
                    writer.send(payload)

            sender = self.start(send)
            self.assertEqual(self.end.read(4), [Frame(Opcode.BINARY, payload) for payload in payloads])
            join(sender)
            self.assertEqual(writer.queued, (0, 0))


class ManyThreads(WriterTestCase):
    def send_from_threads(self, writer: Writer, count: int) -> list[Frame]:
        """Eight threads send ``count`` messages each while pings are posted; what arrived."""
        stop = threading.Event()

        def send(name: int) -> None:
            rng = random.Random(name)
            for number in range(count):
                size = 70 * KB if rng.random() < 0.005 else rng.randrange(400)
                writer.send(b"%d %d " % (name, number) + bytes([name]) * size)

        def ping() -> None:
            while not stop.wait(0.005):
                writer.post(Opcode.PING, b"ping")

        threads = [self.start(lambda name=name: send(name)) for name in range(8)]  # type: ignore[misc]
        pinger = self.start(ping)
        frames: list[Frame] = []
        while sum(frame.opcode == Opcode.BINARY for frame in frames) < 8 * count:
            frames += self.end.read(1)
        join(*threads)
        stop.set()
        join(pinger)
        return frames

    def check(self, payloads: list[bytes], count: int) -> None:
        numbers: dict[int, list[int]] = defaultdict(list)
        for payload in payloads:
            name, number, rest = payload.split(b" ", 2)
            self.assertEqual(set(rest) - {int(name)}, set())
            numbers[int(name)].append(int(number))
        self.assertEqual(dict(numbers), {name: list(range(count)) for name in range(8)})

    def test_frames_stay_whole_and_each_thread_in_order(self) -> None:
        for client in (False, True):
            with self.subTest(client=client):
                frames = self.send_from_threads(self.make(client=client), 400)
                self.assertTrue(all(frame.payload == b"ping" for frame in frames if frame.opcode == Opcode.PING))
                self.check([frame.payload for frame in frames if frame.opcode == Opcode.BINARY], 400)
                self.assertEqual(self.broken, [])

    def test_the_same_when_compressed(self) -> None:
        frames = self.send_from_threads(self.make(deflate=True), 400)
        inflater = zlib.decompressobj(wbits=-15)
        payloads = [
            inflater.decompress(frame.payload + b"\0\0\xff\xff") if frame.rsv else frame.payload
            for frame in frames
            if frame.opcode == Opcode.BINARY
        ]
        self.assertTrue(any(frame.rsv == 4 for frame in frames))
        self.assertTrue(all(not frame.rsv for frame in frames if frame.opcode == Opcode.PING))
        self.check(payloads, 400)


class OvertakenQueue(FrameQueue):
    """Once, between two statements of the thread that waits for its bytes, ``overtake`` runs, as others may."""

    overtake: Callable[[], Any] | None = None
    flushed = False
    _count = 0

    @property
    def bytes_sent(self) -> int:
        count = self._count
        if self.flushed and self.overtake is not None:
            overtake, self.overtake = self.overtake, None
            overtake()
        return count

    @bytes_sent.setter
    def bytes_sent(self, count: int) -> None:
        self._count = count


class Overtaken(Writer):
    """A writer with such a queue."""

    def __init__(self, transport: Transport, **options: Any) -> None:
        super().__init__(transport, **options)
        self.overtaken = self._queue = OvertakenQueue(transport)

    def flush(self) -> bool:
        done = super().flush()
        self.overtaken.flushed = True
        return done


class Deadlines(WriterTestCase):
    def test_a_sender_whose_bytes_another_thread_writes_is_not_told_that_it_failed(self) -> None:
        self.writer_class = Overtaken
        writer = self.make(send_timeout=0.1)
        assert isinstance(writer, Overtaken)
        self.fill(writer)

        def drain() -> None:
            while not Writer.flush(writer):
                self.end.pending()

        writer.overtaken.overtake = drain
        writer.send(b"written by another thread")
        self.assertEqual((writer.queued, writer.overtaken.overtake), ((0, 0), None))

    def test_a_peer_that_does_not_read_is_given_up_at_the_write_deadline(self) -> None:
        for deflate in (False, True):
            for data in (random.Random(1).randbytes(100), random.Random(1).randbytes(800 * KB)):
                self.broken.clear()
                writer = self.make(send_timeout=0.1, deflate=deflate)
                began = time.monotonic()
                with self.assertRaises(SendTimeout):
                    while True:
                        writer.send(data)
                self.assertLess(time.monotonic() - began, 5)
                [(text, error)] = self.broken
                self.assertIn("did not read", text)
                self.assertIsNone(error)
                self.assertFalse(writer.open)
                with self.assertRaises(ConnectionClosed):
                    writer.send("late")
                self.assertFalse(writer.post(Opcode.PING, b""))

    def test_a_slow_peer_that_goes_on_reading_is_kept(self) -> None:
        writer = self.make(send_timeout=1.0)
        sender = self.start(lambda: writer.send(bytes(600 * KB)))
        began = time.monotonic()
        while time.monotonic() - began < 1.3:  # longer than the deadline, which counts from the last progress
            self.end.sock.recv(8 * KB)
            time.sleep(0.02)
        drain = self.start(lambda: all(iter(lambda: self.end.sock.recv(64 * KB), b"")))
        join(sender)
        self.transport.shutdown()
        join(drain)
        self.assertEqual(self.broken, [])

    def test_all_waiting_senders_are_told_when_it_fails(self) -> None:
        writer = self.make(send_timeout=30)
        errors: list[Exception] = []

        def send() -> None:
            try:
                writer.send(bytes(500 * KB))
            except ConnectionClosed as exc:
                errors.append(exc)

        threads = [self.start(send) for _ in range(3)]
        wait_until(lambda: writer.messages_sent == 3)
        writer.fail()
        self.transport.shutdown()  # as the channel does: wakes those who wait for writability
        join(*threads)
        self.assertEqual(len(errors), 3)

    def test_a_connection_that_breaks_tells_the_sender_and_the_owner(self) -> None:
        writer = self.make()
        self.end.sock.close()
        with self.assertRaises(ConnectionClosed) as caught:
            writer.send("x")
        self.assertIsInstance(caught.exception.__cause__, BrokenPipeError)
        [(_text, error)] = self.broken
        self.assertIsInstance(error, BrokenPipeError)


class Posting(WriterTestCase):
    def test_post_never_waits_and_refuses_beyond_its_bound(self) -> None:
        for bounds in ({"max_queued": 5}, {"max_queued_bytes": 5 * KB}):
            writer = self.make(**bounds)  # type: ignore[arg-type]
            self.fill(writer)
            accepted = 0
            while writer.post(Opcode.BINARY, bytes(KB)):
                accepted += 1
            self.assertTrue(3 <= accepted <= 5, accepted)
            self.assertLessEqual(writer.queued[0], 6)
            self.assertLessEqual(writer.queued[1], 7 * KB)
            count = writer.messages_sent
            self.assertFalse(writer.post(Opcode.PING, b""))
            self.assertEqual(writer.messages_sent, count)
            got: list[Frame] = []
            while not writer.flush():
                got += self.end.pending()
            got += self.end.read(count - len(got))
            self.assertEqual([len(frame.payload) for frame in got], [KB] * count)
            self.assertTrue(writer.post(Opcode.PING, b""))

    def test_who_has_to_flush_is_told_when_something_is_queued(self) -> None:
        writer, told = self.make(), list[int]()
        writer.on_queued = lambda: told.append(1)
        writer.post(Opcode.PING, b"")
        self.assertEqual(told, [])
        self.fill(writer)
        self.assertEqual(told, [1])

    def test_an_encoded_frame_is_posted_as_it_is_but_not_where_it_would_bypass_compression(self) -> None:
        writer = self.make()
        writer.post(Opcode.TEXT, b"abc", b"\x81\x03abc")
        self.assertEqual(self.end.read(), [Frame(Opcode.TEXT, b"abc")])
        writer = self.make(deflate=True)
        writer.post(Opcode.TEXT, b"a" * 100, b"\x81\x64" + b"a" * 100)
        self.assertEqual(self.end.read()[0].rsv, 4)

    def test_stuck_says_why_a_peer_is_too_slow(self) -> None:
        writer = self.make(send_timeout=10, max_queued=2)
        now = time.monotonic()
        self.assertIsNone(writer.stuck(now + 100))
        self.fill(writer)
        self.assertIsNone(writer.stuck(now + 9))
        self.assertIn("did not read", writer.stuck(now + 20) or "")
        while writer.post(Opcode.BINARY, b"x"):
            pass
        self.assertIn("more was queued", writer.stuck(now + 20) or "")
        while not writer.flush():
            self.end.pending()
        self.assertIsNone(writer.stuck(now + 100))

    def test_a_close_frame_comes_after_all_messages_and_nothing_after_it(self) -> None:
        writer = self.make()
        self.fill(writer)
        count = writer.messages_sent
        self.assertTrue(writer.finish(b"\x03\xe8"))
        self.assertFalse(writer.finish(b"\x03\xe8"))
        self.assertFalse(writer.open)
        with self.assertRaises(ConnectionClosed):
            writer.send("late")
        self.assertFalse(writer.post(Opcode.PONG, b""))
        got: list[Frame] = []
        while not writer.flush():
            got += self.end.pending()
        got += self.end.read(count + 1 - len(got))
        self.assertEqual(got[-1], Frame(Opcode.CLOSE, b"\x03\xe8"))
        self.assertEqual(self.end.pending(), [])


class Alone(LoneWriterTestCase):
    """Without a socket, and interrupted in the middle of its writes."""

    def test_pieces_are_the_fragments_of_one_message(self) -> None:
        writer = self.make()
        writer.send(iter(["a", "", "b"]))
        in_bytes: list[bytes | bytearray | memoryview] = [bytearray(b"c"), memoryview(b"d")]
        writer.send(in_bytes)
        writer.send([])
        self.assertEqual(
            self.sent(),
            [
                Frame(TEXT, b"a", False), Frame(CONT, b"", False), Frame(CONT, b"b"),
                Frame(BINARY, b"c", False), Frame(CONT, b"d"),
            ],
        )  # fmt: skip
        self.assertEqual(writer.messages_sent, 2)

    def test_pieces_that_the_kernel_does_not_take_at_once_are_waited_for(self) -> None:
        writer = self.make(3, None, 2)
        writer.send(["one", "two"])
        self.assertEqual((self.sent()[1], writer.queued), (Frame(CONT, b"two"), (0, 0)))

    def test_pieces_after_the_close_frame_are_refused(self) -> None:
        writer = self.make()
        writer.finish(b"")
        self.assertRaises(ConnectionClosed, writer.send, ["a"])
        self.assertEqual(len(self.sent()), 1)

    def test_a_message_longer_than_a_frame_may_be_goes_into_several(self) -> None:
        writer = self.make(max_frame=3)
        for data in ("abc", "abcd", ["ab", "cdef"]):
            writer.send(data)
        self.assertTrue(writer.post(Opcode.BINARY, b"wxyz", b"a whole frame that may not be used"))
        self.assertEqual(
            [frame.payload for frame in self.sent()], [b"abc", b"abc", b"d", b"ab", b"cde", b"f", b"wxy", b"z"]
        )
        writer.post(Opcode.PING, b"longer than that")
        self.assertEqual(self.sent()[-1], Frame(Opcode.PING, b"longer than that"))

    def test_compressed_pieces_are_one_frame_or_as_many_as_must_be(self) -> None:
        for max_frame in (None, 4):
            writer, text = self.make(deflate=True, max_frame=max_frame), "over and over " * 20
            writer.send([text[:5], text[5:]])
            frames = self.sent()
            self.assertEqual((frames[0].rsv, [frame.rsv for frame in frames[1:]]), (4, [0] * (len(frames) - 1)))
            self.assertEqual(len(frames) == 1, max_frame is None)
            data = b"".join(frame.payload for frame in frames)
            self.assertEqual(Deflate(Negotiation()).inflate(data, True, 1000), text.encode())

    def test_what_an_interrupt_wants_sent_goes_out_behind_the_interrupted_frame(self) -> None:
        works: tuple[Callable[[Writer], object], ...] = (
            lambda writer: writer.send("outer"),
            lambda writer: writer.send(["outer"]),
            lambda writer: writer.post(TEXT, b"outer"),
        )
        for work in works:
            writer, said = self.make(), list[object]()

            def act(writer: Writer = writer, said: list[object] = said) -> None:
                writer.send("one")
                writer.send(["two", "three"])
                said += [writer.post(Opcode.PING, b"four"), writer.finish(b""), writer.interrupted, writer.flush()]

            self.interrupt(act)
            work(writer)
            payloads = [frame.payload for frame in self.sent()]
            self.assertEqual(payloads, [b"outer", b"one", b"two", b"three", b"four", b""])
            self.assertEqual((said, writer.interrupted, writer.open), ([True, True, True, True], False, False))

    def test_a_handler_that_raises_leaves_the_writer_usable(self) -> None:
        writer = self.make()
        for work in (lambda: writer.send("x"), lambda: writer.post(TEXT, b"x"), lambda: writer.send(["x"])):
            self.interrupt(mock.Mock(side_effect=KeyboardInterrupt))
            self.assertRaises(KeyboardInterrupt, work)
            self.assertFalse(writer.interrupted)
        writer.send("next")
        self.assertEqual([frame.payload for frame in self.sent()], [b"next"])

    def test_a_handler_that_raises_while_a_message_is_compressed_ends_the_connection(self) -> None:
        messages: tuple[str | list[str], ...] = ("x" * 100, ["x" * 100])
        for message in messages:
            writer = self.make(deflate=True)
            self.interrupt(mock.Mock(side_effect=KeyboardInterrupt))
            self.assertRaises(KeyboardInterrupt, writer.send, "compressed " * 20)
            self.assertTrue(writer.post(Opcode.PING, b""))  # control frames are not compressed
            self.assertRaises(ConnectionClosed, writer.send, message)
            [(_, error)] = self.broken
            self.assertIn("in the middle of compressing", str(error))

    def test_a_write_that_fails_is_told_once_and_nothing_may_follow(self) -> None:
        works: tuple[Callable[[Writer], object], ...] = (
            lambda writer: self.assertRaises(ConnectionClosed, writer.send, "x"),
            lambda writer: self.assertRaises(ConnectionClosed, writer.send, ["x"]),
            lambda writer: self.assertFalse(writer.post(TEXT, b"x")),
            lambda writer: self.assertFalse(writer.finish(b"")),
        )
        for work in works:
            error = BrokenPipeError()
            writer = self.make(error)
            work(writer)
            self.assertEqual((self.broken, writer.open, writer.queued), ([("writing failed", error)], False, (0, 0)))
            self.assertFalse(writer.post(TEXT, b"late"))

    def test_who_flushes_later_is_told_of_whatever_is_left(self) -> None:
        works: tuple[Callable[[Writer], object], ...] = (
            lambda writer: writer.post(TEXT, b"x"),
            lambda writer: writer.finish(b""),
            lambda writer: self.assertRaises(KeyboardInterrupt, writer.send, "x"),
        )
        for work in works:
            writer = self.make(None, None)
            told = writer.on_queued = mock.Mock()
            with mock.patch.object(self.transport, "wait_writable", side_effect=KeyboardInterrupt):
                work(writer)
            told.assert_called_once_with()
            self.assertFalse(writer.flush())
            told.assert_called_once_with()
            self.assertTrue(writer.flush())

    def test_a_wait_begins_anew_with_each_byte_and_ends_when_none_went_for_so_long(self) -> None:
        now = 50.0

        def wait(timeout: float | None) -> bool:
            nonlocal now
            now += 9
            return True

        writer = self.make(1, 1, 1, 1, None, None)
        with (
            mock.patch("sync_ws.timing.time.monotonic", lambda: now),
            mock.patch.object(self.transport, "wait_writable", wait),
        ):
            self.assertRaises(SendTimeout, writer.send, "text")
        self.assertEqual((now, bytes(self.transport.sent)), (50.0 + 9 * 5, b"\x81\x04te"))
        self.assertEqual([error for _, error in self.broken], [None])
        self.assertTrue(writer.flush())
        self.assertEqual(len(self.transport.sent), 4)  # what was said to have failed is not delivered after all

    def test_a_sender_that_is_given_up_by_another_a_moment_earlier_is_told_the_same(self) -> None:
        for passes, expected in ((11, SendTimeout), (0, ConnectionClosed)):
            writer, clock = self.make(None, None), [50.0]

            def wait(
                timeout: float | None, writer: Writer = writer, clock: list[float] = clock, passes: int = passes
            ) -> bool:
                clock[0] += passes
                writer.fail()
                return True

            waiting = mock.patch.object(self.transport, "wait_writable", wait)
            with mock.patch("sync_ws.timing.time.monotonic", partial(clock.__getitem__, 0)), waiting:
                self.assertRaises(expected, writer.send, "x")

    def test_a_batch_is_one_write_when_it_ends_or_has_gathered_much(self) -> None:
        writer = self.make(5)
        with writer.batch():
            for _ in range(3):
                writer.send("gathered")
            self.assertEqual(self.transport.writes, [])
        self.assertEqual(self.transport.writes, [("whole", 30), ("whole", 25)])  # the second: what was left of it
        with writer.batch():
            writer.send(bytes(BATCH_BYTES))
            self.assertEqual(len(self.transport.writes), 3)
        with writer.batch():
            pass
        self.assertEqual((len(self.transport.writes), writer.messages_sent), (3, 4))

    def test_a_batch_is_refused_once_no_message_may_follow(self) -> None:
        writer = self.make()
        with self.assertRaises(ConnectionClosed), writer.batch():
            writer.send("gathered")
            writer.finish(b"")
        with self.assertRaises(ConnectionClosed), writer.batch():
            writer.send("refused at once")
        self.assertEqual(len(self.sent()), 1)

    def test_a_sender_whose_bytes_go_at_the_last_moment_is_not_given_up(self) -> None:
        clock = [50.0]
        writer = self.make(None, None)
        give_up, told = writer._give_up_at, mock.Mock()
        writer.on_queued = told

        def late(seen: int) -> int:
            writer._queue.flush()  # as another thread would, before this one has the lock
            return give_up(seen)

        def wait(timeout: float | None) -> bool:
            clock[0] += 11
            return True

        waiting = mock.patch.object(self.transport, "wait_writable", wait)
        time = mock.patch("sync_ws.timing.time.monotonic", partial(clock.__getitem__, 0))
        with mock.patch.object(writer, "_give_up_at", late), time, waiting:
            writer.send("x")
        self.assertEqual((self.sent(), self.broken), ([Frame(TEXT, b"x")], []))
        told.assert_not_called()

    def test_every_frame_is_logged_where_it_is_wanted(self) -> None:
        logger = logging.getLogger("sync_ws.test")
        with self.assertLogs(logger, "DEBUG") as logs:
            writer = self.make(log=FrameLog(logger, "7"))
            writer.send("one")
            writer.send(["tw", "o"])
            with writer.batch():
                writer.send(b"3")
            writer.post(Opcode.PING, b"", b"\x89\x00")
            writer.finish(b"\x03\xe8")
        self.assertEqual(
            [record.getMessage() for record in logs.records],
            [
                "7 > TEXT 'one' [3]",
                "7 > TEXT 'two' [3]",
                "7 > BINARY 33 [1]",
                "7 > PING '' [0]",
                "7 > CLOSE 1000 '' [2]",
            ],
        )

    def test_a_forked_child_closes_its_copy_whoever_held_the_lock(self) -> None:
        writer, holding, leave = self.make(), threading.Event(), threading.Event()

        def hold() -> None:
            holding.set()
            leave.wait(10)

        self.transport.on_write = hold
        holder = threading.Thread(target=writer.post, args=(TEXT, b"from the parent"))
        self.addCleanup(leave.set)
        holder.start()
        holding.wait(10)
        writer.forget_in_child()
        self.assertRaises(ConnectionClosed, writer.send, "from the child")
        self.assertEqual((self.transport.closed, self.sent(), holder.is_alive()), (True, [], True))
        leave.set()
        join(holder)


if __name__ == "__main__":
    unittest.main()
