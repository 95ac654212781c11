"""The inbox: messages and notes in one order, each bounded for itself."""

from __future__ import annotations

import unittest
from sys import getsizeof

from sync_ws.channel.inbox import MAX_NOTES, Inbox, Note


def beat(number: int) -> Note:
    return Note("heartbeat", number)


class InboxTest(unittest.TestCase):
    def test_at_first_nobody_receives_and_nothing_was_taken(self) -> None:
        inbox = Inbox()
        self.assertEqual((len(inbox), inbox.kept, inbox.receiving), (0, None, False))

    def test_a_note_stands_where_it_came(self) -> None:
        inbox = Inbox(["a", "b", "c"])
        inbox.note(beat(1), 1)
        inbox.note(beat(2), 4)
        self.assertEqual(list(inbox), ["a", beat(1), "b", "c", beat(2)])

    def test_notes_are_bounded_and_the_oldest_goes(self) -> None:
        inbox = Inbox(["first"])
        for number in range(MAX_NOTES + 10):
            inbox.note(beat(number), len(inbox))
        self.assertEqual(inbox[0], "first")
        self.assertEqual(list(inbox)[1:], [beat(number) for number in range(10, MAX_NOTES + 10)])

    def test_notes_take_no_message_its_place(self) -> None:
        inbox = Inbox(["aa", beat(1), b"bb", beat(2)])
        self.assertEqual(inbox.space(16, 1000)[0], 14)
        self.assertEqual(inbox.space(2, 1000), (0, 0))
        self.assertEqual(inbox.space(1, 1000), (0, 0))
        self.assertEqual(Inbox([beat(1)]).space(1, 1), (1, 1))

    def test_messages_are_bounded_by_the_memory_they_take(self) -> None:
        for message in ("a" * 1000, "\u0444" * 1000, "\U0001f600" * 1000, bytes(1000)):
            size = getsizeof(message)
            self.assertEqual(Inbox([message]).space(16, size + 1), (15, 1))
            self.assertEqual(Inbox([message]).space(16, size), (0, 0))

    def test_messages_are_dropped_from_a_place_on_and_notes_stay(self) -> None:
        inbox = Inbox(["kept", beat(1), "gone", beat(2), b"gone too", beat(3)])
        inbox.drop_messages(1)
        self.assertEqual(list(inbox), ["kept", beat(1), beat(2), beat(3)])
        inbox.drop_messages(0)
        self.assertEqual(list(inbox), [beat(1), beat(2), beat(3)])

    def test_a_forked_child_has_nothing_of_it_and_nobody_who_receives(self) -> None:
        inbox = Inbox(["a", "b"])
        inbox.kept, inbox.receiving = inbox.popleft(), True
        inbox.forget_in_child()
        self.assertEqual((list(inbox), inbox.kept, inbox.receiving), ([], None, False))

    def test_only_notes_that_no_message_stands_before_are_taken(self) -> None:
        inbox = Inbox([beat(1), beat(2), "message", beat(3)])
        self.assertEqual(inbox.take_notes(), [beat(1), beat(2)])
        self.assertEqual(inbox.take_notes(), [])
        self.assertEqual(list(inbox), ["message", beat(3)])
        self.assertEqual(Inbox([beat(1)]).take_notes(), [beat(1)])


if __name__ == "__main__":
    unittest.main()
