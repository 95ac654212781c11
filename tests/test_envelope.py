"""The JSON envelope: what goes in comes out, and what is none says so."""

from __future__ import annotations

import json
import math
import unittest
from typing import Any

from sync_ws.envelope import HEART_BEAT_MARK, Envelope, ModeCode, decode, dumps, encode, is_heart_beat, loads
from sync_ws.errors import MessageError


class Envelopes(unittest.TestCase):
    def test_the_wire_format_is_that_of_the_article(self) -> None:
        self.assertEqual(encode(ModeCode.MESSAGE, "hello"), '{"ModeCode":"message","msg":"hello"}')
        self.assertEqual(encode(ModeCode.HEART_BEAT, 1), '{"ModeCode":"heart_beat","msg":1}')

    def test_what_goes_in_comes_out(self) -> None:
        for msg in (None, True, 0, -1.5, "", "grüße 😀 \u2028 \x00", [1, [2]], {"a": {"b": None}}, 2**70):
            with self.subTest(msg):
                self.assertEqual(decode(encode("message", msg)), Envelope("message", msg))

    def test_an_envelope_without_msg_carries_none(self) -> None:
        self.assertEqual(decode('{"ModeCode":"message"}'), Envelope("message", None))

    def test_spaces_order_and_further_keys_do_not_matter(self) -> None:
        self.assertEqual(decode(' { "x": 1, "msg" : 2 , "ModeCode":"m" } '), Envelope("m", 2))

    def test_what_is_no_envelope_says_what_was_expected(self) -> None:
        for text in ("[]", "null", "1", '"x"', "{}", '{"ModeCode":1}', '{"ModeCode":null}', '{"modecode":"x"}'):
            with self.subTest(text), self.assertRaisesRegex(MessageError, "ModeCode"):
                decode(text)

    def test_bad_json_is_a_message_error_never_another(self) -> None:
        for text in ("", "{", "hello", '{"a":}', "[" * 100_000, "1" * 10_000 + "x", "\ud800"):
            with self.subTest(text[:10]), self.assertRaisesRegex(MessageError, "JSON"):
                loads(text)

    def test_a_binary_message_is_no_json_text(self) -> None:
        with self.assertRaisesRegex(MessageError, "binary"):
            loads(b"{}")
        with self.assertRaises(MessageError):
            decode(b'{"ModeCode":"message"}')

    def test_what_has_no_json_form_is_refused(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for value in (object(), {1, 2}, b"x", math.nan, math.inf, {"a": -math.inf}, {(1, 2): 3}, deep):
            with self.subTest(str(type(value))), self.assertRaises(MessageError):
                dumps(value)
        while deep:  # one at a time: the interpreter's own recursion would be deep, too
            deep = deep.pop()

    def test_text_is_sent_as_it_is_not_escaped(self) -> None:
        self.assertEqual(dumps({"ü": "€"}), '{"ü":"€"}')


class HeartBeats(unittest.TestCase):
    def test_a_heartbeat_is_recognised_however_it_is_written(self) -> None:
        for text in (
            encode(ModeCode.HEART_BEAT, "now"),
            '{ "msg": 5, "ModeCode" : "heart_beat" }',
            json.dumps({"ModeCode": "heart_beat"}),
        ):
            with self.subTest(text):
                self.assertIn(HEART_BEAT_MARK, text)
                self.assertTrue(is_heart_beat(text))

    def test_nothing_else_is_one_and_nothing_raises(self) -> None:
        for text in (
            "", "heart_beat", '"heart_beat"', '["heart_beat"]', '{"msg":"heart_beat"}', '{"ModeCode":["heart_beat"]}',
            '{"ModeCode":"message","msg":"\\"heart_beat\\""}', '{"ModeCode":"heart_beat"', "[" * 100_000, "\ud800",
            '{"x":{"ModeCode":"heart_beat"}}',
        ):  # fmt: skip
            with self.subTest(text[:40]):
                self.assertFalse(is_heart_beat(text))


if __name__ == "__main__":
    unittest.main()
