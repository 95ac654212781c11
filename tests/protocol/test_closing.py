"""The closing handshake's table: every pair of a phase and a happening, and what is said of each end."""

from __future__ import annotations

import errno
import itertools
import unittest

from sync_ws.endings import Close, Reason
from sync_ws.protocol.closing import NOTHING, REASON_BYTES, TABLE, Action, Closing, Happening, Phase, check_close
from sync_ws.protocol.frames import GOODBYE

NORMAL, AWAY = Close(1000, "bye"), Close(1001)


def closing(*happenings: Happening, sent: Close = NORMAL, received: Close | None = AWAY) -> Closing:
    """One to which these things have happened, and been carried out."""
    life = Closing()
    for what in happenings:
        step = life.happens(what, sent if what is Happening.CLOSE else received, reason=Reason("given up"))
        if step.reason is not None:
            life.end(step.reason)
    return life


class TableTest(unittest.TestCase):
    def test_every_pair_does_what_the_table_says(self) -> None:
        reach = {
            Phase.OPEN: (),
            Phase.CLOSING: (Happening.CLOSE,),
            Phase.ENDED: (Happening.GIVEN_UP,),
            Phase.RELEASED: (Happening.GIVEN_UP, Happening.RELEASE),
        }
        for phase, what in itertools.product(Phase, Happening):
            with self.subTest(phase=phase.value, what=what.value):
                life = closing(*reach[phase])
                self.assertIs(life.phase, phase)
                after, actions = TABLE.get((phase, what), (phase, NOTHING))
                step = life.happens(what, NORMAL, reason=Reason("given up"))
                self.assertEqual(step.actions, actions)
                if step.reason is not None:
                    life.end(step.reason)
                self.assertIs(life.phase, after)

    def test_life_goes_one_way(self) -> None:
        order = list(Phase)
        for (before, _), (after, _) in TABLE.items():
            self.assertGreaterEqual(order.index(after), order.index(before))

    def test_the_end_is_seen_only_when_what_it_takes_was_done(self) -> None:
        life = Closing()
        step = life.happens(Happening.CLOSE_FRAME, AWAY)
        self.assertIs(life.phase, Phase.OPEN)
        assert step.reason is not None
        self.assertTrue(life.end(step.reason))
        self.assertIs(life.phase, Phase.ENDED)

    def test_the_first_end_is_the_one_that_counts(self) -> None:
        life = closing(Happening.CLOSE_FRAME)
        self.assertFalse(life.end(Reason("another")))
        self.assertEqual(str(life.reason), "closed by the peer: 1001")


class FramesTest(unittest.TestCase):
    def test_the_peers_close_frame_is_answered_with_its_own_code(self) -> None:
        step = Closing().happens(Happening.CLOSE_FRAME, AWAY)
        self.assertEqual((step.close, Action.SEND_CLOSE in step.actions), (AWAY, True))

    def test_an_empty_one_with_an_empty_one(self) -> None:
        life = Closing()
        step = life.happens(Happening.CLOSE_FRAME, None)
        self.assertEqual((step.close, life.sent, life.received), (None, Close(1005), Close(1005)))

    def test_after_ours_it_is_not_answered(self) -> None:
        life = closing(Happening.CLOSE)
        step = life.happens(Happening.CLOSE_FRAME, AWAY)
        self.assertNotIn(Action.SEND_CLOSE, step.actions)
        self.assertEqual((life.sent, life.received), (NORMAL, AWAY))

    def test_a_failure_tells_the_peer_why_unless_ours_is_on_its_way(self) -> None:
        wrong = Close(1002, "no")
        life = Closing()
        self.assertIn(Action.SEND_CLOSE, life.happens(Happening.FAILURE, wrong).actions)
        self.assertEqual((life.sent, life.received), (wrong, None))
        life = closing(Happening.CLOSE)
        self.assertNotIn(Action.SEND_CLOSE, life.happens(Happening.FAILURE, wrong).actions)
        self.assertEqual(life.sent, NORMAL)


class ReasonTest(unittest.TestCase):
    def test_each_end_in_words(self) -> None:
        reset = ConnectionResetError(104, "Connection reset by peer")
        lost = "the connection was lost without a Close frame"
        cases: list[tuple[tuple[Happening, ...], Happening, Close | None, OSError | None, Reason]] = [
            ((), Happening.CLOSE_FRAME, AWAY, None, Reason("closed by the peer: 1001", 1001)),
            ((), Happening.CLOSE_FRAME, None, None, Reason("closed by the peer: 1005", 1005)),
            ((Happening.CLOSE,), Happening.CLOSE_FRAME, AWAY, None, Reason("closed by us: 1000 bye", 1001, by_us=True)),
            ((), Happening.FAILURE, AWAY, None, Reason("the peer broke the protocol: 1001", 1001, by_us=True)),
            ((), Happening.END_OF_STREAM, None, None, Reason(lost, 1006)),
            ((), Happening.END_OF_STREAM, None, reset, Reason(f"{lost}: Connection reset by peer", 1006)),
            (
                (Happening.CLOSE,),
                Happening.END_OF_STREAM,
                None,
                None,
                Reason(f"closed by us: 1000 bye; {lost}", 1006, by_us=True),
            ),
            (
                (Happening.CLOSE,),
                Happening.END_OF_STREAM,
                None,
                reset,
                Reason(f"closed by us: 1000 bye; {lost}: Connection reset by peer", 1006, by_us=True),
            ),
        ]
        for before, what, close, error, expected in cases:
            with self.subTest(str(expected)):
                self.assertEqual(closing(*before).happens(what, close, error=error).reason, expected)

    def test_a_clumsy_goodbye_is_a_goodbye(self) -> None:
        answer = Close(1002, "close code 1006 must not be sent")
        step = Closing().happens(Happening.FAILURE, answer, about=GOODBYE)
        expected = f"closed by the peer, in a Close frame that is none: {answer.reason}"
        self.assertEqual((step.close, step.reason), (answer, Reason(expected, 1006)))

    def test_a_limit_of_ours_is_named_and_nobody_blamed(self) -> None:
        limit = Close(1009, "a message has at most 9 bytes here")
        step = Closing().happens(Happening.FAILURE, limit, about="max_message")
        expected = "closed by us, above our own limit: 1009 a message has at most 9 bytes here (the option max_message)"
        self.assertEqual(step.reason, Reason(expected, 1009, by_us=True))

    def test_who_gives_up_says_why_or_it_was_the_missing_answer(self) -> None:
        why = Reason("no sign of life", 1006)
        self.assertIs(Closing().happens(Happening.GIVEN_UP, reason=why).reason, why)
        missing = closing(Happening.CLOSE).happens(Happening.GIVEN_UP).reason
        self.assertEqual(missing, Reason("no Close frame in answer to ours in time", 1006, by_us=True))

    def test_why_nothing_may_be_sent_now(self) -> None:
        self.assertEqual(str(Closing().present()), "the connection broke while writing")
        broken = Closing()
        broken.broken = OSError(errno.ENOMEM, "no memory")
        self.assertEqual(str(broken.present()), "the connection broke while writing: no memory")
        self.assertIs(broken.present().error, broken.broken)
        self.assertEqual(str(closing(Happening.CLOSE).present()), "closing: we sent 1000 bye")
        self.assertEqual(str(closing(Happening.CLOSE_FRAME).present()), "closed by the peer: 1001")


class CheckCloseTest(unittest.TestCase):
    def test_what_may_be_sent(self) -> None:
        for code in (1000, 1001, 1003, 1007, 1014, 3000, 4999):
            self.assertEqual(check_close(code, "why"), Close(code, "why"))
        self.assertEqual(len(check_close(1000, "ü" * 61).reason), 61)

    def test_what_may_not(self) -> None:
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with self.subTest(code), self.assertRaisesRegex(ValueError, f"not {code}"):
                check_close(code, "")
        with self.assertRaisesRegex(ValueError, f"at most {REASON_BYTES} bytes"):
            check_close(1000, "ü" * 62)


if __name__ == "__main__":
    unittest.main()
