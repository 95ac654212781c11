"""When a peer is asked, and when it is given up: by times of the test's own."""

from __future__ import annotations

import unittest

from sync_ws.protocol.liveness import LATE, Liveness, Verdict, stopped_for

WAIT, ASK, DEAD = Verdict.WAIT, Verdict.ASK, Verdict.DEAD


class Case(unittest.TestCase):
    silent_only = True

    def setUp(self) -> None:
        self.liveness = Liveness(20, 10, 100.0, silent_only=self.silent_only)
        self.received = 0
        self.unread = 0
        self.crowded = False

    def look(self, now: float, *, lost: float = 0.0) -> Verdict:
        return self.liveness.look(now, self.received, self.unread, crowded=lambda: self.crowded, lost=lost)


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

    def test_bytes_that_arrive_unread_are_an_answer(self) -> None:
        self.unread = 5
        self.look(120)
        self.unread = 6
        self.assertEqual([self.look(now) for now in (130, 149, 150)], [WAIT, WAIT, ASK])

    def test_bytes_that_waited_unread_before_the_question_are_none_read_or_not(self) -> None:
        self.unread = 500
        self.assertEqual(self.look(120), ASK)
        self.assertEqual(self.look(129), WAIT)
        self.unread, self.received = 200, 300
        self.assertEqual(self.look(130), DEAD)

    def test_what_is_read_counts_before_the_question_whenever_it_came(self) -> None:
        self.unread = 500
        self.look(110)
        self.unread, self.received = 0, 500
        self.assertEqual([self.look(now) for now in (119, 138, 139)], [WAIT, WAIT, ASK])

    def test_unread_bytes_are_asked_for_when_they_matter(self) -> None:
        self.assertEqual([self.liveness.needs_unread(now) for now in (119, 120)], [False, True])
        self.look(120)
        self.assertEqual([self.liveness.needs_unread(now) for now in (129, 130)], [False, True])

    def test_more_than_there_was_at_the_question_is_an_answer_at_once(self) -> None:
        self.unread = 5
        self.look(120)
        self.unread, self.received = 0, 5
        self.assertEqual(self.look(121), WAIT)
        self.assertTrue(self.liveness.asked)
        self.received = 6
        self.assertEqual(self.look(122), WAIT)
        self.assertFalse(self.liveness.asked)

    def test_where_an_answer_has_no_room_it_has_ten_times_as_long(self) -> None:
        self.crowded = True
        self.assertEqual([self.look(now) for now in (120, 130, 140, 410, 419.9)], [ASK, WAIT, WAIT, WAIT, WAIT])
        self.assertEqual(self.look(420), DEAD)

    def test_once_there_is_room_an_answer_has_a_whole_timeout_to_arrive(self) -> None:
        self.crowded = True
        self.assertEqual([self.look(now) for now in (120, 130, 140)], [ASK, WAIT, WAIT])
        self.crowded = False  # just before 150, perhaps
        self.assertEqual([self.look(now) for now in (150, 159.9, 160)], [WAIT, WAIT, DEAD])

    def test_an_answer_ends_that_patience_too(self) -> None:
        self.crowded = True
        self.look(120)
        self.look(130)
        self.received, self.crowded = 1, False
        self.assertEqual([self.look(now) for now in (135, 155, 164.9, 165)], [WAIT, ASK, WAIT, DEAD])

    def test_time_that_the_process_was_stopped_does_not_count(self) -> None:
        self.assertEqual(self.look(170, lost=60), WAIT)
        self.assertEqual([self.look(now) for now in (179, 180)], [WAIT, ASK])
        self.assertEqual(self.look(300, lost=118), WAIT)
        self.assertEqual([self.look(now) for now in (307.9, 308)], [WAIT, DEAD])

    def test_nor_does_it_make_an_end_of_the_patience_without_room(self) -> None:
        self.crowded = True
        self.look(120)
        self.assertEqual([self.look(1000, lost=879), self.look(1298.9), self.look(1299)], [WAIT, WAIT, DEAD])

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
        self.assertEqual(self.look(190, lost=70), WAIT)
        self.assertEqual(self.liveness.due, 200)
        self.assertEqual(self.look(200), DEAD)

    def test_a_question_is_not_put_off_because_the_process_was_stopped(self) -> None:
        self.assertEqual(self.look(300, lost=180), ASK)


class Stopped(unittest.TestCase):
    def test_time_neither_waited_nor_computed_for_was_lost(self) -> None:
        self.assertEqual(stopped_for(60, 0.25, 0.25), 59.5)

    def test_what_we_computed_for_was_not(self) -> None:
        self.assertEqual(stopped_for(5, 0.25, 4.5), 0)
        self.assertEqual(stopped_for(5, 0.25, 40), 0)  # on many cores

    def test_nor_what_the_scheduler_takes(self) -> None:
        self.assertEqual(stopped_for(0.25 + LATE, 0.25, 0), 0)


if __name__ == "__main__":
    unittest.main()
