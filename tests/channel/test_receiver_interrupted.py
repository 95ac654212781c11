"""A thread that is interrupted while it receives, at each instant: no message is lost, and nothing is half parsed."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any
from unittest import mock

from sync_ws.errors import ConcurrentReceive, ConnectionClosed
from sync_ws.interrupts import STEP
from sync_ws.messages import Message
from tests.support.interrupted_case import BINARY, PING, PONG, TEXT, Alarm, InterruptedTestCase, alarm
from tests.support.unseen import Unseen, unseen_signal
from tests.support.wire import join


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
