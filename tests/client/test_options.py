"""A client's options: wrong ones are errors in the line that has them; functions are asked before every attempt."""

from __future__ import annotations

import itertools
import math
import ssl
import time
import unittest
from collections.abc import Iterator
from typing import Any, TypeVar

from sync_ws import Backoff, Client, ClientState, Heartbeat
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


class EveryOptionTest(unittest.TestCase):
    """Each option with what does not belong in it: refused where it is given, naming the option and what came."""

    def refused(self, error: type[Exception] | tuple[type[Exception], ...], *parts: str, **options: Any) -> None:
        with self.subTest(options), self.assertRaises(error) as caught:
            Client("ws://a.test/", **options)
        for part in parts:
            with self.subTest(options):
                self.assertIn(part, str(caught.exception))

    def test_times(self) -> None:
        bad: Any
        for name in ("open_timeout", "send_timeout", "close_timeout"):
            for bad in (0, -1, math.nan, math.inf, -math.inf, 10**400, -(10**400)):
                self.refused(ValueError, name, **{name: bad})
            for bad in ("5", b"5", None, True, [5], 1j):
                self.refused(TypeError, name, repr(bad), **{name: bad})

    def test_counts(self) -> None:
        bad: Any
        for name in ("max_message", "max_fragments"):
            for bad in (0, -1, -(10**30)):
                self.refused(ValueError, name, repr(bad), **{name: bad})
            for bad in (1.0, math.inf, math.nan, "5", None, True, b"\x01"):
                self.refused(TypeError, name, repr(bad), **{name: bad})

    def test_reconnect(self) -> None:
        bad: Any
        for bad in (0, -1, math.nan, math.inf, 10**400):
            self.refused(ValueError, "reconnect", reconnect=bad)
        for bad in ("x", b"5", True, False, [1], Backoff, object):
            self.refused(TypeError, "reconnect", "Backoff", repr(bad), reconnect=bad)

    def test_functions_flags_and_objects(self) -> None:
        bad: Any
        for bad in (None, True, 1000, "1000", [1008]):
            self.refused(TypeError, "should_reconnect", repr(bad), should_reconnect=bad)
        for bad in (None, 1, "yes", "", object):
            self.refused(TypeError, "compression", repr(bad), compression=bad)
        for bad in (None, time, time.monotonic, 5, "clock"):
            self.refused(TypeError, "clock", repr(bad), clock=bad)
        for bad in (True, "cert.pem", ssl.SSLContext):
            self.refused(TypeError, "ssl_context", ssl_context=bad)

    def test_what_goes_into_the_request(self) -> None:
        bad: Any
        for bad in ("A: b", b"A: b", ["A: b"], [b"A: b"], [("A", "b", "c")], [("A",)], 5, [5], True, [("A", b"b")]):
            self.refused((TypeError, ValueError), "header", headers=bad)
        for bad in ("chat", b"chat", 5, True, [5], [b"chat"], ["a b"], [""], None):
            self.refused((TypeError, ValueError), "subprotocol", subprotocols=bad)
        for name in ("origin", "cookie"):
            for bad in (b"a", 5, True, ["a"]):
                self.refused(TypeError, name, type(bad).__name__, **{name: bad})
        for bad in (b"http://a:1", 5, True, ["http://a:1"]):
            self.refused(TypeError, "proxy", type(bad).__name__, proxy=bad)

    def test_what_becomes_of_messages_while_offline(self) -> None:
        bad: Any
        for bad in ("x", "", "QUEUE"):
            self.refused(ValueError, "offline", repr(bad), offline=bad)
        for bad in (5, True, b"queue", ["queue"]):
            self.refused((TypeError, ValueError), "offline", repr(bad), offline=bad)

    def test_heartbeat(self) -> None:
        bad: Any
        for bad in ("30", True, b"30", Heartbeat, [30, 3]):
            self.refused(TypeError, "heartbeat", repr(bad), heartbeat=bad)

    def test_the_fields_of_heartbeat_and_backoff(self) -> None:
        no_times = (0, -1, math.nan, math.inf, 10**400)
        wrong: tuple[tuple[Any, str, Any, type[Exception]], ...] = (
            *((Heartbeat, name, bad, ValueError) for name in ("interval", "timeout") for bad in no_times),
            *((Heartbeat, name, bad, TypeError) for name in ("interval", "timeout") for bad in ("5", None, True)),
            (Heartbeat, "kind", "pong", ValueError), (Heartbeat, "kind", None, ValueError),
            *((Backoff, name, bad, ValueError) for name in ("first", "maximum") for bad in no_times),
            *((Backoff, name, bad, TypeError) for name in ("first", "maximum", "stable") for bad in ("5", None, True)),
            *((Backoff, "stable", bad, ValueError) for bad in no_times[1:]), (Backoff, "first", 61, ValueError),
            (Backoff, "factor", 0.5, ValueError), (Backoff, "factor", math.nan, ValueError),
            *((Backoff, "factor", bad, TypeError) for bad in ("2", None, True)),
            *((Backoff, "jitter", bad, TypeError) for bad in ("no", None, 1, 0.5)),
            *((Backoff, "attempts", bad, ValueError) for bad in (0, -1)),
            *((Backoff, "attempts", bad, TypeError) for bad in (1.5, "3", True, math.inf)),
        )  # fmt: skip
        for made, field, bad, error in wrong:
            with self.subTest(made.__name__, field=field, value=bad), self.assertRaisesRegex(error, field):
                made(**{field: bad})

    def test_what_is_accepted_works_however_large_it_is(self) -> None:
        for value in (1e300, 10**30, 30 * 24 * 3600):
            with self.subTest(value), serving(echo) as server:
                client = Client(
                    server.url, open_timeout=value, send_timeout=value, close_timeout=value, max_message=10**30,
                    max_fragments=10**30, heartbeat=Heartbeat(value, value),
                    reconnect=Backoff(value, value, factor=value, stable=value),
                )  # fmt: skip
                with client.open(value):
                    client.send("x")
                    self.assertEqual(client.recv(value), "x")
                    client.close(timeout=value)


class TimeoutTest(ReconnectTestCase):
    """What one call may wait: no number is a trap."""

    def test_what_is_no_time_is_refused_and_nothing_has_happened(self) -> None:
        wrong: list[tuple[type[Exception], Any]] = [(TypeError, bad) for bad in ("5", True, [1])]
        wrong.append((ValueError, math.nan))
        with serving(echo) as server:
            client = self.client(server.url)
            for error, bad in wrong:
                with self.subTest(bad), self.assertRaisesRegex(error, "timeout"):
                    client.open(bad)
                self.assertIs(client.state, ClientState.IDLE)
            client.open(SOON)
            for error, bad in wrong:
                with self.subTest(bad), self.assertRaisesRegex(error, "timeout"):
                    client.recv(bad)
                with self.subTest(bad), self.assertRaisesRegex(error, "timeout"):
                    client.close(timeout=bad)
            client.send("x")
            self.assertEqual(client.recv(SOON), "x")

    def test_for_ever_and_what_has_passed(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url).open(math.inf)
            for timeout in (math.inf, 10**400, 1e300, 10**30):
                client.send("x")
                self.assertEqual(client.recv(timeout), "x")
            for timeout in (-1, -math.inf, -(10**400), 0):
                with self.assertRaises(TimeoutError):
                    client.recv(timeout)
            with self.within():
                client.close(timeout=math.inf)


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
