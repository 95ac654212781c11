"""When a peer is asked, and when it is given up: by times of the test's own."""

from __future__ import annotations

import unittest

from sync_ws.protocol.liveness import LATE, Liveness, Verdict

WAIT, ASK, DEAD = Verdict.WAIT, Verdict.ASK, Verdict.DEAD


class Case(unittest.TestCase):
    silent_only = True

    def setUp(self) -> None:
        self.liveness = Liveness(20, 10, 100.0, silent_only=self.silent_only)
        self.received = 0
        self.unread = False

    def look(self, now: float, *, late: bool = False) -> Verdict:
        return self.liveness.look(now, self.received, lambda: self.unread, late=late)


class SilentOnly(Case):
    """As a server asks."""

    def test_silence_is_asked_once_and_then_given_up(self) -> None:
        self.assertEqual([self.look(now) for now in (100, 119.9, 120, 121, 129.9)], [WAIT, WAIT, ASK, WAIT, WAIT])
        self.assertTrue(self.liveness.asked)
        self.assertEqual(self.look(130), DEAD)

    def test_who_sends_is_not_asked(self) -> None:
        for now in range(100, 300, 10):
            self.received += 1
            self.assertEqual(self.look(now), WAIT)
        self.assertEqual((self.look(309), self.look(310)), (WAIT, ASK))

    def test_any_byte_is_an_answer_and_begins_the_interval_anew(self) -> None:
        self.assertEqual(self.look(120), ASK)
        self.received = 1
        self.assertEqual([self.look(now) for now in (125, 144, 145)], [WAIT, WAIT, ASK])

    def test_bytes_that_wait_unread_are_an_answer(self) -> None:
        self.look(120)
        self.unread = True
        self.assertEqual([self.look(now) for now in (130, 149, 150)], [WAIT, WAIT, ASK])

    def test_time_that_the_process_was_stopped_does_not_count(self) -> None:
        self.assertEqual(self.look(180, late=True), WAIT)
        self.assertEqual([self.look(now) for now in (199, 200)], [WAIT, ASK])
        self.assertEqual(self.look(300, late=True), WAIT)
        self.assertEqual([self.look(now) for now in (319, 320, 329, 330)], [WAIT, ASK, WAIT, DEAD])

    def test_a_question_that_took_its_time_has_its_whole_timeout(self) -> None:
        self.look(120)
        self.liveness.asked_at(125)
        self.assertEqual([self.look(now) for now in (134.9, 135)], [WAIT, DEAD])

    def test_due_says_when_to_look_again(self) -> None:
        self.assertEqual(self.liveness.due, 120)
        self.look(120)
        self.assertEqual(self.liveness.due, 130)


class EveryInterval(Case):
    """As a client asks."""

    silent_only = False

    def test_who_sends_is_asked_all_the_same(self) -> None:
        self.received = 5
        self.assertEqual(self.look(120), ASK)

    def test_it_is_asked_an_interval_after_the_last_time_however_soon_it_answered(self) -> None:
        self.assertEqual(self.look(120), ASK)
        self.received = 1
        self.assertEqual(self.look(130), WAIT)
        self.assertEqual(self.liveness.due, 140)
        self.assertEqual(self.look(140), ASK)

    def test_an_interval_shorter_than_the_timeout_begins_when_the_answer_was_seen(self) -> None:
        self.liveness = Liveness(1, 10, 100.0, silent_only=False)
        self.assertEqual(self.look(101), ASK)
        self.received = 1
        self.assertEqual(self.look(111), ASK)

    def test_silence_is_given_up_but_not_for_time_that_the_process_was_stopped(self) -> None:
        self.assertEqual(self.look(120), ASK)
        self.assertEqual(self.look(130 + LATE, late=True), WAIT)
        self.assertEqual(self.liveness.due, 140 + LATE)
        self.assertEqual(self.look(140 + LATE), DEAD)


if __name__ == "__main__":
    unittest.main()
