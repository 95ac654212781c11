"""A channel whose thread is interrupted: at every instant at which a signal's handler may raise, and at every
instruction for a handler that calls ``close`` or ``send`` itself.  No luck is needed: each instant has its turn."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from sync_ws.channel import batch, channel, conversation, frame_queue, receiver, writer
from sync_ws.channel.channel import Channel
from sync_ws.channel.conversation import Conversation
from sync_ws.channel.inbox import Inbox, Note
from sync_ws.channel.limits import Limits
from sync_ws.errors import ConcurrentReceive, ConnectionClosed
from sync_ws.interrupts import STEP
from sync_ws.messages import Data, Message, Opcode, Pieces
from sync_ws.net import transport, waiting
from sync_ws.protocol import assembly, closing, frame_reader, frames
from sync_ws.protocol.closing import Phase
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase
from tests.support.interrupt import Interrupt
from tests.support.unseen import Unseen, unseen_signal
from tests.support.wire import End, Owner, join, make_channel

OURS = (
    assembly, batch, channel, closing, conversation, frame_queue, frame_reader, frames, receiver, transport, waiting,
    writer,
)  # fmt: skip
TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG
ENOUGH = 20_000  # instants: more than any of these has


class Alarm(BaseException):
    """What a handler raises; no ``except Exception`` may swallow it."""


def alarm() -> None:
    raise Alarm


class Face(Conversation):
    """As a server's connection takes its messages."""

    def __init__(self, channel: Channel, inbox: Inbox) -> None:
        super().__init__(inbox)
        self.channel = channel

    def send(self, data: Data | Pieces) -> None:
        self.channel.send(data)

    def ping(self, timeout: float = 10.0) -> float:
        return self.channel.ping(timeout)

    def _next_message(self, timeout: float | None) -> Message:
        item = self.channel.read_kept(timeout)
        assert not isinstance(item, Note)
        return item


class InterruptedTestCase(LedgerTestCase):
    timeout = 120.0
    channel: Channel
    owner: Owner
    end: End
    face: Face

    def make(self, *, client: bool = False, deflate: bool = False, **limits: Any) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.owner = make_channel(
            ours, client=client, limits=Limits(**limits), deflate=Deflate(Negotiation()) if deflate else None
        )
        self.end = End(theirs, client=client)
        self.face = Face(self.channel, self.owner.inbox)

    def done(self) -> None:
        self.end.sock.close()
        self.channel.abort()
        self.channel.release()

    def each_instant(
        self, work: Callable[[], object], act: Callable[[], object], **options: Any
    ) -> Iterator[BaseException | None]:
        """``work`` on a new channel, interrupted once more each time and one instant later: what it raised."""
        for number in range(1, ENOUGH):
            self.make(**options)
            raised: BaseException | None = None
            interrupt = Interrupt(OURS, number, act, signals_only=True)
            try:
                with interrupt:
                    work()
            except (Alarm, ConnectionClosed) as exc:
                raised = exc.with_traceback(None)  # which would keep what was at work alive
            if not interrupt.came:
                self.done()
                return
            yield raised
            self.done()
        self.fail("there was no end of instants")


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


class Receiving(InterruptedTestCase):
    def exchange(self, pieces: bytes, expected: list[Message], timeout: float | None, **options: Any) -> int:
        """Everything in ``pieces`` is received once and in order, whatever is interrupted; how often it ended."""
        got: list[Message] = []
        given_up = 0

        def work() -> None:
            got.clear()
            self.end.sock.sendall(pieces)
            while len(got) < len(expected):
                message = self.face.recv(timeout)
                got.append(message)

        for raised in self.each_instant(work, alarm, **options):
            if isinstance(raised, Alarm) or raised is None:
                try:
                    while len(got) < len(expected):
                        got.append(self.face.recv(5))
                except ConnectionClosed as exc:
                    raised = exc
            if isinstance(raised, ConnectionClosed):
                self.assertIn("an interrupt came", str(raised))
                self.assertEqual(got, expected[: len(got)])
                given_up += 1
            else:
                self.assertEqual(got, expected)
        return given_up

    def frames(self, client: bool, *messages: tuple[int, bytes]) -> bytes:
        self.make(client=client)
        data = b"".join(self.end.frame(opcode, payload) for opcode, payload in messages)
        self.done()
        return data

    def test_short_messages(self) -> None:
        for client in (False, True):
            data = self.frames(client, (TEXT, b"a"), (BINARY, b"b"), (TEXT, b"c" * 100), (BINARY, b""))
            for timeout in (None, 5.0):
                self.assertEqual(self.exchange(data, ["a", b"b", "c" * 100, b""], timeout, client=client), 0)

    def test_with_control_frames_and_heartbeats_among_them(self) -> None:
        beat = b'{"ModeCode":"heart_beat","msg":1}'
        data = self.frames(False, (TEXT, b"a"), (PING, b"?"), (TEXT, beat), (TEXT, b"b"), (PONG, b""), (TEXT, b"c"))
        self.assertEqual(self.exchange(data, ["a", "b", "c"], None), 0)

        def work() -> None:
            self.end.sock.sendall(data)
            self.face.recv()

        for raised in self.each_instant(work, alarm):
            self.assertIsInstance(raised, Alarm)
            while self.face.recv(5) != "c":
                continue
            answers = {frame.payload for frame in self.end.pending()}
            self.assertEqual(answers, {b"?", beat})  # none is lost; one may be given twice

    def test_messages_of_middling_size(self) -> None:
        payload = random.Random(1).randbytes(3000)
        data = self.frames(False, (BINARY, payload), (TEXT, b"x" * 1000), (BINARY, b"end"))
        self.assertEqual(self.exchange(data, [payload, "x" * 1000, b"end"], None), 0)

    def test_large_messages_come_whole_or_the_connection_ends(self) -> None:
        payload = random.Random(1).randbytes(60_000)
        data = self.frames(False, (BINARY, payload), (TEXT, b"end"))
        self.assertGreater(self.exchange(data, [payload, "end"], None), 0)  # unmasked in place: not to be done twice

    def test_fragmented_messages_come_whole_or_the_connection_ends(self) -> None:
        self.make()
        data = self.end.frame(TEXT, b"one ", fin=False) + self.end.frame(0, b"two") + self.end.frame(TEXT, b"end")
        self.done()
        self.assertGreater(self.exchange(data, ["one two", "end"], None), 0)

    def test_a_read_in_the_middle_of_a_read_is_told_so(self) -> None:
        told = []

        taken: list[Message] = []  # by the handler, where nobody was reading yet, or any more

        def act() -> None:
            try:
                taken.append(self.face.recv(0))
            except (ConcurrentReceive, TimeoutError) as exc:
                told.append(exc)

        data = self.frames(False, (TEXT, b"a"), (TEXT, b"b"))
        got: list[Message] = []

        def work() -> None:
            self.end.sock.sendall(data)
            while len(got) + len(taken) < 2:
                with contextlib.suppress(TimeoutError):
                    got.append(self.face.recv(0.02))

        for _ in self.each_instant(work, act):
            self.assertEqual(sorted(map(str, got + taken)), ["a", "b"])
            got.clear()
            taken.clear()
        self.assertTrue(any(isinstance(exc, ConcurrentReceive) for exc in told))

    def test_a_signal_that_came_just_before_a_read_is_seen_after_a_step(self) -> None:
        for timeout in (None, 30.0):
            self.make()
            begun = time.monotonic()
            with self.assertRaises(Unseen), unseen_signal():
                self.face.recv(timeout)
            self.assertLess(time.monotonic() - begun, STEP + 1.5)
            self.end.send(TEXT, b"afterwards")
            self.assertEqual(self.face.recv(timeout), "afterwards")
            self.done()

    def test_who_is_not_the_main_thread_reads_without_steps(self) -> None:
        for threaded in (True, False):
            self.make()
            self.end.send(TEXT, b"x")
            with mock.patch.object(self.channel._transport, "step_reads") as step_reads:
                if threaded:
                    thread = threading.Thread(target=self.face.recv)
                    thread.start()
                    join(thread)
                else:
                    self.face.recv()
            self.assertEqual(step_reads.called, not threaded)
            self.done()

    def test_a_close_in_the_middle_of_a_read_waits_for_nothing(self) -> None:
        data = self.frames(False, (TEXT, b"a"))
        took = []

        def act() -> None:
            self.end.send_close(1000)  # as a peer would answer
            began = time.monotonic()
            self.channel.close(1001, "told to", 3.0)
            took.append(time.monotonic() - began)

        def work() -> None:
            self.end.sock.sendall(data)
            self.face.recv(5)
            with contextlib.suppress(TimeoutError):  # the handler may come when the time is over
                self.face.recv(0.02)

        for raised in self.each_instant(work, act):
            if raised is None:
                with self.assertRaises(ConnectionClosed):
                    self.face.recv(5)
        self.assertLess(max(took), 2.0)


class ClosingTest(InterruptedTestCase):
    took: float  # seconds, of the longest close()

    def make(self, **options: Any) -> None:
        """With a peer that answers our Close frame, and only that."""
        super().make(**options)
        self.got: list[int] = []
        self.peer = threading.Thread(target=self.answer)
        self.peer.start()

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            while arrived := self.end.read(1):
                self.got.append(arrived[0].opcode)
                if self.got == [*self.got[:-1], CLOSE] and self.got.count(CLOSE) == 1:
                    self.end.send_close(1000)
                    self.end.sock.shutdown(socket.SHUT_WR)

    def done(self) -> None:
        self.end.hang_up()
        join(self.peer)
        super().done()

    def close(self, code: int = 1000) -> None:
        began = time.monotonic()
        self.channel.close(code, "", 5.0)
        self.took = max(self.took, time.monotonic() - began)

    def close_and_part(self) -> None:
        """As a handler: and whoever owns the connection then needs the reading side, and waits for nobody."""
        self.close(1001)
        if self.channel.ended and not self.channel.interrupted:
            owner = threading.Thread(target=self.channel.release)
            owner.start()
            join(owner)

    def assert_closed(self, before: list[int]) -> None:
        self.assertTrue(self.channel.ended)
        self.assertIsNotNone(self.channel._closing.received, self.channel.reason)
        self.assertIn(self.channel._closing.phase, (Phase.ENDED, Phase.RELEASED))
        self.channel.release()  # and with it the end of the stream
        join(self.peer)
        self.assertEqual(self.got, [*before, CLOSE])

    def test_a_close_in_the_middle_of_a_close_waits_for_nothing_that_cannot_come(self) -> None:
        for client in (False, True):
            self.took = 0.0
            for _ in self.each_instant(self.close, self.close_and_part, client=client):
                self.assert_closed([])
            self.assertLess(self.took, 2.0)

    def test_a_close_after_one_that_was_interrupted_sends_what_that_one_owed(self) -> None:
        for client in (False, True):
            self.took = 0.0
            for raised in self.each_instant(self.close, alarm, client=client):
                self.assertIsInstance(raised, Alarm)
                self.close(1001)
                self.assert_closed([])
            self.assertLess(self.took, 2.0)

    def test_what_was_gathered_goes_before_the_close_frame_or_not_at_all(self) -> None:
        def work() -> None:
            with self.channel.writer.batch():
                self.channel.send(b"gathered")
                self.close()

        for act in (partial(self.close, 1001), alarm):
            self.took = 0.0
            for _ in self.each_instant(work, act):
                self.close()
                self.assert_closed([BINARY] if BINARY in self.got else [])
            self.assertLess(self.took, 2.0)

    def test_who_looks_after_it_sends_the_frame_that_nobody_came_back_for(self) -> None:
        owed = 0
        for _ in self.each_instant(lambda: self.channel.start_close(1000, ""), alarm):
            if self.channel.open:  # it had not begun
                continue
            owed += self.channel.writer.open
            self.channel.end_overdue()
            self.assertIsNotNone(self.channel.closing_since)
            self.channel.close()
            self.assert_closed([])
        self.assertGreater(owed, 0)


if __name__ == "__main__":
    import unittest

    unittest.main()
