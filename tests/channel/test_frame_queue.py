"""Frames on their way into the kernel: in order and whole, whatever it takes, and whatever interrupts."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from unittest import mock

from sync_ws.channel.frame_queue import FrameQueue
from tests.support.fake_transport import FakeTransport


class FrameQueueTest(unittest.TestCase):
    def make(self, *takes: int | Exception | None) -> FrameQueue:
        self.transport = FakeTransport(takes=takes)
        return FrameQueue(self.transport)

    def test_what_the_kernel_takes_at_once_never_waits(self) -> None:
        queue = self.make()
        self.assertEqual((queue.put(b"one"), queue.put_parts(b"t", b"wo"), queue.put(b"")), (0, 0, 0))
        self.assertEqual((self.transport.sent, queue.bytes_sent, queue.waiting, len(queue)), (b"onetwo", 6, 0, 0))

    def test_a_ticket_is_what_will_have_been_sent_when_the_frame_is(self) -> None:
        queue = self.make(2, None)
        self.assertEqual([queue.put(b"one"), queue.put(b"two"), queue.put_parts(b"th", b"ree")], [3, 6, 11])
        self.assertTrue(queue.flush())
        self.assertEqual((self.transport.sent, queue.bytes_sent), (b"onetwothree", 11))

    def test_the_rest_goes_out_in_order_before_anything_else(self) -> None:
        for takes in ((1, None), (None, None), (2, 1, None)):
            queue = self.make(*takes)
            queue.put(b"one")
            queue.put(bytearray(b"two"))
            queue.flush()
            self.assertGreater(queue.waiting, 0)
            self.assertEqual(queue.put_parts(b"th", memoryview(b"ree")) or queue.bytes_sent, 11)
            self.assertTrue(queue.flush())
            self.assertEqual((self.transport.sent, queue.bytes_sent, queue.waiting), (b"onetwothree", 11, 0))

    def test_a_flush_that_took_a_part_leaves_the_rest_to_the_next(self) -> None:
        queue = self.make(None, 2, 2, None)
        queue.put(b"three")
        self.assertEqual([queue.flush(), queue.flush(), queue.flush(), queue.flush()], [False, False, False, True])
        self.assertEqual(self.transport.writes, [("whole", 5), ("whole", 5), ("whole", 3), ("whole", 1), ("whole", 1)])

    def test_an_interrupted_call_is_one_that_took_nothing(self) -> None:
        queue = self.make(InterruptedError(), InterruptedError())
        self.assertEqual([queue.put(b"one"), queue.flush(), queue.flush()], [3, False, True])
        self.assertEqual(self.transport.sent, b"one")

    def test_the_kernel_is_told_when_more_follows(self) -> None:
        queue = self.make()
        queue.put_parts(b"head", b"body")
        self.assertEqual(self.transport.writes, [("more", 4), ("whole", 4)])

    def test_moved_says_whether_something_went_or_began_to_wait(self) -> None:
        queue = self.make(None, None, 1, None)
        self.assertFalse(queue.moved)
        acts: tuple[tuple[Callable[[], object], bool], ...] = (
            (lambda: queue.put(b"one"), True),
            (lambda: queue.put(b"two"), False),  # it only waits longer
            (queue.flush, False),
            (queue.flush, True),
            (lambda: queue.put_parts(b"th", b"ree"), False),
        )
        for act, expected in acts:
            queue.moved = False
            act()
            self.assertEqual(queue.moved, expected)

    def test_what_begins_to_wait_in_whatever_way_has_moved_and_stays_so_until_that_is_seen(self) -> None:
        begins: tuple[Callable[[FrameQueue], object], ...] = (
            lambda queue: queue.put(b"one"),
            lambda queue: queue.put_parts(b"o", b"ne"),
        )
        for begin in begins:
            for takes in (None, 1):
                queue = self.make(takes, None)
                begin(queue)
                self.assertTrue(queue.moved)
                queue.put_parts(b"t", b"wo")
                self.assertTrue(queue.moved)

    def test_an_error_leaves_what_was_queued_and_counts_nothing(self) -> None:
        queue = self.make(2, BrokenPipeError(), BrokenPipeError())
        queue.put(b"one")
        self.assertRaises(BrokenPipeError, queue.flush)
        self.assertRaises(BrokenPipeError, queue.put_parts, b"t", b"wo")
        self.assertEqual((queue.bytes_sent, queue.waiting, len(queue)), (2, 4, 3))

    def test_after_forget_nothing_of_it_is_written_and_the_next_frame_begins_anew(self) -> None:
        queue = self.make(2)
        queue.put(b"one")
        queue.forget()
        self.assertEqual((len(queue), queue.waiting, queue.flush()), (0, 0, True))
        queue.put(b"two")
        self.transport.takes = [None]
        queue.put(b"three")
        queue.flush()
        self.assertEqual(self.transport.sent, b"ontwothree")

    def test_an_interrupt_in_a_write_leaves_whole_frames_before_it_and_behind_it(self) -> None:
        def put(queue: FrameQueue) -> None:
            queue.put(b"two")

        def put_parts(queue: FrameQueue) -> None:
            queue.put_parts(b"t", b"wo")

        works: tuple[tuple[Callable[[FrameQueue], object], bytes], ...] = (
            (put, b"onethree"),  # nothing of it went
            (put_parts, b"onetwothree"),  # nothing yet, but it waits
        )
        for work, expected in works:
            queue = self.make()
            queue.put(b"one")
            self.transport.on_write = mock.Mock(side_effect=KeyboardInterrupt)
            self.assertRaises(KeyboardInterrupt, work, queue)
            self.transport.on_write = None
            queue.put(b"three")
            queue.flush()
            self.assertEqual((self.transport.sent, queue.bytes_sent), (expected, len(expected)))


if __name__ == "__main__":
    unittest.main()
