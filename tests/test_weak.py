"""Callbacks that do not keep their object alive."""

from __future__ import annotations

import gc
import unittest
import weakref

from sync_ws.weak import Weakly


class Owner:
    def __init__(self) -> None:
        self.callback = Weakly(self.add)
        self.seen: list[tuple[int, int]] = []

    def add(self, first: int, *, second: int = 0) -> int:
        self.seen.append((first, second))
        return first + second


class WeaklyTest(unittest.TestCase):
    def test_it_calls_the_method_and_returns_what_that_returns(self) -> None:
        owner = Owner()
        self.assertEqual((owner.callback(1, second=2), owner.seen), (3, [(1, 2)]))

    def test_it_keeps_nothing_alive_and_says_so_when_it_is_called_too_late(self) -> None:
        if gc.isenabled():
            self.addCleanup(gc.enable)
        gc.disable()
        owner = Owner()
        reference, callback = weakref.ref(owner), owner.callback
        del owner
        self.assertIsNone(reference())
        self.assertRaises(ReferenceError, callback, 1)
