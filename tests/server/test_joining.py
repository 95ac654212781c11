"""Waiting for threads: those that end, those that do not, those that have not begun."""

from __future__ import annotations

import threading
import time
from unittest import mock

from sync_ws.server.joining import join
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline


class JoinTest(LedgerTestCase):
    def thread(self) -> tuple[threading.Thread, threading.Event]:
        """One that runs until it is told to end."""
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(end.set)
        return thread, end

    def test_all_have_ended_when_it_returns(self) -> None:
        threads = [self.thread() for _ in range(3)]
        for _, end in threads:
            end.set()
        join([thread for thread, _ in threads], Deadline(10))
        self.assertEqual([thread.is_alive() for thread, _ in threads], [False] * 3)

    def test_one_that_stays_is_waited_for_until_the_deadline(self) -> None:
        thread, _ = self.thread()
        begun = time.monotonic()
        join([thread, thread], Deadline(0.05))
        self.assertTrue(thread.is_alive())
        self.assertTrue(0.05 <= time.monotonic() - begun < 2)

    def test_a_timeout_beyond_all_clocks_is_waited_for_too(self) -> None:
        for timeout in (30 * 86400.0, 1e300, None):
            thread, end = self.thread()
            end.set()
            join([thread], Deadline(timeout))
            self.assertFalse(thread.is_alive())

    def test_neither_the_calling_thread_nor_one_that_has_not_begun_is_waited_for(self) -> None:
        begun = time.monotonic()
        join([threading.current_thread(), threading.Thread()], Deadline(10))
        self.assertLess(time.monotonic() - begun, 2)

    def test_one_that_is_about_to_begin_is_not_waited_for(self) -> None:
        """It has an ident, and ``join`` raises: so a signal's handler finds a thread whose ``start`` it interrupted."""
        thread, _ = self.thread()
        error = RuntimeError("cannot join thread before it is started")
        with mock.patch.object(thread, "join", side_effect=error) as tried:
            join([thread], Deadline(10))
        self.assertEqual(tried.call_count, 1)
