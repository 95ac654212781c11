"""Addresses and header values: what gets through, and that secrets do not show."""

from __future__ import annotations

import base64
import os
import unittest
from unittest import mock

from sync_ws.checks import check_token, check_value
from sync_ws.client.address import check_headers, environment_proxy, parse_proxy, parse_url

LINE_ENDS = ("a\r\nb", "a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x7fb")


class ParseUrlTest(unittest.TestCase):
    def test_parts_of_an_address(self) -> None:
        target = parse_url("ws://Example.test:1024/ws/?name=test")
        self.assertEqual((target.scheme, target.host, target.port), ("ws", "example.test", 1024))
        self.assertFalse(target.secure)
        self.assertEqual(target.place, "example.test:1024")
        self.assertEqual(target.text, "ws://Example.test:1024/ws/?name=test")

    def test_default_ports_do_not_show_in_the_host_header(self) -> None:
        for url, port, header in (
            ("ws://a.test/", 80, "a.test"),
            ("wss://a.test/", 443, "a.test"),
            ("wss://a.test:443/", 443, "a.test"),
            ("ws://a.test:443/", 443, "a.test:443"),
            ("wss://a.test:80/", 80, "a.test:80"),
            ("ws://[::1]/", 80, "[::1]"),
            ("ws://[::1]:8080/", 8080, "[::1]:8080"),
        ):
            with self.subTest(url):
                target = parse_url(url)
                self.assertEqual((target.port, target.host_header), (port, header))

    def test_what_is_no_websocket_address_says_what_was_expected(self) -> None:
        for url in (
            "", "ws://", "ws:///path", "http://a.test/", "https://a.test/", "a.test:80", "ws://a.test:0/",
            "ws://a.test:99999/", "ws://a.test:port/", "ws://a.test/#part", "ws://a.test/#", "ws://a.test/a b",
            "ws://[::1/", "ws://bücher.test/", " ws://a.test/", "wss://.test/", "ws://a..test/",
            f"ws://{'a' * 64}.test/",
        ):  # fmt: skip
            with self.subTest(url), self.assertRaisesRegex(ValueError, "expected a WebSocket address"):
                parse_url(url)

    def test_no_line_end_or_control_character_gets_into_a_request_line(self) -> None:
        for text in LINE_ENDS:
            with self.subTest(text), self.assertRaises(ValueError):
                parse_url(f"ws://a.test/{text}")

    def test_an_address_is_a_string(self) -> None:
        with self.assertRaises(TypeError):
            parse_url(b"ws://a.test/")  # type: ignore[arg-type]

    def test_secrets_of_an_address_do_not_show(self) -> None:
        target = parse_url("ws://user:hunter2@a.test/ws/?token=s3cret")
        self.assertEqual(target.shown, "ws://a.test:80/ws/")
        for secret in ("hunter2", "s3cret", base64.b64encode(b"user:hunter2").decode()):
            self.assertNotIn(secret, repr(target))

    def test_the_error_for_a_bad_address_does_not_repeat_it(self) -> None:
        with self.assertRaises(ValueError) as caught:
            parse_url("ws://user:hunter2@a.test:notaport/?token=s3cret")
        self.assertNotIn("hunter2", str(caught.exception))
        self.assertNotIn("s3cret", str(caught.exception))

    def test_credentials_become_basic_auth_unquoted(self) -> None:
        target = parse_url("ws://us%40er:p%3Aw@a.test/")
        self.assertEqual(base64.b64decode(target.basic_auth or ""), b"us@er:p:w")


class ParseProxyTest(unittest.TestCase):
    def test_kinds_of_proxy(self) -> None:
        for url, port in (
            ("http://p.test", 8080),
            ("socks5://p.test:9050", 9050),
            ("socks4://p.test", 1080),
            ("socks5h://p.test", 1080),
            ("socks4a://p.test", 1080),
        ):
            with self.subTest(url):
                self.assertEqual(parse_proxy(url).port, port)

    def test_anything_else_is_an_error(self) -> None:
        for url in ("p.test:8080", "https://p.test", "ftp://p.test", "ws://p.test", "http://"):
            with self.subTest(url), self.assertRaisesRegex(ValueError, "expected a proxy"):
                parse_proxy(url)

    def test_proxy_of_the_environment(self) -> None:
        variables = {"http_proxy": "http://plain.test:1", "https_proxy": "http://secure.test:2"}
        variables["no_proxy"] = "here.test"
        with mock.patch.dict(os.environ, variables, clear=True):
            self.assertEqual(environment_proxy(parse_url("ws://a.test/")), parse_proxy("http://plain.test:1"))
            self.assertEqual(environment_proxy(parse_url("wss://a.test/")), parse_proxy("http://secure.test:2"))
            self.assertIsNone(environment_proxy(parse_url("ws://here.test/")))
        with mock.patch.dict(os.environ, {}, clear=True):
            self.assertIsNone(environment_proxy(parse_url("ws://a.test/")))


class HeaderValueTest(unittest.TestCase):
    def test_line_ends_and_control_characters_are_refused_everywhere(self) -> None:
        for text in LINE_ENDS:
            with self.subTest(text):
                with self.assertRaises(ValueError):
                    check_value("cookie", text)
                with self.assertRaises(ValueError):
                    check_token("a subprotocol", text)
                with self.assertRaises(ValueError):
                    check_headers({"X-Name": text})
                with self.assertRaises(ValueError):
                    check_headers({text: "value"})

    def test_a_value_is_not_repeated_in_the_error(self) -> None:
        with self.assertRaises(ValueError) as caught:
            check_headers({"Authorization": "Bearer s3cret\r\n"})
        self.assertNotIn("s3cret", str(caught.exception))

    def test_tabs_and_other_scripts_are_values(self) -> None:
        self.assertEqual(check_value("x", "a\tb ü"), "a\tb ü")

    def test_types(self) -> None:
        with self.assertRaises(TypeError):
            check_value("cookie", 5)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            check_token("a subprotocol", "two words")
        with self.assertRaises(ValueError):
            check_token("a subprotocol", "")

    def test_headers_of_the_library_are_not_the_applications_to_set(self) -> None:
        for name in ("Upgrade", "connection", "ORIGIN", "Sec-WebSocket-Key", "sec-websocket-version"):
            with self.subTest(name), self.assertRaisesRegex(ValueError, "set by the library"):
                check_headers({name: "x"})

    def test_mappings_and_pairs_in_order(self) -> None:
        self.assertEqual(check_headers({"A": "1", "B": "2"}), [("A", "1"), ("B", "2")])
        self.assertEqual(check_headers([("A", "1"), ("A", "2")]), [("A", "1"), ("A", "2")])
        self.assertEqual(check_headers(None), [])
