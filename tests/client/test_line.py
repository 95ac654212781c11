"""The line alone: what each method decides, that all is written under its lock, and that close() may interrupt any."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from sync_ws import interrupts
from sync_ws.channel.batch import Batch
from sync_ws.channel.inbox import MAX_NOTES, Note
from sync_ws.channel.limits import Limits
from sync_ws.client.address import parse_url
from sync_ws.client.line import CLOSED_BY_US, Line
from sync_ws.client.outbox import Offline
from sync_ws.client.state import ClientState
from sync_ws.endings import Close, Reason
from sync_ws.errors import ConnectionClosed, NotConnected, QueueFull
from sync_ws.interrupts import Flag
from sync_ws.testing import LedgerTestCase, wait_until
from sync_ws.timing import Deadline
from tests.support.client_case import SOON, GuardedLine
from tests.support.wire import join

LIMITS, QUEUE = Limits(), Offline(3, 100)
NOW, NEVER = Deadline(0), Deadline(None)
LOST = Reason("lost", 1006)


class FakeChannel:
    """As much of a channel as the line looks at."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self.messages_received, self.bytes_received = 3, 30
        self.writer = mock.Mock(messages_sent=2, bytes_sent=20)

    @property
    def ended(self) -> bool:
        return self.reason is not None

    @property
    def open(self) -> bool:
        return self.reason is None

    def closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(self.reason or LOST, Close(1000), Close(1001))


def channel(reason: Reason | None = None) -> Any:
    made = FakeChannel()
    made.reason = reason
    return made


class LineTestCase(LedgerTestCase):
    def line(self, offline: Offline | None = QUEUE) -> Line:
        return GuardedLine(LIMITS, offline)

    def begun(self, offline: Offline | None = QUEUE) -> Line:
        line = self.line(offline)
        line.begin()
        return line

    def opened(self, used: Any, line: Line | None = None) -> Line:
        """A line over whose channel everybody may send."""
        line = line or self.begun()
        self.assertTrue(line.opened(used, None, None))
        self.assertIsNone(line.next_queued(used))
        return line

    def ending(self, line: Line, used: Any) -> None:
        used.reason = LOST
        line.wake()
        line.ended(used)

    def in_thread(self, function: Callable[[], object]) -> list[object]:
        """Call it while ``line`` is waited for; the results come into the list."""
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(function()))
        thread.start()
        self.addCleanup(join, thread)
        return results


class LifeTest(LineTestCase):
    def test_the_states_of_a_life(self) -> None:
        line = self.line()
        states = [line.state]
        self.assertFalse(line.connected)
        for step in (
            line.begin, line.attempt, lambda: line.opened(channel(), None, None), line.begin_waiting, line.attempt,
            line.close, lambda: line.over(CLOSED_BY_US),
        ):  # fmt: skip
            step()
            states.append(line.state)
        names = "idle connecting connecting open waiting connecting closing closed"
        self.assertEqual([state.value for state in states], names.split())

    def test_a_step_that_is_not_in_the_table_is_an_error(self) -> None:
        line = self.begun()
        line.begin_waiting()
        with self.assertRaisesRegex(RuntimeError, "from waiting to open"):
            line.opened(channel(), None, None)

    def test_it_knows_whether_somebody_waits_for_its_beginning(self) -> None:
        self.assertFalse(self.line().awaited)
        self.assertFalse(self.begun().awaited)
        line = self.line()
        line.begin(awaited=True)
        self.assertTrue(line.awaited)

    def test_one_that_never_began_says_why_it_is_over(self) -> None:
        line = self.line()
        line.close()
        self.assertIs(line.reason, CLOSED_BY_US)
        self.assertTrue(CLOSED_BY_US.by_us)
        self.assertTrue(line.closing)  # who was about to begin looks at this
        self.assertFalse(line.attempt())

    def test_its_counters_begin_with_nothing(self) -> None:
        stats = self.line().stats()
        self.assertEqual({stats.pop("state"), stats.pop("rtt")}, {"idle", None})
        self.assertEqual(set(stats.values()), {0})

    def test_nothing_is_left_of_it_when_it_is_over(self) -> None:
        used = channel()
        line = self.opened(used)
        line.over(LOST)
        self.assertIsNone(line.sending_channel)
        line = self.begun()
        line.dialling(mock.Mock())
        line.over(LOST)
        self.assertEqual(line.close(), (None, None, None))

    def test_it_begins_once(self) -> None:
        line = self.begun()
        with self.assertRaisesRegex(RuntimeError, "opened once; this one is connecting"):
            line.begin()
        line = self.line()
        line.close()
        with self.assertRaisesRegex(RuntimeError, "opened once; this one is closed"):
            line.begin()

    def test_what_close_set_is_never_set_back(self) -> None:
        line = self.begun()
        line.close()
        self.assertFalse(line.attempt())
        self.assertFalse(line.opened(channel(), "a", None))
        self.assertFalse(line.begin_waiting())
        self.assertIs(line.state, ClientState.CLOSING)
        self.assertEqual((line.reading_channel, line.subprotocol, line.times_opened), (None, None, 0))
        line.over(CLOSED_BY_US)
        line.close()
        self.assertIs(line.state, ClientState.CLOSED)

    def test_what_was_not_closed_goes_on(self) -> None:
        line = self.begun()
        self.assertTrue(line.attempt())
        self.assertTrue(line.begin_waiting())
        self.assertTrue(line.attempt())

    def test_close_finds_what_is_under_way(self) -> None:
        line = self.begun()
        self.assertEqual(line.close(), (None, None, None))
        line, dial, used, monitor = self.begun(), mock.Mock(), channel(), mock.Mock()
        self.assertTrue(line.dialling(dial))
        self.assertEqual(line.close(), (dial, None, None))
        line = self.begun()
        line.dialling(dial)
        line.dialled()
        line.opened(used, None, monitor)
        self.assertEqual(line.close(), (None, used, monitor))
        self.assertEqual(line.close(), (None, used, monitor))
        self.ending(line, used)
        self.assertEqual(line.close(), (None, None, None))

    def test_a_dial_that_close_could_not_find_is_not_to_run(self) -> None:
        line = self.begun()
        line.close()
        self.assertFalse(line.dialling(mock.Mock()))


class ConnectionTest(LineTestCase):
    def test_who_sends_waits_for_what_was_queued(self) -> None:
        line, used = self.begun(), channel()
        for message in ("one", b"two"):
            self.assertTrue(line.put_offline(message, None))
        line.opened(used, "chat", None)
        self.assertEqual((line.reading_channel, line.sending_channel, line.subprotocol), (used, None, "chat"))
        sent = []
        while (first := line.next_queued(used)) is not None:
            self.assertIsNone(line.sending_channel)
            sent.append(first)
            line.drop_first_queued()
        self.assertEqual((sent, line.sending_channel), (["one", b"two"], used))

    def test_what_could_not_be_sent_stays_at_the_head_of_the_queue(self) -> None:
        line, used = self.begun(), channel()
        line.put_offline("kept", None)
        line.opened(used, None, None)
        self.assertEqual(line.next_queued(used), "kept")
        self.ending(line, used)
        self.assertEqual(line.next_queued(channel()), "kept")
        self.assertEqual((line.take_undelivered(), line.take_undelivered()), (("kept",), ()))

    def test_what_a_channel_counted_is_counted_once(self) -> None:
        first, second = channel(), channel()
        line = self.opened(first)
        before = line.stats()
        self.assertEqual((before["messages_sent"], before["bytes_received"], before["opened"]), (2, 30, 1))
        self.ending(line, first)
        self.assertEqual(line.stats(), before)
        line.begin_waiting()
        line.attempt()
        line.attempt_failed(LOST)
        self.opened(second, line)
        line.note_rtt(0.25)
        stats = line.stats()
        self.assertEqual((stats["messages_received"], stats["bytes_sent"], stats["opened"]), (6, 40, 2))
        self.assertEqual((stats["reconnects"], stats["attempts_failed"], stats["rtt"]), (1, 1, 0.25))

    def test_it_is_connected_while_its_channel_is_open(self) -> None:
        used = channel()
        line = self.begun()
        self.assertFalse(line.connected)
        line.opened(used, None, None)
        self.assertTrue(line.connected)
        used.reason = LOST
        self.assertFalse(line.connected)
        line.ended(used)
        self.assertFalse(line.connected)

    def test_the_reason_is_the_last_trouble_until_there_is_a_final_one(self) -> None:
        used, refused = channel(), Reason("refused")
        line = self.begun()
        self.assertIsNone(line.reason)
        line.attempt_failed(refused)
        self.assertIs(line.reason, refused)
        self.opened(used, line)
        self.assertIs(line.reason, refused)
        self.ending(line, used)
        self.assertIs(line.reason, LOST)
        line.close()
        self.assertIs(line.reason, LOST)
        line.finish(CLOSED_BY_US)
        self.assertIs(line.reason, CLOSED_BY_US)

    def test_the_address_is_that_of_the_present_or_last_attempt(self) -> None:
        line = self.begun()
        self.assertIsNone(line.url)
        line.dialling(mock.Mock(target=parse_url("ws://a.test/1")))
        line.dialled()
        self.assertEqual(line.url, "ws://a.test:80/1")

    def test_why_it_never_opened(self) -> None:
        line = self.begun()
        self.assertIsNone(line.never_opened())
        line.finish(LOST)
        self.assertIs(line.never_opened(), LOST)
        line = self.begun()
        line.close()
        self.assertIs(line.never_opened(), CLOSED_BY_US)
        used = channel()
        line = self.opened(used)
        self.ending(line, used)
        line.over(LOST)
        self.assertIsNone(line.never_opened())


class AskedTest(LineTestCase):
    """reconnect(): whatever connection there is afterwards is another one."""

    def test_it_finds_what_is_under_way(self) -> None:
        line, dial, used = self.begun(), mock.Mock(), channel()
        self.assertEqual((line.reconnect(), line.asked), ((None, None), True))
        line.attempt()
        self.assertFalse(line.asked)  # this attempt is the one that was asked for
        self.assertTrue(line.dialling(dial))
        self.assertEqual(line.reconnect(), (dial, None))
        line.dialled()
        line.attempt()
        self.assertTrue(line.opened(used, None, None))
        self.assertEqual(line.reconnect(), (None, used))

    def test_what_it_could_not_find_is_not_to_be_used(self) -> None:
        line = self.begun()
        line.attempt()
        line.reconnect()
        self.assertFalse(line.dialling(mock.Mock()))
        self.assertFalse(line.opened(channel(), None, None))
        self.assertEqual((line.reading_channel, line.times_opened), (None, 0))

    def test_an_end_or_another_attempt_but_not_both(self) -> None:
        line = self.begun()
        line.reconnect()
        self.assertFalse(line.finish(LOST, unless_asked=True))
        line.attempt()
        self.assertTrue(line.finish(LOST, unless_asked=True))
        with self.assertRaisesRegex(ConnectionClosed, "lost"):
            line.reconnect()

    def test_an_end_that_asks_nobody(self) -> None:
        line = self.begun()
        line.reconnect()
        self.assertTrue(line.finish(LOST))
        self.assertIs(line.reason, LOST)
        self.assertTrue(line.await_open(NOW))  # in vain from now on

    def test_close_has_the_last_word(self) -> None:
        line = self.begun()
        line.reconnect()
        line.close()
        self.assertFalse(line.asked)
        self.assertTrue(line.finish(CLOSED_BY_US, unless_asked=True))
        with self.assertRaisesRegex(ConnectionClosed, "closed by us"):
            line.reconnect()

    def test_before_it_begins(self) -> None:
        with self.assertRaisesRegex(NotConnected, "not been opened"):
            self.line().reconnect()


class OfflineTest(LineTestCase):
    def test_the_queue_is_bounded_and_counted(self) -> None:
        line = self.begun()
        for message in ("a", b"bc", "ü"):
            line.put_offline(message, None)
        with self.assertRaises(QueueFull):
            line.put_offline("d", None)
        stats = line.stats()
        self.assertEqual((stats["queued_messages"], stats["queued_bytes"]), (3, 5))

    def test_what_is_no_message_is_an_error_before_anything_is_decided(self) -> None:
        line = self.line()
        with self.assertRaises(TypeError):
            line.put_offline(None, None)  # type: ignore[arg-type]

    def test_a_new_connection_is_to_be_tried_first(self) -> None:
        used = channel()
        line = self.opened(used)
        self.assertFalse(line.put_offline("x", None))
        self.assertFalse(line.put_offline("x", channel()))
        self.assertEqual(line.stats()["queued_messages"], 0)
        self.assertTrue(line.put_offline("x", used))  # it has ended, and has not told yet

    def test_what_makes_room_is_counted_and_told_of_once_an_outage(self) -> None:
        line, used = self.begun(Offline(2, 100, "drop_oldest")), channel()
        with self.assertLogs("sync_ws.client", "WARNING") as logs:
            for number in range(10):
                line.put_offline(str(number), None)
        self.assertEqual(len(logs.records), 1)
        self.assertEqual((line.stats()["dropped_messages"], line.stats()["queued_messages"]), (8, 2))
        self.assertEqual((line.take_dropped(), line.take_dropped()), (8, 0))
        line.opened(used, None, None)
        self.assertEqual(line.next_queued(used), "8")
        self.ending(line, used)  # it did not go: the oldest again
        with self.assertLogs("sync_ws.client", "WARNING"):
            line.put_offline("10", None)
        self.assertEqual((line.take_undelivered(), line.take_dropped()), (("9", "10"), 1))
        self.assertEqual(line.stats()["dropped_messages"], 9)

    def test_where_it_blocks_it_waits_for_room_within_the_send_timeout(self) -> None:
        line, used = GuardedLine(Limits(send_timeout=0.05), Offline(1, 100, "block")), channel()
        line.begin()
        line.put_offline("one", None)
        with self.assertRaisesRegex(QueueFull, "no room within 0.05 s"):
            line.put_offline("two", None)
        with self.assertRaisesRegex(QueueFull, "own thread does not wait"):
            line.put_offline("two", None, may_wait=False)
        line.opened(used, None, None)
        self.assertEqual(line.next_queued(used), "one")
        line.drop_first_queued()
        self.assertTrue(line.put_offline("two", None))

    def test_who_finds_the_room_taken_waits_no_longer_in_all(self) -> None:
        line, deadlines = GuardedLine(LIMITS, Offline(1, 100, "block")), list[Deadline]()
        line.begin()
        line.put_offline("one", None)

        def wait(settled: Callable[[], object], deadline: Deadline) -> bool:
            deadlines.append(deadline)
            return len(deadlines) < 3  # twice somebody else was faster, and then it is too late

        with mock.patch.object(line._waiters, "wait", wait), self.assertRaisesRegex(QueueFull, "no room within 10 s"):
            line.put_offline("two", None)
        self.assertEqual(deadlines, [deadlines[0]] * 3)
        self.assertLessEqual(deadlines[0].remaining() or 0.0, LIMITS.send_timeout)

    def test_raise_mode_says_what_the_trouble_is(self) -> None:
        line = self.begun(None)
        with self.assertRaisesRegex(NotConnected, "the first attempt is under way"):
            line.put_offline("x", None)
        line.attempt_failed(Reason("refused"))
        with self.assertRaisesRegex(NotConnected, "not connected now: refused"):
            line.put_offline("x", None)
        with self.assertRaisesRegex(NotConnected, "not connected now: lost"):
            line.put_offline("x", channel(LOST))

    def test_before_it_begins_and_when_it_is_over(self) -> None:
        line = self.line()
        with self.assertRaisesRegex(NotConnected, "not been opened"):
            line.put_offline("x", None)
        line = self.begun()
        line.finish(LOST)
        with self.assertRaisesRegex(ConnectionClosed, "lost"):
            line.put_offline("x", None)
        line = self.begun()
        line.close()
        with self.assertRaisesRegex(ConnectionClosed, "closed by us"):
            line.put_offline("x", None)

    def test_the_error_has_both_close_frames_and_is_a_new_one_each_time(self) -> None:
        used = channel()
        line = self.opened(used)
        self.ending(line, used)
        line.finish(LOST)
        errors = []
        for _ in range(2):
            with self.assertRaises(ConnectionClosed) as caught:
                line.check_going_on()
            errors.append(caught.exception)
        self.assertEqual((errors[0].sent, errors[0].received), (Close(1000), Close(1001)))
        self.assertIsNot(errors[0], errors[1])


class BatchTest(LineTestCase):
    """What a thread gathered: queued as a whole, or still gathered, or given up as a whole."""

    def gathered(self, line: Line, *texts: str) -> Batch:
        batch = Batch(line.batches, lambda: None, outlives=True)
        for text in texts:
            batch.add(1, text.encode())
        return batch

    def test_it_is_queued(self) -> None:
        line = self.begun()
        batch = self.gathered(line, "1", "2")
        self.assertIs(line.put_batch_offline(batch, None), True)
        self.assertEqual((batch.items, line.take_undelivered()), ([], ("1", "2")))

    def test_it_stays_gathered_for_a_new_connection(self) -> None:
        line = self.opened(channel())
        batch = self.gathered(line, "1", "2")
        items, size = list(batch.items), batch.size
        self.assertIs(line.put_batch_offline(batch, None), False)
        self.assertEqual((batch.items, batch.size, line.take_undelivered()), (items, size, ()))

    def test_it_is_given_up_where_there_is_no_room(self) -> None:
        line = self.begun()
        line.put_offline("0", None)
        batch = self.gathered(line, "1", "2", "3")
        with self.assertRaises(QueueFull):
            line.put_batch_offline(batch, None)
        self.assertEqual((batch.items, line.take_undelivered()), ([], ("0",)))

    def test_it_waits_for_room_unless_it_may_not(self) -> None:
        line, used = GuardedLine(Limits(send_timeout=0.01), Offline(2, 100, "block")), channel()
        line.begin()
        line.put_offline("0", None)
        with self.assertRaisesRegex(QueueFull, "own thread does not wait"):
            line.put_batch_offline(self.gathered(line, "1", "2"), None, may_wait=False)
        with self.assertRaisesRegex(QueueFull, "no room within"):
            line.put_batch_offline(self.gathered(line, "1", "2"), None)
        line.next_queued(used)
        line.drop_first_queued()
        self.assertTrue(line.put_batch_offline(self.gathered(line, "1", "2"), None))

    def test_each_line_has_its_own(self) -> None:
        self.assertIsNot(self.line().batches, self.line().batches)
        self.assertIsNone(self.line().batches.mine())


class LeftTest(LineTestCase):
    def take(self, line: Line, used: Any) -> object:
        """As recv() does."""
        item = line.take_left(used, NOW, True)
        line.inbox.kept = None
        return item

    def test_what_an_interrupt_kept_from_the_application_is_there_still(self) -> None:
        used = channel()
        line = self.opened(used)
        line.inbox.extend(["one", "two"])
        self.ending(line, used)
        self.assertEqual([line.take_left(used, NOW, True) for _ in range(2)], ["one", "one"])
        line.inbox.kept = None
        self.assertEqual((self.take(line, used), line.stats()["messages_received"]), ("two", 5))

    def test_what_an_earlier_connection_left_is_taken_in_order_and_counted(self) -> None:
        used = channel()
        line = self.opened(used)
        line.inbox.extend(["one", ""])
        self.assertIsNone(line.take_left(None, NOW, True))  # it is still there to read from
        self.ending(line, used)
        self.assertEqual([self.take(line, used) for _ in range(2)], ["one", ""])
        self.assertEqual(line.stats()["messages_received"], 5)
        with self.assertRaises(TimeoutError):
            line.take_left(None, NOW, True)

    def test_it_is_taken_also_by_who_comes_when_there_is_no_connection(self) -> None:
        used = channel()
        line = self.opened(used)
        line.inbox.extend(["one"])
        self.ending(line, used)
        self.assertEqual([line.take_left(None, NOW, True) for _ in range(2)], ["one", "one"])  # the second: kept
        line.inbox.kept = None
        with self.assertRaises(TimeoutError):
            line.take_left(None, NOW, True)

    def test_notes_among_them_are_told_and_not_counted(self) -> None:
        used = channel()
        line = self.opened(used)
        self.ending(line, used)
        notes = [Note("heartbeat", number) for number in range(MAX_NOTES + 1)]
        line.inbox.extend([notes[0], "one"])
        self.assertEqual([self.take(line, used) for _ in range(2)], [notes[0], "one"])
        self.assertEqual(line.stats()["messages_received"], 4)
        for note in notes:
            line.put_aside(note)
        self.assertEqual((line.take_aside(), line.take_aside()), (tuple(notes[1:]), ()))

    def test_it_waits_for_the_next_connection(self) -> None:
        line, used = self.begun(), channel()
        results = self.in_thread(lambda: line.take_left(None, Deadline(SOON), True))
        line.opened(used, None, None)
        self.wait_for(results)
        self.assertEqual(results, [None])

    def test_it_does_not_wait_where_it_may_not_nor_for_nothing(self) -> None:
        with self.assertRaisesRegex(NotConnected, "not been opened"):
            self.line().take_left(None, NEVER, True)
        line = self.begun()
        with self.assertRaisesRegex(NotConnected, "in an event function"):
            line.take_left(None, NEVER, False)
        line.over(LOST)
        with self.assertRaisesRegex(ConnectionClosed, "lost"):
            line.take_left(None, NEVER, True)

    def wait_for(self, results: list[object]) -> None:
        deadline = Deadline(SOON)
        while not results and not deadline.passed:
            time.sleep(0.001)


class WaitingTest(LineTestCase):
    """Each wait ends at once when what it waits for happens, although its steps are longer than the test may take."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(interrupts, "STEP", 60.0)
        patch.start()
        self.addCleanup(patch.stop)

    def woken(self, line: Line, wait: Callable[[], object], change: Callable[[], object]) -> object:
        """What ``wait`` returns when ``change`` comes while it waits."""
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(wait()), daemon=True)
        thread.start()
        wait_until(lambda: line._waiters._waiting)
        change()
        join(thread, timeout=SOON)
        return results[0]

    def test_for_the_connection(self) -> None:
        used, line = channel(), self.begun()
        line.opened(used, None, None)
        self.assertTrue(self.woken(line, lambda: line.await_open(NEVER), lambda: line.next_queued(used)))
        line = self.begun()
        self.assertFalse(line.await_open(Deadline(0.01)))
        self.assertTrue(self.woken(line, lambda: line.await_open(NEVER), line.close))

    def test_for_the_end(self) -> None:
        line = self.begun()
        line.close()
        self.assertTrue(self.woken(line, lambda: line.await_closed(NEVER), lambda: line.over(LOST)))
        self.assertFalse(self.begun().await_closed(Deadline(0.01)))

    def test_for_the_next_attempt(self) -> None:
        line, due = self.begun(), Flag()

        def time_is_up() -> None:
            due.set()
            line.wake()

        self.assertTrue(line.await_due(due, Deadline(0.01)))
        self.assertTrue(self.woken(line, lambda: line.await_due(due, NEVER), time_is_up))
        self.assertFalse(self.woken(line, lambda: line.await_due(Flag(), NEVER), line.close))

    def test_for_the_end_of_a_channel(self) -> None:
        line, used = self.begun(), channel()

        def end() -> None:
            used.reason = LOST
            line.wake()

        self.woken(line, lambda: line.await_end(used, NEVER), end)
        line.await_end(used, NEVER)  # it has ended: not at all

    def test_for_room_in_the_queue(self) -> None:
        def full() -> Line:
            line = GuardedLine(LIMITS, Offline(1, 100, "block"))
            line.begin()
            line.put_offline("one", None)
            return line

        def went(line: Line) -> None:
            line.next_queued(channel())
            line.drop_first_queued()

        def back(line: Line) -> None:
            went(line)
            line.next_queued(channel())

        def put(line: Line) -> object:
            try:
                return line.put_offline("two", None)
            except ConnectionClosed as exc:
                return exc.reason

        changes: tuple[tuple[Callable[[Line], object], object], ...] = (
            (went, True), (Line.close, CLOSED_BY_US), (lambda line: line.finish(LOST), LOST),
            (lambda line: line.over(LOST), LOST), (back, False),
        )  # fmt: skip
        for change, outcome in changes:
            line = full()
            with self.subTest(outcome):
                self.assertIs(self.woken(line, partial(put, line), partial(change, line)), outcome)

    def test_for_reconnect_while_it_waits_for_the_next_attempt(self) -> None:
        line = self.begun()
        self.assertTrue(self.woken(line, lambda: line.await_due(Flag(), NEVER), line.reconnect))

    def test_for_another_connection_than_the_one_that_has_ended(self) -> None:
        used = channel()
        line = self.opened(used)
        used.reason = LOST
        again: Callable[[], object] = partial(line.take_left, used, NEVER, True)
        self.assertIsNone(self.woken(line, again, partial(line.ended, used)))

    def test_for_the_word_that_there_will_be_no_other(self) -> None:
        for end in (Line.finish, Line.over):
            line = self.begun()
            with self.subTest(end.__name__):
                outcome = self.woken(line, partial(self.left, line), partial(end, line, LOST))
                self.assertIs(outcome, LOST)

    def left(self, line: Line) -> object:
        try:
            return line.take_left(None, NEVER, True)
        except ConnectionClosed as exc:
            return exc.reason

    def test_for_what_an_ended_connection_left(self) -> None:
        line = self.begun()

        def left() -> None:
            line.inbox.append("one")
            line.wake()

        self.assertEqual(self.woken(line, partial(line.take_left, None, NEVER, True), left), "one")

    def test_for_something_to_receive(self) -> None:
        line = self.begun()
        with self.assertRaises(ConnectionClosed):
            try:
                line.take_left(None, Deadline(0.01), True)
            except TimeoutError:
                line.over(LOST)
                line.take_left(None, NEVER, True)


if __name__ == "__main__":
    unittest.main()
