"""What a channel tells while it is open, how it waits for a Pong, and what is left to do at its end: whose direction of
the stream ends when, who is waited for and for how long, and what the release gives back."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import unittest
from typing import Any
from unittest import mock

from sync_ws.channel.channel import LINGER, Channel
from sync_ws.channel.inbox import Inbox
from sync_ws.channel.limits import Limits
from sync_ws.channel.receiver import Receiver
from sync_ws.endings import Close
from sync_ws.errors import ConnectionClosed
from sync_ws.interrupts import Flag
from sync_ws.messages import Opcode
from sync_ws.timing import Deadline
from tests.support.channel_case import BEAT, OVER, ChannelTestCase
from tests.support.fake_transport import FakeTransport
from tests.support.held import held_elsewhere
from tests.support.wire import Frame, frame, join, make_channel

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG
MISTAKE = b"\xff\xff"


class Telling(ChannelTestCase):
    def test_both_close_frames(self) -> None:
        channel = self.make()
        self.assertEqual(channel.close_frames, (None, None))
        channel.start_close(1001, "bye")
        self.assertEqual(channel.close_frames, (Close(1001, "bye"), None))
        self.end.send_close(1000)
        self.assert_closed()
        self.assertEqual(channel.close_frames, (Close(1001, "bye"), Close(1000)))

    def test_what_waits_in_the_socket_without_ever_waiting_for_it(self) -> None:
        transport = FakeTransport(b"something")
        channel, _ = make_channel(transport, client=False)
        self.assertTrue(channel.unread())
        self.assertEqual(transport.waits, [0])
        for said in (True, False):
            with mock.patch.object(transport, "crowded", return_value=said):
                self.assertIs(channel.crowded(), said)
        with mock.patch.object(transport, "unread", return_value=9):
            self.assertEqual(channel.unread_bytes(), 9)

    def test_its_frames_in_the_log_of_its_side(self) -> None:
        for client, side in ((True, "client"), (False, "server")):
            with self.assertLogs(f"sync_ws.{side}", "DEBUG") as logs:
                channel = self.make(client)
                self.end.send(TEXT, b"received")
                channel.read(5)
                channel.send("sent")
            self.assertEqual(
                [line.split()[0] for line in logs.output], [f"DEBUG:sync_ws.{side}:{channel.fileno()}"] * 2
            )

    def test_nothing_to_an_owner_who_asked_for_nothing_but_messages(self) -> None:
        transport = FakeTransport(frame(PONG, b"", masked=True) + frame(TEXT, BEAT, masked=True))
        channel = Channel(transport, Inbox(), client=False, limits=Limits(), on_end=OVER.__eq__)
        self.assertEqual(channel.read(), BEAT.decode())

    def test_where_writing_failed_it_is_not_open_though_there_is_something_left_to_read(self) -> None:
        channel = self.make()
        self.end.send(TEXT, b"last words")
        with mock.patch.object(channel.writer._queue, "_sending", side_effect=OSError(errno.ENOBUFS, "no room")):
            self.assertRaises(ConnectionClosed, channel.send, "x")
        self.assertEqual((channel.open, channel.ended), (False, False))

    def test_what_is_kept_of_an_error_that_nobody_waited_for_keeps_no_frames(self) -> None:
        channel, no_room = self.make(), OSError(errno.ENOBUFS, "no room")
        self.end.send(TEXT, b"last words")
        with mock.patch.object(channel.writer._queue, "_sending", side_effect=no_room):
            self.assertFalse(channel.writer.post(PONG, b""))
        self.assertIsNone(no_room.__traceback__)

    def test_what_broke_the_stream(self) -> None:
        self.make(tcp=True)
        self.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end.sock.close()
        self.assertIsInstance(self.assert_closed().reason.error, ConnectionResetError)


class WaitingForAPong(ChannelTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.make(client=True)

    def test_while_nobody_else_reads_it_is_taken_as_soon_as_it_comes(self) -> None:
        payload = b""

        def nothing_yet() -> bool:
            return False

        def a_message() -> bool:
            self.end.send(TEXT, b"before")
            return True

        def the_pong() -> bool:
            nonlocal payload
            [ping] = self.end.read(1)
            payload = ping.payload
            self.end.send(PONG, payload)
            return True

        steps = iter([nothing_yet, a_message, nothing_yet, the_pong])
        elsewhere = mock.patch.object(Flag, "wait", side_effect=AssertionError("waits for somebody else to read it"))
        with elsewhere, mock.patch.object(self.channel, "wait_readable", lambda timeout: next(steps)()):
            self.assertGreater(self.channel.ping(10), 0)
        self.assertEqual(self.owner.pongs, [payload])

    def test_however_many_there_were_a_ping_has_room_in_a_control_frame(self) -> None:
        with mock.patch("sync_ws.channel.channel._ping_numbers", itertools.count(10**12)):
            self.assertRaises(TimeoutError, self.channel.ping, 0)
        [ping] = self.end.read()
        self.assertLessEqual(len(ping.payload), 125)  # RFC 6455 section 5.5

    def test_a_ping_of_the_peer_is_answered_with_what_it_says(self) -> None:
        self.end.send(PING, b"alive?")
        self.end.send(TEXT, b"a message")
        self.assertEqual(self.channel.read(5), "a message")
        self.assertEqual(self.end.read(), [Frame(PONG, b"alive?")])

    def test_it_takes_no_processor_while_nothing_comes_or_somebody_else_has_to_read_it(self) -> None:
        for unread in (b"", self.end.frame(TEXT, b"for another thread")):
            self.end.sock.sendall(unread)
            looks = mock.patch.object(self.channel, "wait_readable", wraps=self.channel.wait_readable)
            with held_elsewhere(self.channel.receiver.lock), looks as looked, self.assertRaises(TimeoutError):
                self.channel.ping(0.12)
            self.assertLess(looked.call_count, 10)


class Ending(ChannelTestCase):
    """Which direction of the stream ends, and what becomes of what is queued."""

    def test_who_fails_it_ends_his_direction_behind_his_close_frame(self) -> None:
        for client in (True, False):
            self.make(client)
            self.end.sock.sendall(MISTAKE)
            self.assert_closed()
            self.assertEqual([frame.opcode for frame in self.end.read(2)], [CLOSE])
            self.assertTrue(self.end.ended)

    def test_as_long_as_our_close_frame_is_not_answered_both_directions_stay(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            channel.start_close(1000, "")
            self.assertEqual([frame.opcode for frame in self.end.read(1)], [CLOSE])
            self.assertEqual((self.end.pending(), self.end.ended), ([], False))

    def test_giving_up_forgets_what_is_queued(self) -> None:
        channel = self.make()
        while channel.writer.post(BINARY, bytes(100_000)):
            continue
        channel.abort(OVER)
        self.assertEqual((channel.writer.queued, channel.writer.open), ((0, 0), False))

    def test_who_looks_after_it_does_nothing_to_one_that_is_open(self) -> None:
        channel = self.make()
        channel.end_overdue()
        channel.excuse(1e9, 60.0)
        self.assertIsNone(channel.closing_since)
        channel.send("goes on")
        self.assertEqual(self.end.read(), [Frame(TEXT, b"goes on")])

    def test_who_looks_after_it_cuts_none_whose_close_frame_was_answered(self) -> None:
        channel = self.make(client=True)
        channel.start_close(1000, "")
        self.end.send_close(1000)
        self.assert_closed()
        assert channel.closing_since is not None
        channel.closing_since -= 60
        channel.end_overdue()
        self.assertEqual([frame.opcode for frame in self.end.read()], [CLOSE])
        self.assertEqual((self.end.pending(), self.end.ended), ([], False))  # it is the server who ends the stream

    def test_seconds_in_which_the_process_was_stopped_count_against_no_deadline(self) -> None:
        channel = self.make()
        channel.start_close(1000, "")
        since = channel.closing_since
        assert since is not None
        with mock.patch.object(channel.writer, "excuse") as excuse:
            channel.excuse(since + 100, 60.0)
        excuse.assert_called_once_with(since + 100, 60.0)
        self.assertEqual(channel.closing_since, since + 60)
        channel.excuse(since + 70, 60.0)
        self.assertEqual(channel.closing_since, since + 70)  # not later than now


class Lingering(ChannelTestCase):
    """Who waits until the peer ends the stream, and for how long."""

    def setUp(self) -> None:
        super().setUp()
        self.waited: list[float | None] = []

        def wait(receiver: Receiver, deadline: Deadline) -> None:
            self.waited.append(deadline.remaining())

        patched = mock.patch.object(Receiver, "wait_for_end_of_stream", wait)
        patched.start()
        self.addCleanup(patched.stop)

    def close_answered(self, client: bool) -> Channel:
        channel = self.make(client)

        def answer() -> None:
            self.end.read()
            self.end.send_close()

        peer = self.start(answer)
        channel.close(timeout=5)
        join(peer)
        return channel

    def test_a_client_that_closes_waits_for_the_server_but_only_a_moment(self) -> None:
        self.close_answered(client=True)
        [seconds] = self.waited
        assert seconds is not None
        self.assertTrue(LINGER / 2 < seconds <= LINGER)

    def test_and_no_longer_than_it_was_told(self) -> None:
        channel = self.make(client=True)
        self.end.send_close()
        self.assert_closed()
        channel.close(timeout=0)
        self.assertEqual(self.waited, [0.0])

    def test_a_server_waits_for_nobody(self) -> None:
        self.close_answered(client=False).release()
        self.assertEqual(self.waited, [])

    def test_a_client_has_waited_once_it_is_released_and_waits_for_none_that_broke_the_protocol(self) -> None:
        channel = self.make(client=True)
        self.end.send_close()
        self.assert_closed()
        channel.release()
        channel.close()
        channel = self.make(client=True)
        self.end.sock.sendall(MISTAKE)
        self.assert_closed()
        channel.close()
        self.assertEqual(self.waited, [])

    def test_a_release_lets_the_peer_read_why_it_was_failed(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            self.end.sock.sendall(MISTAKE)
            self.assert_closed()
            channel.release()
        self.assertEqual(len(self.waited), 2)

    def test_a_release_of_one_that_was_given_up_waits_for_nobody(self) -> None:
        for closing in (True, False):
            channel = self.make()
            if closing:
                self.end.send_close()
                self.assert_closed()
            channel.abort(OVER)
            channel.release()
        self.assertEqual(self.waited, [])


class Releasing(ChannelTestCase):
    def queue_close(self) -> int:
        """A Close frame behind so many messages."""
        while self.channel.writer.post(BINARY, bytes(100_000)):
            continue
        self.end.sock.sendall(MISTAKE)
        self.assert_closed()
        return self.channel.writer.messages_sent

    def test_the_stream_ends_behind_a_close_frame_that_waited(self) -> None:
        channel = self.make()
        count = self.queue_close()

        def read_to_the_end() -> list[Frame]:
            frames = self.end.read(count + 2)
            self.end.sock.shutdown(socket.SHUT_WR)
            return frames

        reader = self.start(read_to_the_end)
        with mock.patch("sync_ws.channel.channel.LINGER", 30.0):
            channel.release()
        join(reader)
        self.assertEqual([frame.opcode for frame in reader.result], [BINARY] * count + [CLOSE])

    def test_a_peer_that_never_reads_is_waited_for_without_taking_the_processor_and_not_for_ever(self) -> None:
        channel = self.make()
        self.queue_close()
        waits = mock.patch.object(channel._transport, "wait_writable", wraps=channel._transport.wait_writable)
        with waits as waited, mock.patch("sync_ws.channel.channel.LINGER", 0.05):
            channel.release()
        self.assertTrue(0 < waited.call_count < 5)
        self.assertEqual(channel.fileno(), -1)

    def test_the_peer_sees_the_end_whoever_else_has_a_copy_of_the_descriptor(self) -> None:
        channel = self.make(client=True)
        copy = os.dup(channel.fileno())
        self.addCleanup(os.close, copy)
        self.end.send_close()
        self.assert_closed()
        channel.release()
        self.end.read(2)
        self.assertTrue(self.end.ended)

    def test_memory_is_given_back_where_there_was_much_of_it(self) -> None:
        def given_back(more: int, **options: Any) -> bool:
            channel = self.make(**options)
            self.end.send(TEXT, b"a question")
            channel.read()
            channel.send("and the answer to it")
            total = channel.bytes_received + channel.writer.bytes_sent
            channel.abort(OVER)
            limit = mock.patch("sync_ws.channel.channel.LARGE_BLOCK", total + more)
            with limit, mock.patch("sync_ws.channel.channel.give_back") as give_back:
                channel.release()
            return bool(give_back.called)

        self.assertTrue(given_back(0))
        self.assertFalse(given_back(1))
        self.assertTrue(given_back(1, deflate=True))  # however little of it was on the wire


if __name__ == "__main__":
    unittest.main()
