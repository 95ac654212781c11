"""The channel: reading in place, the closing handshake from every side, borrowing the reading side, fork."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from sync_ws.channel.channel import Channel
from sync_ws.channel.inbox import Note
from sync_ws.channel.limits import Limits
from sync_ws.endings import Close, Reason
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.messages import Opcode
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.wire import End, Frame, Owner, fork, join, make_channel

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG
OVER = Reason("the test is over")
MIB = 1 << 20
BEAT = b'{"ModeCode":"heart_beat","msg":1}'


class ChannelTestCase(LedgerTestCase):
    """``self.make`` gives a channel; ``self.end`` is then its peer, by hand."""

    channel: Channel
    owner: Owner
    end: End

    def make(
        self, client: bool = False, *, tcp: bool = False, deflate: bool = False, early: bytes = b"", **limits: Any
    ) -> Channel:
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        limits = {"close_timeout": 5.0, **limits}
        channel, self.owner = make_channel(
            ours, client=client, limits=Limits(**limits), early=early,
            deflate=Deflate(Negotiation()) if deflate else None,
        )  # fmt: skip
        self.channel, self.end = channel, End(theirs, client=client)

        def clean() -> None:
            theirs.close()
            channel.abort(OVER)
            channel.release()

        self.addCleanup(clean)
        return channel

    def start(self, function: Callable[[], Any]) -> Outcome:
        """Run it in a thread, which has to end with the test."""
        outcome = Outcome(function)
        outcome.start()
        self.addCleanup(join, outcome)
        return outcome

    def blocked_reader(self) -> Outcome:
        """A thread that is blocked in ``read``."""
        reader = self.start(self.channel.read)
        wait_until(lambda: self.channel.receiver._busy)
        return reader

    def block_sending(self) -> Outcome:
        """A thread that is blocked in ``send``, because nobody reads."""
        sender = self.start(lambda: self.channel.send(bytes(8 * MIB)))
        wait_until(lambda: self.channel.writer.queued[0])
        return sender

    def assert_closed(self, error: BaseException | None = None) -> ConnectionClosed:
        """The error of a ``read`` now, or the one given."""
        if error is None:
            with self.assertRaises(ConnectionClosed) as caught:
                self.channel.read(timeout=5)
            error = caught.exception
        assert isinstance(error, ConnectionClosed), repr(error)
        return error


class Outcome(threading.Thread):
    """A thread that keeps what its function returned or raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._function()
        except Exception as exc:
            self.error = exc


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


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
        channel, beat = self.make(), '{"ModeCode":"heart_beat","msg":1}'
        self.end.send(TEXT, beat.encode())
        self.end.send(TEXT, b"x")
        self.assertEqual(channel.read(5), "x")
        self.assertEqual((self.end.read(), self.owner.heart_beats), ([Frame(TEXT, beat.encode())], [beat]))

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
        self.assertEqual(self.assert_closed(reader.error).code, 1013)
        self.assertTrue(channel.ended)

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


class Both(ChannelTestCase):
    """Two channels, one each side, talking to each other."""

    def pair(self, deflate: bool) -> tuple[Channel, Channel]:
        ours, theirs = tcp_pair()
        channels = []
        for sock, client in ((ours, True), (theirs, False)):
            channel, _ = make_channel(
                sock, client=client, limits=Limits(), deflate=Deflate(Negotiation()) if deflate else None
            )
            channels.append(channel)

        def clean() -> None:
            for channel in channels:
                channel.abort(OVER)
                channel.release()

        self.addCleanup(clean)
        return channels[0], channels[1]

    def test_a_conversation_in_both_directions_at_once(self) -> None:
        for deflate in (False, True):
            client, server = self.pair(deflate)
            messages: list[Any] = ["text ☃", b"\x00\xff", "", b"", "long " * 20_000, os.urandom(200_000), "x" * 64]

            def talk(channel: Channel, messages: list[Any] = messages) -> list[Any]:
                sender = self.start(lambda: [channel.send(message) for message in messages * 5])
                got = [channel.read(10) for _ in range(5 * len(messages))]
                join(sender)
                return got

            there, here = self.start(lambda: talk(server)), talk(client)  # noqa: B023
            join(there)
            self.assertEqual(here, messages * 5)
            self.assertEqual(there.result, messages * 5)

    def test_closing_from_either_side_ends_both_with_the_same_code(self) -> None:
        for first in (0, 1):
            pair = self.pair(False)
            closing, other = pair[first], pair[1 - first]
            reader = self.start(other.read)
            closing.close(4321, "enough")
            join(reader)
            for error in (reader.error, closing.closed_error()):
                assert isinstance(error, ConnectionClosed)
                self.assertEqual((error.sent, error.received), (Close(4321, "enough"),) * 2)

    def test_closing_from_both_sides_at_once(self) -> None:
        client, server = self.pair(False)
        closing = [self.start(client.close), self.start(server.close)]
        join(*closing)
        self.assertEqual([thread.error for thread in closing], [None, None])
        self.assertTrue(client.ended and server.ended)
        self.assertEqual({client.closed_error().code, server.closed_error().code}, {1000})


class Fork(ChannelTestCase):
    def in_child(self, check: Callable[[], str]) -> str:
        """What a forked child says."""
        read, write = os.pipe()
        child = fork()
        if not child:
            try:
                os.write(write, check().encode())
            except BaseException as exc:
                os.write(write, repr(exc).encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return said

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

            said = self.in_child(check)
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
        with channel.writer._lock, channel._state_lock:

            def check() -> str:
                try:
                    channel.send("x")
                except ConnectionClosed:
                    channel.abort(OVER)
                    return "closed"
                return "sent"

            self.assertEqual(self.in_child(check), "closed")
        channel.send("x")
        self.assertEqual(self.end.read(), [Frame(TEXT, b"x")])
