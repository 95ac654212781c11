"""A server's options as a policy, and tokens as an answer to who somebody is."""

from __future__ import annotations

import hmac
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws import Headers, Request, bearer_token
from sync_ws.protocol.handshake import SUBPROTOCOL_LENGTH, Policy
from sync_ws.protocol.origin import Hosts
from sync_ws.server.policy import check_hosts, check_origin, hosts_for, make_policy


class MakePolicyTest(unittest.TestCase):
    def test_without_options_it_is_the_plain_one(self) -> None:
        self.assertEqual(make_policy(), Policy())

    def test_options_are_brought_into_the_form_for_comparison(self) -> None:
        policy = make_policy(
            "/chat", origins=["https://App.Example", "HTTPS://app.example"], require_name=True,
            subprotocols=iter(["b", "a"]), compression=True,
        )  # fmt: skip
        self.assertEqual(policy, Policy("/chat", frozenset({"https://app.example"}), True, ("b", "a"), True))

    def test_a_path_that_no_request_could_have_is_a_mistake(self) -> None:
        cases: list[tuple[Any, type[Exception], str]] = [
            (None, TypeError, "path is a string such as /ws/, not None"),
            (b"/ws/", TypeError, "path is a string"),
            ("", ValueError, "path is an absolute path without a query, such as /ws/, not ''"),
            ("ws/", ValueError, "an absolute path"),
            ("/ws/?name=a", ValueError, "without a query"),
            ("/ws/#top", ValueError, "without a query"),
            ("/b\xfcro/", ValueError, "path is percent-encoded, as clients send it, such as /b%C3%BCro/, not "),
            ("/a b/", ValueError, "percent-encoded"),
            ("/a\n/", ValueError, "percent-encoded"),
        ]
        for path, error, says in cases:
            with self.subTest(path=path), self.assertRaises(error) as caught:
                make_policy(path)
            self.assertIn(says, str(caught.exception))
        for path in ("/", "/b%C3%BCro/", "/a:b"):
            self.assertEqual(make_policy(path).path, path)

    def test_a_subprotocol_has_at_most_as_many_characters_as_are_accepted(self) -> None:
        longest = "a" * SUBPROTOCOL_LENGTH
        self.assertEqual(make_policy(subprotocols=[longest]).subprotocols, (longest,))
        with self.assertRaisesRegex(ValueError, f"at most {SUBPROTOCOL_LENGTH} characters, not {len(longest) + 1}$"):
            make_policy(subprotocols=[longest + "a"])
        self.assertRaises(ValueError, make_policy, subprotocols=["a b"])

    def test_no_origins_are_not_the_same_as_none_given(self) -> None:
        self.assertEqual(make_policy(origins=[]).origins, frozenset())
        self.assertIsNone(make_policy(origins=None).origins)

    def test_spellings_of_one_origin_are_one(self) -> None:
        given = ["https://Ide.Example/", "https://ide.example:443", "HTTPS://IDE.EXAMPLE", "https://ide.example:"]
        self.assertEqual(make_policy(origins=given).origins, {"https://ide.example"})
        for spelled, form in (
            ("https://b\xfccher.example/", "https://xn--bcher-kva.example"),
            ("http://[0:0::1]:80", "http://[::1]"),
            ("http://plc:1024", "http://plc:1024"),
            ("chrome-extension://abc/", "chrome-extension://abc"),
            ("*", "*"), ("null", "null"), ("file://", "file://"),
        ):  # fmt: skip
            with self.subTest(spelled=spelled):
                self.assertEqual(check_origin(spelled), form)

    def test_what_is_no_origin_is_refused_with_what_was_meant(self) -> None:
        for given, says in (
            ("ide.example", "no scheme; perhaps https://ide.example"),
            ("ide.example:8443/app", "perhaps https://ide.example:8443"),
            ("https://ide.example/app", "more than scheme, host and port; perhaps https://ide.example"),
            ("https://ide.example//", "perhaps https://ide.example"),
            ("https://ide.example?a", "perhaps https://ide.example"),
            ("https://me:secret@ide.example", "more than scheme, host and port"),
            ("wss://ide.example:443", "a page has http:// or https://; perhaps https://ide.example"),
            ("WS://ide.example", "perhaps http://ide.example"),
            ("https://*.ide.example", 'name each one, or give ["*"]'),
            ("*.ide.example", "name each one"),
            ("https://ide.*", "name each one"),
            ("http://::1", "in brackets"),
            ("http://[::1", "not an IPv6 address"),
            ("https://ide.example:80000", "port"),
            ("https://", "1 to 253 characters"),
            ("https:ide.example", "no scheme"),
            ("", "no scheme"),
            (" https://ide.example", "no scheme"),
            ("https://ide.example ", "not a name"),
            ("https://fa\xdf.example", "A-labels"),
            ("NULL", "no scheme"),
        ):
            with self.subTest(given=given):
                with self.assertRaises(ValueError) as caught:
                    check_origin(given)
                text = str(caught.exception)
                for part in ("one of origins is scheme, host and port of a page", says, ascii(given)):
                    self.assertIn(part, text)
                self.assertRaises(ValueError, make_policy, origins=["https://good.example", given])

    def test_hosts_have_one_form_and_neither_scheme_nor_port(self) -> None:
        given = ["IDE.example", "b\xfccher.example", "::1", "[0::1]", "10.0.0.1", "*"]
        self.assertEqual(check_hosts(given), {"ide.example", "xn--bcher-kva.example", "[::1]", "10.0.0.1", "*"})
        self.assertIsNone(check_hosts(None))
        for bad, says in (
            ("ide.example:1024", "perhaps ide.example"), ("[::1]:80", "perhaps [::1]"),
            ("https://ide.example", "port"), ("ide.example/", "not a name"), ("*.ide.example", "name each one"),
            ("", "1 to 253"),
        ):  # fmt: skip
            with self.subTest(bad=bad):
                with self.assertRaises(ValueError) as caught:
                    check_hosts([bad])
                text = str(caught.exception)
                for part in ("one of hosts is a name or an address without scheme, port and path", says, ascii(bad)):
                    self.assertIn(part, text)

    def test_on_a_loopback_address_that_nothing_is_said_of_only_loopback_names_are_welcome(self) -> None:
        guarded = hosts_for(None, "localhost", ("127.0.0.1", 1024), None)
        self.assertEqual(guarded, Hosts(frozenset({"localhost"}), True, 1024))
        self.assertEqual(hosts_for(None, "plc", ("127.0.1.1", 1024), None), Hosts(frozenset({"plc"}), True, 1024))
        self.assertEqual(hosts_for(None, "::1", ("::1", 1024), None), Hosts(frozenset({"[::1]"}), True, 1024))
        self.assertEqual(hosts_for(None, "127.1", ("127.0.0.1", 1024), None), Hosts(frozenset(), True, 1024))
        for address in ("0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0"):
            self.assertIsNone(hosts_for(None, address, (address, 1024), None))
        self.assertIsNone(hosts_for(None, "localhost", ("127.0.0.1", 1024), frozenset({"https://ide.example"})))

    def test_hosts_that_are_given_are_asked_for_on_any_address(self) -> None:
        names = frozenset({"ide.example"})
        self.assertEqual(hosts_for(names, "", ("0.0.0.0", 80), None), Hosts(names))
        self.assertEqual(hosts_for(names, "", ("0.0.0.0", 80), frozenset({"*"})), Hosts(names))
        self.assertEqual(hosts_for(names, "localhost", ("127.0.0.1", 80), None), Hosts(names, True))
        self.assertIsNone(hosts_for(frozenset({"*"}), "localhost", ("127.0.0.1", 80), None))


def ask(hook: Callable[[Request], Any], *headers: tuple[str, str], **query: str) -> Any:
    return hook(Request("GET", "/ws/", query, Headers(headers), ("127.0.0.1", 4242)))


class BearerTokenTest(unittest.TestCase):
    def test_a_token_comes_in_the_header_or_where_it_may_in_the_query(self) -> None:
        hook = bearer_token("hush-1", "hush-2", query="token")
        for header, query, welcome in (
            ("Bearer hush-1", {}, True),
            ("bearer hush-2", {}, True),
            ("Bearer  hush-2 ", {}, True),
            (None, {"token": "hush-1"}, True),
            (None, {}, False),
            ("Bearer hush-", {}, False),
            ("Bearer hush-11", {}, False),
            ("Basic hush-1", {}, False),
            ("Bearer", {}, False),
            ("Bearer \xe9", {}, False),
            ("Bearer h\xfcsh-1", {}, False),
            ("Bearer \u4f8b", {}, False),
            (None, {"token": "h\xfcsh"}, False),
            ("Bearer \udcff", {}, False),
            (None, {"token": ""}, False),
            ("Bearer wrong", {"token": "hush-1"}, False),
            ("Basic eDp5", {"token": "hush-1"}, True),
        ):
            with self.subTest(header=header, query=query):
                headers = [] if header is None else [("Authorization", header)]
                self.assertIs(ask(hook, *headers, **query), welcome)

    def test_without_a_query_name_the_query_does_not_count(self) -> None:
        self.assertIs(ask(bearer_token("hush"), token="hush"), False)

    def test_an_empty_token_is_a_mistake(self) -> None:
        for tokens in ((), ("",), ("a", "")):
            with self.assertRaises(ValueError):
                bearer_token(*tokens)

    def test_a_token_that_no_header_can_carry_or_that_is_none_is_a_mistake_and_not_shown(self) -> None:
        tokens: list[tuple[Any, type[Exception]]] = [(b"hush", TypeError), (None, TypeError), ("hush\n", ValueError)]
        tokens += [(token, ValueError) for token in ("hush-h\xfcsh", "hush hush", "hush\u4f8b")]  # RFC 6750 section 2.1
        for token, error in tokens:
            with self.assertRaises(error) as caught:
                bearer_token(token)
            self.assertNotIn("hush", str(caught.exception))

    def test_tokens_are_compared_in_constant_time_every_one_of_them(self) -> None:
        """What takes the same time cannot be timed in a test, so it is counted: by the function that does it."""
        hook = bearer_token("a", "b", "c")
        with mock.patch("hmac.compare_digest", wraps=hmac.compare_digest) as compare:
            self.assertIs(ask(hook, ("Authorization", "Bearer a")), True)
        self.assertEqual(compare.call_count, 3)


if __name__ == "__main__":
    unittest.main()
