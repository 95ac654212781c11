"""ManualClock: time moves when told, timers run in order, and nothing is left to chance."""

from __future__ import annotations

import threading
import time
import unittest

from sync_ws.testing import LedgerTestCase, ManualClock, UncaughtThreadErrors


class Timers(LedgerTestCase):
    timeout = 20.0

    def setUp(self) -> None:
        super().setUp()
        self.clock = ManualClock(patience=2.0)
        self.ran: list[tuple[str, float]] = []

    def note(self, what: str, delay: float) -> None:
        self.clock.timer(delay, lambda: self.ran.append((what, self.clock.monotonic() - 1000.0)))

    def test_it_fits_where_a_clock_is_taken(self) -> None:
        try:
            from sync_ws.timing import Clock
        except ImportError:
            self.skipTest("there is no such protocol")
        clock: Clock = self.clock
        handle = clock.timer(1, lambda: None)
        self.assertTrue(handle.is_alive())
        handle.cancel()

    def test_time_stands_still_until_it_is_advanced(self) -> None:
        self.assertEqual((self.clock.monotonic(), ManualClock(5).monotonic()), (1000.0, 5))
        self.note("a", 0)
        self.assertEqual((self.ran, self.clock.pending), ([], [0.0]))
        self.clock.advance(0)
        self.assertEqual(self.ran, [("a", 0.0)])
        self.clock.advance(2.5)
        self.assertEqual(self.clock.monotonic(), 1002.5)

    def test_timers_run_in_order_each_at_its_own_time(self) -> None:
        delays = {"late": 30, "early": 10, "tie 1": 20, "tie 2": 20, "never": 31, "past": -1}
        for what, delay in delays.items():
            self.note(what, delay)
        self.assertEqual(self.clock.pending, [0, 10, 20, 20, 30, 31])
        self.clock.advance(30)
        self.assertEqual(self.ran, [("past", 0), ("early", 10), ("tie 1", 20), ("tie 2", 20), ("late", 30)])
        self.assertEqual((self.clock.pending, self.clock.monotonic()), ([1.0], 1030.0))

    def test_a_timer_armed_by_a_timer_runs_in_the_same_advance(self) -> None:
        def beat() -> None:
            self.ran.append(("beat", self.clock.monotonic() - 1000.0))
            self.clock.timer(30, beat)

        self.clock.timer(30, beat)
        self.clock.advance(100)
        self.assertEqual([at for _, at in self.ran], [30, 60, 90])
        self.assertEqual((self.clock.pending, self.clock.armed), ([20.0], 4))

    def test_suspend_runs_them_late(self) -> None:
        self.note("a", 10)
        self.note("b", 20)
        self.note("c", 61)
        self.clock.suspend(60)
        self.assertEqual(self.ran, [("a", 60), ("b", 60)])

    def test_tenths_of_a_second_add_up(self) -> None:
        self.note("one", 1)
        for _ in range(10):
            self.clock.advance(0.1)
        self.assertEqual(self.ran, [("one", 1.0)])

    def test_each_function_has_a_thread_of_its_own(self) -> None:
        threads: list[threading.Thread] = []
        for _ in range(2):
            self.clock.timer(1, lambda: threads.append(threading.current_thread()))
        self.clock.advance(1)
        self.assertEqual(len({threading.current_thread(), *threads}), 3)
        self.assertFalse(any(thread.is_alive() for thread in threads))

    def test_cancel_and_is_alive_as_of_a_threading_timer(self) -> None:
        alive: list[bool] = []
        timer = self.clock.timer(1, lambda: alive.append(timer.is_alive()))
        cancelled = self.clock.timer(1, lambda: self.ran.append(("cancelled", 0)))
        self.assertTrue(timer.is_alive() and cancelled.is_alive())
        cancelled.cancel()
        cancelled.cancel()
        self.assertFalse(cancelled.is_alive())
        self.clock.advance(1)
        timer.cancel()
        self.assertEqual((alive, timer.is_alive(), self.ran), ([True], False, []))

    def test_a_timer_can_cancel_the_next(self) -> None:
        self.clock.timer(1, lambda: second.cancel())
        second = self.clock.timer(1, lambda: self.ran.append(("second", 1)))
        self.clock.advance(1)
        self.assertEqual(self.ran, [])

    def test_an_exception_goes_where_those_of_threads_go(self) -> None:
        previous = threading.excepthook
        threading.excepthook = lambda args: None  # keeps the report of this test quiet
        self.addCleanup(setattr, threading, "excepthook", previous)
        with UncaughtThreadErrors() as uncaught:
            self.clock.timer(1, lambda: self.fail("on purpose"))
            self.note("after", 2)
            self.clock.advance(2)
        self.assertEqual([error.message for error in uncaught.errors], ["on purpose"])
        self.assertEqual(self.ran, [("after", 2)])

    def test_a_function_that_does_not_return_is_named_and_the_rest_stays_armed(self) -> None:
        clock = ManualClock(patience=0.05)
        over = threading.Event()

        def stuck() -> None:
            over.wait(5)

        timer = clock.timer(1, stuck)
        clock.timer(2, lambda: self.ran.append(("after", 2)))
        with self.assertRaisesRegex(TimeoutError, r"(?s)stuck.*over\.wait"):
            clock.advance(10)
        self.assertTrue(timer.is_alive())
        self.assertEqual((clock.monotonic(), clock.pending, self.ran), (1001.0, [1.0], []))
        over.set()
        clock.advance(1)
        self.assertEqual(self.ran, [("after", 2)])

    def test_only_one_advances(self) -> None:
        raised: list[RuntimeError] = []

        def nested() -> None:
            try:
                self.clock.advance(1)
            except RuntimeError as error:
                raised.append(error)

        self.clock.timer(1, nested)
        self.clock.advance(1)
        self.assertEqual(len(raised), 1)
        self.clock.advance(1)

    def test_fail_timers(self) -> None:
        self.clock.fail_timers(2)
        for _ in range(2):
            with self.assertRaises(RuntimeError):
                self.clock.timer(1, lambda: None)
        self.note("third", 1)
        self.clock.advance(1)
        self.assertEqual((self.ran, self.clock.armed), ([("third", 1)], 1))

    def test_wrong_times_are_refused(self) -> None:
        for seconds in (-1, float("inf"), float("nan")):
            with self.assertRaises(ValueError):
                self.clock.advance(seconds)
        for delay in (float("inf"), float("nan")):
            with self.assertRaises(ValueError):
                self.clock.timer(delay, lambda: None)


class Waiting(LedgerTestCase):
    timeout = 20.0

    def test_wait_for_timer_returns_the_next_delay(self) -> None:
        clock = ManualClock()
        clock.timer(20, lambda: None)
        clock.timer(10, lambda: None)
        self.assertEqual(clock.wait_for_timer(0), 10.0)

    def test_wait_for_timer_waits_for_another_thread(self) -> None:
        clock = ManualClock()
        waiting = threading.Event()

        def arm() -> None:
            waiting.wait(5)
            clock.timer(7, lambda: None)

        thread = threading.Thread(target=arm)
        thread.start()
        with self.assertRaises(TimeoutError):
            clock.wait_for_timer(0.01)
        waiting.set()
        self.assertEqual(clock.wait_for_timer(5), 7.0)
        thread.join(5)

    def test_wait_for_a_timer_armed_after_another(self) -> None:
        clock = ManualClock()
        first = clock.timer(3, lambda: None)
        seen = clock.armed
        with self.assertRaises(TimeoutError):
            clock.wait_for_timer(0.01, after=seen)
        first.cancel()
        clock.timer(4, lambda: None)
        self.assertEqual(clock.wait_for_timer(0.01, after=seen), 4.0)

    def test_many_threads_arm_and_cancel_while_the_clock_runs(self) -> None:
        clock = ManualClock()
        ran: list[int] = []

        def use(number: int) -> None:
            for _ in range(50):
                clock.timer(1, lambda: ran.append(number))
                clock.timer(1, lambda: ran.append(-1)).cancel()

        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 5
        while any(thread.is_alive() for thread in threads) and time.monotonic() < end:
            clock.advance(0.25)
        for thread in threads:
            thread.join(5)
        clock.advance(1)
        self.assertEqual((len([number for number in ran if number >= 0]), clock.pending), (200, []))


if __name__ == "__main__":
    unittest.main()
