"""The outbox: in order, bounded, a message refused is not half queued, and room is made from the old end."""

from __future__ import annotations

import unittest
from typing import Any

from sync_ws.client.outbox import Offline, Outbox, entry_of
from sync_ws.errors import QueueFull


class Outboxes(unittest.TestCase):
    def test_messages_come_out_in_order_as_they_went_in(self) -> None:
        outbox = Outbox(Offline(10, 1000))
        messages: list[Any] = ["text ☃", b"bytes", "", b"", bytearray(b"array"), memoryview(b"view")]
        for message in messages:
            outbox.put(entry_of(message))
        self.assertEqual(len(outbox), 6)
        got = []
        while (first := outbox.take_first()) is not None:
            got.append(first)
            outbox.went()
        self.assertEqual(got, ["text ☃", b"bytes", "", b"", b"array", b"view"])
        self.assertEqual([type(message) for message in got], [str, bytes, str, bytes, bytes, bytes])
        self.assertEqual(outbox.size, 0)

    def test_a_mutable_message_is_copied(self) -> None:
        outbox, data = Outbox(Offline(10, 1000)), bytearray(b"before")
        outbox.put(entry_of(data))
        outbox.put(entry_of(memoryview(data)))
        data[:] = b"after!"
        self.assertEqual(outbox.take_all(), (b"before", b"before"))

    def test_the_bound_on_messages(self) -> None:
        outbox = Outbox(Offline(2, 1000))
        outbox.put(entry_of("a"))
        outbox.put(entry_of("b"))
        with self.assertRaisesRegex(QueueFull, "at most 2 and 1000"):
            outbox.put(entry_of("c"))
        outbox.take_first()
        outbox.went()
        outbox.put(entry_of("c"))
        self.assertEqual(outbox.take_all(), ("b", "c"))

    def test_the_bound_on_bytes_counts_bytes_not_characters(self) -> None:
        outbox = Outbox(Offline(100, 10))
        outbox.put(entry_of("éé"))
        self.assertEqual(outbox.size, 4)
        outbox.put(entry_of(b"123456"))
        self.assertEqual(outbox.size, 10)
        with self.assertRaises(QueueFull):
            outbox.put(entry_of("x"))
        outbox.put(entry_of(""))
        self.assertEqual((len(outbox), outbox.size), (3, 10))

    def test_what_is_larger_than_the_bound_is_refused_when_empty_too(self) -> None:
        outbox = Outbox(Offline(100, 10))
        with self.assertRaisesRegex(QueueFull, "11 bytes are more than may wait"):
            outbox.put(entry_of(bytes(11)))
        self.assertEqual((len(outbox), outbox.size), (0, 0))

    def test_what_is_no_message_is_refused_at_once(self) -> None:
        wrong: list[Any] = [None, 1, [1]]
        for data in wrong:
            with self.assertRaises(TypeError):
                entry_of(data)
        with self.assertRaises(ValueError):
            entry_of("\ud800")

    def test_take_all_empties_it(self) -> None:
        outbox = Outbox(Offline(3, 10))
        self.assertEqual(outbox.take_all(), ())
        outbox.put(entry_of("abc"))
        self.assertEqual(outbox.take_all(), ("abc",))
        self.assertEqual((len(outbox), outbox.size, outbox.take_all()), (0, 0, ()))
        for _ in range(3):
            outbox.put(entry_of("abc"))


class Policies(unittest.TestCase):
    def test_the_defaults(self) -> None:
        self.assertEqual(Offline(), Offline(max_messages=64, max_bytes=1 << 20, when_full="raise"))

    def test_what_an_offline_argument_means(self) -> None:
        own = Offline(5)
        self.assertEqual((Offline.of("queue"), Offline.of("raise"), Offline.of(own)), (Offline(), None, own))

    def test_what_cannot_be_meant_is_refused(self) -> None:
        bad: list[dict[str, Any]] = [
            {"max_messages": 0}, {"max_messages": -1}, {"max_bytes": 0}, {"when_full": "drop"}, {"when_full": None},
        ]  # fmt: skip
        for arguments in bad:
            with self.subTest(arguments), self.assertRaises(ValueError):
                Offline(**arguments)
        wrong: list[dict[str, Any]] = [{"max_messages": "5"}, {"max_messages": None}, {"max_bytes": 1e6}]
        for arguments in wrong:
            with self.subTest(arguments), self.assertRaisesRegex(TypeError, "Offline.max_"):
                Offline(**arguments)
        for value in (64, None, True):
            with self.subTest(value), self.assertRaisesRegex(TypeError, "sync_ws.Offline"):
                Offline.of(value)  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "sync_ws.Offline, not 'drop_oldest'"):
            Offline.of("drop_oldest")


class DropOldest(unittest.TestCase):
    def outbox(self, max_messages: int = 3, max_bytes: int = 10) -> Outbox:
        return Outbox(Offline(max_messages, max_bytes, "drop_oldest"))

    def test_the_newest_are_kept_in_order(self) -> None:
        outbox = self.outbox()
        for number in range(100_000):
            outbox.put(entry_of(str(number)[-3:]))
        self.assertEqual((len(outbox), outbox.size, outbox.dropped), (3, 9, 99_997))
        self.assertEqual(outbox.take_all(), ("997", "998", "999"))

    def test_a_large_one_makes_as_much_room_as_it_needs(self) -> None:
        outbox = self.outbox()
        for text in ("aaa", "bbb", "ccc", "eight by"):
            outbox.put(entry_of(text))
        self.assertEqual((outbox.take_all(), outbox.dropped), (("eight by",), 3))

    def test_one_that_is_larger_than_the_bound_drops_nothing(self) -> None:
        outbox = self.outbox()
        outbox.put(entry_of("kept"))
        with self.assertRaises(QueueFull):
            outbox.put(entry_of(bytes(11)))
        self.assertEqual((outbox.take_all(), outbox.dropped), (("kept",), 0))

    def test_one_that_is_on_its_way_is_neither_dropped_nor_mistaken_for_another(self) -> None:
        for bound in (1, 2, 3):
            with self.subTest(bound):
                outbox = self.outbox(bound)
                for text in "abc"[:bound]:
                    outbox.put(entry_of(text))
                self.assertEqual(outbox.take_first(), "a")
                for text in "defg":
                    outbox.put(entry_of(text))
                outbox.went()
                kept = max(1, bound - 1)
                self.assertEqual((outbox.take_all(), outbox.dropped), (tuple("defg"[-kept:]), bound + 4 - 1 - kept))

    def test_one_that_could_not_be_sent_is_the_oldest_again(self) -> None:
        outbox = self.outbox(2)
        for text in "ab":
            outbox.put(entry_of(text))
        outbox.take_first()
        outbox.stayed()
        outbox.put(entry_of("c"))
        self.assertEqual((outbox.take_all(), outbox.size), (("b", "c"), 0))

    def test_nothing_is_on_its_way_out_of_an_empty_one(self) -> None:
        outbox = self.outbox(1)
        self.assertIsNone(outbox.take_first())
        for text in "ab":
            outbox.put(entry_of(text))
        self.assertEqual(outbox.take_all(), ("b",))


class Together(unittest.TestCase):
    """Several messages at once, as a batch has them."""

    def waiting(self, outbox: Outbox) -> list[object]:
        return list(outbox.take_all())

    def test_all_of_them_are_queued_or_none(self) -> None:
        for outbox in (Outbox(Offline(2, 100)), Outbox(Offline(10, 5))):
            with self.assertRaises(QueueFull):
                outbox.put(entry_of("aa"), entry_of("bb"), entry_of("cc"))
            self.assertEqual(outbox.size, 0)
            outbox.put(entry_of("aa"), entry_of("bb"))
            self.assertEqual(self.waiting(outbox), ["aa", "bb"])

    def test_they_make_room_for_one_another_where_the_oldest_are_dropped(self) -> None:
        outbox = Outbox(Offline(2, 10, "drop_oldest"))
        outbox.put(entry_of("a"), entry_of("b"), entry_of("c"))
        self.assertEqual((self.waiting(outbox), outbox.dropped), (["b", "c"], 1))

    def test_they_wait_for_room_for_all_of_them_if_there_ever_will_be(self) -> None:
        outbox = Outbox(Offline(3, 10, "block"))
        outbox.put(entry_of("a"), entry_of("b"))
        self.assertEqual([outbox.may_block(2, count) for count in (1, 2, 3, 4)], [False, True, True, False])


class Block(unittest.TestCase):
    def test_whether_to_wait(self) -> None:
        outbox = Outbox(Offline(2, 10, "block"))
        outbox.put(entry_of("12345678"))
        self.assertEqual([outbox.may_block(size) for size in (2, 3, 10, 11)], [False, True, True, False])
        with self.assertRaises(QueueFull):
            outbox.put(entry_of(bytes(11)))  # there never will be room
        outbox.put(entry_of("x"))
        self.assertTrue(outbox.may_block(0))
        for policy in ("raise", "drop_oldest"):
            self.assertFalse(Outbox(Offline(1, 1, policy)).may_block(1))

    def test_full_where_nobody_waits(self) -> None:
        outbox = Outbox(Offline(1, 10, "block"))
        outbox.put(entry_of("x"))
        with self.assertRaises(QueueFull):
            outbox.put(entry_of("y"))
        self.assertRegex(str(outbox.full(", so there")), "1 messages of 1 bytes .*, so there")


if __name__ == "__main__":
    unittest.main()
