"""The outbox: in order, bounded, and a message refused is not half queued."""

from __future__ import annotations

import unittest
from typing import Any

from sync_ws.client.outbox import Outbox, entry_of
from sync_ws.errors import QueueFull


class Outboxes(unittest.TestCase):
    def test_messages_come_out_in_order_as_they_went_in(self) -> None:
        outbox = Outbox(10, 1000)
        messages: list[Any] = ["text ☃", b"bytes", "", b"", bytearray(b"array"), memoryview(b"view")]
        for message in messages:
            outbox.put(entry_of(message))
        self.assertEqual(len(outbox), 6)
        got = []
        while (first := outbox.first) is not None:
            got.append(first)
            outbox.drop_first()
        self.assertEqual(got, ["text ☃", b"bytes", "", b"", b"array", b"view"])
        self.assertEqual([type(message) for message in got], [str, bytes, str, bytes, bytes, bytes])
        self.assertEqual(outbox.size, 0)

    def test_a_mutable_message_is_copied(self) -> None:
        outbox, data = Outbox(10, 1000), bytearray(b"before")
        outbox.put(entry_of(data))
        outbox.put(entry_of(memoryview(data)))
        data[:] = b"after!"
        self.assertEqual(outbox.take_all(), (b"before", b"before"))

    def test_the_bound_on_messages(self) -> None:
        outbox = Outbox(2, 1000)
        outbox.put(entry_of("a"))
        outbox.put(entry_of("b"))
        with self.assertRaisesRegex(QueueFull, "at most 2 and 1000"):
            outbox.put(entry_of("c"))
        outbox.drop_first()
        outbox.put(entry_of("c"))
        self.assertEqual(outbox.take_all(), ("b", "c"))

    def test_the_bound_on_bytes_counts_bytes_not_characters(self) -> None:
        outbox = Outbox(100, 10)
        outbox.put(entry_of("éé"))
        self.assertEqual(outbox.size, 4)
        outbox.put(entry_of(b"123456"))
        self.assertEqual(outbox.size, 10)
        with self.assertRaises(QueueFull):
            outbox.put(entry_of("x"))
        outbox.put(entry_of(""))
        self.assertEqual((len(outbox), outbox.size), (3, 10))

    def test_what_is_larger_than_the_bound_is_refused_when_empty_too(self) -> None:
        outbox = Outbox(100, 10)
        with self.assertRaises(QueueFull):
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
        outbox = Outbox(3, 10)
        self.assertEqual(outbox.take_all(), ())
        outbox.put(entry_of("abc"))
        self.assertEqual(outbox.take_all(), ("abc",))
        self.assertEqual((len(outbox), outbox.size, outbox.take_all()), (0, 0, ()))
        for _ in range(3):
            outbox.put(entry_of("abc"))


if __name__ == "__main__":
    unittest.main()
