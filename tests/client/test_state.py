"""The life of a client: the table of its transitions, and which ends lead to a reconnect."""

from __future__ import annotations

import itertools
import unittest

from sync_ws import ClientState, Reason, should_reconnect
from sync_ws.client.state import TRANSITIONS, check_transition
from tests.support.client_case import FINAL_CODES


class StateTest(unittest.TestCase):
    def test_every_transition_is_in_the_table_or_an_error(self) -> None:
        for old, new in itertools.product(ClientState, ClientState):
            with self.subTest(old=old, new=new):
                if new in TRANSITIONS[old]:
                    check_transition(old, new)
                else:
                    with self.assertRaises(RuntimeError):
                        check_transition(old, new)

    def test_closed_is_final_and_every_state_but_it_leads_to_it(self) -> None:
        self.assertEqual(TRANSITIONS[ClientState.CLOSED], frozenset())
        for state in set(ClientState) - {ClientState.CLOSED}:
            self.assertIn(ClientState.CLOSED, TRANSITIONS[state])


class DecisionTest(unittest.TestCase):
    """Which ends lead to a reconnect, unless the application decides otherwise."""

    def test_the_default_decision_for_every_close_code(self) -> None:
        for code in (*range(1000, 1015), *range(3000, 5000)):
            with self.subTest(code):
                self.assertEqual(should_reconnect(Reason("", code=code)), code not in FINAL_CODES)

    def test_a_permanent_reason_is_final_whatever_else_it_says(self) -> None:
        self.assertFalse(should_reconnect(Reason("", code=1001, permanent=True)))
        self.assertTrue(should_reconnect(Reason("never opened")))


if __name__ == "__main__":
    unittest.main()
