"""A client's options: wrong ones are errors in the line that has them; functions are asked before every attempt."""

from __future__ import annotations

import itertools
import unittest
from collections.abc import Iterator
from typing import Any, TypeVar

from sync_ws import Client
from sync_ws.testing import free_port, serving
from tests.support.client_case import SOON, ClientTestCase, ReconnectTestCase, echo
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire

T = TypeVar("T")


class OptionTest(unittest.TestCase):
    def test_line_ends_in_arguments_are_value_errors(self) -> None:
        for text in ("a\r\nX: y", "a\nb", "a\rb", "a\x00"):
            wrong: tuple[dict[str, Any], ...] = (
                {"headers": {"X-Y": text}}, {"headers": {text: "x"}}, {"cookie": text}, {"origin": text},
                {"subprotocols": [text]},
            )  # fmt: skip
            for options in wrong:
                with self.subTest(options), self.assertRaises(ValueError):
                    Client("ws://a.test/", **options)
            with self.subTest(text), self.assertRaises(ValueError):
                Client(f"ws://a.test/{text}")

    def test_wrong_options_are_errors_at_once(self) -> None:
        wrong: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
            ({"offline": "drop"}, ValueError), ({"offline": 64}, TypeError), ({"should_reconnect": True}, TypeError),
            ({"heartbeat": 0}, ValueError), ({"heartbeat": "30"}, TypeError), ({"heartbeat": True}, TypeError),
            ({"heartbeat": -1}, ValueError), ({"origin": 5}, TypeError), ({"cookie": b"a=1"}, TypeError),
            ({"cookie": "a=1", "headers": {"Cookie": "b=2"}}, ValueError),
            ({"cookie": lambda: None, "headers": [("cookie", "b=2")]}, ValueError),
            ({"subprotocols": "chat"}, TypeError),
            ({"ssl_context": True}, TypeError), ({"open_timeout": 0}, ValueError),
            ({"send_timeout": -1}, ValueError), ({"close_timeout": "5"}, TypeError),
            ({"max_message": 0}, ValueError), ({"max_fragments": 1.5}, TypeError), ({"reconnect": 0}, ValueError),
            ({"proxy": "nonsense"}, ValueError), ({"headers": {"Upgrade": "h2c"}}, ValueError),
        )  # fmt: skip
        for options, error in wrong:
            with self.subTest(options), self.assertRaises(error):
                Client("ws://a.test/", **options)
        for url in ("http://a.test/", "nonsense", ""):
            with self.subTest(url), self.assertRaises(ValueError):
                Client(url)


class CookieTest(ClientTestCase):
    def sent(self, **options: Any) -> str | None:
        """The Cookie of the request; AssertionError when there are two."""
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire.header("Cookie"))

        with ScriptedServer(script) as server:
            self.client(server.url(), **options).run_forever()
        return seen[0]

    def test_it_may_come_in_headers(self) -> None:
        self.assertEqual(self.sent(headers={"Cookie": "a=1"}), "a=1")
        self.assertEqual(self.sent(headers=[("COOKIE", "a=1"), ("X-Y", "z"), ("cookie", "b=2; c=3")]), "a=1; b=2; c=3")
        self.assertEqual(self.sent(headers=lambda: {"cookie": "a=1"}), "a=1")
        self.assertEqual(self.sent(cookie="a=1", headers={"X-Y": "z"}), "a=1")
        self.assertEqual(self.sent(cookie=lambda: None, headers=lambda: {"cookie": "a=1"}), "a=1")
        self.assertIsNone(self.sent(headers={"X-Y": "z"}))

    def test_it_comes_from_one_place(self) -> None:
        with self.assertRaisesRegex(ValueError, "expected one of them"):
            Client("ws://a.test/", cookie="a=1", headers={"Cookie": "b=2"})
        client = self.client("ws://a.test/", cookie=lambda: "a=1", headers=lambda: {"Cookie": "b=2"}, reconnect=0.01)
        recorder = Recorder(client)
        with self.assertLogs("sync_ws.client", "ERROR"):
            client.run_forever()
        self.assertIn("expected one of them", str(recorder.of("gave_up")[0].reason))


class CallableTest(ReconnectTestCase):
    def test_each_is_asked_for_before_every_dial(self) -> None:
        seen: list[tuple[str | None, ...]] = []

        def script(wire: Wire) -> None:
            wire.read_request()
            chosen = wire.header("Sec-WebSocket-Protocol")
            seen.append((wire.header("Cookie"), wire.header("Origin"), chosen))
            wire.switch()
            if wire.number == 3:
                wire.wait_for_end()

        cookies = iter(["a=1", "a=2", None])
        origins = iter(["http://a.test", None, "http://c.test"])
        subprotocols = iter([["one"], (), ("three", "four")])
        with ScriptedServer(script) as server:
            client = self.client(
                server.url(), reconnect=0.01, cookie=lambda: next(cookies), origin=lambda: next(origins),
                subprotocols=lambda: next(subprotocols),
            )  # fmt: skip
            recorder = Recorder(client)
            client.open(SOON)
            recorder.wait_for("reconnected", 2)
        expected = [("a=1", "http://a.test", "one"), ("a=2", None, None), (None, "http://c.test", "three, four")]
        self.assertEqual(seen, expected)

    def test_the_proxy_is_asked_for_before_every_dial(self) -> None:
        proxies: Iterator[str | None] = iter([f"http://127.0.0.1:{free_port()}", None])
        with serving(echo) as server:
            client = self.client(server.url, reconnect=0.01, proxy=lambda: next(proxies))
            recorder = Recorder(client)
            client.open(SOON)
            self.assertEqual(recorder.names, ["reconnecting", "open"])
            self.assertIn("refused", str(recorder.of("reconnecting")[0].reason))

    def test_url_and_headers_are_asked_for_before_every_dial(self) -> None:
        seen: list[tuple[bytes, str | None]] = []

        def script(wire: Wire) -> None:
            wire.read_request()
            seen.append((wire.request.split()[1], wire.header("Authorization")))
            wire.switch()
            if wire.number == 3:
                wire.wait_for_end()

        numbers, tokens = itertools.count(1), itertools.count(1)
        with ScriptedServer(script) as server:
            client = self.client(
                lambda: server.url(f"/{next(numbers)}"),
                reconnect=0.01,
                headers=lambda: {"Authorization": f"Bearer {next(tokens)}"},
            )
            recorder = Recorder(client)
            client.open(SOON)
            recorder.wait_for("reconnected", 2)
        self.assertEqual(seen, [(b"/1", "Bearer 1"), (b"/2", "Bearer 2"), (b"/3", "Bearer 3")])

    def test_one_that_raises_is_a_failed_attempt_and_reported(self) -> None:
        def headers() -> dict[str, str]:
            return fail(dict[str, str]())

        def fail(result: T) -> T:
            if next(calls) < 2:
                raise ValueError("the token server answered nonsense")
            return result

        functions: tuple[dict[str, Any], ...] = (
            {"headers": headers}, {"cookie": lambda: fail("a=1")}, {"origin": lambda: fail(None)},
            {"subprotocols": lambda: fail(())}, {"proxy": lambda: fail(None)},
        )  # fmt: skip
        for options in functions:
            calls = itertools.count()
            with self.subTest(options), serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR"):
                client = self.client(server.url, reconnect=0.01, **options)
                recorder = Recorder(client)
                client.open(SOON)
                self.assertEqual(recorder.names, ["error", "reconnecting", "error", "reconnecting", "open"])
                self.assertIn("answered nonsense", str(recorder.of("reconnecting")[1].reason))
                client.close()

    def test_one_that_gives_what_cannot_be_used_ends_it(self) -> None:
        unusable: tuple[dict[str, Any], ...] = (
            {"url": lambda: "http://a.test/"}, {"url": lambda: 5}, {"headers": lambda: {"X": "a\r\nb"}},
            {"cookie": lambda: "a\r\nb"}, {"cookie": lambda: 5}, {"origin": lambda: "a\nb"},
            {"subprotocols": lambda: "chat"}, {"subprotocols": lambda: ["two words"]}, {"subprotocols": lambda: None},
            {"proxy": lambda: "nonsense"}, {"proxy": lambda: 5},
        )  # fmt: skip
        for options in unusable:
            with self.subTest(options), self.assertLogs("sync_ws.client", "ERROR"):
                client = self.client(**{"url": "ws://a.test/", "reconnect": 0.01, **options})
                recorder = Recorder(client)
                client.run_forever()
                self.assertEqual(recorder.names, ["error", "gave_up"])

    def test_credentials_in_the_address_become_basic_auth_unless_headers_say_otherwise(self) -> None:
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire.header("Authorization"))

        with ScriptedServer(script) as server:
            url = server.url().replace("127", "user:pw@127")
            self.client(url, reconnect=None).run_forever()
            self.client(url, reconnect=None, headers={"authorization": "Bearer t"}).run_forever()
        self.assertEqual(seen, ["Basic dXNlcjpwdw==", "Bearer t"])


if __name__ == "__main__":
    unittest.main()
