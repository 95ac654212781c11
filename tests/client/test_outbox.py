"""The outbox: in order, bounded, and a message refused is not half queued."""

from __future__ import annotations

import unittest
from typing import Any

from sync_ws.client.outbox import Outbox
from sync_ws.errors import QueueFull


class Outboxes(unittest.TestCase):
    def test_messages_come_out_in_order_as_they_went_in(self) -> None:
        outbox = Outbox(10, 1000)
        messages: list[Any] = ["text ☃", b"bytes", "", b"", bytearray(b"array"), memoryview(b"view")]
        for message in messages:
            outbox.put(message)
        self.assertEqual(len(outbox), 6)
        got = []
        while len(outbox):
            got.append(outbox.first)
            outbox.drop_first()
        self.assertEqual(got, ["text ☃", b"bytes", "", b"", b"array", b"view"])
        self.assertEqual([type(message) for message in got], [str, bytes, str, bytes, bytes, bytes])
        self.assertEqual(outbox.size, 0)

    def test_a_mutable_message_is_copied(self) -> None:
        outbox, data = Outbox(10, 1000), bytearray(b"before")
        outbox.put(data)
        outbox.put(memoryview(data))
        data[:] = b"after!"
        self.assertEqual(outbox.take_all(), (b"before", b"before"))

    def test_the_bound_on_messages(self) -> None:
        outbox = Outbox(2, 1000)
        outbox.put("a")
        outbox.put("b")
        with self.assertRaisesRegex(QueueFull, "at most 2 and 1000"):
            outbox.put("c")
        outbox.drop_first()
        outbox.put("c")
        self.assertEqual(outbox.take_all(), ("b", "c"))

    def test_the_bound_on_bytes_counts_bytes_not_characters(self) -> None:
        outbox = Outbox(100, 10)
        outbox.put("éé")
        self.assertEqual(outbox.size, 4)
        outbox.put(b"123456")
        self.assertEqual(outbox.size, 10)
        with self.assertRaises(QueueFull):
            outbox.put("x")
        outbox.put("")
        self.assertEqual((len(outbox), outbox.size), (3, 10))

    def test_what_is_larger_than_the_bound_is_refused_when_empty_too(self) -> None:
        outbox = Outbox(100, 10)
        with self.assertRaises(QueueFull):
            outbox.put(bytes(11))
        self.assertEqual((len(outbox), outbox.size), (0, 0))

    def test_what_is_no_message_is_refused_at_once(self) -> None:
        outbox = Outbox(100, 1000)
        wrong: list[Any] = [None, 1, ["x"]]
        for data in wrong:
            with self.assertRaises(TypeError):
                outbox.put(data)
        with self.assertRaises(ValueError):
            outbox.put("\ud800")
        self.assertEqual(len(outbox), 0)

    def test_take_all_empties_it(self) -> None:
        outbox = Outbox(3, 10)
        self.assertEqual(outbox.take_all(), ())
        outbox.put("abc")
        self.assertEqual(outbox.take_all(), ("abc",))
        self.assertEqual((len(outbox), outbox.size, outbox.take_all()), (0, 0, ()))
        for _ in range(3):
            outbox.put("abc")


if __name__ == "__main__":
    unittest.main()
