"""The writer: whole frames in order from any number of threads, deadlines, bounds and batches."""

from __future__ import annotations

import random
import socket
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from sync_ws.channel.frame_queue import FrameQueue
from sync_ws.channel.writer import BATCH_BYTES, Writer
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.messages import Opcode, as_payload
from sync_ws.net.transport import PlainTransport, Transport
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.wire import End, Frame, join

KB = 1024


class WriterTestCase(LedgerTestCase):
    """A writer on one end of a socket pair with small buffers; ``self.end`` is the other one."""

    writer_class: type[Writer] = Writer

    def setUp(self) -> None:
        super().setUp()
        self.broken: list[tuple[str, BaseException | None]] = []

    def make(
        self,
        *,
        client: bool = False,
        deflate: bool = False,
        send_timeout: float = 10.0,
        max_queued: int = 64,
        max_queued_bytes: int = KB * KB,
    ) -> Writer:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KB)
            self.addCleanup(sock.close)
        self.end = End(theirs, client=client)
        self.transport = PlainTransport(ours)
        return self.writer_class(
            self.transport,
            masked=client,
            deflate=Deflate(Negotiation()) if deflate else None,
            send_timeout=send_timeout,
            max_queued=max_queued,
            max_queued_bytes=max_queued_bytes,
            closed_error=lambda: ConnectionClosed(Reason("not open")),
            on_broken=lambda text, error: self.broken.append((text, error)),
        )

    def start(self, function: Callable[[], Any]) -> threading.Thread:
        """Run it in a thread, which has to end with the test."""
        thread = threading.Thread(target=function)
        thread.start()
        self.addCleanup(join, thread)
        return thread

    def fill(self, writer: Writer) -> None:
        """Send until the kernel takes no more."""
        while writer.post(Opcode.BINARY, bytes(KB)) and not writer.queued[0]:
            pass
        self.assertEqual(writer.queued[0], 1)


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

    def test_as_payload_gives_opcode_and_bytes(self) -> None:
        self.assertEqual(as_payload("é"), (Opcode.TEXT, b"\xc3\xa9"))
        self.assertEqual(as_payload(memoryview(b"abcd")[::2]), (Opcode.BINARY, b"ac"))

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


class Batches(WriterTestCase):
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
