"""The event bus: in order, from a snapshot, and one bad handler does not stop the rest."""

from __future__ import annotations

import os
import threading
import unittest
from typing import Any

from sync_ws.events import EventBus
from sync_ws.testing import LedgerTestCase
from tests.support.held import held_elsewhere
from tests.support.wire import fork, join


class Subscriptions(LedgerTestCase):
    def test_handlers_are_called_in_the_order_of_their_subscription(self) -> None:
        bus, calls = EventBus(), list[Any]()
        for name in "abc":
            bus.on("x", lambda *args, name=name: calls.append((name, args)))
        self.assertEqual(bus.emit("x", 1, "two"), 3)
        self.assertEqual(calls, [("a", (1, "two")), ("b", (1, "two")), ("c", (1, "two"))])

    def test_nobody_listening_is_no_error(self) -> None:
        bus = EventBus()
        self.assertEqual(bus.emit("x"), 0)
        self.assertFalse(bus.has("x"))
        self.assertFalse(bus.off("x", print))

    def test_on_returns_the_handler_so_it_can_decorate(self) -> None:
        bus = EventBus()
        self.assertIs(bus.on("x", print), print)
        self.assertIs(bus.once("x", print), print)
        self.assertTrue(bus.has("x"))

    def test_off_forgets_the_latest_subscription_only(self) -> None:
        bus, calls = EventBus(), list[str]()

        def first() -> None:
            calls.append("first")

        def second() -> None:
            calls.append("second")

        bus.on("x", first)
        bus.on("x", second)
        bus.on("x", first)
        self.assertTrue(bus.off("x", first))
        bus.emit("x")
        self.assertEqual(calls, ["first", "second"])
        self.assertTrue(bus.off("x", first))
        self.assertFalse(bus.off("x", first))

    def test_bound_methods_can_be_taken_off(self) -> None:
        bus, calls = EventBus(), list[int]()
        bus.on("x", calls.append)
        self.assertTrue(bus.off("x", calls.append))
        self.assertEqual(bus.emit("x", 1), 0)

    def test_an_unknown_name_is_refused_and_the_known_ones_listed(self) -> None:
        bus = EventBus(("open", "close"))
        for use in (lambda: bus.on("opne", print), lambda: bus.off("opne", print), lambda: bus.emit("opne")):
            with self.assertRaisesRegex(ValueError, "opne.*open, close"):
                use()

    def test_a_handler_is_callable(self) -> None:
        wrong: Any = "not callable"
        with self.assertRaises(TypeError):
            EventBus().on("x", wrong)


class Changes(LedgerTestCase):
    def test_off_inside_a_handler_counts_from_the_next_event_on(self) -> None:
        bus, calls = EventBus(), list[str]()

        def second() -> None:
            calls.append("second")

        def first() -> None:
            calls.append("first")
            bus.off("x", first)
            bus.off("x", second)

        bus.on("x", first)
        bus.on("x", second)
        self.assertEqual((bus.emit("x"), bus.emit("x")), (2, 0))
        self.assertEqual(calls, ["first", "second"])

    def test_on_inside_a_handler_counts_from_the_next_event_on(self) -> None:
        bus, calls = EventBus(), list[str]()
        bus.on("x", lambda: bus.on("x", lambda: calls.append("new")))
        bus.emit("x")
        self.assertEqual(calls, [])
        bus.emit("x")
        self.assertEqual(calls, ["new"])

    def test_a_handler_may_emit(self) -> None:
        bus, calls = EventBus(), list[int]()

        def count_down(n: int) -> None:
            calls.append(n)
            if n:
                bus.emit("x", n - 1)

        bus.on("x", count_down)
        bus.emit("x", 3)
        self.assertEqual(calls, [3, 2, 1, 0])

    def test_a_handler_is_called_without_any_lock_of_the_bus(self) -> None:
        bus, done = EventBus(), threading.Event()

        def use() -> None:
            bus.on("y", print)
            bus.emit("z")
            done.set()

        def handler() -> None:
            other = threading.Thread(target=use)
            other.start()
            join(other)

        bus.on("x", handler)
        bus.once("x", handler)
        bus.emit("x")
        self.assertTrue(done.is_set())


class Forks(LedgerTestCase):
    @unittest.skipUnless(hasattr(os, "fork"), "no fork here")
    def test_a_child_subscribes_whoever_held_the_lock(self) -> None:
        bus = EventBus(["a"])
        with held_elsewhere(bus._lock):
            child = fork()
            if not child:
                bus.on("a", lambda: None)
                os._exit(bus.emit("a"))
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)


class Once(LedgerTestCase):
    def test_once_is_called_at_the_next_event_only(self) -> None:
        bus, calls = EventBus(), list[int]()
        bus.once("x", calls.append)
        bus.on("x", calls.append)
        bus.emit("x", 1)
        bus.emit("x", 2)
        self.assertEqual(calls, [1, 1, 2])

    def test_once_that_emits_again_is_not_called_again(self) -> None:
        bus, calls = EventBus(), list[int]()

        def again() -> None:
            calls.append(1)
            bus.emit("x")

        bus.once("x", again)
        bus.emit("x")
        self.assertEqual(calls, [1])

    def test_once_from_two_threads_is_called_once(self) -> None:
        for _ in range(50):
            bus, calls = EventBus(), list[str]()
            both = threading.Barrier(2)

            def emit(bus: EventBus = bus, both: threading.Barrier = both) -> None:
                both.wait(5)
                bus.emit("x")

            bus.once("x", lambda calls=calls: calls.append("once"))
            bus.on("x", lambda calls=calls: calls.append("on"))
            threads = [threading.Thread(target=emit) for _ in range(2)]
            for thread in threads:
                thread.start()
            join(*threads)
            self.assertEqual(sorted(calls), ["on", "on", "once"])


class Raising(LedgerTestCase):
    def test_one_that_raises_does_not_stop_the_rest(self) -> None:
        told: list[tuple[str, tuple[Any, ...], Exception]] = []
        bus = EventBus(on_error=lambda event, args, exc: told.append((event, args, exc)))
        calls: list[int] = []
        bus.on("x", lambda n: 1 // 0)
        bus.on("x", calls.append)
        self.assertEqual(bus.emit("x", 7), 2)
        self.assertEqual(calls, [7])
        [(event, args, exc)] = told
        self.assertEqual((event, args), ("x", (7,)))
        self.assertIsInstance(exc, ZeroDivisionError)
        self.assertIsNotNone(exc.__traceback__)

    def test_without_on_error_the_first_exception_is_raised_after_all_have_run(self) -> None:
        bus, calls = EventBus(), list[int]()

        def fail(exc: Exception) -> None:
            raise exc

        bus.on("x", lambda: fail(KeyError("first")))
        bus.on("x", lambda: fail(ValueError("second")))
        bus.on("x", lambda: calls.append(1))
        with self.assertRaisesRegex(KeyError, "first"):
            bus.emit("x")
        self.assertEqual(calls, [1])

    def test_a_once_handler_that_raises_is_used_up(self) -> None:
        bus = EventBus()
        bus.once("x", lambda: 1 // 0)
        with self.assertRaises(ZeroDivisionError):
            bus.emit("x")
        self.assertEqual(bus.emit("x"), 0)

    def test_an_interrupt_is_not_swallowed(self) -> None:
        bus = EventBus(on_error=lambda *args: None)

        def interrupt() -> None:
            raise KeyboardInterrupt

        bus.on("x", interrupt)
        with self.assertRaises(KeyboardInterrupt):
            bus.emit("x")
