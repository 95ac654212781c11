"""Heads for people: no secret, no forged line, no end of it."""

from __future__ import annotations

import unittest

from sync_ws.protocol.shown_head import MAX_SHOWN, escaped, shown_address, shown_lines


class EscapedTest(unittest.TestCase):
    def test_one_printable_line_of_bounded_length(self) -> None:
        self.assertEqual(escaped("a\x1b[31m\r\nü\u202e'\\"), "a\\x1b[31m\\r\\n\\xfc\\u202e'\\\\")
        self.assertEqual(escaped("x" * 9, 4), "xxxx...")
        text = escaped("\U0001f600" * 9999)
        self.assertTrue(text.isascii() and text.isprintable() and len(text) <= 10 * MAX_SHOWN + 3)


class AddressTest(unittest.TestCase):
    def test_names_of_the_query_are_shown_and_its_values_are_not(self) -> None:
        for address, shown in (
            ("/ws/?name=test&token=hush", "/ws/?name=***&token=***"),
            ("/ws/?hush", "/ws/?***"),
            ("/ws/?a=1#hush", "/ws/?a=***#***"),
            ("/ws/?", "/ws/?"),
            ("/ws/", "/ws/"),
            ("login", "login"),
            ("//b.test/x?t=hush", "//b.test/x?t=***"),
            ("https://b.test/x?t=hu=sh", "https://b.test/x?t=***"),
            ("https://us:hush@b.test:8/x@y", "https://b.test:8/x@y"),
            ("https://us:hush@b.test", "https://b.test"),
            ("wss://b.test?t=hush", "wss://b.test?t=***"),
            ("https://b.test/\r\n\u202e", "https://b.test/\\r\\n\\u202e"),
        ):
            with self.subTest(address):
                self.assertEqual(shown_address(address), shown)


class LinesTest(unittest.TestCase):
    def test_values_of_secret_headers_are_masked(self) -> None:
        for name, value, shown in (
            ("Authorization", "Bearer hush", "Bearer ***"),
            ("Authorization", "hush", "***"),
            ("Proxy-Authorization", "Basic hush", "Basic ***"),
            ("Cookie", "a=hush; b=hush=; hush", "a=***; b=***; ***"),
            ("Set-Cookie", "a=hush; Path=/; Secure", "a=***; Path=/; Secure"),
            ("Set-Cookie", "hush", "***"),
            ("X-Api-Key", "hush hush", "***"),
            ("X-Auth-Token", "hush", "***"),
            ("X-Amz-Security-Token", "hush", "***"),
            ("X-Session-Id", "hush", "***"),
            ("Location", "https://b.test/?t=hush", "https://b.test/?t=***"),
            ("Sec-WebSocket-Protocol", "chat, hush" + "h" * 40, "chat, ***"),
            ("WWW-Authenticate", 'Bearer realm="x"', 'Bearer realm="x"'),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Upgrade", "websocket", "websocket"),
        ):
            with self.subTest(name):
                first, line = shown_lines("HTTP/1.1 101 X", [(name, value)])
                self.assertEqual((first, line), ("HTTP/1.1 101 X", f"{name}: {shown}"))

    def test_every_line_is_one(self) -> None:
        for line in shown_lines("HTTP/1.1 101 \x1b\n", [("X\n", "a\r\nb" + "y" * 9999)]):
            self.assertTrue(line.isprintable() and line.isascii() and len(line) < 2 * MAX_SHOWN, line)


if __name__ == "__main__":
    unittest.main()
