"""The ledger reports each kind of leak, names it, and is silent without one. Leaking tests are inner ones."""

from __future__ import annotations

import _thread
import io
import os
import socket
import subprocess
import sys
import threading
import unittest
import weakref
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from sync_ws.testing import LedgerTestCase, ResourceLedger, UncaughtThreadErrors
from sync_ws.testing import ledger as ledger_module


def run_inner(test: Callable[[LedgerTestCase], None], *, deadline: float = 0.05) -> str:
    """Run a function as the one test of a LedgerTestCase; what it was blamed for, or the empty string."""

    class Inner(LedgerTestCase):
        timeout = 0  # the watchdog of the outer test stays on
        ledger_deadline = deadline

        def test_it(self) -> None:
            test(self)

    result = unittest.TestResult()
    Inner("test_it").run(result)
    assert result.testsRun == 1 and not result.errors, result.errors
    return "".join(text for _, text in result.failures)


class LedgerOfTests(LedgerTestCase):
    timeout = 20.0

    def setUp(self) -> None:
        super().setUp()
        self.over = threading.Event()
        self.addCleanup(self.over.set)

    def linger(self) -> None:
        self.over.wait(10)

    def test_a_clean_test_passes(self) -> None:
        def clean(_: LedgerTestCase) -> None:
            with socket.create_server(("127.0.0.1", 0)):
                thread = threading.Thread(target=int)
                thread.start()
                thread.join()

        self.assertEqual(run_inner(clean), "")

    def test_a_thread_on_its_way_out_is_waited_for(self) -> None:
        self.assertEqual(run_inner(lambda _: threading.Timer(0.05, int).start(), deadline=5.0), "")

    def test_a_leaked_thread_is_named_with_its_stack(self) -> None:
        thread = threading.Thread(target=self.linger, name="the leak", daemon=True)
        report = run_inner(lambda _: thread.start())
        self.assertIn("thread 'the leak'", report)
        self.assertIn("self.over.wait(10)", report)

    def test_a_leaked_timer_is_named_with_its_function(self) -> None:
        timer = threading.Timer(30, self.linger)
        self.addCleanup(timer.join, 5)
        self.addCleanup(timer.cancel)
        report = run_inner(lambda _: timer.start())
        self.assertIn("timer of 30 s calling", report)
        self.assertIn("LedgerOfTests.linger", report)

    def test_a_thread_that_threading_does_not_know(self) -> None:
        started, end = _thread.allocate_lock(), _thread.allocate_lock()
        started.acquire()
        end.acquire()
        self.addCleanup(end.release)

        def foreign() -> None:
            started.release()
            end.acquire()

        def leak(_: LedgerTestCase) -> None:
            _thread.start_new_thread(foreign, ())
            started.acquire()

        report = run_inner(leak)
        self.assertIn("thread not made by threading", report)

    def test_a_thread_that_becomes_known_late_was_there_before(self) -> None:
        started, ask, asked = _thread.allocate_lock(), _thread.allocate_lock(), _thread.allocate_lock()
        for lock in (started, ask, asked):  # of the plain kind: an Event would make the thread known at once
            lock.acquire()

        def foreign() -> None:
            started.release()
            ask.acquire()
            threading.current_thread()  # makes a dummy Thread object
            asked.release()

        _thread.start_new_thread(foreign, ())
        started.acquire()
        ledger = ResourceLedger()
        ask.release()
        asked.acquire()
        ledger.check(0.05)

    def test_leaked_descriptors_are_named_with_what_they_are(self) -> None:
        leaked: list[socket.socket] = []
        pipe: list[int] = []

        def leak(_: LedgerTestCase) -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            leaked.extend((listener, socket.create_connection(listener.getsockname(), 5)))
            pipe.extend(os.pipe())

        report = run_inner(leak)
        address, peer = leaked[0].getsockname(), leaked[1].getsockname()
        for sock in leaked:
            self.assertIn(f"fd {sock.fileno()}: ", report)
            sock.close()
        self.assertIn(f"{address}, not connected", report)
        self.assertIn(f"{peer} connected to {address}", report)
        for number in pipe:
            self.assertIn(f"fd {number}: ", report)
            os.close(number)
        self.assertEqual(report.count("left behind"), 4)

    def test_a_descriptor_replaced_by_another_is_a_leak(self) -> None:
        first = socket.socket()
        ledger = ResourceLedger()
        number = first.fileno()
        first.close()
        second = socket.socket()
        self.addCleanup(second.close)
        self.assertEqual(second.fileno(), number)
        with self.assertRaisesRegex(AssertionError, f"fd {number}: "):
            ledger.check(0.01)

    def test_what_the_baseline_had_may_go(self) -> None:
        sock = socket.socket()
        thread = threading.Thread(target=self.linger)
        thread.start()
        ledger = ResourceLedger()
        sock.close()
        self.over.set()
        thread.join(5)
        ledger.check(0)

    def test_one_that_only_the_garbage_collector_closes_is_a_leak(self) -> None:
        def leak(_: LedgerTestCase) -> None:
            cycle: list[object] = [socket.socket()]
            cycle.append(cycle)

        with self.assertWarns(ResourceWarning):
            report = run_inner(leak)
        self.assertIn("closed by the garbage collector, not by its owner", report)

    def test_leaks_of_set_up_and_cleanups_count(self) -> None:
        opened: list[socket.socket] = []
        report = run_inner(lambda case: case.addCleanup(lambda: opened.append(socket.socket())))
        opened[0].close()
        self.assertIn("left behind: fd", report)

    def test_without_proc_descriptors_are_told_by_their_kind(self) -> None:
        with mock.patch("os.readlink", side_effect=OSError), mock.patch("os.path.isdir", return_value=False):
            ledger = ResourceLedger()
            ledger.check(0)
            description = r"fd \d+: s\S+ device \d+ inode \d+, \("
            with socket.socket(), self.assertRaisesRegex(AssertionError, description):
                ledger.check(0)


class UncaughtErrors(LedgerTestCase):
    timeout = 20.0

    def setUp(self) -> None:
        super().setUp()
        self.passed_on: list[str] = []
        self.addCleanup(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = lambda args: self.passed_on.append(str(args.exc_value))

    def die(self, error: BaseException | None = None) -> None:
        def raise_it() -> None:
            raise error or ValueError("on purpose")

        thread = threading.Thread(target=raise_it, name="the dying one")
        thread.start()
        thread.join(5)

    def test_an_uncaught_exception_fails_the_test_with_its_traceback(self) -> None:
        report = run_inner(lambda _: self.die())
        self.assertIn("uncaught in thread 'the dying one'", report)
        self.assertIn("raise error or", report)
        self.assertIn("ValueError: on purpose", report)
        self.assertEqual(self.passed_on, ["on purpose"])

    def test_an_expected_one_can_be_taken(self) -> None:
        def expects(case: LedgerTestCase) -> None:
            self.die()
            (error,) = case.uncaught.take()
            case.assertEqual((error.kind, error.message), (ValueError, "on purpose"))
            case.assertEqual(error.thread, "the dying one")

        self.assertEqual(run_inner(expects), "")

    def test_both_kinds_of_problems_are_reported_together(self) -> None:
        kept: list[socket.socket] = []

        def both(_: LedgerTestCase) -> None:
            kept.append(socket.socket())
            self.die()

        report = run_inner(both)
        kept[0].close()
        self.assertIn("left behind: fd", report)
        self.assertIn("on purpose", report)

    def test_system_exit_is_no_error(self) -> None:
        self.assertEqual(run_inner(lambda _: self.die(SystemExit(1))), "")

    def test_check_and_the_hook_put_back(self) -> None:
        before = threading.excepthook
        with UncaughtThreadErrors() as uncaught:
            uncaught.check()
            with self.assertRaises(RuntimeError):
                uncaught.install()
            self.die()
        self.assertIs(threading.excepthook, before)
        uncaught.uninstall()
        self.die()
        self.assertEqual(len(uncaught.errors), 1)
        with self.assertRaisesRegex(AssertionError, "on purpose"):
            uncaught.check()
        self.assertEqual(len(self.passed_on), 2)

    def test_a_hook_put_over_it_stays_and_gets_through(self) -> None:
        uncaught = UncaughtThreadErrors()
        uncaught.install()
        under = threading.excepthook

        def over(args: threading.ExceptHookArgs) -> None:
            under(args)

        threading.excepthook = over
        uncaught.uninstall()
        self.assertIs(threading.excepthook, over)
        self.die()
        self.assertEqual((uncaught.errors, self.passed_on), ((), ["on purpose"]))

    def test_what_was_collected_keeps_no_frame_alive(self) -> None:
        class Held:
            pass

        references: list[weakref.ref[Held]] = []

        def target() -> None:
            held = Held()
            references.append(weakref.ref(held))
            raise ValueError

        with UncaughtThreadErrors() as uncaught:
            thread = threading.Thread(target=target)
            thread.start()
            thread.join(5)
        self.assertEqual(len(uncaught.errors), 1)
        self.assertIsNone(references[0]())


class Watchdog(unittest.TestCase):
    def test_the_stacks_of_a_hanging_test_are_printed_and_of_no_other(self) -> None:
        program = """
import threading, unittest
from sync_ws.testing import LedgerTestCase
class Hanging(LedgerTestCase):
    timeout = 0.1
    def test_it(self):
        self.wait_too_long()
    def wait_too_long(self):
        threading.Event().wait(0.4)
class InTime(LedgerTestCase):
    def test_it(self):
        self.wait_in_time()
    def wait_in_time(self):
        threading.Event().wait(0.2)
class Unwatched(InTime):
    timeout = 0
unittest.main(argv=["slow"])
"""
        root = str(Path(ledger_module.__file__).parents[2])
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=root, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("in wait_too_long", done.stderr)
        self.assertNotIn("in wait_in_time", done.stderr)

    def test_without_a_stderr_there_is_no_watchdog(self) -> None:
        class Quick(LedgerTestCase):
            def test_it(self) -> None:
                pass

        with mock.patch.object(sys, "__stderr__", None):
            result = unittest.TextTestRunner(stream=io.StringIO()).run(Quick("test_it"))
        self.assertTrue(result.wasSuccessful())


if __name__ == "__main__":
    unittest.main()
