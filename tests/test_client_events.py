"""The public name of what a client's functions are given: the very same classes, and each event there is."""

from __future__ import annotations

import unittest

from sync_ws import client_events
from sync_ws.client import events


class ClientEventsTest(unittest.TestCase):
    def test_it_has_what_the_client_has_and_nothing_else(self) -> None:
        self.assertEqual(set(client_events.__all__), set(events.__all__))
        for name in client_events.__all__:
            with self.subTest(name):
                self.assertIs(getattr(client_events, name), getattr(events, name))

    def test_every_event_has_a_class_of_that_name(self) -> None:
        classes = [value for value in vars(client_events).values() if isinstance(value, type)]
        self.assertTrue(all(issubclass(cls, client_events.Event) for cls in classes))
        self.assertGreaterEqual({cls.__name__ for cls in classes}, {"Closed", "GaveUp", "Opened"})


if __name__ == "__main__":
    unittest.main()
