"""The fuzzers shortly, with a fixed seed; that they find what is planted; and what they have found."""

from __future__ import annotations

import os
import unittest
from collections import deque

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.testing import LedgerTestCase
from tests.fuzz import requests

try:
    from tests.fuzz import frames
except ImportError as exc:
    if exc.name is None or exc.name.partition(".")[0] != "websockets" or os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        raise
    raise unittest.SkipTest("websockets is not installed") from exc


class FramesTest(unittest.TestCase):
    """The differential fuzz."""

    def test_both_parsers_agree_but_for_the_known_differences(self) -> None:
        counts, findings = frames.run(seconds=30.0, seed=1, most=1500)
        self.assertEqual(findings, [])
        self.assertEqual(counts["cases"], 1500)

    def test_every_known_difference_gives_its_reason(self) -> None:
        for difference in frames.DIFFERENCES:
            self.assertRegex(difference.why, r".{20}", difference.name)

    def test_a_planted_difference_is_found(self) -> None:
        case = frames.Case(b"\x81\x05hello\x88\x02\x03\xe8", masked=False, deflate=None)
        wrong = {"messages": ["hellO"], "closed": (1001, ""), "code": 1002, "controls": [(9, b"")]}
        for part, planted in wrong.items():
            we = frames.ours(case, [case.data], 1)
            self.assertEqual(frames.compare(case, we), (None, None))
            setattr(we, part, planted)
            self.assertIn(part, frames.compare(case, we)[1] or "")


class FoundTest(unittest.TestCase):
    """What the fuzz has found in the library."""

    def test_nothing_is_parsed_behind_a_close_frame_in_pieces(self) -> None:
        reader = FrameReader(
            expect_masked=False,
            max_message=100,
            max_fragments=10,
        )
        messages: deque[Message] = deque()
        reader.feed(b"\x88\x07\x03\xef")
        self.assertEqual(list(reader.parse(messages, 10)), [])
        reader.feed(b"hello\x81\x01a")
        (control,) = reader.parse(messages, 10)
        self.assertEqual((control.opcode, control.close), (Opcode.CLOSE, (1007, "hello")))
        self.assertEqual(list(reader.parse(messages, 10)), [])
        self.assertEqual(list(messages), [])

    def test_messages_after_a_final_deflate_block_are_inflated(self) -> None:
        # RFC 7692 section 7.2.3.4, its example; then "hello" compressed in the usual way
        final = b"\xc1\x08\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
        usual = b"\xc1\x07\xca\x48\xcd\xc9\xc9\x07\x00"
        for takeover in (True, False):
            case = frames.Case(final + usual, masked=False, deflate=takeover)
            self.assertEqual(frames.ours(case, [case.data], 10).messages, ["Hello", "hello"])


class RequestsTest(LedgerTestCase):
    """Bytes at a server's port."""

    def test_broken_requests_leave_neither_tracebacks_nor_threads(self) -> None:
        counts, findings = requests.run(seconds=20.0, seed=1, most=15, parallel=24)
        self.assertEqual(findings, [])
        self.assertTrue(counts["status 101"] and counts["status 400"], counts)


if __name__ == "__main__":
    unittest.main()
