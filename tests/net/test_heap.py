"""Free memory given back: once for all who ask at a time, and not where the C library has no such function."""

from __future__ import annotations

import ctypes
import os
import threading
import unittest
from unittest import mock

from sync_ws.net import heap
from tests.support.held import held_elsewhere
from tests.support.wire import fork, join


class HeapTest(unittest.TestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        clock = mock.Mock(monotonic=lambda: self.now)
        values = {"_trim": None, "_looked_for": False, "_wanted": False, "_not_before": 0.0, "time": clock}
        for name, value in values.items():
            patch = mock.patch.object(heap, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def test_the_c_library_is_asked_to_keep_nothing(self) -> None:
        library = mock.Mock()
        with mock.patch.object(ctypes, "CDLL", return_value=library):
            heap.give_back()
            heap.give_back()
        self.assertEqual(library.malloc_trim.mock_calls, [mock.call(0)] * 2)

    def test_it_takes_a_twentieth_of_the_time_at_most_and_nothing_is_forgotten(self) -> None:
        def trim(pad: int) -> None:
            self.now += 0.5

        slow = mock.Mock(side_effect=trim)
        with mock.patch.object(heap, "_trim", slow), mock.patch.object(heap, "_looked_for", True):
            heap.give_back()
            heap.give_back()
            heap.give_back()
            self.now += 9
            heap.give_back_rest()
            self.assertEqual(slow.call_count, 1)
            self.now += 1
            heap.give_back_rest()
            heap.give_back_rest()
            self.assertEqual(slow.call_count, 2)
            self.now += 1000
            heap.give_back_rest()  # nobody has freed anything since
            self.assertEqual(slow.call_count, 2)

    def test_one_that_has_no_such_function_is_looked_at_once(self) -> None:
        for missing in (mock.Mock(spec=[]), OSError(), TypeError()):
            self.setUp()
            with mock.patch.object(ctypes, "CDLL", side_effect=[missing]):
                heap.give_back()
                heap.give_back()
            self.assertIsNone(heap._trim)

    @unittest.skipUnless(hasattr(os, "fork"), "no fork here")
    def test_a_child_waits_for_no_thread_of_the_parent(self) -> None:
        trim = mock.Mock()
        patches = mock.patch.object(heap, "_trim", trim), mock.patch.object(heap, "_looked_for", True)
        with patches[0], patches[1], held_elsewhere(heap._lock):
            child = fork()
            if not child:
                heap.give_back()
                os._exit(trim.call_count)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 1)

    def test_who_comes_while_another_is_at_it_leaves_it_to_him(self) -> None:
        calls: list[str] = []
        other = threading.Thread(target=heap.give_back)

        def trim(pad: int) -> None:
            calls.append(threading.current_thread().name)
            if len(calls) == 1:
                other.start()
                join(other)

        with mock.patch.object(heap, "_trim", trim), mock.patch.object(heap, "_looked_for", True):
            heap.give_back()
            heap.give_back_rest()
        self.assertEqual(calls, [threading.current_thread().name] * 2)

    def test_one_that_was_interrupted_stands_in_nobodys_way(self) -> None:
        trim = mock.Mock(side_effect=[KeyboardInterrupt, None])
        with mock.patch.object(heap, "_trim", trim), mock.patch.object(heap, "_looked_for", True):
            self.assertRaises(KeyboardInterrupt, heap.give_back)
            other = threading.Thread(target=heap.give_back)
            other.start()
            join(other)
        self.assertEqual(trim.call_count, 2)
