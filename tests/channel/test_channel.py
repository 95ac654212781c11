"""The channel: the closing handshake from either side, giving up, Pings that are waited for, and forks."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws.channel.channel import Channel
from sync_ws.channel.inbox import Note
from sync_ws.endings import Close
from sync_ws.errors import ConcurrentReceive, ConnectionClosed, QueueFull, SendTimeout
from sync_ws.messages import Opcode
from sync_ws.testing import wait_until
from tests.support.channel_case import BEAT, MIB, OVER, ChannelTestCase, Outcome, in_child
from tests.support.held import held_elsewhere
from tests.support.wire import Frame, join

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG


class PeerCloses(ChannelTestCase):
    def test_what_came_before_its_close_in_the_same_segment_can_still_be_answered(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"question") + self.end.frame(CLOSE, struct.pack("!H", 1000)))
        self.assertEqual(channel.read(), "question")
        channel.send("answer")
        with self.assertRaises(ConnectionClosed):
            channel.read()
        self.assertEqual([frame.opcode for frame in self.end.read(2)], [TEXT, CLOSE])

    def test_what_came_before_its_mistake_in_the_same_segment_can_still_be_answered(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"question") + self.end.frame(TEXT, b"", rsv=7))
        self.assertEqual(channel.read(), "question")
        channel.send("answer")
        with self.assertRaises(ConnectionClosed) as caught:
            channel.read()
        self.assertEqual(caught.exception.code, 1002)
        self.assertEqual([frame.opcode for frame in self.end.read(2)], [TEXT, CLOSE])

    def test_its_close_is_answered_with_its_code(self) -> None:
        for client in (True, False):
            for code, reason in ((1000, ""), (1001, "bye ☃"), (4321, "x" * 123), (None, "")):
                channel = self.make(client)
                self.end.send_close(code, reason)
                error = self.assert_closed()
                received = Close(1005 if code is None else code, reason)
                self.assertEqual((error.received, error.code), (received, received.code))
                self.assertFalse(error.reason.by_us)
                [answer] = self.end.read()
                payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
                self.assertEqual(answer, Frame(CLOSE, payload))
                self.assertTrue(channel.ended)
                with self.assertRaises(ConnectionClosed):
                    channel.send("late")

    def test_the_server_ends_the_stream_and_the_client_waits_for_that(self) -> None:
        self.make(client=False)
        self.end.send_close()
        self.assert_closed()
        self.assertEqual((len(self.end.read(2)), self.end.ended), (1, True))
        self.make(client=True)
        self.end.send_close()
        self.assert_closed()
        self.end.read(1)
        self.assertEqual(self.end.pending(), [])
        self.assertFalse(self.end.ended)

    def test_close_after_it_returns_at_once(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            self.end.send_close(1001)
            self.assert_closed()
            self.end.sock.close()
            began = time.monotonic()
            channel.close()
            self.assertLess(time.monotonic() - began, 4)
            self.assertEqual(channel.closed_error().received, Close(1001))

    def test_a_close_behind_unread_messages_is_found_by_close(self) -> None:
        channel = self.make()
        self.end.sock.sendall(self.end.frame(TEXT, b"x") * 2000 + self.end.frame(CLOSE, b"\x03\xe9"))
        channel.close()
        self.assertEqual(channel.closed_error().received, Close(1001))


class WeClose(ChannelTestCase):
    def answering(self, *before: bytes) -> Outcome:
        """A peer that answers our Close frame, after sending what is given."""

        def answer() -> Frame:
            [frame] = self.end.read()
            self.end.sock.sendall(b"".join(before))
            self.end.send(CLOSE, frame.payload)
            if not self.channel._client:
                self.end.read(1)
            self.end.sock.close()
            return frame

        return self.start(answer)

    def test_the_closing_handshake(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            peer = self.answering()
            channel.close(1001, "bye")
            join(peer)
            self.assertEqual(peer.result, Frame(CLOSE, b"\x03\xe9bye"))
            error = self.assert_closed()
            self.assertEqual((error.sent, error.received, error.code), (Close(1001, "bye"),) * 2 + (1001,))
            self.assertTrue(error.reason.by_us)
            channel.close()
            channel.close(4000)
            self.assertEqual((len(self.owner.ends), channel.closed_error().sent), (1, Close(1001, "bye")))

    def test_messages_after_our_close_frame_are_discarded(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            peer = self.answering(self.end.frame(TEXT, b"late") * 600, self.end.frame(PING, b"p"))
            channel.close()
            join(peer)
            self.assert_closed()
            self.assertEqual(list(self.owner.inbox), [])

    def test_messages_received_before_it_stay(self) -> None:
        channel = self.make()
        self.end.send(TEXT, b"early")
        wait_until(channel.unread)
        channel.tend()
        peer = self.answering(self.end.frame(TEXT, b"late"))
        channel.close()
        join(peer)
        self.assertEqual(channel.read(), "early")
        self.assert_closed()

    def test_while_another_thread_is_blocked_in_read(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            reader = self.blocked_reader()
            peer = self.answering()
            channel.close(1000, "enough")
            join(reader, peer)
            self.assertEqual(self.assert_closed(reader.error).sent, Close(1000, "enough"))

    def test_a_thread_in_read_gets_the_messages_on_their_way(self) -> None:
        channel = self.make()
        got: list[Any] = []

        def read() -> None:
            while True:
                got.append(channel.read())

        reader = self.start(read)
        wait_until(lambda: channel.receiver._busy)
        peer = self.answering(self.end.frame(TEXT, b"on its way"))
        channel.close()
        join(reader, peer)
        self.assertEqual(got, ["on its way"])
        self.assert_closed(reader.error)

    def test_a_peer_that_does_not_answer_is_given_up_in_time(self) -> None:
        for client in (True, False):
            for blocked in (True, False):
                channel = self.make(client)
                reader = self.blocked_reader() if blocked else None
                began = time.monotonic()
                channel.close(timeout=0.1)
                self.assertTrue(0.05 < time.monotonic() - began < 4)
                error = self.assert_closed()
                self.assertEqual((error.code, error.sent, error.received), (1006, Close(1000), None))
                self.assertTrue(error.reason.by_us)
                if reader is not None:
                    join(reader)
                    self.assert_closed(reader.error)

    def test_the_timeout_is_that_of_the_limits_if_none_is_given(self) -> None:
        channel = self.make(close_timeout=0.05)
        began = time.monotonic()
        channel.close()
        self.assertLess(time.monotonic() - began, 3)
        self.make().close(timeout=0)

    def test_a_peer_that_sends_without_end_does_not_hold_it_up(self) -> None:
        channel, stop = self.make(tcp=True), threading.Event()

        def flood() -> None:
            data = self.end.frame(TEXT, b"more") * 500
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    self.end.sock.sendall(data)

        flooding = self.start(flood)
        began = time.monotonic()
        channel.close(timeout=0.3)
        self.assertLess(time.monotonic() - began, 4)
        stop.set()
        self.end.hang_up()
        join(flooding)
        self.assertEqual(channel.closed_error().sent, Close(1000))

    def test_a_peer_that_stops_in_the_middle_of_a_frame_does_not_hold_it_up(self) -> None:
        for client in (True, False):
            for at in (1, 2, 3, 5, 7, 100):
                channel = self.make(client)
                self.end.sock.sendall(self.end.frame(BINARY, bytes(300))[:at])
                wait_until(channel.unread)
                channel.tend()
                channel.close(timeout=0.02)
                self.assertEqual(self.assert_closed().code, 1006)

    def test_a_peer_that_does_not_read_does_not_hold_it_up(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            sender = self.block_sending()
            began = time.monotonic()
            channel.close(timeout=0.1)
            self.assertLess(time.monotonic() - began, 4)
            join(sender)
            self.assert_closed(sender.error)

    def test_inside_a_batch_that_the_peer_does_not_read(self) -> None:
        channel = self.make()
        began = time.monotonic()
        with channel.writer.batch():
            for _ in range(3):
                channel.send(bytes(80_000))
            channel.close(timeout=0.1)
        self.assertLess(time.monotonic() - began, 4)

    def test_inside_a_batch_what_was_gathered_goes_out_first(self) -> None:
        channel = self.make()

        def answer() -> list[Frame]:
            frames = self.end.read(2)
            self.end.send_close()
            return frames

        peer = self.start(answer)
        with channel.writer.batch():
            channel.send("last words")
            channel.close()
        join(peer)
        self.assertEqual(peer.result, [Frame(TEXT, b"last words"), Frame(CLOSE, b"\x03\xe8")])

    def test_both_sides_at_once(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            self.end.send_close(1001, "mine")
            if client:  # the server ends the stream, and the client waits for that
                self.end.sock.shutdown(socket.SHUT_WR)
            wait_until(channel.unread)
            channel.close(4000, "ours")
            error = self.assert_closed()
            self.assertEqual((error.sent, error.received), (Close(4000, "ours"), Close(1001, "mine")))
            self.assertEqual([frame.payload[:2] for frame in self.end.read(1)], [b"\x0f\xa0"])
            self.assertEqual(self.end.pending(), [])

    def test_from_two_threads_at_once(self) -> None:
        channel = self.make()
        closing = [self.start(lambda code=code: channel.close(code)) for code in (4001, 4002)]  # type: ignore[misc]
        peer = self.answering()
        join(*closing, peer)
        self.assertEqual([thread.error for thread in closing], [None, None])
        self.assertIn(peer.result.payload, (b"\x0f\xa1", b"\x0f\xa2"))
        self.assertEqual(len(self.owner.ends), 1)

    def test_after_the_connection_was_lost(self) -> None:
        channel = self.make()
        self.end.sock.close()
        self.assert_closed()
        channel.close()
        self.assertEqual(channel.closed_error().code, 1006)

    def test_when_the_connection_is_lost_meanwhile(self) -> None:
        for client in (True, False):
            channel = self.make(client)

            def leave() -> None:
                self.end.read()
                self.end.sock.close()

            peer = self.start(leave)
            channel.close()
            join(peer)
            error = self.assert_closed()
            self.assertEqual((error.code, error.sent, error.received), (1006, Close(1000), None))
            self.assertTrue(error.reason.by_us)

    def test_start_close_does_not_wait_and_says_whether_it_was_the_first(self) -> None:
        channel = self.make()
        self.assertTrue(channel.open)
        self.assertTrue(channel.start_close(4009, "replaced"))
        self.assertFalse(channel.start_close(1000, ""))
        self.assertEqual((channel.open, channel.ended), (False, False))
        with self.assertRaises(ConnectionClosed) as caught:
            channel.send("late")
        self.assertEqual((caught.exception.sent, caught.exception.received), (Close(4009, "replaced"), None))
        self.end.send(TEXT, b"still read")
        self.assertEqual(channel.read(5), "still read")
        self.end.send_close(4009, "replaced")
        self.assertEqual(self.assert_closed().code, 4009)
        self.assertFalse(channel.start_close(1000, ""))

    def test_a_code_or_reason_that_must_not_be_sent_is_refused_and_nothing_happens(self) -> None:
        channel = self.make()
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with self.assertRaises(ValueError):
                channel.close(code)
        with self.assertRaises(ValueError):
            channel.close(1000, "é" * 62)
        self.assertTrue(channel.open)
        channel.send("goes on")
        self.assertEqual(self.end.read(), [Frame(TEXT, b"goes on")])

    def test_without_a_descriptor_left_it_returns(self) -> None:
        channel = self.make()
        channel.abort(OVER)
        channel.release()
        channel.close()
        channel.abort(OVER)
        channel.release()
        self.assertEqual(channel.fileno(), -1)
        with self.assertRaises(ConnectionClosed):
            channel.send("x")
        with self.assertRaises(ConnectionClosed):
            channel.read(0)


class Ways(ChannelTestCase):
    """Of a channel that is closing, what depends on the moment."""

    def test_the_one_who_looks_after_it_gives_up_an_answer_that_is_overdue(self) -> None:
        channel = self.make(close_timeout=5.0)
        channel.end_overdue()
        channel.start_close(1000, "")
        channel.end_overdue()
        self.assertIsNone(channel.reason)
        assert channel.closing_since is not None
        channel.closing_since -= 6
        channel.end_overdue()
        assert channel.reason is not None
        self.assertEqual((channel.reason.code, channel.reason.by_us), (1006, True))
        channel.end_overdue()
        self.assertEqual(self.owner.ends, [channel.reason])

    def test_a_handler_that_interrupted_its_own_thread_closes_without_waiting(self) -> None:
        for client in (True, False):
            channel = self.make(client, close_timeout=60)
            with channel.receiver.lock:
                channel.receiver._busy = True
                channel.close(1001)
                channel.receiver._busy = False
            self.assertEqual((channel.open, channel.ended), (False, False))
            self.assertEqual(self.end.read(), [Frame(CLOSE, b"\x03\xe9")])

    def test_a_close_frame_that_waits_behind_messages_still_goes_out_at_the_release(self) -> None:
        channel = self.make()
        while channel.writer.post(BINARY, bytes(100_000)):
            continue
        count = channel.writer.messages_sent
        self.end.sock.sendall(b"\xff\xff")
        self.assert_closed()

        def read() -> list[Frame]:
            frames = self.end.read(count + 1)
            self.end.sock.shutdown(socket.SHUT_WR)  # nothing more is to come: release() need not wait for it
            return frames

        reader = self.start(read)
        channel.release()
        join(reader)
        self.assertEqual([frame.opcode for frame in reader.result], [BINARY] * count + [CLOSE])

    def test_a_write_that_fails_where_nothing_is_left_to_read_ends_it(self) -> None:
        channel = self.make()
        with mock.patch.object(channel._transport, "_send", side_effect=BrokenPipeError()):
            self.assertRaises(ConnectionClosed, channel.send, "x")
        assert channel.reason is not None
        self.assertIsInstance(channel.reason.error, BrokenPipeError)

    def test_what_it_intercepts_is_handled_and_its_place_is_kept_for_a_note(self) -> None:
        channel = self.make()
        self.owner.notes = True
        for opcode, payload in ((TEXT, b"a"), (TEXT, BEAT), (TEXT, b"b")):
            self.end.send(opcode, payload)
        self.assertEqual([channel.read(5) for _ in range(3)], ["a", Note("heartbeat", BEAT.decode()), "b"])
        self.assertEqual(self.end.read(), [Frame(TEXT, BEAT)])
        self.assertEqual(channel.messages_received, 2)


class Aborting(ChannelTestCase):
    def test_it_wakes_a_blocked_reader(self) -> None:
        for client in (True, False):
            for timeout in (None, 30):
                channel = self.make(client)
                reader = self.start(lambda timeout=timeout: channel.read(timeout))  # type: ignore[misc]  # noqa: B023
                wait_until(lambda: channel.receiver._busy)  # noqa: B023
                channel.abort(OVER)
                join(reader)
                self.assertEqual(self.assert_closed(reader.error).reason, OVER)
                self.assertEqual(self.end.read(), [])

    def test_it_wakes_a_blocked_sender(self) -> None:
        channel = self.make()
        sender = self.block_sending()
        channel.abort(OVER)
        join(sender)
        self.assertEqual(self.assert_closed(sender.error).reason, OVER)

    def test_the_write_deadline_ends_the_channel_with_1013(self) -> None:
        channel = self.make(send_timeout=0.1)
        reader = self.blocked_reader()
        with self.assertRaises(SendTimeout):
            channel.send(bytes(8 * MIB))
        join(reader)
        reason = self.assert_closed(reader.error).reason
        self.assertEqual((reason.code, reason.by_us, channel.ended), (1013, True, True))

    def test_a_failed_write_is_named_also_where_there_was_something_to_read(self) -> None:
        channel = self.make()
        self.end.send(TEXT, b"on its way")
        no_room = OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        with mock.patch.object(channel.writer._queue, "_sending", side_effect=no_room):
            self.assertRaises(ConnectionClosed, channel.send, "x")
        self.assertIsNone(no_room.__traceback__)  # it is kept, and is not to keep the frames that were at work
        self.assertEqual((channel.read(5), self.end.sock.recv(1)), ("on its way", b""))
        self.end.sock.close()
        reason = self.assert_closed().reason
        self.assertEqual((reason.error, reason.text.rpartition(": ")[2]), (no_room, no_room.strerror))

    def test_a_failed_write_still_lets_the_peers_last_words_be_read(self) -> None:
        channel = self.make()
        self.end.send(TEXT, b"last words")
        self.end.send_close(1001, "bye")
        self.end.sock.close()
        with self.assertRaises(ConnectionClosed):
            for _ in range(100):
                channel.send("x")
        self.assertEqual(channel.read(5), "last words")
        self.assertEqual(self.assert_closed().received, Close(1001, "bye"))

    def test_a_release_frees_a_reader_and_gives_the_descriptor_back(self) -> None:
        channel = self.make()
        channel.abort(OVER)
        fd = channel.fileno()
        channel.release()
        with self.assertRaises(OSError):
            os.fstat(fd)


class Pinging(ChannelTestCase):
    """A Ping that the application waits for: its round-trip time, whoever reads the Pong; and each way it may fail."""

    def setUp(self) -> None:
        super().setUp()
        self.make(client=True, max_queued=1)

    def answering(self, *before: bytes) -> None:
        """A peer that answers one Ping, and sends these first."""

        def answer() -> None:
            [ping] = self.end.read(1)
            assert ping.opcode == PING
            self.end.sock.sendall(b"".join(before) + self.end.frame(PONG, ping.payload))

        self.start(answer)

    def test_the_round_trip_time_while_nobody_reads(self) -> None:
        self.answering(self.end.frame(TEXT, b"before"), self.end.frame(PONG, b"of another"))
        began = time.monotonic()
        rtt = self.channel.ping(10)
        self.assertTrue(0 < rtt <= time.monotonic() - began)
        self.assertEqual(self.channel.read(0), "before")  # nothing is lost for the one who reads later
        self.assertEqual(self.owner.pongs[0], b"of another")

    def test_a_ping_that_the_kernel_had_no_room_for_goes_out_though_nobody_looks_after_the_connection(self) -> None:
        self.answering()
        usual, refused = self.channel.writer._queue._sending, iter([BlockingIOError()])

        def sending(data: Any) -> Any:
            for error in refused:
                raise error
            return usual(data)

        with mock.patch.object(self.channel.writer._queue, "_sending", sending):
            self.assertGreater(self.channel.ping(10), 0)

    def test_another_thread_that_is_in_read_takes_the_pong(self) -> None:
        got = []
        reader = threading.Thread(target=lambda: got.append(self.channel.read(10)))
        reader.start()
        wait_until(lambda: self.channel.receiver._busy)
        self.answering()
        self.assertGreater(self.channel.ping(10), 0)
        self.end.send(TEXT, b"later")
        join(reader)
        self.assertEqual(got, ["later"])

    def test_several_at_once_each_have_their_own(self) -> None:
        times: list[float] = []
        threads = [threading.Thread(target=lambda: times.append(self.channel.ping(10))) for _ in range(3)]
        for thread in threads:
            thread.start()
        pings = self.end.read(3)
        self.assertEqual(len({ping.payload for ping in pings}), 3)
        for ping in reversed(pings):
            self.end.send(PONG, ping.payload)
        join(*threads)
        self.assertEqual(len(times), 3)

    def test_no_answer_is_a_timeout_and_the_connection_goes_on(self) -> None:
        with self.assertRaisesRegex(TimeoutError, "no answer to a Ping within 0.05 s"):
            self.channel.ping(0.05)
        self.assertTrue(self.channel.open)
        self.assertEqual(self.channel._pings, {})

    def test_the_end_of_the_connection_ends_it(self) -> None:
        def close() -> None:
            self.end.read(1)
            self.end.send_close(1001)

        closing = threading.Thread(target=close)
        closing.start()
        self.addCleanup(join, closing)
        with self.assertRaisesRegex(ConnectionClosed, "1001"):
            self.channel.ping(10)
        with self.assertRaises(ConnectionClosed):
            self.channel.ping(10)

    def test_a_full_queue_is_told(self) -> None:
        while self.channel.writer.post(TEXT, bytes(100_000)):
            continue
        with self.assertRaises(QueueFull):
            self.channel.ping(1)

    def test_a_handler_that_interrupted_a_read_is_told_that_nobody_would_hear_the_pong(self) -> None:
        with self.channel.receiver.lock:
            self.channel.receiver._busy = True
            with self.assertRaises(ConcurrentReceive):
                self.channel.ping(1)
            self.channel.receiver._busy = False


class Fork(ChannelTestCase):
    def test_the_child_has_no_part_in_it_and_the_parent_goes_on(self) -> None:
        for client in (True, False):
            channel = self.make(client)
            reader = self.blocked_reader()

            def check(channel: Channel = channel) -> str:
                told = []
                uses: list[Callable[[], object]] = [lambda: channel.send("from the child"), lambda: channel.read(0)]
                for use in uses:
                    try:
                        use()
                    except ConnectionClosed as exc:
                        told.append(str(exc))
                channel.tend()
                channel.close(timeout=1)
                channel.abort(OVER)
                channel.release()
                return f"{channel.fileno()} {channel.ended} {told}"

            said = in_child(check)
            self.assertEqual(said.count("belongs to the parent process"), 2, said)
            self.assertTrue(said.startswith("-1 True"), said)
            self.assertEqual(self.end.pending(), [])
            self.assertFalse(self.end.ended)
            self.end.send(TEXT, b"still there")
            join(reader)
            self.assertEqual(reader.result, "still there")
            channel.send("so am I")
            self.assertEqual(self.end.read(), [Frame(TEXT, b"so am I")])

    def test_a_lock_held_at_the_fork_does_not_block_the_child(self) -> None:
        channel = self.make()
        with held_elsewhere(channel.writer._lock, channel._state_lock, channel.receiver.lock):

            def check() -> str:
                try:
                    channel.send("x")
                except ConnectionClosed:
                    channel.abort(OVER)
                    return "closed"
                return "sent"

            self.assertEqual(in_child(check), "closed")
        channel.send("x")
        self.assertEqual(self.end.read(), [Frame(TEXT, b"x")])


if __name__ == "__main__":
    unittest.main()
