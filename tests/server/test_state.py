"""The life of a server and a hub, as the table of its transitions has it."""

from __future__ import annotations

import itertools
import unittest

from sync_ws import Hub, Server
from sync_ws.server.state import TRANSITIONS, ServerState, check_transition
from sync_ws.testing import LedgerTestCase

NEW, RUNNING, STOPPING, STOPPED = ServerState


class TableTest(unittest.TestCase):
    def test_every_pair_of_states_is_allowed_or_an_error_that_names_both(self) -> None:
        allowed = [
            (NEW, RUNNING), (NEW, STOPPING),
            (RUNNING, STOPPING), (RUNNING, STOPPED),
            (STOPPING, STOPPING), (STOPPING, STOPPED),
            (STOPPED, STOPPED),
        ]  # fmt: skip
        for old, new in itertools.product(ServerState, repeat=2):
            with self.subTest(old=old, new=new):
                if (old, new) in allowed:
                    check_transition(old, new)
                else:
                    with self.assertRaisesRegex(RuntimeError, f"from {old.value} to {new.value}"):
                        check_transition(old, new)

    def test_every_state_is_reached_from_new_and_all_end_stopped(self) -> None:
        reached, ends = {NEW}, {STOPPED}
        for _ in ServerState:
            reached |= {new for old in reached for new in TRANSITIONS[old]}
            ends |= {old for old in ServerState if TRANSITIONS[old] & ends}
        self.assertEqual((reached, ends), (set(ServerState), set(ServerState)))
        self.assertEqual(TRANSITIONS[STOPPED], {STOPPED})


class WalkTest(LedgerTestCase):
    """A server and a hub go that way; what they are told when they are elsewhere changes nothing."""

    def walked(self, thing: Server | Hub) -> list[ServerState]:
        """The states it is in from now on, each once."""
        states = [thing._state]
        enter = thing._enter

        def noting(state: ServerState) -> None:
            enter(state)
            if states[-1] is not state:
                states.append(state)

        thing._enter = noting  # type: ignore[method-assign]
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
