"""After a fork the objects that registered are told, in the child alone, for as long as they live."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from sync_ws import forking
from sync_ws.channel.housekeeper import Housekeeper
from sync_ws.forking import ToldOfForks, close_fully, close_in_child, no_fork
from sync_ws.interrupts import owned
from sync_ws.testing import LedgerTestCase
from tests.support.held import held_elsewhere
from tests.support.uncovered import uncovered
from tests.support.wire import fork, join

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 120.0  # seconds for a busy process and its children: some three, where there is nothing else to do


class Thing:
    def __init__(self) -> None:
        self.told = 0

    def _forget_in_child(self) -> None:
        self.told += 1


class ForkingTest(unittest.TestCase):
    def test_the_child_is_told_and_the_parent_is_not(self) -> None:
        things, thing = ToldOfForks[Thing](), Thing()
        things.add(thing)
        child = fork()
        if not child:
            os._exit(thing.told)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)
        self.assertEqual(thing.told, 0)

    def test_all_that_live_are_told_once_and_nothing_is_kept_alive(self) -> None:
        with mock.patch.object(os, "register_at_fork") as register:
            things = ToldOfForks[Thing]()
        tell = register.call_args.kwargs["after_in_child"]
        kept = [Thing(), Thing()]
        for thing in (*kept, kept[0], Thing()):
            things.add(thing)
        del thing
        gc.collect()
        tell()
        self.assertEqual([thing.told for thing in kept], [1, 1])
        self.assertEqual(len(things._objects), 2)

    def test_one_that_makes_more_of_its_kind_while_it_is_told_disturbs_nobody(self) -> None:
        with mock.patch.object(os, "register_at_fork") as register:
            things = ToldOfForks[Thing]()
        made: list[Thing] = []

        class Parent(Thing):
            def _forget_in_child(self) -> None:
                made.append(Thing())
                things.add(made[-1])

        parents = [Parent(), Parent()]
        for parent in parents:
            things.add(parent)
        register.call_args.kwargs["after_in_child"]()
        self.assertEqual([thing.told for thing in made], [0, 0])

    def test_where_there_are_no_forks_nobody_is_told(self) -> None:
        with mock.patch("sync_ws.forking.os", spec=[]):
            ToldOfForks[Thing]().add(Thing())


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class Descriptors(LedgerTestCase):
    def fork_and_wait(self) -> None:
        child = fork()
        if not child:
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_child_closes_its_copies_and_the_parent_keeps_them(self) -> None:
        with no_fork():
            ours, theirs = socket.socketpair()
            close_in_child(ours)
        child = fork()
        if not child:
            os._exit((ours.fileno() == -1) + 2 * (theirs.fileno() == -1))
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)
        ours.send(b"x")
        self.assertEqual(theirs.recv(1), b"x")
        close_fully(ours)
        close_fully(theirs)
        self.assertEqual((ours.fileno(), theirs.fileno()), (-1, -1))

    def test_no_child_is_made_while_a_descriptor_is_nobodys(self) -> None:
        made: list[socket.socket] = []
        between, go_on = threading.Event(), threading.Event()

        def make() -> None:
            with no_fork():
                ours, theirs = socket.socketpair()
                between.set()
                go_on.wait(10)
                close_in_child(ours)
                made.extend((ours, theirs))

        maker = threading.Thread(target=make)
        maker.start()
        self.assertTrue(between.wait(10))
        waking = threading.Timer(0.05, go_on.set)
        waking.start()
        child = fork()
        if not child:
            os._exit(0 if made and made[0].fileno() == -1 else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        join(maker, waking)
        for sock in made:
            sock.close()

    def test_no_child_is_made_while_one_is_closed(self) -> None:
        closing = mock.Mock()
        closing.close.side_effect = lambda: self.assertTrue(owned(no_fork()))
        close_fully(closing)
        closing.close.assert_called_once_with()

    def test_a_signal_handler_may_fork_where_no_child_is_made_while_another_thread_wants_to(self) -> None:
        other = threading.Thread(target=self.fork_and_wait)
        with no_fork():
            other.start()
            for _ in range(20):
                self.fork_and_wait()  # as the handler of a signal that came here would
        join(other)

    def test_nor_do_they_wait_for_each_other_where_others_have_locks_of_forks(self) -> None:
        hooked = [(threading.Lock(), threading.Event())]

        def before() -> None:
            for lock, taken in hooked:
                lock.acquire()
                taken.set()

        def after() -> None:
            for lock, _ in hooked:
                lock.release()

        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)
        self.addCleanup(hooked.clear)
        other = threading.Thread(target=self.fork_and_wait)
        with no_fork(), mock.patch("sync_ws.forking.PATIENCE", 0.1):
            other.start()
            hooked[0][1].wait(10)  # it has that lock, and wants those that this thread has
            self.fork_and_wait()
        join(other)

    def test_a_child_waits_for_no_thread_of_the_parent(self) -> None:
        """Whoever has waited in vain for a thread that closes something makes a child all the same."""
        with held_elsewhere(*forking._locks), mock.patch.object(forking, "PATIENCE", 0.01):
            child = fork()
            if not child:
                signal.alarm(10)  # which ends it
                close_fully(mock.Mock())
                os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_forks_may_follow_each_other_in_parent_and_child(self) -> None:
        child = fork()
        if not child:
            grandchild = fork()
            if not grandchild:
                os._exit(7)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)

        def take() -> None:
            with no_fork():
                pass

        taker = threading.Thread(target=take)
        taker.start()
        join(taker)


@unittest.skipUnless(os.path.isdir("/proc/self/fd") and hasattr(os, "fork"), "no fork here, or no /proc")
class Busy(LedgerTestCase):
    """A process whose threads open, use and close connections on both sides, at every instant that a fork may come."""

    timeout = TIMEOUT

    def fork_often(self, *args: object) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.busy_forks", *map(str, args)],
            cwd=ROOT, env=uncovered(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=TIMEOUT,
        )  # fmt: skip
        self.assertEqual((done.stdout, done.returncode), ("", 0))

    def test_no_child_hangs_or_keeps_a_socket_open(self) -> None:
        self.fork_often(100)

    def test_the_same_over_tls(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.fork_often(60, folder)


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class Housekeepers(LedgerTestCase):
    def test_a_child_has_none_and_waits_for_nothing_of_it(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1)
        keeper.start()
        with held_elsewhere(keeper._lock, keeper._waker._lock):
            child = fork()
            if not child:
                keeper.drain(mock.Mock())
                keeper.discard(mock.Mock())
                keeper.stop(10)
                os._exit(0 if keeper._waker.fileno() == -1 else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertTrue(keeper.thread.is_alive())
        keeper.stop(10)


if __name__ == "__main__":
    unittest.main()
