"""What a client says in its log, without a client: each thing once, and loud where somebody should know."""

from __future__ import annotations

import logging
import unittest
from collections.abc import Callable

from sync_ws import Reason
from sync_ws.client.voice import REMINDER, Voice
from sync_ws.testing import ManualClock

URL = "ws://a.test:80/ws/"
REFUSED, LOST = Reason("refused"), Reason("lost", 1006)


class VoiceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.voice = Voice("(callable)", self.clock)

    def said(self, *steps: Callable[[], object]) -> list[tuple[str, str]]:
        """The level and text of every record."""
        with self.assertLogs("sync_ws.client", logging.DEBUG) as logs:
            for step in steps:
                step()
            logging.getLogger("sync_ws.client").debug("end")
        return [(record.levelname, record.getMessage()) for record in logs.records[:-1]]

    def loud(self, *steps: Callable[[], object]) -> list[tuple[str, str]]:
        return [(level, text) for level, text in self.said(*steps) if level != "DEBUG"]

    def attempt_fails(self, reason: Reason = REFUSED) -> None:
        self.voice.attempt(URL)
        self.voice.trouble(reason, None)
        self.voice.waiting(1.0)

    def attempt_succeeds(self) -> None:
        self.voice.attempt(URL)
        self.voice.opened(None)

    def test_a_first_connection_at_once(self) -> None:
        self.assertEqual(
            self.said(lambda: self.voice.attempt(URL), lambda: self.voice.opened("chat")),
            [("DEBUG", f"{URL}: attempt 1"), ("INFO", f"connected to {URL}, subprotocol chat")],
        )

    def test_a_first_connection_that_has_to_be_waited_for(self) -> None:
        self.assertEqual(
            self.loud(self.attempt_fails),
            [("WARNING", f"cannot connect to {URL} yet, will keep trying: refused")],
        )
        self.assertEqual(self.loud(*[self.attempt_fails] * 5), [])
        self.clock.advance(12.34)
        self.assertEqual(self.loud(self.attempt_succeeds), [("INFO", f"connected to {URL} after 12.3 s, attempts: 7")])

    def test_an_outage_is_announced_once(self) -> None:
        self.attempt_succeeds()
        self.assertEqual(
            self.loud(lambda: self.voice.trouble(LOST, 5.0), lambda: self.voice.waiting(0.5)),
            [
                ("WARNING", f"the connection to {URL} ended after 5.0 s: lost"),
                ("INFO", f"{URL}: reconnecting in 0.50 s"),
            ],
        )
        self.clock.advance(2)
        said = self.said(self.attempt_fails, self.attempt_fails)
        self.assertEqual({level for level, _ in said}, {"DEBUG"})
        self.assertIn(("DEBUG", f"{URL}: attempt 2 failed: refused"), said)
        self.clock.advance(2)
        self.assertEqual(self.loud(self.attempt_succeeds), [("INFO", f"reconnected to {URL} after 4.0 s, attempts: 3")])
        self.assertEqual(len(self.loud(lambda: self.voice.trouble(LOST, 1.0))), 1)  # and the next one anew

    def test_what_the_application_asked_for_is_no_news(self) -> None:
        self.attempt_succeeds()
        asked = Reason("reconnect() was called: closed by us: 1000", 1000, by_us=True)
        self.assertEqual(
            self.loud(lambda: self.voice.trouble(asked, 5.0, asked=True), self.attempt_succeeds),
            [
                ("INFO", f"the connection to {URL} ended after 5.0 s: {asked}"),
                ("INFO", f"reconnected to {URL}"),
            ],
        )
        self.assertEqual(self.loud(lambda: self.voice.trouble(asked, None, asked=True)), [])
        ((level, _), *_) = self.loud(lambda: self.voice.trouble(LOST, 5.0, asked=True))  # that was not for the asking
        self.assertEqual(level, "WARNING")

    def test_when_it_leads_to_an_outage_that_is_told(self) -> None:
        self.attempt_succeeds()
        asked = Reason("reconnect() was called", by_us=True)
        self.voice.trouble(asked, 5.0, asked=True)
        ((level, text),) = self.loud(self.attempt_fails)
        self.assertEqual((level, text), ("WARNING", f"cannot connect to {URL} yet, will keep trying: refused"))

    def test_a_reminder_each_hour(self) -> None:
        self.attempt_fails()
        texts = []
        for _ in range(600):
            self.clock.advance(60)
            texts += self.loud(self.attempt_fails)
        self.assertEqual(len(texts), 600 * 60 // REMINDER)
        self.assertEqual(
            texts[1], ("WARNING", f"still cannot connect to {URL}, after 7200 s and 121 attempts: refused")
        )

    def test_the_end(self) -> None:
        self.attempt_succeeds()
        self.assertEqual(
            self.loud(lambda: self.voice.gave_up(LOST, "reconnect=None")),
            [("WARNING", f"gave up {URL}: lost (no further attempt: reconnect=None)")],
        )
        self.assertEqual(
            self.loud(lambda: self.voice.closed(Reason("closed by us"))), [("INFO", f"{URL}: closed: closed by us")]
        )

    def test_what_the_other_side_said_forges_no_lines(self) -> None:
        self.attempt_succeeds()
        ((_, text),) = self.loud(lambda: self.voice.trouble(Reason("closed by the peer: 1001 a\nERROR b\x1b[1m"), 1.0))
        self.assertTrue(text.isprintable(), ascii(text))
        self.assertIn("a\\nERROR b\\x1b[1m", text)


if __name__ == "__main__":
    unittest.main()
