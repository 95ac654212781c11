"""Messages that the library takes itself: sorted out in place, as text and as binary, of more than one kind."""

from __future__ import annotations

import unittest
from collections import deque

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.intercepts import HEART_BEAT, Intercept
from tests.support.wire import frame

TEXT, BINARY = Opcode.TEXT, Opcode.BINARY
ACK = Intercept("ack", "ack!", lambda text: text.startswith("ack!"))
BEAT = '{"ModeCode":"heart_beat","msg":1}'


def sorted_out(data: bytes, *intercepts: Intercept) -> tuple[list[Message], list[tuple[str, str, bytes, int]]]:
    reader = FrameReader(expect_masked=False, max_message=1 << 20, max_fragments=9, intercepts=intercepts)
    messages: deque[Message] = deque()
    reader.feed(data)
    controls = reader.parse(messages, 100)
    return list(messages), [(c.intercept.name, c.text, c.payload, c.at) for c in controls if c.intercept]


class InterceptsTest(unittest.TestCase):
    def test_each_kind_is_told_with_its_place_among_the_messages(self) -> None:
        data = b"".join(
            frame(opcode, text.encode(), masked=False)
            for opcode, text in ((TEXT, "a"), (TEXT, BEAT), (TEXT, "b"), (TEXT, "ack! 1"), (BINARY, "ack! 2"))
        )
        expected = [
            ("heart_beat", BEAT, b"", 1),
            ("ack", "ack! 1", b"", 2),
            ("ack", "ack! 2", b"ack! 2", 2),
        ]
        self.assertEqual(sorted_out(data, HEART_BEAT, ACK), (["a", "b"], expected))

    def test_a_mark_alone_is_not_enough(self) -> None:
        for text in ("no ack! here", '"heart_beat"', '{"ModeCode":"x","msg":"heart_beat"}', "\0\0"):
            for opcode in (TEXT, BINARY):
                data = frame(opcode, text.encode(), masked=False)
                message: Message = text if opcode == TEXT else text.encode()
                with self.subTest(text, opcode=opcode):
                    self.assertEqual(sorted_out(data, HEART_BEAT, ACK), ([message], []))
                    self.assertEqual(sorted_out(data), ([message], []))

    def test_without_a_mark_every_short_message_is_looked_at(self) -> None:
        seen: list[Message] = []

        def recognise(message: Message) -> bool:
            seen.append(message)
            return message in ("b", b"\xff")

        for verbatim in (False, True):
            seen.clear()
            every = Intercept("every", "", recognise, verbatim)
            parts = ((TEXT, b"a"), (TEXT, b"b"), (BINARY, b"c"), (BINARY, b"\xff"), (TEXT, b"x" * 1024), (TEXT, b""))
            data = b"".join(frame(opcode, payload, masked=False) for opcode, payload in parts)
            with self.subTest(verbatim=verbatim):
                messages, controls = sorted_out(data, HEART_BEAT, every)
                self.assertEqual(seen, ["a", "b", *([b"c", b"\xff"] if verbatim else ["c", "\ufffd"]), ""])
                expected = ["a", b"c"] if verbatim else ["a", b"c", b"\xff"]
                self.assertEqual(messages, [*expected, "x" * 1024, ""])
                self.assertEqual([text for _, text, _, _ in controls], ["b", "\ufffd"] if verbatim else ["b"])

    def test_without_intercepts_everything_is_a_message(self) -> None:
        self.assertEqual(sorted_out(frame(TEXT, BEAT.encode(), masked=False)), ([BEAT], []))

    def test_a_long_text_is_a_message_whatever_it_contains(self) -> None:
        text = "ack!" + "x" * 1020
        self.assertEqual(sorted_out(frame(TEXT, text.encode(), masked=False), ACK), ([text], []))
        self.assertEqual(len(sorted_out(frame(TEXT, text[:-1].encode(), masked=False), ACK)[1]), 1)

    def test_a_fragmented_one_is_recognised(self) -> None:
        data = frame(TEXT, b"ack", masked=False, fin=False) + frame(0, b"! 3", masked=False)
        self.assertEqual(sorted_out(data, ACK), ([], [("ack", "ack! 3", b"", 0)]))


if __name__ == "__main__":
    unittest.main()
