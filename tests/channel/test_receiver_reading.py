"""The reading side: messages in place and in order, what comes among them, and who borrows it while nobody reads."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any

from sync_ws.channel.inbox import Note
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Opcode
from sync_ws.testing import wait_until
from tests.support.channel_case import BEAT, MIB, OVER, ChannelTestCase
from tests.support.wire import End, Frame, join

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG


class Reading(ChannelTestCase):
    def test_messages_are_read_in_order_by_both_sides(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            self.end.sock.sendall(self.end.frame(TEXT, b"a") + self.end.frame(BINARY, b"b") + self.end.frame(TEXT))
            self.assertEqual([channel.read(), channel.read(5), channel.read(0)], ["a", b"b", ""])
            self.assertEqual((channel.messages_received, channel.bytes_received), (3, 20 if not client else 8))

    def test_a_timeout_leaves_the_channel_as_it_was(self) -> None:
        channel = self.make()
        data = self.end.frame(TEXT, b"late")
        for timeout in (0, 0.01):
            with self.assertRaises(TimeoutError):
                channel.read(timeout)
        self.end.sock.sendall(data[:5])
        with self.assertRaises(TimeoutError):
            channel.read(0.01)
        self.end.sock.sendall(data[5:])
        self.assertEqual(channel.read(5), "late")

    def test_controls_do_not_extend_a_timeout(self) -> None:
        channel, stop = self.make(), threading.Event()

        def ping() -> None:
            while not stop.wait(0.01):
                self.end.send(PONG)

        pinger = self.start(ping)
        began = time.monotonic()
        with self.assertRaises(TimeoutError):
            channel.read(0.2)
        self.assertLess(time.monotonic() - began, 5)
        stop.set()
        join(pinger)

    def test_a_flood_of_controls_holds_up_neither_a_read_nor_who_borrows_the_reading_side(self) -> None:
        channel = self.make(tcp=True)
        data = self.end.frame(PONG) * 20_000

        def flood() -> None:
            with contextlib.suppress(OSError):
                while True:
                    self.end.sock.sendall(data)

        flooding = self.start(flood)
        wait_until(channel.unread)
        for timeout in (0, 0.05):
            began = time.monotonic()
            with self.assertRaises(TimeoutError):
                channel.read(timeout)
            self.assertLess(time.monotonic() - began, 4)
        began = time.monotonic()
        self.assertTrue(channel.tend())
        self.assertLess(time.monotonic() - began, 4)
        channel.abort(OVER)
        self.end.hang_up()
        join(flooding)

    def test_bytes_behind_the_opening_handshake_are_read_first(self) -> None:
        data = Frame(TEXT, b"early"), Frame(TEXT, b"later")
        maker = End(socket.socket(), client=True)
        self.addCleanup(maker.sock.close)
        for at in range(8):
            early = maker.frame(*data[0][:2])
            channel = self.make(True, early=early[:at])
            self.end.sock.sendall(early[at:] + self.end.frame(*data[1][:2]))
            self.assertEqual([channel.read(5), channel.read(5)], ["early", "later"])

    def test_pings_are_answered_and_pongs_noted_while_reading(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            for opcode, payload in ((PING, b"one"), (PONG, b"two"), (PING, b""), (TEXT, b"")):
                self.end.send(opcode, payload)
            self.assertEqual(channel.read(5), "")
            self.assertEqual(self.end.read(2), [Frame(PONG, b"one"), Frame(PONG, b"")])
            self.assertEqual(self.owner.pongs, [b"two"])

    def test_heartbeats_are_answered_and_never_a_message(self) -> None:
        channel, beat = self.make(), BEAT.decode()
        self.end.send(TEXT, BEAT)
        self.end.send(TEXT, b"x")
        self.assertEqual(channel.read(5), "x")
        self.assertEqual((self.end.read(), self.owner.heart_beats), ([Frame(TEXT, BEAT)], [beat]))

    def test_large_messages_arrive_unharmed(self) -> None:
        for client in (True, False):
            for size in (65536, 300_000, MIB):
                channel = self.make(client)
                payload = os.urandom(size)
                sender = self.start(lambda payload=payload: self.end.send(BINARY, payload))  # type: ignore[misc]
                self.assertEqual(channel.read(10) if size < MIB else channel.read(), payload)
                join(sender)

    def test_notes_come_where_they_stood_among_the_messages(self) -> None:
        for whole in (True, False):  # read at once, and while nobody was reading
            channel = self.make()
            self.owner.notes = True
            pieces = [(TEXT, b"a"), (PONG, b"1"), (TEXT, b"b"), (PONG, b"2"), (TEXT, BEAT), (BINARY, b"c")]
            self.end.sock.sendall(b"".join(self.end.frame(opcode, payload) for opcode, payload in pieces))
            if not whole:
                wait_until(channel.unread)
                channel.tend()
            expected = ["a", Note("pong", b"1"), "b", Note("pong", b"2"), Note("heartbeat", BEAT.decode()), b"c"]
            self.assertEqual([channel.read(5) for _ in expected], expected)
            self.assertEqual(channel.messages_received, 3)

    def test_a_batch_is_written_before_the_thread_blocks_in_read(self) -> None:
        for timeout in (None, 5):
            channel = self.make()
            end = self.end

            def answering(end: End = end) -> None:
                end.read(2)
                end.send(TEXT, b"answer")

            answer = self.start(answering)
            with channel.writer.batch():
                channel.send("question")
                channel.send("another")
                self.assertEqual(channel.read(timeout), "answer")
            join(answer)

    def test_a_batch_goes_on_while_messages_are_there(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"a") * 3)
        with channel.writer.batch():
            for _ in range(3):
                message = channel.read(5)
                assert not isinstance(message, Note)
                channel.send(message)
            self.assertEqual(self.end.pending(), [])
        self.assertEqual(len(self.end.read(3)), 3)


class Ending(ChannelTestCase):
    def test_everything_received_is_delivered_before_the_end(self) -> None:
        for ending in ("close", "cut", "bad frame"):
            for deadline in (None, 10):
                channel = self.make(tcp=True)
                data = b"".join(self.end.frame(TEXT, b"%d" % n) for n in range(1000))
                if ending == "close":
                    data += self.end.frame(CLOSE, b"\x03\xe8")
                elif ending == "bad frame":
                    data += b"\xff\xff"
                self.end.sock.sendall(data)
                if ending == "cut":
                    self.end.sock.shutdown(socket.SHUT_WR)
                self.assertEqual([channel.read(deadline) for _ in range(1000)], [str(n) for n in range(1000)])
                error = self.assert_closed()
                self.assertEqual(error.code, {"close": 1000, "cut": 1006, "bad frame": 1002}[ending])

    def test_an_abort_does_not_lose_what_was_received(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"x") * 300)
        self.assertEqual(channel.read(5), "x")
        wait_until(lambda: channel.bytes_received == 300 * 7)
        channel.abort(OVER)
        self.assertEqual([channel.read() for _ in range(299)], ["x"] * 299)
        self.assertEqual(self.assert_closed().reason, OVER)

    def test_a_cut_without_a_close_frame_is_1006(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            self.end.sock.close()
            error = self.assert_closed()
            self.assertEqual((error.code, error.sent, error.received), (1006, None, None))
            self.assertFalse(error.reason.by_us)
            self.assertTrue(channel.ended)
            self.assertEqual(self.owner.ends, [error.reason])

    def test_a_cut_in_the_middle_of_a_frame_or_message_delivers_no_part_of_it(self) -> None:
        whole = End(socket.socket(), client=False)
        self.addCleanup(whole.sock.close)
        data = whole.frame(TEXT, b"he", fin=False) + whole.frame(Opcode.CONTINUATION, b"llo")
        for at in range(len(data)):
            self.make()
            self.end.sock.sendall(data[:at])
            self.end.sock.close()
            self.assertEqual(self.assert_closed().code, 1006)

    def test_a_reset_is_1006_and_keeps_the_error(self) -> None:
        self.make(tcp=True)
        self.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end.sock.close()
        error = self.assert_closed()
        self.assertEqual(error.code, 1006)
        self.assertIsInstance(error.reason.error, ConnectionResetError)

    def test_the_end_is_told_once(self) -> None:
        channel = self.make()
        self.end.send_close(1000)
        self.assert_closed()
        channel.abort(OVER)
        channel.close()
        channel.abort(OVER)
        self.assertEqual([reason.code for reason in self.owner.ends], [1000])

    def test_a_peer_that_breaks_the_protocol_is_told_why(self) -> None:
        for client in (True, False):
            for data, code in ((b"\xf1\x80", 1002), (None, 1007), (b"\x82\x7f" + b"\x00" * 3 + b"\xff" * 5, 1009)):
                channel = self.make(client)
                if data is None:
                    data = self.end.frame(TEXT, b"\xff")
                elif not client:
                    data = data[:1] + bytes([data[1] | 0x80]) + data[2:]
                self.end.sock.sendall(data)
                error = self.assert_closed()
                self.assertEqual((error.code, error.sent and error.sent.code, error.received), (code, code, None))
                self.assertTrue(error.reason.by_us)
                [frame] = self.end.read(2)
                self.assertEqual((frame.opcode, frame.payload[:2]), (CLOSE, code.to_bytes(2, "big")))
                self.assertTrue(self.end.ended)
                with self.assertRaises(ConnectionClosed):
                    channel.send("late")

    def test_the_peer_can_read_why_though_it_goes_on_sending(self) -> None:
        channel = self.make(tcp=True)
        self.end.sock.sendall(b"\xff\xff" + bytes(200_000))  # unread bytes would make our end a reset
        self.assert_closed()
        releasing = self.start(channel.release)
        [frame] = self.end.read(2)
        self.assertEqual(frame.payload[:2], b"\x03\xea")
        self.end.sock.close()
        join(releasing)


class Tending(ChannelTestCase):
    def tend_until(self, condition: Callable[[], Any]) -> None:
        wait_until(lambda: self.channel.tend() and condition())

    def test_pings_and_heartbeats_are_answered_while_nobody_reads(self) -> None:
        for client in (True, False):
            self.make(client)
            beat = b'{"ModeCode":"heart_beat","msg":7}'
            self.end.send(PING, b"alive?")
            self.end.send(TEXT, beat)
            self.end.send(TEXT, b"message")
            self.tend_until(lambda: self.owner.inbox)
            self.assertEqual(self.end.read(2), [Frame(PONG, b"alive?"), Frame(TEXT, beat)])
            self.assertEqual(self.channel.read(0), "message")

    def test_it_never_waits_and_says_when_somebody_else_reads(self) -> None:
        channel = self.make()
        self.assertTrue(channel.tend())
        reader = self.blocked_reader()
        self.assertFalse(channel.tend())
        self.end.send(TEXT, b"x")
        join(reader)
        self.assertTrue(channel.tend())

    def test_at_most_sixteen_messages_wait_then_reading_pauses(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"x") * 40 + self.end.frame(PING, b"behind them"))
        self.tend_until(lambda: self.owner.inbox)
        for _ in range(5):
            channel.tend()
        self.assertEqual(len(self.owner.inbox), 16)
        self.assertEqual(self.end.pending(), [])
        received = channel.bytes_received
        self.end.send(TEXT, b"y")
        channel.tend()
        self.assertEqual(channel.bytes_received, received)
        self.assertTrue(channel.unread())
        self.assertEqual([channel.read(5) for _ in range(41)], ["x"] * 40 + ["y"])
        self.assertEqual(self.end.read(), [Frame(PONG, b"behind them")])

    def test_a_peer_that_sends_without_end_is_paused_at_4_mib(self) -> None:
        channel = self.make(tcp=True)
        payload = os.urandom(900_000)
        sender = self.start(lambda: self.end.sock.sendall(self.end.frame(BINARY, payload) * 12))
        self.tend_until(lambda: len(self.owner.inbox) >= 5)
        for _ in range(5):
            channel.tend()
        self.assertEqual(len(self.owner.inbox), 5)
        self.assertLess(channel.bytes_received, 6 * MIB)
        for _ in range(12):
            self.assertEqual(channel.read(5), payload)
        join(sender)

    def test_the_end_of_the_connection_is_noticed(self) -> None:
        for ending in ("close", "cut", "bad frame"):
            channel = self.make()
            if ending == "close":
                self.end.send_close()
            elif ending == "cut":
                self.end.sock.close()
            else:
                self.end.sock.sendall(b"\xff\xff")
            self.tend_until(lambda: channel.ended)  # noqa: B023
            self.assertEqual(len(self.owner.ends), 1)
            self.assertTrue(channel.tend())

    def test_unread_says_whether_bytes_wait(self) -> None:
        channel = self.make()
        self.assertFalse(channel.unread())
        self.assertFalse(channel.wait_readable(0))
        self.end.sock.sendall(b"\x81")
        self.assertTrue(channel.wait_readable(5))
        self.assertTrue(channel.unread())


if __name__ == "__main__":
    unittest.main()
