"""After a fork the objects that registered are told, in the child alone, for as long as they live."""

from __future__ import annotations

import gc
import os
import unittest
from unittest import mock

from sync_ws.forking import ToldOfForks
from tests.support.wire import fork


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


if __name__ == "__main__":
    unittest.main()
