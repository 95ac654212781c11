"""A server's and a hub's options: what is taken, and what is a mistake in the line that has it.

The table has what people gave, or may give, that cannot be meant; each line with the error and what its text says: the
option, what came and what was expected.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import ssl
import tempfile
import unittest
from pathlib import Path
from typing import Any

from sync_ws import Connection, Hub, Request, Server
from sync_ws.channel.limits import Limits
from sync_ws.protocol.handshake import Policy
from sync_ws.server.options import HubOptions, ServerOptions, check_address
from tests.support.raw import RawClient
from tests.support.server_case import ServerTestCase, echo

HUB: dict[str, Any] = {
    "name_policy": "replace", "max_connections": 1000, "max_message": 1 << 20, "max_fragments": 1024, "max_frame": None,
    "send_timeout": 10.0, "close_timeout": 5.0, "ping_interval": 20.0, "ping_timeout": 20.0,
}  # fmt: skip
SERVER: dict[str, Any] = {
    **HUB,
    "path": "/ws/", "ssl_context": None, "require_name": False, "origins": None, "hosts": None, "authenticate": None,
    "subprotocols": (), "compression": False, "pages": None, "handshake_timeout": 10.0,
}  # fmt: skip
COUNTS = ("max_connections", "max_message", "max_fragments", "max_frame")
HUB_TIMES = ("send_timeout", "close_timeout", "ping_interval", "ping_timeout")
TIMES = (*HUB_TIMES, "handshake_timeout")
Mistake = tuple[str, Any, type[Exception], tuple[str, ...]]


async def coroutine(connection: Connection) -> None:
    """A handler for another library."""


class Coroutines:
    async def __call__(self, connection: Connection) -> None:
        """Another one."""


HUB_MISTAKES: list[Mistake] = [
    ("handler", "x", TypeError, ("handler is a function that takes a connection", "not str")),
    ("handler", 5, TypeError, ("handler", "not int")),
    ("handler", coroutine, TypeError, ("handler", "plain function", "coroutine function")),
    ("handler", functools.partial(coroutine), TypeError, ("handler", "coroutine function")),
    ("handler", Coroutines(), TypeError, ("handler", "coroutine function")),
    ("name_policy", "steal", ValueError, ("name_policy is one of replace, reject, allow", "'steal'")),
    ("name_policy", "Replace", ValueError, ("name_policy", "'Replace'")),
    ("name_policy", None, TypeError, ("name_policy", "None")),
    ("name_policy", ["replace"], TypeError, ("name_policy", "['replace']")),
    *((name, 0, ValueError, (name, "at least 1", "0")) for name in COUNTS),
    *((name, -5, ValueError, (name, "at least 1", "-5")) for name in COUNTS),
    *((name, 1.5, TypeError, (name, "whole number", "1.5")) for name in COUNTS),
    *((name, True, TypeError, (name, "whole number", "True")) for name in COUNTS),
    *((name, "5", TypeError, (name, "whole number", "'5'")) for name in COUNTS),
    *((name, None, TypeError, (name, "whole number", "None")) for name in COUNTS if name != "max_frame"),
    *((name, 0, ValueError, (name, "above zero", "0")) for name in HUB_TIMES),
    *((name, -1.0, ValueError, (name, "above zero", "-1.0")) for name in HUB_TIMES),
    *((name, math.inf, ValueError, (name, "finite", "inf")) for name in HUB_TIMES),
    *((name, math.nan, ValueError, (name, "finite", "nan")) for name in HUB_TIMES),
    *((name, 10**400, ValueError, (name, "finite", "1000")) for name in HUB_TIMES),
    *((name, 10**5000, ValueError, (name, "finite", "large")) for name in HUB_TIMES),
    *((name, True, TypeError, (name, "number of seconds", "True")) for name in HUB_TIMES),
    *((name, "5", TypeError, (name, "number of seconds", "'5'")) for name in HUB_TIMES),
    ("ping_timeout", None, TypeError, ("ping_timeout", "number of seconds", "None")),
    ("send_timeout", None, TypeError, ("send_timeout", "number of seconds", "None")),
]
SERVER_MISTAKES: list[Mistake] = [
    *HUB_MISTAKES,
    ("host", None, TypeError, ("host is a string", "None")),
    ("host", b"127.0.0.1", TypeError, ("host is a string", "b'127.0.0.1'")),
    ("host", 127, TypeError, ("host is a string", "127")),
    ("host", "127.0.0.1:1024", ValueError, ("host", "without port", "'127.0.0.1:1024'")),
    ("host", "[::1]", ValueError, ("host", "brackets", "'[::1]'")),
    ("host", "ws://127.0.0.1", ValueError, ("host", "scheme", "'ws://127.0.0.1'")),
    ("port", 80000, ValueError, ("port is from 1 to 65535, or 0", "80000")),
    ("port", -1, ValueError, ("port", "0 for any free one", "-1")),
    ("port", 10**5000, ValueError, ("port", "65535", "large")),
    ("port", "80", TypeError, ("port is a whole number", "'80'")),
    ("port", 80.0, TypeError, ("port is a whole number", "80.0")),
    ("port", True, TypeError, ("port is a whole number", "True")),
    ("port", None, TypeError, ("port is a whole number", "None")),
    ("path", "ws", ValueError, ("path is an absolute path", "'ws'")),
    ("path", "", ValueError, ("path is an absolute path", "''")),
    ("path", "/a?b", ValueError, ("path", "without a query", "'/a?b'")),
    ("path", "/a#b", ValueError, ("path", "'/a#b'")),
    ("path", "/b\xfcro/", ValueError, ("path is percent-encoded", "/b%C3%BCro/", r"'/b\xfcro/'")),
    ("path", "/a b", ValueError, ("path is percent-encoded", "'/a b'")),
    ("path", "/a\r\nX: y", ValueError, ("path is percent-encoded", r"'/a\r\nX: y'")),
    ("path", None, TypeError, ("path is a string", "None")),
    ("path", b"/ws/", TypeError, ("path is a string", "b'/ws/'")),
    ("origins", "https://ide.example", TypeError, ("origins is a list of strings", "'https://ide.example'")),
    ("origins", "*", TypeError, ("origins is a list of strings", '["*"]', "'*'")),
    ("origins", True, TypeError, ("origins is a list of strings", "True")),
    ("origins", [None], TypeError, ("origins is a list of strings", "None")),
    ("origins", ["ide.example"], ValueError, ("origins", "https://ide.example", "'ide.example'")),
    ("origins", ["https://*.ide.example"], ValueError, ("origins", "name each one")),
    ("hosts", "ide.example", TypeError, ("hosts is a list of strings", "'ide.example'")),
    ("hosts", [b"ide.example"], TypeError, ("hosts is a list of strings", "b'ide.example'")),
    ("hosts", ["https://ide.example"], ValueError, ("hosts", "without scheme", "'https://ide.example'")),
    ("hosts", ["ide.example:443"], ValueError, ("hosts", "port", "'ide.example:443'")),
    ("subprotocols", "chat", TypeError, ("subprotocols is a list of strings", '["chat"]', "'chat'")),
    ("subprotocols", None, TypeError, ("subprotocols is a list of strings", "None")),
    ("subprotocols", [5], TypeError, ("subprotocols is a list of strings", "5")),
    ("subprotocols", ["a b"], ValueError, ("subprotocols is a token", "'a b'")),
    ("subprotocols", ["a\r\nX: y"], ValueError, ("subprotocols is a token", r"'a\r\nX: y'")),
    ("subprotocols", ["a" * 129], ValueError, ("subprotocols", "at most 128", "129")),
    ("authenticate", "hush-token", TypeError, ("authenticate is a function that takes the request", "not str")),
    ("authenticate", coroutine, TypeError, ("authenticate", "coroutine function")),
    ("ssl_context", "cert.pem", TypeError, ("ssl_context is an ssl.SSLContext", "str", "CLIENT_AUTH")),
    ("ssl_context", ("cert.pem", "key.pem"), TypeError, ("ssl_context", "tuple", "load_cert_chain")),
    ("ssl_context", True, TypeError, ("ssl_context", "bool")),
    ("ssl_context", ssl.create_default_context(), ValueError, ("ssl_context is one for clients", "CLIENT_AUTH")),
    ("pages", "/no/such/folder", ValueError, ("pages is a folder", "'/no/such/folder' does not exist")),
    ("pages", __file__, ValueError, ("pages is a folder", "is a file: give a mapping")),
    ("pages", 5, TypeError, ("pages is a folder", "5")),
    ("pages", [__file__], TypeError, ("pages is a folder, or a mapping",)),
    ("pages", {"/": "/no/such/file"}, ValueError, ("pages maps paths", "'/no/such/file'")),
    ("pages", {"index": __file__}, ValueError, ("pages maps paths", "'index'")),
    ("pages", {"/": None}, TypeError, ("pages maps paths", "None")),
    ("pages", {"/ws/": __file__}, ValueError, ("pages has '/ws/', which is the path of the WebSocket",)),
    ("require_name", "no", TypeError, ("require_name is True or False", "'no'")),
    ("require_name", None, TypeError, ("require_name is True or False", "None")),
    ("compression", "deflate", TypeError, ("compression is True or False", "'deflate'")),
    ("handshake_timeout", 0, ValueError, ("handshake_timeout", "above zero", "0")),
    ("handshake_timeout", math.nan, ValueError, ("handshake_timeout", "finite", "nan")),
    ("handshake_timeout", True, TypeError, ("handshake_timeout", "number of seconds", "True")),
    ("handshake_timeout", None, TypeError, ("handshake_timeout", "number of seconds", "None")),
]


class MistakesTest(ServerTestCase):
    """The ledger of the base sees to it that whatever is refused has bound and started nothing."""

    def assert_mistake(self, made: type[Server] | type[Hub], mistake: Mistake) -> None:
        name, value, error, says = mistake
        with self.subTest(made.__name__, name=name, value=type(value)):
            with self.assertRaises(error) as caught:
                made(**{name: value})
            text = str(caught.exception)
            for part in says:
                self.assertIn(part, text)
            self.assertTrue(text.isascii() and text.isprintable() and len(text) < 400, text)
            self.assertNotIn("hush", text)

    def test_a_hub_refuses_them_where_they_are_given(self) -> None:
        for mistake in HUB_MISTAKES:
            self.assert_mistake(Hub, mistake)

    def test_a_server_refuses_them_where_they_are_given(self) -> None:
        for mistake in SERVER_MISTAKES:
            self.assert_mistake(Server, mistake)

    def test_every_option_is_in_the_table(self) -> None:
        self.assertEqual(set(SERVER) | {"host", "port", "handler"}, {mistake[0] for mistake in SERVER_MISTAKES})
        self.assertEqual(set(HUB) | {"handler"}, {mistake[0] for mistake in HUB_MISTAKES})

    def test_a_function_for_messages_beside_a_handler_would_never_be_called(self) -> None:
        for made in (Server, Hub):
            with made(handler=echo) as thing:
                with self.assertRaisesRegex(ValueError, "the handler receives the messages"):
                    thing.on("message", lambda connection, message: None)
                thing.on("open", lambda connection: None)

    def test_functions_of_events_can_be_called(self) -> None:
        for made in (Server, Hub):
            with made() as thing:
                self.assertRaisesRegex(TypeError, "event's function is a function", thing.on, "open", "x")
                self.assertRaisesRegex(TypeError, "coroutine function", thing.on, "message", coroutine)
                self.assertRaisesRegex(
                    ValueError, "no event 'massage'; there are: open, message", thing.on, "massage", echo
                )

    def test_a_timeout_of_shutdown_is_a_number_of_seconds(self) -> None:
        for made in (Server, Hub):
            with made() as thing:
                for value, error in (("5", TypeError), (None, TypeError), (math.nan, ValueError), (-1, ValueError)):
                    with self.assertRaisesRegex(error, "timeout is a"):
                        thing.shutdown(value)  # type: ignore[arg-type]
                self.assertEqual(thing.shutdown(0), ())


class EnormousTest(ServerTestCase):
    """What is accepted works: a wait beyond what the system's calls take is capped inside."""

    def test_a_server_of_enormous_times_talks_and_ends(self) -> None:
        for enormous in (1e300, 10**30, 30 * 86400, 2**31 / 1000 + 1):
            each: list[dict[str, Any]] = [dict.fromkeys(TIMES, enormous), *({name: enormous} for name in TIMES)]
            for options in each:
                with self.subTest(options=options):
                    server = self.serve(**options)
                    self.client(server).send_text("x")
                    talking = self.client(server)
                    talking.send_text("hello")
                    self.assertEqual(talking.read_text(), "hello")
                    self.assertEqual(talking.finish()[0], 1000)
                    with RawClient(server.port) as refused:
                        self.assertEqual(refused.request(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 404)
                    server.shutdown(0.01)
                    self.assertEqual(self.log.tracebacks, [])

    def test_a_connection_of_enormous_times_is_closed_and_waited_for(self) -> None:
        for enormous in (1e300, 10**30, 30 * 86400, 9.5e9):

            def handler(connection: Connection, enormous: float = enormous) -> None:
                self.assertEqual(connection.recv(timeout=enormous), "close")
                connection.close(timeout=enormous)

            server = self.serve(handler, close_timeout=enormous)
            for _ in range(2):
                client = self.client(server)
                client.send_text("close")
                self.assertEqual(client.read_close()[0], 1000)
                client.send_close(1000)
                self.assertEqual(client.read_to_end(), b"")
            self.assertEqual(self.log.tracebacks, [])

    def test_an_enormous_timeout_of_shutdown_is_waited_for_as_long_as_it_takes(self) -> None:
        for timeout in (1e300, 10**30, 30 * 86400.0):
            server = self.serve()
            client = self.client(server)
            client.send_close(1000)
            self.assertEqual(server.shutdown(timeout), ())

    def test_a_hub_of_enormous_times_ends(self) -> None:
        for enormous in (1e300, 10**30, 30 * 86400):
            options: dict[str, Any] = dict.fromkeys(HUB_TIMES, enormous)
            with Hub(echo, **options) as hub:
                hub.start()
                self.assertEqual(hub.shutdown(enormous), ())


class OptionsTest(unittest.TestCase):
    def test_no_pings_is_no_mistake(self) -> None:
        self.assertIsNone(HubOptions(**{**HUB, "ping_interval": None}).ping_interval)

    def test_the_limits_of_a_connection_are_made_of_them(self) -> None:
        options = HubOptions(
            **{**HUB, "max_message": 7, "max_fragments": 8, "max_frame": 6, "send_timeout": 9, "close_timeout": 10}
        )
        limits = Limits(max_message=7, max_fragments=8, max_frame=6, send_timeout=9, close_timeout=10)
        self.assertEqual(options.limits, limits)

    def test_options_do_not_change(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            HubOptions(**HUB).max_message = 1  # type: ignore[misc]

    def test_lists_from_generators_are_kept(self) -> None:
        options = ServerOptions(
            **{**SERVER, "subprotocols": (name for name in "ab"), "hosts": (name for name in ("ide.example", "plc"))}
        )
        self.assertEqual(options.policy.subprotocols, ("a", "b"))
        self.assertEqual(options.host_names, {"ide.example", "plc"})

    def test_whatever_can_be_called_is_a_function(self) -> None:
        class Checker:
            def __call__(self, request: Request) -> bool:
                return True

        for function in (Checker(), functools.partial(bool), Checker, bool):
            self.assertIs(ServerOptions(**{**SERVER, "authenticate": function}).authenticate, function)

    def test_contexts_that_can_serve_are_taken(self) -> None:
        for context in (
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ):
            self.assertIs(ServerOptions(**{**SERVER, "ssl_context": context}).ssl_context, context)

    def test_addresses_of_all_kinds_are_taken(self) -> None:
        for host in ("127.0.0.1", "::1", "::", "", "localhost", "fe80::1%eth0", "::ffff:127.0.0.1", "plc-7.example."):
            for port in (0, 1, 65535):
                check_address(host, port)

    def test_the_policy_is_made_of_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            options = ServerOptions(
                **{**SERVER, "path": "/x", "origins": ["*"], "require_name": True, "compression": True, "pages": folder}
            )
            self.assertEqual(options.policy, Policy("/x", frozenset("*"), require_name=True, compression=True))
            self.assertEqual((options.site, ServerOptions(**SERVER).site), (Path(folder), None))


class LimitsTest(unittest.TestCase):
    def test_options_out_of_bounds_are_mistakes(self) -> None:
        def refused(**options: Any) -> None:
            with self.subTest(options=options), self.assertRaises(ValueError):
                Server(**options)

        for name in ("handshake_timeout", "send_timeout", "close_timeout", "ping_interval", "ping_timeout"):
            for value in (0, -1, float("nan"), float("inf")):
                refused(**{name: value})
        for name in ("max_message", "max_fragments", "max_connections"):
            refused(**{name: 0})


if __name__ == "__main__":
    unittest.main()
