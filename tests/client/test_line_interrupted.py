"""The line in a fork and under interrupts: close() may come at any instant of any method; all writing is guarded."""

from __future__ import annotations

import ast
import itertools
import os
import unittest
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from sync_ws import interrupts
from sync_ws.channel.inbox import Note
from sync_ws.client import line as line_module
from sync_ws.client.line import CLOSED_BY_US, Line
from sync_ws.client.state import ClientState
from sync_ws.errors import ConnectionClosed, NotConnected
from sync_ws.interrupts import Flag
from sync_ws.timing import Deadline
from tests.client.test_line import LOST, NOW, LineTestCase, channel
from tests.support.held import held_elsewhere
from tests.support.interrupt import Interrupt
from tests.support.wire import fork


class ForkTest(LineTestCase):
    def test_in_a_child_it_is_over_though_another_thread_of_the_parent_held_the_lock(self) -> None:
        line = self.begun()
        line.dialling(mock.Mock())
        with held_elsewhere(line._lock):
            line._forget_in_child()
        self.assertIs(line.state, ClientState.CLOSED)
        self.assertEqual(line.close(), (None, None, None))
        with self.assertRaisesRegex(ConnectionClosed, "parent"):
            line.put_offline("x", None)
        self.assertTrue(line.await_closed(NOW))

    def test_what_came_and_what_may_be_written_are_the_parents(self) -> None:
        line = self.opened(channel())
        line.inbox.append("one")
        line._forget_in_child()
        self.assertEqual((line.close(), line.sending_channel), ((None, None, None), None))
        with self.assertRaisesRegex(ConnectionClosed, "parent"):
            line.take_left(None, NOW, True)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork here")
    def test_a_child_is_told_of_every_line(self) -> None:
        line = self.begun()
        with held_elsewhere(line._lock):
            child = fork()
            if not child:
                os._exit(line.state is ClientState.CLOSED and not line.attempt())
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)
        self.assertIs(line.state, ClientState.CONNECTING)

    def test_what_never_began_begins_in_the_child(self) -> None:
        line = self.line()
        line._forget_in_child()
        self.assertIs(line.state, ClientState.IDLE)
        line.begin()
        self.assertTrue(line.attempt())
        line = self.line()
        line.close()
        line._forget_in_child()
        self.assertIs(line.state, ClientState.CLOSED)


class InterruptedTest(LineTestCase):
    """close() from a signal handler that interrupted any of the methods, between any two instructions of it."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(interrupts, "STEP", 0.001)
        patch.start()
        self.addCleanup(patch.stop)

    def interrupt(
        self,
        prepare: Callable[[], Line],
        method: Callable[[Line], object],
        check: Callable[[Line, object, Any], object],
    ) -> None:
        """``check(line, outcome, found)``: what the method returned or raised, and what close() did."""
        for number in itertools.count(1):
            line, found = prepare(), list[Any]()

            def close(line: Line = line, found: list[Any] = found) -> None:
                found.append(line.close())

            with Interrupt(line_module, number, close) as interrupt:
                try:
                    outcome = method(line)
                except Exception as exc:
                    outcome = exc
            if not interrupt.came:
                self.assertGreater(number, 5)
                return
            with self.subTest(instruction=number):
                self.assertIn(line.state, (ClientState.CLOSING, ClientState.CLOSED))
                self.assertTrue(line.closing)
                self.assertFalse(line.held_here)
                check(line, outcome, found[0])
                line.over(CLOSED_BY_US)
                self.assertIs(line.state, ClientState.CLOSED)

    def no_error(self, line: Line, outcome: object, found: object) -> None:
        self.assertNotIsInstance(outcome, Exception, repr(outcome))

    def test_a_line_that_begins_is_closed_at_once(self) -> None:
        def check(line: Line, outcome: object, found: object) -> None:
            self.assertIsInstance(outcome, (RuntimeError, type(None)))
            self.assertFalse(line.attempt())

        self.interrupt(self.line, Line.begin, check)

    def test_a_dial_is_found_or_not_to_run(self) -> None:
        dial = mock.Mock()

        def check(line: Line, outcome: object, found: Any) -> None:
            self.assertTrue(outcome is False or found[0] is dial, (outcome, found))

        self.interrupt(self.begun, lambda line: line.dialling(dial), check)

    def test_a_channel_is_found_or_not_to_be_used(self) -> None:
        used, monitor = channel(), mock.Mock()

        def check(line: Line, outcome: object, found: Any) -> None:
            self.assertTrue(outcome is False or found[1] is used, (outcome, found))

        self.interrupt(self.begun, lambda line: line.opened(used, None, monitor), check)

    def test_a_message_is_queued_or_refused_never_both_and_never_neither(self) -> None:
        def check(line: Line, outcome: object, found: object) -> None:
            refused = isinstance(outcome, ConnectionClosed)
            self.assertTrue(refused or outcome is True, repr(outcome))
            self.assertEqual(line.take_undelivered(), () if refused else ("x",))

        self.interrupt(self.begun, lambda line: line.put_offline("x", None), check)

    def test_a_reconnect_is_heard_or_refused_and_close_has_the_last_word(self) -> None:
        used = channel()

        def check(line: Line, outcome: Any, found: object) -> None:
            self.assertTrue(isinstance(outcome, ConnectionClosed) or outcome == (None, used), repr(outcome))
            self.assertFalse(line.asked)

        self.interrupt(lambda: self.opened(used), Line.reconnect, check)

    def test_all_other_methods_go_on_to_their_end(self) -> None:
        used = channel()

        def waiting() -> Line:
            line = self.begun()
            line.begin_waiting()
            return line

        def queued() -> Line:
            line = self.begun()
            line.put_offline("x", None)
            return line

        def open_line() -> Line:
            used.reason = None
            return self.opened(used)

        methods: tuple[tuple[Callable[[], Line], Callable[[Line], object]], ...] = (
            (self.begun, Line.attempt), (waiting, Line.attempt), (self.begun, Line.begin_waiting),
            (self.begun, Line.dialled), (self.begun, lambda line: line.attempt_failed(LOST)),
            (queued, lambda line: line.next_queued(used)), (self.begun, lambda line: line.next_queued(used)),
            (queued, Line.drop_first_queued), (queued, Line.take_undelivered),
            (open_line, lambda line: line.ended(used)), (open_line, lambda line: line.note_rtt(1.0)),
            (self.begun, lambda line: line.finish(LOST, unless_asked=True)),
            (queued, Line.take_dropped), (open_line, Line.stats), (open_line, Line.close), (self.line, Line.close),
            (open_line, lambda line: line.finish(LOST)), (open_line, lambda line: line.over(LOST)),
            (open_line, Line.never_opened), (open_line, Line.wake), (open_line, Line.take_aside),
            (open_line, lambda line: line.put_aside(Note("heartbeat", 1))),
            (self.begun, lambda line: line.await_open(Deadline(0.003))),
            (self.begun, lambda line: line.await_due(Flag(), Deadline(0.001))),
            (self.begun, lambda line: line.await_end(channel(), Deadline(0.001))),
            (self.begun, lambda line: line.await_closed(Deadline(0.003))), (open_line, lambda line: line.connected),
        )  # fmt: skip
        for prepare, method in methods:
            with self.subTest(getattr(method, "__name__", "")):
                self.interrupt(prepare, method, self.no_error)

    def test_a_handler_that_raises_leaves_it_as_it_was_or_closed(self) -> None:
        class Raised(Exception):
            pass

        def strike() -> None:
            raise Raised

        seen: set[ClientState] = set()
        for number in itertools.count(1):
            line = self.line()
            with Interrupt(line_module, number, strike, signals_only=True) as interrupt:
                try:
                    line.close()
                except Raised:
                    pass
            if not interrupt.came:
                break
            seen.add(line.state)
            expected = NotConnected if line.state is ClientState.IDLE else ConnectionClosed
            for call in (partial(line.put_offline, "x", None), partial(line.take_left, None, NOW, True)):
                with self.subTest(number), self.assertRaises(expected):
                    call()
            self.assertIs(line.await_open(NOW), line.state is ClientState.CLOSED)
            line.close()
            self.assertIs(line.state, ClientState.CLOSED)
        self.assertEqual(seen, {ClientState.IDLE, ClientState.CLOSED})

    def test_it_is_known_to_whom_it_happens(self) -> None:
        line, held = self.begun(), list[bool]()
        for number in itertools.count(1):
            with Interrupt(line_module, number, lambda: held.append(line.held_here)) as interrupt:
                line.finish(LOST)
            if not interrupt.came:
                break
        self.assertIn(True, held)  # inside
        self.assertIs(held[0], False)  # before the lock was taken
        self.assertFalse(line.held_here)


class WritersTest(unittest.TestCase):
    def test_nobody_but_the_line_sets_its_fields(self) -> None:
        for path in sorted(Path(line_module.__file__).parent.glob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                for target in targets:
                    if isinstance(target, ast.Attribute):
                        with self.subTest(path.name):
                            self.assertNotIn(ast.unparse(target.value), ("line", "self._line", "self._thread"))


if __name__ == "__main__":
    unittest.main()
