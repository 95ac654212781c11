"""The client's thread from attempt to attempt: what leads to another one, when, and what is said of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import unittest
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from sync_ws import Backoff, ClientState, ConnectionClosed, HandshakeError, interrupts, should_reconnect
from sync_ws.client.dial import Dial
from sync_ws.client.events import Closed, GaveUp
from sync_ws.client.line import CLOSED_BY_US, Line
from sync_ws.endings import Reason
from sync_ws.testing import ManualClock, wait_until
from tests.support.thread_case import ThreadTestCase
from tests.support.wire import join

URL = "ws://a.test/"
AT_ONCE = Backoff.fixed(0.001)
REFUSED = Reason("refused on purpose")


class AttemptsTestCase(ThreadTestCase):
    """Attempts that lead to no connection, each in the way that it is told to."""

    def failing(self, *reasons: Reason, before: Callable[[], object] = lambda: None) -> Any:
        """Dialling fails for one reason after the other, and then for the last of them; ``before`` is called first."""
        left = list(reasons)

        def run(dial: Dial) -> None:
            before()
            reason = left.pop(0) if len(left) > 1 else left[0]
            raise HandshakeError(reason) from reason.error

        return mock.patch.object(Dial, "run", autospec=True, side_effect=run)

    @contextlib.contextmanager
    def ending(self, said: str) -> Iterator[list[str]]:
        """It is over at the end of the block, and the log says why."""
        with self.assertLogs("sync_ws.client", "INFO") as logs:
            yield logs.output
            join(self.thread)
        self.assertIn(said, logs.output[-1])
        self.assertTrue(self.thread.gone.is_set())
        self.assertIs(self.line.state, ClientState.CLOSED)


class StartTest(AttemptsTestCase):
    def test_who_starts_it_is_told_that_there_is_no_thread_to_be_had(self) -> None:
        thread = self.make(URL)
        failing = mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread"))
        with failing, self.assertRaisesRegex(RuntimeError, "can't start new thread"):
            thread.start()
        self.assertFalse(thread.is_alive())

    def test_it_keeps_no_program_alive(self) -> None:
        self.assertTrue(self.make(URL).daemon)

    def test_one_that_was_closed_in_the_moment_of_the_start_is_gone(self) -> None:
        thread = self.make(URL)
        self.line.close()
        thread.start()
        join(thread)
        self.assertTrue(thread.gone.is_set())

    def test_one_that_is_closed_before_the_first_attempt_makes_none(self) -> None:
        def close_first(line: Line) -> bool:
            line.close()
            return attempt(line)

        attempt = Line.attempt
        with mock.patch.object(Line, "attempt", close_first), self.failing(REFUSED) as run:
            join(self.begin(URL, backoff=AT_ONCE))
        run.assert_not_called()
        self.assertEqual(self.told, [("close", Closed(CLOSED_BY_US))])


class CountTest(AttemptsTestCase):
    def test_attempts_are_counted_until_they_are_used_up(self) -> None:
        with self.failing(REFUSED) as run:
            self.make(URL, backoff=Backoff.fixed(0.001, attempts=2))
            with self.ending("its 2 attempts are used up"):
                self.line.begin()
                self.line.put_offline("kept", None)
                self.thread.start()
        self.assertEqual(run.call_count, 3)
        self.assertEqual(self.names, ["reconnecting", "reconnecting", "gave_up"])
        self.assertEqual([event.attempt for event in self.events("reconnecting")], [1, 2])
        self.assertEqual({event.reason for event in self.events("reconnecting")}, {REFUSED})
        (end,) = self.events("gave_up")
        self.assertEqual((end.reason, end.undelivered), (REFUSED, ("kept",)))
        self.assertIsInstance(end.reason.error, HandshakeError)
        self.assertEqual((self.line.stats()["attempts_failed"], self.line.reason), (3, REFUSED))

    def test_the_delay_is_the_policys_or_what_the_server_asked_for_if_that_is_longer(self) -> None:
        clock, delays = ManualClock(), list[float]()
        with self.failing(REFUSED, Reason("busy", retry_after=90), Reason("busy", retry_after=1)):
            self.begin(URL, backoff=Backoff(1, 100, jitter=False), clock=clock)
            for count in range(1, 4):
                self.wait_for("reconnecting", count)
                delays.append(clock.wait_for_timer())
                clock.advance(delays[-1])
            self.wait_for("reconnecting", 4)
            clock.wait_for_timer()
            self.end()
        self.assertEqual(delays, [1, 90, 4])
        self.assertEqual([event.delay for event in self.events("reconnecting")], [1, 90, 4, 8])

    def test_when_the_delay_is_over_the_thread_is_woken_and_does_not_look_now_and_then(self) -> None:
        clock = ManualClock()
        with mock.patch.object(interrupts, "STEP", 60.0), self.failing(REFUSED):
            self.begin(URL, backoff=Backoff.fixed(5), clock=clock)
            clock.wait_for_timer()
            clock.advance(5)
            self.wait_for("reconnecting", 2)
            self.end()

    def test_where_no_timer_can_be_had_the_thread_waits_itself(self) -> None:
        clock = ManualClock()
        clock.fail_timers(1)
        with self.failing(REFUSED), self.assertLogs("sync_ws.client", "WARNING") as logs:
            self.begin(URL, backoff=Backoff.fixed(0.01), clock=clock)
            self.wait_for("reconnecting", 2)
            self.end()
        self.assertIn("no timer for the reconnect: can't start new thread", logs.output[-1])

    def test_that_wait_ends_with_close(self) -> None:
        clock = ManualClock()
        clock.fail_timers(1)
        with self.failing(REFUSED):
            self.begin(URL, backoff=Backoff.fixed(60), clock=clock)
            self.wait_for("reconnecting")
            self.end()
        self.assertEqual(self.names, ["reconnecting", "close"])


class DecisionTest(AttemptsTestCase):
    def test_without_a_policy_there_is_one_attempt(self) -> None:
        with self.failing(REFUSED) as run:
            self.make(URL)
            with self.ending("reconnect=None"):
                self.line.begin()
                self.thread.start()
        self.assertEqual((run.call_count, self.names), (1, ["gave_up"]))

    def test_what_cannot_get_better_is_not_tried_again(self) -> None:
        with self.failing(Reason("wrong", permanent=True)):
            self.make(URL, backoff=AT_ONCE)
            with self.ending("trying again cannot help"):
                self.line.begin()
                self.thread.start()
        self.assertEqual(self.names, ["gave_up"])

    def test_the_applications_own_decision_counts_both_ways_and_is_the_reason(self) -> None:
        decisions = iter([True, 0])  # whatever is true or not
        with self.failing(Reason("wrong", permanent=True)):
            self.make(URL, backoff=AT_ONCE, should_reconnect=lambda reason: next(decisions))
            with self.ending("should_reconnect says so"):
                self.line.begin()
                self.thread.start()
        self.assertEqual(self.names, ["reconnecting", "gave_up"])

    def test_where_the_decision_raises_it_is_told_and_the_default_decides(self) -> None:
        error = ValueError("on purpose")
        with self.failing(REFUSED, Reason("wrong", permanent=True)), self.assertLogs("sync_ws.client", "ERROR") as logs:
            self.make(URL, backoff=AT_ONCE, should_reconnect=mock.Mock(side_effect=error))
            self.line.begin()
            self.thread.start()
            join(self.thread)
        self.assertEqual(self.names, ["error", "reconnecting", "error", "gave_up"])
        self.assertIs(self.events("error")[0].exception, error)
        self.assertIn("'should_reconnect' raised", logs.output[0])

    def test_a_decision_to_end_the_program_ends_the_client_whatever_else_was_asked_for(self) -> None:
        def decide(reason: Reason) -> bool:
            self.line.reconnect()
            raise SystemExit(3)

        with self.failing(REFUSED):
            self.make(URL, backoff=AT_ONCE, should_reconnect=decide)
            with self.ending("a function ended it") as log:
                self.line.begin()
                self.thread.start()
        self.assertEqual(self.names, ["gave_up"])
        self.assertEqual(str(self.events("gave_up")[0].reason), "should_reconnect raised SystemExit(3)")
        self.assertNotIn("will keep trying", "\n".join(log))

    def test_reconnect_that_comes_with_the_decision_to_give_up_is_followed(self) -> None:
        def decide(reason: Reason) -> bool:
            if not self.names:
                self.line.reconnect()
            return False

        with self.failing(REFUSED) as run:
            join(self.begin(URL, backoff=AT_ONCE, should_reconnect=decide))
        self.assertEqual((run.call_count, self.names), (2, ["reconnecting", "gave_up"]))

    def test_close_that_comes_with_the_decision_to_go_on_is_followed(self) -> None:
        def decide(reason: Reason) -> bool:
            self.line.close()
            return True

        with self.failing(REFUSED) as run:
            join(self.begin(URL, backoff=AT_ONCE, should_reconnect=decide))
        self.assertEqual((run.call_count, self.told), (1, [("close", Closed(CLOSED_BY_US))]))

    def test_a_name_that_does_not_exist_ends_only_the_first_attempt_of_who_waits_in_open(self) -> None:
        error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        unknown = Reason("no such name", error=error)
        cases: list[tuple[bool, tuple[Reason, ...], Any, list[str]]] = [
            (True, (unknown,), should_reconnect, ["gave_up"]),
            (True, (REFUSED, unknown), should_reconnect, ["reconnecting", "reconnecting", "gave_up"]),
            (True, (REFUSED,), should_reconnect, ["reconnecting", "reconnecting", "gave_up"]),
            (False, (unknown,), should_reconnect, ["reconnecting", "reconnecting", "gave_up"]),
            (True, (unknown,), lambda reason: True, ["reconnecting", "reconnecting", "gave_up"]),
        ]
        for awaited, reasons, decide, names in cases:
            with self.subTest(awaited=awaited, reasons=reasons), self.failing(*reasons):
                self.make(URL, backoff=Backoff.fixed(0.001, attempts=2), should_reconnect=decide)
                said = "there is no such name, and open() waits" if len(names) == 1 else "attempts are used up"
                with self.ending(said):
                    self.line.begin(awaited)
                    self.thread.start()
                self.assertEqual(self.names, names)


class AskedTest(AttemptsTestCase):
    """reconnect() was called."""

    def asking(self, reason: Reason, times: int = 1) -> Any:
        """Attempts that fail for ``reason``, the first ``times`` of them while a reconnect is asked for."""
        left = iter(range(times))
        return self.failing(reason, before=lambda: next(left, None) is not None and self.line.reconnect())

    def test_a_cancelled_attempt_is_no_failure_and_the_next_begins_at_once(self) -> None:
        cancelled = Reason("cancelled", by_us=True)
        with self.asking(cancelled), self.assertLogs("sync_ws.client", "WARNING") as logs:
            self.begin(URL, backoff=Backoff.fixed(60))
            self.wait_for("reconnecting", 2)
            self.assertEqual(self.line.stats()["attempts_failed"], 1)
            self.end()
        first, second = self.events("reconnecting")
        self.assertEqual((first.attempt, first.delay, str(first.reason)), (1, 0.0, "reconnect() was called"))
        self.assertEqual((second.attempt, second.delay), (2, 60))
        self.assertEqual(len(logs.output), 1, "only the second was trouble")

    def test_a_failure_in_the_same_moment_keeps_its_reason(self) -> None:
        with self.asking(REFUSED):
            self.begin(URL, backoff=Backoff.fixed(60))
            self.wait_for("reconnecting")
            self.end()
        self.assertEqual(self.events("reconnecting")[0].reason, REFUSED)

    def test_it_begins_a_new_row_of_attempts_and_needs_no_policy(self) -> None:
        with self.asking(REFUSED, times=3):
            join(self.begin(URL))
        self.assertEqual([event.attempt for event in self.events("reconnecting")], [1, 1, 1])
        self.assertEqual(self.names[-1], "gave_up")

    def test_it_ends_the_delay_and_the_timer(self) -> None:
        clock = ManualClock()
        with self.failing(REFUSED) as run:
            self.begin(URL, backoff=Backoff(5, 5, jitter=False), clock=clock)
            clock.wait_for_timer()
            armed = clock.armed
            self.line.reconnect()
            clock.wait_for_timer(after=armed)
            self.assertEqual((run.call_count, clock.pending), (2, [5]))
            self.assertEqual([event.attempt for event in self.events("reconnecting")], [1, 2])
            self.end()

    def test_between_two_attempts_it_spares_the_one_that_was_about_to_run(self) -> None:
        def url() -> str:
            if not self.told:
                self.line.reconnect()
            return URL

        with self.failing(REFUSED) as run:
            self.begin(url, backoff=Backoff.fixed(60))
            self.wait_for("reconnecting", 2)
            self.end()
        self.assertEqual(run.call_count, 1)

    def test_close_in_the_function_that_is_told_of_it_comes_first(self) -> None:
        with self.asking(REFUSED) as run:
            thread = self.make(URL, backoff=AT_ONCE)
            thread._bus.on("reconnecting", lambda event: self.line.close())
            self.line.begin()
            thread.start()
            join(thread)
        self.assertEqual((run.call_count, self.names), (1, ["reconnecting", "close"]))


class FunctionsTest(AttemptsTestCase):
    def test_one_that_raises_may_do_better_next_time(self) -> None:
        url = mock.Mock(side_effect=[OSError("no token"), URL])
        with self.failing(REFUSED) as run, self.assertLogs("sync_ws.client", "ERROR") as logs:
            self.begin(url, backoff=AT_ONCE, should_reconnect=lambda reason: reason != REFUSED)
            join(self.thread)
        self.assertEqual((run.call_count, self.names), (1, ["error", "reconnecting", "gave_up"]))
        reason = self.events("reconnecting")[0].reason
        self.assertEqual(str(reason), "the options of an attempt could not be made: no token")
        self.assertEqual((reason.permanent, reason.error), (False, self.events("error")[0].exception))
        self.assertIn("no token", logs.output[0])

    def test_one_whose_result_cannot_be_used_ends_it(self) -> None:
        self.make(lambda: "gopher://a.test/", backoff=AT_ONCE)
        with self.ending("trying again cannot help"):
            self.line.begin()
            self.thread.start()
        self.assertEqual(self.names, ["error", "gave_up"])
        self.assertTrue(self.events("gave_up")[0].reason.permanent)

    def test_one_that_would_end_the_program_ends_the_client(self) -> None:
        self.make(mock.Mock(side_effect=SystemExit(3)), backoff=AT_ONCE)
        with self.ending("a function ended it"):
            self.line.begin()
            self.thread.start()
        self.assertEqual(self.names, ["gave_up"])
        self.assertEqual(str(self.events("gave_up")[0].reason), "a function among the options raised SystemExit(3)")

    def test_after_close_what_one_raises_is_no_reason_unless_it_ends_the_program(self) -> None:
        said = {OSError("no token"): "closed by us", SystemExit(3): "a function among the options raised SystemExit(3)"}
        for error, text in said.items():

            def url(error: BaseException = error) -> str:
                self.line.close()
                raise error

            with self.subTest(text):
                self.make(url, backoff=AT_ONCE)
                with self.ending(f"closed: {text}"):
                    self.line.begin()
                    self.line.put_offline("kept", None)
                    self.thread.start()
                (end,) = self.events("close")
                self.assertEqual((str(end.reason), end.undelivered), (text, ("kept",)))
                self.assertEqual(str(self.line.reason), text)

    def test_one_that_is_told_of_the_delay_may_end_the_program(self) -> None:
        refused: list[bool] = []

        def queue_one_more(event: GaveUp) -> None:
            with self.assertRaises(ConnectionClosed):
                self.line.put_offline("too late", None)
            refused.append(True)

        with self.failing(REFUSED) as run:
            thread = self.make(URL, backoff=Backoff.fixed(60))
            thread._bus.on("reconnecting", mock.Mock(side_effect=SystemExit(3)))
            thread._bus.on("gave_up", queue_one_more)
            with self.ending("a function ended it"):
                self.line.begin()
                thread.start()
        self.assertEqual((run.call_count, self.names, refused), (1, ["reconnecting", "gave_up"], [True]))
        self.assertEqual(self.line.reason, self.events("gave_up")[0].reason)


class CancelTest(AttemptsTestCase):
    def test_close_cancels_the_attempt_and_is_the_reason(self) -> None:
        dialling = threading.Event()

        def wait_for_close() -> None:
            dialling.set()
            wait_until(lambda: self.line.closing)

        with self.failing(REFUSED, before=wait_for_close):
            self.begin("ws://b.test/path", backoff=AT_ONCE)
            self.assertTrue(dialling.wait(5))
            self.assertEqual(self.line.url, "ws://b.test:80/path")
            dial, _, _ = self.line.close()
            self.assertIsNotNone(dial)
            join(self.thread)
        self.assertEqual(self.told, [("close", Closed(CLOSED_BY_US))])

    def test_whoever_is_told_of_the_end_may_ask_why_it_is_over(self) -> None:
        reasons: list[Reason | None] = []
        with self.failing(REFUSED):
            thread = self.make(URL, backoff=Backoff.fixed(60))
            thread._bus.on("close", lambda event: reasons.append(self.line.reason))
            self.line.begin()
            thread.start()
            self.wait_for("reconnecting")
            self.end()
        self.assertEqual(reasons, [CLOSED_BY_US])

    def test_an_attempt_that_is_over_is_not_cancelled(self) -> None:
        with self.failing(REFUSED):
            self.begin(URL, backoff=Backoff.fixed(60))
            self.wait_for("reconnecting")
            dial, _, _ = self.line.close()
            self.assertIsNone(dial)

    def test_each_attempt_is_in_the_log_of_whoever_asks(self) -> None:
        with self.failing(REFUSED), self.assertLogs("sync_ws.client", "DEBUG") as logs:
            join(self.begin("ws://a.test/?token=secret", backoff=Backoff.fixed(0.001, attempts=2)))
        text = "\n".join(logs.output)
        for said in ("ws://a.test:80/: attempt 1", "cannot connect to ws://a.test:80/ yet", "reconnecting in 0.00 s"):
            self.assertIn(said, text)


if __name__ == "__main__":
    unittest.main()
