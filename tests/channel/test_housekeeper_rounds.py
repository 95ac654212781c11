"""The housekeeper's rounds one by one: whose turn it is, what there is time for, how it waits; and its beginning and
end."""

from __future__ import annotations

import itertools
import socket
import threading
import weakref
from typing import Any
from unittest import mock

from sync_ws.channel.housekeeper import TICK, Housekeeper
from sync_ws.messages import Opcode
from sync_ws.net.waiting import READABLE, wait, wait_any
from sync_ws.testing import wait_until
from tests.support.channel_case import in_child
from tests.support.held import held_elsewhere
from tests.support.housekeeper_case import HousekeeperTestCase, quiet_channel
from tests.support.server_case import LogLines
from tests.support.wire import make_channel

MODULE = "sync_ws.channel.housekeeper"


class Turns(HousekeeperTestCase):
    """Who is read for, in which order: each channel takes the seconds that ``cost`` says, by a clock of the test's."""

    def setUp(self) -> None:
        super().setUp()
        self.seconds = 100.0
        self.cost: dict[str, float] = {}
        self.order = ""
        patched = mock.patch("time.thread_time", lambda: self.seconds)
        patched.start()
        self.addCleanup(patched.stop)
        self.keeper = self.make(ping_interval=None)

    def add(self, name: str) -> None:
        def tend() -> None:
            self.order += name
            self.seconds += self.cost.get(name, 0.0)

        self.keeper.add(quiet_channel(tend=mock.Mock(side_effect=tend)))

    def round(self, **cost: float) -> str:
        self.order, self.cost = "", cost
        self.pass_time(self.keeper, 1)
        return self.order

    def test_who_took_the_least_lately_is_first_and_each_round_counts_half_of_the_one_after_it(self) -> None:
        self.add("a")
        self.add("b")
        self.assertEqual(self.round(), "")  # nobody had a round to read for himself
        self.assertEqual(self.round(a=1.0), "ab")
        self.assertEqual(self.round(b=0.4), "ba")
        self.assertEqual(self.round(b=0.4), "ba")  # 0.4 against the half of 1.0
        self.assertEqual(self.round(), "ab")  # 0.6 against a quarter

    def test_who_comes_new_goes_before_those_who_took_some(self) -> None:
        self.add("a")
        self.round()
        self.round(a=0.01)
        self.add("b")
        self.round()
        self.assertEqual(self.round(), "ba")

    def test_what_there_is_no_time_for_in_one_round_goes_first_in_the_next(self) -> None:
        self.add("a")
        self.add("b")
        self.round()
        with mock.patch(f"{MODULE}.Deadline", lambda allowed: Until(self, self.seconds + allowed)):
            self.assertEqual([self.round(a=0.2, b=0.2) for _ in range(3)], ["a", "b", "a"])

    def test_who_reads_for_himself_is_not_read_for(self) -> None:
        busy = quiet_channel()
        self.keeper.add(busy)
        for _ in range(3):
            busy.bytes_received += 1
            self.round()
        busy.tend.assert_not_called()


class Until:
    """A deadline by the clock of the test."""

    def __init__(self, test: Turns, at: float) -> None:
        self._test = test
        self._at = at

    @property
    def passed(self) -> bool:
        return self._test.seconds >= self._at


class Rounds(HousekeeperTestCase):
    def test_the_first_one_excuses_nothing(self) -> None:
        keeper, quiet = self.make(), quiet_channel()
        keeper.add(quiet)
        keeper.round(self.now)
        quiet.excuse.assert_not_called()

    def test_time_in_which_the_process_neither_waited_nor_computed_is_excused(self) -> None:
        keeper, quiet = self.make(), quiet_channel()
        keeper.add(quiet)
        with mock.patch("time.process_time", side_effect=[1000.0, 1010.0]):
            keeper.round(self.now)
            keeper.round(self.now + 60)
        quiet.excuse.assert_called_once_with(self.now + 60, 60 - 10 - TICK)

    def test_what_was_put_off_until_nobody_waits_for_it_is_done_in_each(self) -> None:
        keeper = self.make()
        with mock.patch(f"{MODULE}.load_numpy") as numpy, mock.patch(f"{MODULE}.give_back_rest") as heap:
            self.pass_time(keeper, 2)
        self.assertEqual((numpy.call_count, heap.call_count), (2, 2))

    def test_while_it_is_we_who_are_slow_nobody_is_taken_for_dead(self) -> None:
        keeper = self.make()
        slow = quiet_channel()
        slow.receiver.behind = True
        keeper.add(slow)
        self.pass_time(keeper, 100)
        slow.writer.post.assert_not_called()
        slow.abort.assert_not_called()

    def test_a_round_that_fails_is_logged_with_its_cause_and_ends_that_connection_as_an_internal_error(self) -> None:
        keeper, bad = self.make(), quiet_channel()
        bad.send_owed.side_effect = ZeroDivisionError
        keeper.add(bad)
        with LogLines() as log:
            keeper.round(self.now)
        self.assertEqual(len(log.tracebacks), 1)
        [reason] = bad.abort.call_args.args
        self.assertEqual((reason.text, reason.code), ("internal error", 1006))


class Draining(HousekeeperTestCase):
    def test_what_was_queued_before_it_was_told_is_written_too(self) -> None:
        keeper = self.make()
        late = self.watch(keeper)[0]
        keeper.discard(late)
        self.fill(late)
        keeper.add(late)
        self.assertEqual(list(keeper._draining), [late])

    def test_where_nothing_was_queued_nothing_is_awaited(self) -> None:
        keeper = self.make()
        self.watch(keeper)
        self.assertEqual(keeper._draining, {})

    def test_one_that_is_left_alone_is_not_kept_whenever_something_is_queued_on_it(self) -> None:
        keeper = self.make()
        left, end, _ = self.watch(keeper)
        self.fill(left)
        keeper.discard(left)
        self.assertEqual(keeper._draining, {})
        end.pending()
        self.fill(left)
        keeper.drain(left)
        self.assertEqual((keeper._watched, keeper._draining), ({}, {}))

    def test_it_is_woken_once_for_a_peer_that_does_not_read(self) -> None:
        keeper = self.make()
        slow, _, _ = self.watch(keeper)
        with mock.patch.object(keeper._waker, "wake") as wake:
            self.fill(slow)
        wake.assert_called_once()

    def test_having_been_woken_it_waits_anew(self) -> None:
        keeper = self.make()
        keeper._waker.wake()
        keeper._wait(0.0)
        self.assertFalse(wait(keeper._waker.fileno(), READABLE, 0.0))

    def test_a_round_that_is_due_waits_for_one_of_those_who_read_again(self) -> None:
        keeper = self.make()
        both = [self.watch(keeper) for _ in range(2)]
        for each, end, _ in both:
            self.fill(each)
            end.pending()
        with mock.patch.object(keeper, "_flushed", return_value=True) as flushed:
            keeper._wait(0.0)
            flushed.assert_called_once_with(both[0][0])
            keeper.drain(both[0][0])
            keeper._wait(5.0)
        self.assertEqual([call.args[0] for call in flushed.call_args_list], [both[n][0] for n in (0, 1, 0)])

    def test_descriptor_0_is_one_like_any_other_and_one_that_was_given_back_is_none(self) -> None:
        keeper = self.make()
        zero, gone = quiet_channel(), quiet_channel()
        zero.fileno.return_value, gone.fileno.return_value = 0, -1
        for each in (zero, gone):
            keeper.add(each)
            keeper.drain(each)
        with mock.patch(f"{MODULE}.wait_any", side_effect=lambda fds, *_: list(fds)):
            keeper._wait(0.0)
        zero.writer.flush.assert_called_once()
        gone.writer.flush.assert_not_called()

    def test_who_queues_something_does_not_need_the_housekeeper_and_does_not_keep_it(self) -> None:
        keeper, queued = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1), quiet_channel()
        keeper.add(queued)
        keeper.stop(0)
        there = weakref.ref(keeper)
        del keeper
        self.assertIsNone(there())
        queued.writer.on_queued()

    def test_nor_the_channel(self) -> None:
        keeper, (ours, theirs) = self.make(), socket.socketpair()
        theirs.close()
        left, _ = make_channel(ours, client=False)
        keeper.add(left)
        tell, there = left.writer.on_queued, weakref.ref(left)
        assert tell is not None
        keeper.discard(left)
        left.abort()
        left.release()
        del left
        self.assertIsNone(there())
        tell()
        self.assertEqual(keeper._draining, {})


class Beginning(HousekeeperTestCase):
    def test_its_thread_does_not_keep_a_program_from_ending_and_says_whose_it_is(self) -> None:
        thread = self.make().thread
        self.assertEqual((thread.daemon, thread.name), (True, "test-housekeeper"))

    def test_where_it_cannot_start_nothing_is_left_and_another_start_is_in_vain(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1)
        failing = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
        with failing, self.assertRaisesRegex(RuntimeError, "can't start"):
            keeper.start()
        self.assertEqual(keeper._waker.fileno(), -1)
        keeper.start()
        keeper.thread.join(5)
        self.assertFalse(keeper.thread.is_alive())

    def test_where_it_cannot_start_it_does_not_live_on(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1)
        there = weakref.ref(keeper)
        failing = mock.patch.object(keeper.thread, "start", side_effect=RuntimeError)
        with failing as start:
            try:
                keeper.start()
            except RuntimeError as exc:
                exc.__traceback__ = None
            start.side_effect = None
        thread = keeper.thread  # noqa: F841  it is of no account who holds on to the thread
        del keeper
        self.assertIsNone(there())

    def test_its_rounds_begin_a_tick_apart(self) -> None:
        keeper, begun = self.make(running=False), list[float]()
        with mock.patch.object(keeper, "round", begun.append), mock.patch(f"{MODULE}.TICK", 0.02):
            keeper.start()
            wait_until(lambda: len(begun) >= 4)
            keeper.stop(5)
        for before, after in itertools.pairwise(begun):
            self.assertGreaterEqual(after - before, 0.02)


class Ending(HousekeeperTestCase):
    def test_it_does_not_wait_for_the_round_that_would_come_next(self) -> None:
        keeper, waiting = self.make(), threading.Event()

        def told(*args: Any) -> list[int]:
            waiting.set()
            return wait_any(*args)

        with mock.patch(f"{MODULE}.TICK", 60.0), mock.patch(f"{MODULE}.wait_any", told):
            keeper.start()
            self.assertTrue(waiting.wait(5))
            keeper.stop(5)
        self.assertFalse(keeper.thread.is_alive())

    def test_one_that_was_never_started_leaves_no_descriptor(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1)
        keeper.stop(5)
        self.assertEqual(keeper._waker.fileno(), -1)

    def test_a_forked_child_looks_after_nobody_whatever_was_under_way(self) -> None:
        keeper = self.make()
        watched, _, _ = self.watch(keeper)

        def check() -> str:
            keeper.discard(watched)
            keeper._run()  # as its thread would, were it started here: there is nothing to do
            return f"{len(keeper._watched)} {len(keeper._draining)} {keeper._waker.fileno()}"

        watching = mock.patch.object(keeper, "_draining", {watched: None})
        with watching, held_elsewhere(keeper._lock):
            self.assertEqual(in_child(check), "0 0 -1")
        watched.writer.post(Opcode.BINARY, b"the parent goes on")
        self.assertEqual(list(keeper._watched), [watched])


if __name__ == "__main__":
    import unittest

    unittest.main()
