"""The receiver alone: however things arrive, whoever interrupts it, and whatever breaks."""

from __future__ import annotations

import errno
import itertools
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws.channel.inbox import Inbox, Note
from sync_ws.channel.receiver import HOLD, LARGE_READ, PARSE_AHEAD, SMALL_READ, TEND, TURN, Receiver
from sync_ws.channel.writer import Writer
from sync_ws.endings import Reason
from sync_ws.errors import ConcurrentReceive, ConnectionClosed
from sync_ws.interrupts import STEP
from sync_ws.messages import Opcode
from sync_ws.protocol.closing import Closing
from sync_ws.protocol.frames import Control
from sync_ws.timing import Deadline
from tests.support.channel_case import Outcome
from tests.support.fake_transport import FakeTransport
from tests.support.wire import frame, join, make_reader

TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG


def text(payload: bytes) -> bytes:
    """A text message as a server sends it."""
    return frame(TEXT, payload, masked=False)


def in_thread(function: Callable[[], object]) -> object:
    """What it returns in another thread."""
    outcome = Outcome(function)
    outcome.start()
    join(outcome)
    assert outcome.error is None, outcome.error
    return outcome.result


class Alone(unittest.TestCase):
    """A receiver without a channel, over a transport without a socket, as a client's."""

    def make(self, *arrivals: bytes | Exception, early: bytes = b"", max_waiting: int = 16) -> Receiver:
        self.transport, self.inbox, self.closing = FakeTransport(*arrivals), Inbox(), Closing()
        self.controls: list[Control] = []
        self.lost: list[OSError | None] = []
        self.writer = Writer(
            self.transport,
            masked=True, deflate=None, send_timeout=10, max_queued=9, max_queued_bytes=999,
            closed_error=self.closed_error, on_broken=lambda text, error: None,
        )  # fmt: skip
        self.receiver = Receiver(
            self.transport, make_reader(server=False), self.writer, self.inbox,
            early=early, max_waiting=max_waiting, max_waiting_bytes=1000,
            on_control=self.on_control, on_lost=self.on_lost, closing=self.closing, closed_error=self.closed_error,
        )  # fmt: skip
        return self.receiver

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.closing.present())

    def on_control(self, control: Control) -> Note | None:
        self.controls.append(control)
        if control.close is not None:
            self.closing.end(Reason("its last word", control.close.code))
        return Note("control", control.payload) if control.opcode == PING else None

    def on_lost(self, error: OSError | None) -> None:
        self.lost.append(error)
        self.closing.end(Reason("lost", 1006))

    def take(self, timeout: float | None = None) -> Any:
        """The next item, handed on."""
        item = self.receiver.read(timeout)
        self.inbox.kept = None
        return item

    def test_however_it_arrives_the_same_is_read(self) -> None:
        data = text(b"one") + frame(PING, b"?", masked=False) + text(b"x" * 300) + text(b"")
        for size in (1, 2, 7, len(data)):
            for timeout in (None, 10):
                self.make(*(data[at : at + size] for at in range(0, len(data), size)))
                items = [self.take(timeout) for _ in range(4)]
                self.assertEqual(items, ["one", Note("control", b"?"), "x" * 300, ""])
                self.assertEqual((self.receiver.bytes_received, self.receiver.messages_received), (len(data), 3))

    def test_what_came_behind_the_opening_handshake_counts_and_comes_first(self) -> None:
        self.make(text(b"later"), early=text(b"early") + b"\x81")
        self.assertEqual((self.take(0), self.receiver.bytes_received), ("early", 8))

    def test_an_item_is_returned_again_until_it_was_handed_on(self) -> None:
        receiver = self.make(text(b"one") + text(b"two"))
        self.assertEqual([receiver.read(), receiver.read(), self.take(), receiver.read()], ["one"] * 3 + ["two"])
        self.assertEqual(receiver.messages_received, 2)

    def test_a_control_whose_handling_was_interrupted_is_handled_by_the_next_read_or_tend(self) -> None:
        for tend in (False, True):
            receiver = self.make(text(b"a") + frame(PING, b"?", masked=False) + text(b"b"))
            with mock.patch.object(receiver, "_on_control", side_effect=KeyboardInterrupt):
                self.assertRaises(KeyboardInterrupt, receiver.read)
            self.assertFalse(receiver.interrupted)
            if tend:
                self.assertTrue(receiver.tend())
                self.assertEqual(len(self.controls), 1)
            self.assertEqual([self.take(), self.take(), self.take()], ["a", Note("control", b"?"), "b"])
            self.assertEqual(len(self.controls), 1)

    def test_what_was_received_just_before_an_interrupt_is_there_for_whoever_comes_next(self) -> None:
        def discard() -> None:
            self.receiver.discard_until_end(Deadline(10))

        for timeout in (None, 10):
            for act in (lambda: self.receiver.read(0), lambda: self.receiver.tend(), discard):
                receiver = self.make(frame(PING, b"?", masked=False))
                with mock.patch.object(receiver, "_received", side_effect=KeyboardInterrupt):
                    self.assertRaises(KeyboardInterrupt, receiver.read, timeout)
                self.transport.arrivals.append(frame(CLOSE, masked=False, payload=b"\x03\xe8"))
                act()
                self.assertEqual(self.controls[0].opcode, PING)

    def test_a_thread_that_interrupted_itself_in_a_read_is_told_so_and_waits_for_nothing(self) -> None:
        receiver = self.make(frame(PING, b"?", masked=False) + text(b"a"))
        seen = []

        def on_control(control: Control) -> None:
            self.assertRaises(ConcurrentReceive, receiver.read, 0)
            receiver.discard_until_end(deadline := Deadline(10))
            self.assertFalse(deadline.passed)
            seen.append((receiver.interrupted, receiver.tend()))

        with mock.patch.object(receiver, "_on_control", side_effect=on_control):
            self.assertEqual(receiver.read(), "a")
        self.assertEqual((seen, receiver.interrupted), ([(True, False)], False))

    def test_what_breaks_is_told_once_and_raised_when_all_was_taken(self) -> None:
        for error in (ConnectionResetError(), TimeoutError(errno.ETIMEDOUT, "the kernel gave the peer up")):
            for timeout in (None, 10):
                self.make(text(b"a"), error)
                self.assertEqual(self.take(timeout), "a")
                for cause in (error, None):
                    with self.assertRaises(ConnectionClosed) as caught:
                        self.take(timeout)
                    self.assertEqual((caught.exception.code, caught.exception.__cause__), (1006, cause))
                self.assertEqual(self.lost, [error])

    def test_trouble_that_does_not_end_the_connection_is_told_and_reading_goes_on(self) -> None:
        receiver = self.make(ConnectionResetError(), text(b"a"))
        with mock.patch.object(receiver, "_on_lost") as told:
            self.assertEqual(receiver.read(), "a")
        told.assert_called_once()
        for receiver in (self.make(frame(PING, b"?", masked=False)), self.make(early=frame(PING, b"?", masked=False))):
            failing = mock.patch.object(receiver, "_on_control", side_effect=[ConnectionResetError(), Note("ping", 1)])
            with mock.patch.object(receiver, "_on_lost"), failing:
                self.assertEqual(receiver.read(), Note("ping", 1))

    def test_the_end_of_the_stream_in_the_middle_of_a_large_frame_delivers_no_part_of_it(self) -> None:
        data = frame(BINARY, bytes(100_000), masked=False)
        for timeout in (None, 10):
            self.make(data[:50], data[50:60_000], b"")
            with self.assertRaises(ConnectionClosed):
                self.take(timeout)
            self.assertEqual((self.lost, self.receiver.bytes_received), ([None], 60_000))
            self.make(data[:50], data[50:60_000], data[60_000:], b"")
            self.assertEqual(self.take(timeout), bytes(100_000))

    def test_much_at_once_is_read_in_larger_pieces_and_little_again_in_small_ones(self) -> None:
        for timeout in (None, 10):
            self.make(text(b"x" * 100) * 2000, text(b"y"), text(b"z"))
            for _ in range(2002):
                self.take(timeout)
            asked = [*dict.fromkeys(self.transport.asked), self.transport.asked[-1]]
            self.assertEqual(asked, [SMALL_READ, LARGE_READ, SMALL_READ])

    def test_a_timeout_waits_for_what_is_left_of_it(self) -> None:
        self.make(text(b"ab")[:2])
        with self.assertRaises(TimeoutError):
            self.take(0)
        self.assertEqual(self.transport.waits, [0.0])
        self.transport.arrivals.append(b"ab")
        self.assertEqual(self.take(0), "ab")

    def test_a_stream_of_controls_without_end_does_not_hold_a_read_up(self) -> None:
        self.make(*[frame(PONG, masked=False)] * 500)
        with mock.patch("sync_ws.timing.time.monotonic", side_effect=itertools.count(50.0, 0.01)):
            self.assertRaises(TimeoutError, self.receiver.read, 0.2)
        self.assertTrue(0 < len(self.controls) < 100)

    def test_one_arrival_full_of_controls_does_not_hold_a_read_up(self) -> None:
        self.make(frame(PONG, masked=False) * 8000)
        with mock.patch("sync_ws.timing.time.monotonic", side_effect=itertools.count(50.0, 0.01)):
            self.assertRaises(TimeoutError, self.receiver.read, 0.2)
        self.assertTrue(0 < len(self.controls) < 8000)

    def test_a_message_that_comes_with_such_a_stream_is_delivered_though_the_time_is_over(self) -> None:
        clock = [50.0]

        def handled(control: Control) -> None:
            clock[0] += 9

        for early in (False, True):
            data = frame(PONG, masked=False) * 3 + text(b"a")
            receiver = self.make(early=data) if early else self.make(data)
            with (
                mock.patch("sync_ws.timing.time.monotonic", lambda: clock[0]),
                mock.patch.object(receiver, "_on_control", side_effect=handled),
            ):
                self.assertEqual(receiver.read(1), "a")

    def test_an_end_that_comes_meanwhile_loses_nothing_of_a_stream_that_is_not_read_to_its_end(self) -> None:
        receiver, clock = self.make(early=frame(PONG, masked=False) * 600 + text(b"a")), [50.0]

        def handled(control: Control) -> None:
            clock[0] += 9
            self.closing.end(Reason("by another thread"))

        with (
            mock.patch("sync_ws.timing.time.monotonic", lambda: clock[0]),
            mock.patch.object(receiver, "_on_control", side_effect=handled),
        ):
            self.assertRaises(TimeoutError, receiver.read, 1)
            self.assertEqual(self.take(), "a")
            self.assertRaises(ConnectionClosed, receiver.read, 1)

    def test_fragments_that_take_several_steps_are_one_message_all_the_same(self) -> None:
        pieces = [frame(TEXT, b"a", masked=False, fin=False), *[frame(0, b"b", masked=False, fin=False)] * 998]
        for timeout in (None, 10):
            self.make(b"".join(pieces) + frame(0, b"c", masked=False) + text(b"next"))
            self.assertEqual([self.take(timeout), self.take(timeout)], ["a" + "b" * 998 + "c", "next"])

    def test_who_borrows_the_reading_side_leaves_controls_for_which_there_is_no_time(self) -> None:
        pings = [b"%d" % number for number in range(50)]
        for discard in (False, True):
            data = text(b"a") + b"".join(frame(PING, ping, masked=False) for ping in pings) + text(b"b")
            receiver = self.make(data, b"")
            with mock.patch("sync_ws.timing.time.monotonic", side_effect=itertools.count(50.0, TEND / 10)):
                self.assertTrue(receiver.tend())
            self.assertTrue(0 < len(self.controls) < 20, len(self.controls))
            if discard:
                receiver.discard_until_end(Deadline(10))
                self.assertEqual((len(self.controls), self.lost), (50, [None]))
            items = [self.take(0) for _ in range(52)]
            self.assertEqual(items, ["a", *[Note("control", ping) for ping in pings], "b"])
            self.assertEqual(len(self.controls), 50)

    def test_readers_of_floods_take_turns_and_who_borrows_waits_for_nobody(self) -> None:
        flood = frame(PONG, masked=False) * 600 + text(b"a")
        with Receiver._turn:
            borrowed = self.make(flood)
            self.assertTrue(in_thread(borrowed.tend))
            self.assertEqual(list(self.inbox), ["a"])
            self.make(flood)
            began = time.monotonic()
            self.assertEqual(in_thread(self.receiver.read), "a")  # not for ever, should it not come to his turn
            self.assertGreater(time.monotonic() - began, TURN)
        self.make(text(b"x") * 600)
        with mock.patch.object(Receiver, "_turn", None):  # whoever is sent messages needs none
            self.assertEqual([self.take() for _ in range(600)], ["x"] * 600)
        turn = mock.Mock()
        for timeout in (None, 10):
            self.make(frame(PONG, masked=False) * 256, frame(PONG, masked=False) + text(b"a"))
            with mock.patch.object(Receiver, "_turn", turn):  # also when one arrival ends with a step
                self.assertEqual(self.take(timeout), "a")
            self.assertEqual(turn.mock_calls, [mock.call.acquire(True, TURN), mock.call.release()])
            turn.reset_mock()

    def test_controls_behind_as_many_messages_as_are_parsed_at_once_come_in_their_turn(self) -> None:
        data = text(b"x") * PARSE_AHEAD + frame(PING, b"?", masked=False) + text(b"a") + frame(PING, b"!", masked=False)
        for timeout in (None, 10):
            self.make(data)
            items = [self.take(timeout) for _ in range(PARSE_AHEAD + 3)]
            self.assertEqual(items[PARSE_AHEAD:], [Note("control", b"?"), "a", Note("control", b"!")])
            self.make(frame(PING, b"1", masked=False) + text(b"a"), frame(PING, b"2", masked=False) + text(b"b"))
            items = [self.take(timeout) for _ in range(4)]
            self.assertEqual(items, [Note("control", b"1"), "a", Note("control", b"2"), "b"])

    def test_only_the_main_thread_reads_in_steps_which_is_set_once(self) -> None:
        self.make(text(b"a"), text(b"b"), text(b"c"))
        with mock.patch.object(self.transport, "step_reads") as step_reads:
            self.assertEqual(in_thread(self.take), "a")
            step_reads.assert_not_called()
            self.assertEqual([self.take(), self.take()], ["b", "c"])
            step_reads.assert_called_once_with()

    def test_it_is_behind_while_it_has_not_come_to_the_end_of_what_was_received(self) -> None:
        receiver = self.make(frame(PING, b"?", masked=False) + text(b"a"))
        seen = []
        watched = mock.patch.object(receiver, "_on_control", side_effect=lambda control: seen.append(receiver.behind))
        with watched, mock.patch("sync_ws.protocol.frame_reader._AT_ONCE", 1):
            self.assertEqual(receiver.read(), "a")
        self.assertEqual((seen, receiver.behind), ([True], False))
        receiver = self.make(frame(PING, b"?", masked=False), early=text(b"a")[:2])
        self.assertFalse(receiver.behind)  # nobody is at work
        receiver = self.make(frame(PING, b"?", masked=False))
        with mock.patch.object(receiver, "_on_control", side_effect=lambda control: seen.append(receiver.behind)):
            self.assertTrue(receiver.tend())
        self.assertEqual(seen, [True, False])  # that was the last

    def test_a_batch_is_written_before_it_waits(self) -> None:
        for timeout in (None, 10):
            self.make(text(b"answer"))
            with self.writer.batch():
                self.writer.send("question")
                if timeout is not None:  # else the answer is there before it has to wait
                    self.transport.arrivals.insert(0, BlockingIOError())
                self.assertEqual(self.take(timeout), "answer")
                self.assertEqual(len(self.transport.sent), 14)

    def test_a_read_that_brought_nothing_after_all_is_tried_again(self) -> None:
        for error in (BlockingIOError(), InterruptedError()):
            for timeout in (None, 10):
                self.make(text(b"there"))
                self.transport.arrivals.insert(0, error)
                self.assertEqual(self.take(timeout), "there")

    def test_the_last_word_waits_for_the_messages_before_it_while_nobody_reads(self) -> None:
        last = frame(CLOSE, b"\x03\xe9", masked=False)
        receiver = self.make(text(b"a") + last)
        with mock.patch("sync_ws.channel.receiver.time") as clock:
            for now, count in ((50.0, 0), (50.0 + HOLD - 0.01, 0), (50.0 + HOLD, 1)):
                clock.monotonic.return_value = now
                self.assertTrue(receiver.tend())
                self.assertEqual(len(self.controls), count)
        self.assertEqual(self.take(), "a")
        self.assertRaises(ConnectionClosed, receiver.read)
        receiver = self.make(text(b"a") + last)
        receiver.tend()
        self.assertEqual((self.take(), self.controls), ("a", []))
        for _ in range(2):
            self.assertRaises(ConnectionClosed, receiver.read)
            self.assertEqual(len(self.controls), 1)
        receiver = self.make(text(b"a") + last)
        receiver.tend()
        receiver.discard_until_end(Deadline(10))
        self.assertEqual(([control.opcode for control in self.controls], self.take()), ([CLOSE], "a"))

    def test_tending_takes_what_fits_and_then_leaves_the_rest(self) -> None:
        receiver = self.make(text(b"x") * 5 + text(b"y" * 2000), text(b"z"), max_waiting=3)
        self.assertTrue(receiver.tend())
        self.assertEqual(list(self.inbox), ["x"] * 3)
        self.assertEqual([self.take() for _ in range(5)], ["x"] * 5)
        self.assertTrue(receiver.tend())
        self.assertEqual((len(self.inbox), len(self.transport.arrivals)), (1, 1))  # too many bytes, now

    def test_tending_ends_with_the_connection(self) -> None:
        receiver = self.make(b"")
        self.assertTrue(receiver.tend() and receiver.tend())
        self.assertEqual(self.lost, [None])
        receiver = self.make(frame(CLOSE, b"\x03\xe9", masked=False), text(b"after it"))
        self.assertTrue(receiver.tend() and receiver.tend())
        self.assertEqual((len(self.transport.arrivals), len(self.controls)), (1, 1))

    def test_who_interrupted_the_tending_in_its_own_thread_is_told_so(self) -> None:
        receiver, seen = self.make(frame(PING, b"?", masked=False)), list[bool]()

        def on_control(control: Control) -> None:
            self.assertRaises(ConcurrentReceive, receiver.read, 0)
            seen.append(receiver.tend())

        with mock.patch.object(receiver, "_on_control", side_effect=on_control):
            self.assertEqual((receiver.tend(), seen, self.lost), (True, [False], []))

    def test_tending_finds_out_that_it_broke(self) -> None:
        error = ConnectionResetError()
        receiver = self.make(error)
        self.assertTrue(receiver.tend())
        self.assertEqual(self.lost, [error])
        self.assertTrue(receiver.tend())

    def test_notes_that_wait_first_can_be_taken_unless_somebody_reads(self) -> None:
        receiver = self.make(frame(PING, b"1", masked=False) + text(b"a") + frame(PING, b"2", masked=False))
        receiver.tend()
        with receiver.lock:
            taken = in_thread(receiver.take_notes)
            tended = in_thread(receiver.tend)
        self.assertEqual((taken, tended), ([], False))
        self.assertEqual(receiver.take_notes(), [Note("control", b"1")])
        self.assertEqual((receiver.take_notes(), list(self.inbox)), ([], ["a", Note("control", b"2")]))
        self.assertTrue(in_thread(receiver.tend))  # nobody else does any more

    def test_discarding_drops_messages_and_keeps_notes_and_what_waited_before(self) -> None:
        receiver = self.make(text(b"early"))
        receiver.tend()
        self.transport.arrivals += [text(b"late") + frame(PING, b"?", masked=False), text(b"late"), b""]
        receiver.discard_until_end(Deadline(10))
        self.assertEqual(list(self.inbox), ["early", Note("control", b"?")])
        self.assertEqual(self.lost, [None])
        receiver.discard_until_end(Deadline(10))

    def test_discarding_ends_with_its_deadline_or_with_what_breaks(self) -> None:
        receiver = self.make()
        receiver.discard_until_end(Deadline(0.01))
        self.assertTrue(self.transport.waits)
        self.assertIsNone(self.closing.reason)
        error = TimeoutError(errno.ETIMEDOUT, "the kernel gave the peer up")
        self.transport.arrivals.append(error)
        receiver.discard_until_end(Deadline(10))
        self.assertEqual(self.lost, [error])

    def test_discarding_begins_with_what_was_received_and_writes_what_is_queued(self) -> None:
        self.make(early=frame(CLOSE, b"\x03\xe8", masked=False))
        self.receiver.discard_until_end(Deadline(1))
        self.assertEqual([control.opcode for control in self.controls], [CLOSE])
        self.make(b"")
        self.transport.takes.append(None)
        self.assertTrue(self.writer.finish(b""))
        self.receiver.discard_until_end(Deadline(10))
        self.assertEqual((self.writer.queued, len(self.transport.sent)), ((0, 0), 6))

    def test_discarding_waits_in_steps_for_each_of_which_more_may_be_written(self) -> None:
        self.make()
        with mock.patch("sync_ws.timing.time.monotonic", side_effect=itertools.count(50.0, 0.01)):
            self.receiver.discard_until_end(Deadline(0.5))
        for wait in self.transport.waits[:3]:
            self.assertTrue(0.05 < (wait or 0.0) <= 0.1, wait)

    def test_who_waits_for_the_one_that_reads_says_how_long(self) -> None:
        waits: list[float] = []

        def acquire(blocking: bool, timeout: float) -> bool:
            self.assertTrue(blocking)
            waits.append(timeout)
            if len(waits) == 2:
                self.closing.end(Reason("by the one that reads"))
            return False

        for patience, least, most in ((10, STEP, STEP), (None, STEP, STEP), (0.4, 0.1, 0.4)):
            receiver = self.make()
            receiver.lock = mock.Mock(acquire=acquire)
            receiver.discard_until_end(Deadline(patience))
            self.assertTrue(len(waits) == 2 and least <= waits[0] <= most, waits)
            waits.clear()
        for patience, least, most in ((10, 9, 10), (0, 0, 0)):
            receiver.wait_for_end_of_stream(Deadline(patience))
            self.assertTrue(len(waits) == 1 and least <= waits[0] <= most, waits)
            waits.clear()

    def test_who_waits_for_the_one_that_reads_waits_no_longer_than_it_may(self) -> None:
        receiver = self.make(text(b"a"))
        with receiver.lock:
            in_thread(lambda: receiver.discard_until_end(Deadline(0.01)))
            in_thread(lambda: receiver.wait_for_end_of_stream(Deadline(0.01)))
        self.assertEqual(self.take(), "a")  # nothing of it was read

    def test_waiting_for_the_end_of_the_stream_reads_what_still_comes(self) -> None:
        for end in (b"", ConnectionResetError()):
            for patience in (10, None):
                receiver = self.make(text(b"late"), b"\xff", end)
                receiver.wait_for_end_of_stream(Deadline(patience))
                self.assertEqual((self.transport.arrivals, list(self.inbox)), ([b""] if end == b"" else [], []))
        receiver = self.make(text(b"late"))
        receiver.wait_for_end_of_stream(Deadline(10))  # nothing more comes: wait_readable says so after its time
        self.assertEqual(len(self.transport.waits), 2)
        self.assertTrue(in_thread(receiver.tend))  # nobody reads any more
        receiver = self.make(BlockingIOError(), text(b"behind half a TLS record"), b"")
        receiver.wait_for_end_of_stream(Deadline(10))
        self.assertEqual(self.transport.arrivals, [b""])
        receiver = self.make(*[b"?"] * 100)
        with mock.patch("sync_ws.timing.time.monotonic", side_effect=itertools.count(50.0, 0.01)):
            receiver.wait_for_end_of_stream(Deadline(0.3))
        self.assertTrue(0 < len(self.transport.arrivals) < 100)  # it goes on without end, but not for us

    def test_a_forked_child_does_not_wait_for_a_thread_that_it_has_not(self) -> None:
        receiver = self.make(frame(PING, masked=False))
        reading, leave = threading.Event(), threading.Event()

        def hold(control: Control) -> None:
            with Receiver._turn:
                reading.set()
                leave.wait(10)
            raise ConnectionAbortedError

        self.addCleanup(leave.set)
        with mock.patch.object(receiver, "_on_control", side_effect=hold):
            holder = Outcome(receiver.tend)  # in the parent
            holder.start()
            reading.wait(10)
        receiver.forget_in_child()
        self.transport.arrivals.append(text(b"a"))
        self.assertEqual((receiver.read(), receiver.interrupted), ("a", False))
        self.assertTrue(Receiver._turn.acquire(blocking=False))
        Receiver._turn.release()
        self.assertTrue(holder.is_alive())
        leave.set()
        join(holder)

    def test_a_forked_child_takes_nothing_that_came_for_its_parent(self) -> None:
        receiver = self.make(text(b"a") * (PARSE_AHEAD + 9), text(b"d"))
        receiver.read()
        self.inbox.kept = "not handed on yet"
        receiver.forget_in_child()
        self.closing.end(Reason("not ours"))
        self.assertRaises(ConnectionClosed, receiver.read)


if __name__ == "__main__":
    unittest.main()
