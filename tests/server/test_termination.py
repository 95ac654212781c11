"""SIGTERM inside the with block, and as it was before behind it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any
from unittest import mock

from sync_ws.server.termination import Termination
from sync_ws.testing import LedgerTestCase


def own(number: int, frame: FrameType | None) -> None:
    """A handler of the application."""


class TerminationTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        self.came: list[None] = []

    def termination(self) -> Termination:
        return Termination(lambda: self.came.append(None))

    def test_inside_it_calls_and_afterwards_it_is_as_it_was(self) -> None:
        with self.termination():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        self.assertEqual(len(self.came), 2)
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_it_is_as_it_was_after_an_error_too(self) -> None:
        with self.assertRaises(KeyboardInterrupt), self.termination():
            raise KeyboardInterrupt
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_who_has_a_handler_or_ignores_it_keeps_that(self) -> None:
        for handler in (own, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, handler)
            with self.termination():
                self.assertIs(signal.getsignal(signal.SIGTERM), handler)
            self.assertIs(signal.getsignal(signal.SIGTERM), handler)

    def test_a_handler_that_is_set_inside_stays(self) -> None:
        with self.termination():
            signal.signal(signal.SIGTERM, own)
        self.assertIs(signal.getsignal(signal.SIGTERM), own)

    def test_one_within_another_leaves_it_alone(self) -> None:
        with self.termination():
            with Termination(self.fail):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        self.assertEqual(len(self.came), 2)

    def test_other_threads_leave_it_alone(self) -> None:
        seen: list[Any] = []

        def other() -> None:
            with self.termination():
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        self.assertEqual(seen, [signal.SIG_DFL])

    def test_an_interrupt_just_behind_its_setting_leaves_nothing(self) -> None:
        real = signal.signal

        def interrupted(number: int, handler: Any) -> Any:
            before = real(number, handler)
            if handler is not signal.SIG_DFL:
                raise KeyboardInterrupt
            return before

        with mock.patch.object(signal, "signal", interrupted), self.assertRaises(KeyboardInterrupt):
            self.termination().__enter__()
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)
