"""Waiting for sockets, by poll and by select, and waking who waits: from any thread, and from any signal handler."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any
from unittest import mock

from sync_ws.interrupts import STEP
from sync_ws.net import waiting
from sync_ws.net.waiting import READABLE, WRITABLE, Waker, wait, wait_any
from sync_ws.testing import LedgerTestCase
from tests.support.held import held_elsewhere
from tests.support.unseen import Unseen, unseen_signal
from tests.support.wire import fork, join

DAY = 24 * 3600.0
SOON = 1.5  # seconds, on a machine with much to do
USUAL_GROUP = waiting.GROUP


class WaitingTestCase(LedgerTestCase):
    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return ours, theirs

    def waker(self) -> Waker:
        waker = Waker()
        self.addCleanup(waker.close)
        return waker

    def start(self, function: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=function, daemon=True)
        thread.start()
        return thread

    @contextlib.contextmanager
    def refusing(self, failure: BaseException, times: int) -> Iterator[None]:
        """The system refuses so many waits."""
        failures = iter([failure] * times)
        usual = waiting._poll_object

        def make() -> Any:
            poller = usual()

            def poll(milliseconds: float | None = None) -> Any:
                for failure in failures:
                    raise failure
                return poller.poll(milliseconds)

            return mock.Mock(register=poller.register, poll=poll)

        with mock.patch.object(waiting, "_poll_object", make):
            yield

    def on_alarm(self, seconds: float, handler: Callable[[], object]) -> None:
        before = signal.signal(signal.SIGALRM, lambda number, frame: handler())
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)


class ByTheSystem(WaitingTestCase):
    """As this system does it, which is poll wherever the tests run."""

    def test_ready_is_what_there_is_to_read_or_room_to_write(self) -> None:
        ours, theirs = self.pair()
        self.assertFalse(wait(ours.fileno(), READABLE, 0))
        self.assertTrue(wait(ours.fileno(), WRITABLE, 60))
        self.assertTrue(wait(ours.fileno(), READABLE | WRITABLE, 60))
        theirs.send(b"x")
        self.assertTrue(wait(ours.fileno(), READABLE, 60))
        ours.setblocking(False)
        with self.assertRaises(BlockingIOError):
            while True:
                ours.send(bytes(65536))
        self.assertFalse(wait(ours.fileno(), WRITABLE, 0.01))

    def test_the_end_and_an_error_count_as_ready(self) -> None:
        ours, theirs = self.pair()
        theirs.close()
        self.assertTrue(wait(ours.fileno(), READABLE, 60))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            nobody = listener.getsockname()
        refused = socket.socket()
        self.addCleanup(refused.close)
        refused.setblocking(False)
        refused.connect_ex(nobody)
        self.assertTrue(wait(refused.fileno(), WRITABLE, 60))
        self.assertEqual(refused.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), errno.ECONNREFUSED)

    def test_an_urgent_byte_does_not_count(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = socket.create_connection(listener.getsockname())
            here, _ = listener.accept()
        with here, there:
            there.send(b"!", socket.MSG_OOB)
            self.assertTrue(select.select([], [], [here], 10)[2], "it has come")
            self.assertFalse(wait(here.fileno(), READABLE, 0))
            there.send(b"x")
            self.assertTrue(wait(here.fileno(), READABLE, 60))

    def test_a_closed_descriptor_is_ready(self) -> None:
        ours, _ = self.pair()
        number = ours.fileno()
        ours.close()
        self.assertTrue(wait(-1, READABLE, 60))
        self.assertTrue(wait(number, READABLE, 60))

    def test_no_wait_ends_before_its_time(self) -> None:
        ours, _ = self.pair()
        waker = self.waker()
        for seconds in (0.0003, 0.02):
            for function in (
                lambda seconds: wait(ours.fileno(), READABLE, seconds),
                lambda seconds: wait(ours.fileno(), READABLE, seconds, waker),
                lambda seconds: wait_any([ours.fileno()], READABLE, seconds, waker),
            ):
                began = time.monotonic()
                self.assertFalse(function(seconds))
                self.assertGreaterEqual(time.monotonic() - began, seconds)

    def test_a_timeout_that_has_passed_is_none(self) -> None:
        ours, _ = self.pair()
        waker = self.waker()
        for timeout in (0, 0.0, -1e-9, -3, -1e300, -math.inf):
            self.assertFalse(wait(ours.fileno(), READABLE, timeout))
            self.assertEqual(wait_any([ours.fileno()], READABLE, timeout, waker), [])

    def test_no_timeout_is_too_long(self) -> None:
        ours, theirs = self.pair()
        for timeout in (DAY, 25 * DAY, 30 * DAY, 1e12, 1e300, math.inf, None):
            waker = Waker()
            got: list[bool] = []
            thread = self.start(lambda t=timeout, w=waker: got.append(wait(ours.fileno(), READABLE, t, w)))  # type: ignore[misc]  # noqa: B023
            waker.wake()
            join(thread)
            waker.close()
            self.assertEqual(got, [True], timeout)
        theirs.send(b"x")
        waker = self.waker()
        self.assertEqual(wait_any([ours.fileno()], READABLE, 1e300, waker), [ours.fileno()])

    def test_a_wait_of_many_system_calls_lasts_as_long_as_it_was_told(self) -> None:
        ours, theirs = self.pair()
        with mock.patch.object(waiting, "LONGEST", 0.01):
            began = time.monotonic()
            self.assertFalse(wait(ours.fileno(), READABLE, 0.055))
            self.assertGreaterEqual(time.monotonic() - began, 0.055)
            self.on_alarm(0.05, lambda: theirs.send(b"x"))
            self.assertTrue(wait(ours.fileno(), READABLE, 1e300))

    def test_a_signal_does_not_end_a_wait(self) -> None:
        ours, _ = self.pair()
        came: list[float] = []
        self.on_alarm(0.02, lambda: came.append(time.monotonic()))
        began = time.monotonic()
        self.assertFalse(wait(ours.fileno(), READABLE, 0.1))
        self.assertGreaterEqual(time.monotonic() - began, 0.1)
        self.assertLess(came[0] - began, 0.1)

    def test_of_many_those_that_are_ready(self) -> None:
        pairs = [self.pair() for _ in range(3)]
        fds = [ours.fileno() for ours, _ in pairs]
        waker = self.waker()
        self.assertEqual(wait_any(fds, READABLE, 0, waker), [])
        self.assertEqual(sorted(wait_any(fds, WRITABLE, 60, waker)), sorted(fds))
        pairs[1][1].send(b"x")
        pairs[2][1].close()
        self.assertEqual(sorted(wait_any(fds, READABLE, 60, waker)), sorted(fds[1:]))
        self.assertEqual(wait_any([], WRITABLE, 0.01, waker), [])

    def test_a_closed_one_among_many_is_one_of_the_ready(self) -> None:
        waker = self.waker()
        pairs = [self.pair() for _ in range(3)]
        fds = [ours.fileno() for ours, _ in pairs]
        pairs[0][0].close()
        pairs[2][1].send(b"x")
        self.assertEqual(sorted(wait_any(fds, READABLE, 60, waker)), sorted([fds[0], fds[2]]))

    def test_a_system_that_refuses_to_wait_is_asked_again(self) -> None:
        ours, theirs = self.pair()
        theirs.send(b"x")
        for failure in (OSError(errno.ENOMEM, "no memory"), MemoryError()):
            with self.refusing(failure, 2):
                self.assertTrue(wait(ours.fileno(), READABLE, 60))
            with self.refusing(failure, 1):
                self.assertEqual(wait_any([ours.fileno()], READABLE, 60, self.waker()), [ours.fileno()])

    def test_where_it_goes_on_refusing_a_wait_has_its_end_and_without_one_who_waits_looks_for_himself(self) -> None:
        fd = self.pair()[0].fileno()
        with self.refusing(OSError(errno.ENOMEM, "no memory"), 1000):
            for timeout in (0, 0.12):
                began = time.monotonic()
                self.assertFalse(wait(fd, READABLE, timeout))
                self.assertGreaterEqual(time.monotonic() - began, timeout)
            self.assertTrue(wait(fd, READABLE, None))
            self.assertEqual(wait_any([fd], READABLE, None, self.waker()), [])

    def test_hundreds_at_once(self) -> None:
        fds = [sock.fileno() for _ in range(300) for sock in self.pair()]  # more than select takes on every system
        waker = self.waker()
        self.assertEqual(sorted(wait_any(fds, WRITABLE, 60, waker)), sorted(fds))
        waker.wake()
        self.assertEqual(wait_any(fds, READABLE, 60, waker), [])
        waker.clear()
        self.assertEqual(wait_any(fds, READABLE, 0.01, waker), [])

    def test_a_waker_ends_a_wait_and_goes_on_doing_so_until_it_is_cleared(self) -> None:
        ours, theirs = self.pair()
        waker = self.waker()
        self.assertFalse(wait(ours.fileno(), READABLE, 0, waker))
        for _ in range(2):
            for _ in range(3):
                waker.wake()
            self.assertTrue(wait(ours.fileno(), READABLE, 60, waker))
            self.assertEqual(wait_any([ours.fileno()], READABLE, 60, waker), [])
            theirs.send(b"x")
            self.assertEqual(wait_any([ours.fileno()], READABLE, 60, waker), [ours.fileno()])
            ours.recv(1)
            waker.clear()
            self.assertFalse(wait(ours.fileno(), READABLE, 0, waker))
            waker.clear()

    def test_a_waker_ends_a_wait_that_has_begun(self) -> None:
        ours, _ = self.pair()
        waker = self.waker()
        self.on_alarm(0.02, waker.wake)  # the handler runs in the thread that waits
        self.assertTrue(wait(ours.fileno(), READABLE, 60, waker))
        waker.clear()
        got: list[list[int]] = []
        thread = self.start(lambda: got.append(wait_any([ours.fileno()], READABLE, None, waker)))
        waker.wake()
        join(thread)
        self.assertEqual(got, [[]])

    def test_a_closed_waker_keeps_nobody_waiting(self) -> None:
        ours, _ = self.pair()
        waker = Waker()
        waker.close()
        self.assertTrue(wait(ours.fileno(), READABLE, 60, waker))
        self.assertEqual(wait_any([ours.fileno()], READABLE, 60, waker), [])

    def test_a_signal_that_came_just_before_the_wait_is_seen_after_a_step(self) -> None:
        ours, _theirs = self.pair()
        waker = self.waker()
        waits: tuple[Callable[[], object], ...] = (
            lambda: wait(ours.fileno(), READABLE, None),
            lambda: wait(ours.fileno(), READABLE, 30.0, waker),
            lambda: wait_any([ours.fileno()], READABLE, None, waker),
        )
        for waiting_for_ever in waits:
            begun = time.monotonic()
            with self.assertRaises(Unseen), unseen_signal():
                waiting_for_ever()
            self.assertLess(time.monotonic() - begun, STEP + SOON)

    def test_only_the_main_thread_waits_in_steps_and_neither_longer_than_it_is_to(self) -> None:
        ours, _theirs = self.pair()
        asked: list[float | None] = []

        class Poll:
            def register(self, fd: int, events: int) -> None:
                pass

            def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
                asked.append(milliseconds)
                return [(ours.fileno(), READABLE)] if len(asked) == 3 or milliseconds is None else []

        with mock.patch.object(waiting, "_poll_object", Poll):
            self.assertTrue(wait(ours.fileno(), READABLE, None))
            self.assertEqual(asked, [STEP * 1000] * 3)
            asked.clear()
            join(self.start(lambda: wait(ours.fileno(), READABLE, None)))
            join(self.start(lambda: wait(ours.fileno(), READABLE, 7)))
            wait(ours.fileno(), READABLE, STEP)
            self.assertEqual(asked, [None, 7000, STEP * 1000])
        begun = time.monotonic()
        self.assertFalse(wait(ours.fileno(), READABLE, 1.2 * STEP))
        self.assertGreaterEqual(time.monotonic() - begun, 1.2 * STEP)
        self.assertLess(time.monotonic() - begun, 1.2 * STEP + SOON)


class BySelect(ByTheSystem):
    """The same promises where there is no poll, in groups."""

    def setUp(self) -> None:
        super().setUp()
        for name, value in (("_poll_object", waiting._SelectPoll), ("GROUP", 3)):
            patch = mock.patch.object(waiting, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_no_call_has_more_than_a_group(self) -> None:
        sizes: list[int] = []
        real = select.select

        def counted(*wanted: Any) -> Any:
            sizes.append(max(map(len, wanted[:3])))
            return real(*wanted)

        fds = [sock.fileno() for _ in range(300) for sock in self.pair()]
        with mock.patch.object(waiting, "GROUP", USUAL_GROUP), mock.patch("select.select", counted):
            self.assertEqual(len(wait_any(fds, READABLE | WRITABLE, 60, self.waker())), 600)
        self.assertEqual((sum(sizes), max(sizes)), (602, 500))  # the Waker is in both

    def test_a_failed_connect_is_noticed_where_it_is_told_as_an_exception_only(self) -> None:
        ours, _ = self.pair()
        with mock.patch("select.select", lambda reading, writing, exceptional, timeout: ([], [], exceptional)):
            self.assertTrue(wait(ours.fileno(), WRITABLE, 1))
            self.assertFalse(wait(ours.fileno(), READABLE, 0))

    def test_a_wait_of_several_groups_is_woken_whichever_has_its_turn(self) -> None:
        fds = [sock.fileno() for _ in range(4) for sock in self.pair()]
        waker = self.waker()
        with mock.patch.object(waiting, "SLICE", 1e6):  # so it would take for ever to come to the next group
            self.on_alarm(0.02, waker.wake)
            self.assertEqual(wait_any(fds, READABLE, None, waker), [])

    def test_the_last_of_several_groups_has_its_turn(self) -> None:
        pairs = [self.pair() for _ in range(8)]
        self.on_alarm(0.02, lambda: pairs[-1][1].send(b"x"))
        last = pairs[-1][0].fileno()
        self.assertEqual(wait_any([ours.fileno() for ours, _ in pairs], READABLE, None, self.waker()), [last])


class WakerTest(WaitingTestCase):
    def awake(self, waker: Waker) -> bool:
        return wait(waker.fileno(), READABLE, 0)

    def test_waking_never_blocks_however_often(self) -> None:
        waker = Waker()

        def wake() -> None:
            for _ in range(20_000):
                waker.wake()

        join(self.start(wake))
        self.assertTrue(self.awake(waker))
        waker.clear()
        self.assertFalse(self.awake(waker))
        waker.wake()
        self.assertTrue(self.awake(waker))
        waker.close()  # not a cleanup: it would wait for a wake that blocks

    def test_it_wakes_though_the_system_has_no_room_for_a_moment(self) -> None:
        waker = self.waker()
        usual, failures = waker._far, iter([OSError(errno.ENOBUFS, "no room"), InterruptedError()])

        def send(data: bytes) -> int:
            for failure in failures:
                raise failure
            return usual.send(data)

        with mock.patch.object(waker, "_far", mock.Mock(send=send)):
            waker.wake()
        self.assertTrue(self.awake(waker))

    def test_a_closed_one_does_nothing_and_holds_nothing(self) -> None:
        waker = Waker()
        waker.wake()
        for _ in range(2):
            waker.close()
            waker.wake()
            waker.clear()
            self.assertEqual(waker.fileno(), -1)

    def test_nothing_is_closed_under_the_hands_of_who_wakes(self) -> None:
        waker = self.waker()
        told: list[str] = []
        sending, go_on = threading.Event(), threading.Event()

        def send(data: bytes) -> None:
            sending.set()
            self.assertTrue(go_on.wait(10))
            told.append("sent")

        far = mock.Mock(wraps=waker._far, send=send)
        far.close.side_effect = lambda: told.append("closed")
        self.addCleanup(waker._far.close)
        waker._far = far
        waking = self.start(waker.wake)
        self.assertTrue(sending.wait(10))
        closing = self.start(waker.close)
        closing.join(0.05)
        self.assertEqual(told, [])
        go_on.set()
        join(waking, closing)
        self.assertEqual(told, ["sent", "closed"])

    def test_a_signal_handler_may_wake_and_close_whatever_it_interrupts(self) -> None:
        """Simulated: the handler runs before every single instruction of the interrupted method, in its thread."""
        for interrupted in ("wake", "clear", "close", "fileno"):
            for handled in ("wake", "close", "clear"):
                waker, case = Waker(), f"{handled} in {interrupted}"
                instants = self.interrupt(getattr(waker, interrupted), getattr(waker, handled))
                self.assertGreater(instants, 3, case)
                if "close" in (interrupted, handled):
                    self.assertEqual((waker.fileno(), waker._far.fileno()), (-1, -1), case)
                elif interrupted != "fileno":
                    self.assertEqual(self.awake(waker), handled == "wake", case)
                waker.close()

    def interrupt(self, method: Callable[[], object], handler: Callable[[], object]) -> int:
        """Call ``method`` with ``handler`` called before each of its instructions; how many those were."""
        instants = 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal instants
            if frame.f_code.co_filename != waiting.__file__:
                return None
            frame.f_trace_opcodes = True
            instants += 1
            handler()
            return trace

        def run() -> None:
            sys.settrace(trace)
            try:
                method()
            finally:
                sys.settrace(None)

        join(self.start(run))
        return instants

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_forked_child_forgets_it_whoever_held_it_and_the_parent_keeps_it(self) -> None:
        waker = self.waker()
        with held_elsewhere(waker._lock):
            child = fork()
            if child == 0:
                signal.alarm(10)  # ends the child, should it hang
                waker.wake()
                os._exit(0 if waker.fileno() == -1 else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertFalse(self.awake(waker))
        waker.wake()
        self.assertTrue(self.awake(waker))
