"""A server's options as a policy, and tokens as an answer to who somebody is."""

from __future__ import annotations

import hmac
import unittest
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from sync_ws import Headers, Request, bearer_token
from sync_ws.protocol.handshake import Policy
from sync_ws.server.policy import make_policy


class MakePolicyTest(unittest.TestCase):
    def test_without_options_it_is_the_plain_one(self) -> None:
        self.assertEqual(make_policy(), Policy())

    def test_options_are_brought_into_the_form_for_comparison(self) -> None:
        policy = make_policy(
            "/chat", origins=["https://App.Example", "HTTPS://app.example"], require_name=True,
            subprotocols=iter(["b", "a"]), compression=True,
        )  # fmt: skip
        self.assertEqual(policy, Policy("/chat", frozenset({"https://app.example"}), True, ("b", "a"), True))

    def test_no_origins_are_not_the_same_as_none_given(self) -> None:
        self.assertEqual(make_policy(origins=[]).origins, frozenset())
        self.assertIsNone(make_policy(origins=None).origins)

    def test_what_cannot_be_meant_is_an_error_that_names_it(self) -> None:
        cases: list[tuple[Mapping[str, Any], type[Exception], str]] = [
            ({"path": "ws"}, ValueError, "path is an absolute path"),
            ({"path": "/ws?a"}, ValueError, "path is an absolute path"),
            ({"path": "/ws#a"}, ValueError, "path is an absolute path"),
            ({"origins": "http://a"}, TypeError, "origins and subprotocols are lists"),
            ({"subprotocols": "chat"}, TypeError, "origins and subprotocols are lists"),
            ({"subprotocols": ["a b"]}, ValueError, "a subprotocol is a token"),
            ({"subprotocols": ["a\r\nX: y"]}, ValueError, "a subprotocol is a token"),
        ]
        for options, error, says in cases:
            with self.subTest(options=options), self.assertRaisesRegex(error, says):
                make_policy(**options)


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

    def test_tokens_are_compared_in_constant_time_every_one_of_them(self) -> None:
        """What takes the same time cannot be timed in a test, so it is counted: by the function that does it."""
        hook = bearer_token("a", "b", "c")
        with mock.patch("hmac.compare_digest", wraps=hmac.compare_digest) as compare:
            self.assertIs(ask(hook, ("Authorization", "Bearer a")), True)
        self.assertEqual(compare.call_count, 3)


if __name__ == "__main__":
    unittest.main()
