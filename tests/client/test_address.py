"""Addresses and header values: what gets through, and that secrets do not show."""

from __future__ import annotations

import base64
import os
import unittest
from dataclasses import replace
from unittest import mock

from sync_ws.checks import check_token, check_value
from sync_ws.client.address import check_headers, environment_proxy, parse_proxy, parse_url

LINE_ENDS = ("a\r\nb", "a\nb", "a\rb", "a\x00b", "a\x1bb", "a\x7fb")


class ParseUrlTest(unittest.TestCase):
    def test_parts_of_an_address(self) -> None:
        target = parse_url("ws://example.test:1024/ws/?name=test")
        self.assertEqual((target.scheme, target.host, target.port), ("ws", "example.test", 1024))
        self.assertEqual((target.resource, target.path), ("/ws/?name=test", "/ws/"))
        self.assertFalse(target.secure)
        self.assertEqual(target.place, "example.test:1024")
        self.assertEqual(target.text, "ws://example.test:1024/ws/?name=test")

    def test_an_address_has_one_form_and_that_is_used(self) -> None:
        for url, form in (
            ("WS://Example.ORG/A?B", "ws://example.org:80/A?B"),
            ("WsS://a.test", "wss://a.test:443/"),
            ("ws://a.test?x=1", "ws://a.test:80/?x=1"),
            ("ws://a.test:/", "ws://a.test:80/"),
            ("ws://@a.test/", "ws://a.test:80/"),
            ("ws://us:pw@a.test/", "ws://a.test:80/"),
            ("ws://a_b/a;b?c;d", "ws://a_b:80/a;b?c;d"),
            ("ws://[FE80::A]/", "ws://[fe80::a]:80/"),
            ("ws://bücher.example/", "ws://xn--bcher-kva.example:80/"),
            ("ws://BÜCHER.example:81/", "ws://xn--bcher-kva.example:81/"),
            ("ws://xn--bcher-kva.example/", "ws://xn--bcher-kva.example:80/"),
            ("ws://日本語.jp/", "ws://xn--wgv71a119e.jp:80/"),
            ("ws://a\u3002test/", "ws://a.test:80/"),  # an ideographic full stop
            ("ws://a.test/ä/%20?q=ö€", "ws://a.test:80/%C3%A4/%20?q=%C3%B6%E2%82%AC"),
            ('ws://a.test/{"x"}<|>?{"y"}', "ws://a.test:80/%7B%22x%22%7D%3C|%3E?{%22y%22}"),
        ):
            with self.subTest(url):
                self.assertEqual(parse_url(url).text, form)
                self.assertEqual(parse_url(parse_url(url).text), replace(parse_url(url), basic_auth=None))

    def test_the_zone_of_an_address_is_for_the_resolver_alone(self) -> None:
        for url in ("ws://[fe80::1%25eth0]/", "ws://[FE80::1%eth0]:80/"):
            target = parse_url(url)
            self.assertEqual((target.host, target.zone, target.lookup), ("fe80::1", "eth0", "fe80::1%eth0"))
            self.assertEqual((target.host_header, target.place), ("[fe80::1]", "[fe80::1]:80"))
            self.assertEqual(target.text, "ws://[fe80::1]:80/")
            self.assertEqual(target.shown, "ws://[fe80::1%25eth0]:80/")
        self.assertEqual(parse_url("ws://[::1]/").lookup, "::1")

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

    def test_what_is_no_websocket_address_says_what_came_what_was_expected_and_what_mends_it(self) -> None:
        scheme, kind = (
            "expected ws:// or wss://, got ",
            "expected a WebSocket address such as ws://host:port/path, got ",
        )
        port, brackets = "a port is a number from 1 to 65535", "an IPv6 address, and nothing else, stands in brackets"
        for url, says in (
            ("", f"{scheme}an empty string: such as ws://host:port/path"),
            ("http://a.test/x", f"{scheme}http://a.test/x: write ws://a.test/x"),
            ("HTTPS://a.test/", f"{scheme}HTTPS://a.test/: write wss://a.test/"),
            ("ftp://a.test/", f"{scheme}ftp://a.test/: such as"),
            ("a.test:80", f"{scheme}a.test:80: write ws://a.test:80"),
            ("localhost:8765/x", f"{scheme}localhost:8765/x: write ws://localhost:8765/x"),
            ("/ws/", f"{scheme}/ws/: such as"),
            ("ws:a.test", f"{scheme}ws:a.test: such as"),
            ("ws:/a.test", f"{scheme}ws:/a.test: such as"),
            ("ws://", f"{kind}ws://: the host is missing"),
            ("ws:///path", f"{kind}ws:///path: the host is missing"),
            ("ws://a.test:0/", f"{kind}ws://a.test:0/: {port}"),
            ("ws://a.test:80000/", f"{kind}ws://a.test:80000/: {port}"),
            ("ws://a.test:-1/", port),
            ("ws://a.test:port/", port),
            ("ws://a.test:٣/", port),
            ("ws://a.test/#part", "without a fragment; a # in path or query is written %23"),
            ("ws://a.test/#", "without a fragment"),
            (" ws://a.test/", f"{kind}' ws://a.test/', with spaces, line ends or control characters in it"),
            ("ws://a.test/\n", "got 'ws://a.test/\\n', with spaces, line ends"),
            ("ws://a.test/a b", "with spaces, line ends"),
            ("ws://\ud800.test/", "with spaces, line ends"),
            (" ", "got ' ', with spaces, line ends"),
            ("ws://[::1/", brackets),
            ("ws://[::g]/", brackets),
            ("ws://[v1.x]/", brackets),
            ("ws://[]/", "expected a WebSocket address"),
            ("ws://[::1%25a;b]/", "the zone of an IPv6 address is an interface's name"),
            ("ws://[fe80::1%25]/", "the zone of an IPv6 address is an interface's name"),
            ("ws://stra\u00dfe.test/", "read in two ways; give its ASCII form, which begins with xn--"),
            ("ws://STRA\u1e9eE.test/", "read in two ways"),
            ("wss://.test/", "no host name"),
            ("ws://a..test/", "no host name"),
            (f"ws://{'a' * 64}.test/", "no host name"),
            (f"ws://{'ü' * 60}.test/", "no host name"),
            (f"ws://{'a.' * 127}/", "at most 253 characters"),
            (f"ws://{'ü' * 50_000}/", "at most 253 characters"),
            ("ws://a<b>.test/", "letters, digits, hyphens and dots"),
            ("ws://ex%61mple.test/", "letters, digits, hyphens and dots"),
            ("ws://1.2.3.4%25eth0/", "letters, digits, hyphens and dots"),
        ):
            with self.subTest(url[:40]):
                with self.assertRaises(ValueError) as caught:
                    parse_url(url)
                self.assertIn(says, str(caught.exception))
                self.assertTrue(str(caught.exception).isprintable() and len(str(caught.exception)) < 600)

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

    def test_the_error_for_a_bad_address_shows_no_secret_of_it(self) -> None:
        for url in (
            "ws://user:hunter2@a.test:notaport/?token=s3cret", "http://user:hunter2@a.test/?token=s3cret",
            "user:hunter2@a.test:80/?token=s3cret", "ws://user:hun/hunter2@a.test:x/", "ws://user:hun?hunter2@a.test:x/",
            "ws://user:hun#hunter2@a.test:x/", "ws://user:hunter2@a.test/ ?s3cret", "ws://user:hun@hunter2@a.test:x/",
            "ws://user:hunter2@/", "ws://a.test:x/?mail=a@b&token=s3cret", "ws://user:hunter2@a..test/?s3cret#s3cret",
        ):  # fmt: skip
            with self.subTest(url), self.assertRaises(ValueError) as caught:
                parse_url(url)
            self.assertNotIn("hunter2", str(caught.exception))
            self.assertNotIn("s3cret", str(caught.exception))

    def test_credentials_become_basic_auth_unquoted(self) -> None:
        target = parse_url("ws://us%40er:p%3Aw@a.test/")
        self.assertEqual(base64.b64decode(target.basic_auth or ""), b"us@er:p:w")
        self.assertEqual(base64.b64decode(parse_url("ws://jörg@a.test/").basic_auth or ""), "jörg:".encode())
        self.assertIsNone(parse_url("ws://@a.test/").basic_auth)


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
        for url, says in (
            ("p.test:8080", "its scheme is missing"), ("https://p.test", "TLS to a proxy is not supported"),
            ("ftp://p.test", "got ftp://p.test"), ("ws://p.test", "got ws://p.test"), ("http://", "host is missing"),
            ("http://us:hush@p.test:x", r"got http://\.\.\.@p.test:x: a port"),
        ):  # fmt: skip
            with self.subTest(url), self.assertRaisesRegex(ValueError, f"^expected a proxy such as .*{says}") as caught:
                parse_proxy(url)
            self.assertNotIn("hush", str(caught.exception))

    def test_its_credentials_stay_in_the_text_for_python_socks_and_what_else_there_is_does_not(self) -> None:
        target = parse_proxy("SOCKS5://us%20er:p%40w@P.test/path?x")
        self.assertEqual(
            (target.text, target.shown), ("socks5://us%20er:p%40w@p.test:1080", "socks5://p.test:1080/path")
        )

    def test_proxy_of_the_environment(self) -> None:
        variables = {"http_proxy": "http://plain.test:1", "https_proxy": "http://secure.test:2"}
        variables["no_proxy"] = "here.test"
        with mock.patch.dict(os.environ, variables, clear=True):
            self.assertEqual(environment_proxy(parse_url("ws://a.test/")), parse_proxy("http://plain.test:1"))
            self.assertEqual(environment_proxy(parse_url("wss://a.test/")), parse_proxy("http://secure.test:2"))
            self.assertIsNone(environment_proxy(parse_url("ws://here.test/")))
        with mock.patch.dict(os.environ, {"all_proxy": "plain.test:3128"}, clear=True):  # as curl takes it
            self.assertEqual(environment_proxy(parse_url("ws://a.test/")), parse_proxy("http://plain.test:3128"))
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

    def test_a_cookie_may_be_a_header(self) -> None:
        self.assertEqual(check_headers({"Cookie": "a=1"}), [("Cookie", "a=1")])

    def test_headers_of_another_form_are_refused_without_showing_them(self) -> None:
        for given in ("A: hush", b"A: hush", ["A: hush"], [("A", "hush", "x")], [("A",)], ["ab"], [b"ab"]):
            with (
                self.subTest(given),
                self.assertRaisesRegex(TypeError, r"a mapping, or a list of \(name, value\) pairs") as caught,
            ):
                check_headers(given)  # type: ignore[arg-type]
            self.assertNotIn("hush", str(caught.exception))

    def test_mappings_and_pairs_in_order(self) -> None:
        self.assertEqual(check_headers({"A": "1", "B": "2"}), [("A", "1"), ("B", "2")])
        self.assertEqual(check_headers([("A", "1"), ("A", "2")]), [("A", "1"), ("A", "2")])
        self.assertEqual(check_headers(None), [])
