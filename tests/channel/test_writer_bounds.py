"""How much may wait for a peer that reads slowly, for how long, and who is told of it."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from sync_ws.channel.writer import Writer
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Opcode
from tests.support.wire import Frame
from tests.support.writer_case import LoneWriterTestCase

TEXT, PING, CLOSE = Opcode.TEXT, Opcode.PING, Opcode.CLOSE
UNREAD = "the peer did not read for 10 s"
OVER = "more was queued than it may be for 10 s"


class Stuck(LoneWriterTestCase):
    """``send_timeout`` is 10 seconds, and the kernel takes nothing where it says None."""

    def over(self, *takes: int | None, max_queued: int, at: float) -> Writer:
        """A writer whose queue was found to be over its bound then."""
        writer = self.make(*takes, max_queued=max_queued)
        for _ in range(max_queued):
            self.assertTrue(writer.post(TEXT, b"x"))
        self.refuse(writer, at)
        return writer

    def refuse(self, writer: Writer, at: float) -> None:
        with mock.patch("sync_ws.channel.writer.time") as clock:
            clock.monotonic.return_value = at
            self.assertFalse(writer.post(TEXT, b"one too many"))

    def test_a_peer_may_not_read_for_as_long_as_a_send_may_take(self) -> None:
        writer = self.make(None, None, 1, None)
        writer.post(TEXT, b"x")
        self.assertEqual([writer.stuck(now) for now in (100.0, 110.0, 110.1)], [None, None, UNREAD])
        writer.flush()  # nothing of it went
        self.assertEqual(writer.stuck(111.0), UNREAD)
        writer.flush()  # a byte went
        self.assertEqual([writer.stuck(now) for now in (111.0, 121.0, 121.1)], [None, None, UNREAD])
        self.assertTrue(not writer.flush() and writer.flush())
        self.assertEqual([writer.stuck(now) for now in (122.0, 1000.0)], [None, None])  # it owes nothing

    def test_a_queue_may_be_over_its_bound_for_as_long_counted_from_when_it_was_first_found_so(self) -> None:
        writer = self.over(None, 1, 1, None, max_queued=2, at=100.0)
        self.refuse(writer, 105.0)
        for now, expected in ((105.0, None), (110.0, None), (110.1, OVER)):
            writer.flush()  # it moves a little each time, but not enough
            self.assertEqual(writer.stuck(now), expected)
        self.assertTrue(writer.flush())
        self.assertIsNone(writer.stuck(1000.0))

    def test_a_queue_is_within_its_bounds_when_both_frames_and_bytes_are(self) -> None:
        for takes, within in ((3, True), (1, False)):  # of two frames of 3 bytes
            writer = self.over(None, takes, None, max_queued=2, at=100.0)
            writer.flush()
            writer.stuck(105.0)
            self.assertEqual(writer.stuck(111.0), None if within else OVER)
        for takes, within in ((4, True), (3, False)):  # of one of 9
            writer = self.make(None, takes, None, max_queued_bytes=6)
            writer.post(TEXT, b"7 bytes")
            self.refuse(writer, 100.0)
            writer.flush()
            writer.stuck(105.0)
            self.assertEqual(writer.stuck(111.0), None if within else OVER)

    def test_seconds_in_which_the_process_was_stopped_do_not_count(self) -> None:
        writer = self.make(None)
        writer.excuse(90.0, 5.0)  # before anything was queued it changes nothing
        writer.post(TEXT, b"x")
        writer.stuck(100.0)
        writer.excuse(130.0, 20.0)
        self.assertEqual([writer.stuck(now) for now in (130.0, 130.1)], [None, UNREAD])
        writer.excuse(131.0, 1000.0)  # it began to wait while it was stopped
        self.assertEqual([writer.stuck(now) for now in (141.0, 141.1)], [None, UNREAD])
        for lost, since in ((20.0, 120.0), (1000.0, 130.0)):
            writer = self.over(None, max_queued=1, at=100.0)
            writer.stuck(125.0)
            writer.excuse(130.0, lost)
            self.assertEqual([writer.stuck(now) for now in (since + 10.0, since + 10.1)], [None, OVER])

    def test_post_refuses_at_its_bound_of_frames_or_bytes(self) -> None:
        bounds: tuple[dict[str, Any], ...] = ({"max_queued": 2}, {"max_queued_bytes": 6}, {"max_queued_bytes": 5})
        for bound in bounds:
            writer = self.make(*[None] * 9, **bound)
            posted = [writer.post(TEXT, b"x", frame) for frame in (None, b"\x81\x01y", None, b"\x81\x01y")]
            self.assertEqual((posted, writer.queued), ([True, True, False, False], (2, 6)))
            self.assertEqual(writer.messages_sent, 2)


class Posting(LoneWriterTestCase):
    def test_messages_are_counted_and_control_frames_are_not(self) -> None:
        writer = self.make()
        for frame in (None, b"\x81\x01x"):
            writer.post(TEXT, b"x", frame)
            writer.post(PING, b"", None if frame is None else b"\x89\x00")
        writer.send("x")
        writer.send(["x", "y"])
        with writer.batch():
            writer.send("x")
            writer.send("y")
        writer.finish(b"")
        self.assertEqual((writer.messages_sent, writer.bytes_sent), (6, len(self.transport.sent)))

    def test_an_encoded_frame_goes_out_as_it_is_up_to_the_size_of_a_frame(self) -> None:
        writer = self.make(max_frame=3)
        for payload in (b"ab", b"abc", b"abcd"):
            writer.post(TEXT, payload, b"\x81\x01!")
        self.assertEqual([frame.payload for frame in self.sent()], [b"!", b"!", b"abc", b"d"])

    def test_nobody_is_told_to_flush_where_nothing_is_left(self) -> None:
        writer = self.make(None, max_queued=1)
        told = writer.on_queued = mock.Mock()
        writer.post(TEXT, b"x")
        told.assert_called_once_with()
        self.assertFalse(writer.post(TEXT, b"refused"))
        self.assertTrue(writer.flush())
        self.assertTrue(writer.post(TEXT, b"x") and writer.finish(b""))
        self.assertFalse(writer.post(TEXT, b"x") or writer.finish(b""))
        writer.fail()
        writer.close_transport()
        told.assert_called_once_with()

    def test_what_is_left_of_a_flush_that_an_interrupt_asked_for_is_told(self) -> None:
        for left in (True, False):
            writer = self.make(None, None, None if left else 99)
            writer.post(TEXT, b"x")
            told = writer.on_queued = mock.Mock()
            self.interrupt(lambda writer=writer: writer.flush())  # type: ignore[misc]
            writer.flush()
            self.assertEqual((told.call_count, writer.queued[0]), (int(left), int(left)))


class Ending(LoneWriterTestCase):
    def test_a_close_frame_whose_writing_was_interrupted_is_still_owed(self) -> None:
        for waiting in (False, True):
            writer = self.make(*[None] * waiting)
            if waiting:
                writer.post(TEXT, b"x")
            with mock.patch.object(writer._queue, "put", side_effect=KeyboardInterrupt):
                self.assertRaises(KeyboardInterrupt, writer.finish, b"")
            self.assertTrue(writer.open and writer.finish(b"\x03\xe8") and writer.flush())
            self.assertEqual(self.sent()[-1], Frame(CLOSE, b"\x03\xe8"))
            self.assertFalse(writer.open)

    def test_a_transport_is_closed_while_nobody_writes_to_it(self) -> None:
        writer, seen = self.make(), list[bool]()

        def act() -> None:
            writer.close_transport()
            seen.append(self.transport.closed)

        self.interrupt(act)
        writer.send("x")
        self.assertEqual((seen, self.transport.closed, self.sent()), ([False], True, [Frame(TEXT, b"x")]))
        self.assertRaises(ConnectionClosed, writer.send, "x")
        writer = self.make()
        writer.close_transport()
        self.assertEqual((self.transport.closed, writer.open), (True, False))

    def test_nothing_of_what_was_queued_goes_out_when_it_failed(self) -> None:
        writer = self.make(None)
        writer.post(TEXT, b"x")
        writer.fail()
        self.assertTrue(writer.flush())
        self.assertEqual((self.sent(), writer.open, writer.queued), ([], False, (0, 0)))


if __name__ == "__main__":
    unittest.main()
