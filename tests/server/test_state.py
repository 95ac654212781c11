"""The life of a server and a hub: forward only, whatever interrupts a step of it."""

from __future__ import annotations

import itertools
import unittest

from sync_ws import Hub, Server
from sync_ws.server.state import Life, ServerState
from sync_ws.testing import LedgerTestCase

NEW, RUNNING, STOPPING, STOPPED = ServerState


class LifeTest(unittest.TestCase):
    def test_it_begins_as_new(self) -> None:
        self.assertIs(Life().state, NEW)

    def test_it_is_where_it_has_come_furthest_in_whatever_order_that_was_noted(self) -> None:
        for states in itertools.permutations(ServerState):
            life = Life()
            reached = [NEW]
            for state in states:
                life.reach(state)
                reached.append(state)
                with self.subTest(reached=reached):
                    self.assertIs(life.state, max(reached, key=list(ServerState).index))


class WalkTest(LedgerTestCase):
    """A server and a hub go that way; what they are told when they are elsewhere changes nothing."""

    def walked(self, thing: Server | Hub) -> list[ServerState]:
        """The states it is in from now on, each once."""
        states = [thing._state]

        class Noting(Life):
            def reach(self, state: ServerState) -> None:
                super().reach(state)
                if self.state is not states[-1]:
                    states.append(self.state)

        thing._life = Noting()
        return states

    def test_from_the_start_to_the_second_shutdown(self) -> None:
        for thing in (Server(), Hub()):
            with self.subTest(type(thing).__name__):
                states = self.walked(thing)
                thing.start()
                thing.shutdown()
                thing.shutdown()
                self.assertEqual(states, [NEW, RUNNING, STOPPING, STOPPED])

    def test_shut_down_before_the_start(self) -> None:
        for thing in (Server(), Hub()):
            with self.subTest(type(thing).__name__):
                states = self.walked(thing)
                thing.shutdown()
                if isinstance(thing, Server):
                    self.assertRaisesRegex(RuntimeError, "this one is stopped", thing.start)
                else:
                    thing.start()
                self.assertEqual(states, [NEW, STOPPING, STOPPED])


if __name__ == "__main__":
    unittest.main()
