"""The options without a client: each is checked here, kept so that nothing changes it, and turned into an attempt."""

from __future__ import annotations

import dataclasses
import os
import ssl
import types
import unittest
import warnings
from typing import Any
from unittest import mock

from sync_ws.channel.limits import Limits
from sync_ws.client.options import ClientOptions, NotUsable
from sync_ws.client.state import should_reconnect
from sync_ws.timing import SYSTEM_CLOCK

PLAIN: dict[str, Any] = {
    "url": "ws://a.test/", "headers": None, "subprotocols": (), "origin": None, "cookie": None, "proxy": None,
    "ssl_context": None, "compression": False, "open_timeout": 10.0, "limits": Limits(), "heartbeat": None,
    "backoff": None, "should_reconnect": should_reconnect, "offline": None, "clock": SYSTEM_CLOCK,
}  # fmt: skip


def options(**given: Any) -> ClientOptions:
    return ClientOptions(**{**PLAIN, **given})


class KeptTest(unittest.TestCase):
    def test_they_are_frozen(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            options().url = "ws://b.test/"  # type: ignore[misc]

    def test_a_list_that_can_be_read_once_serves_every_attempt(self) -> None:
        kept = options(headers=iter([("X-Y", "z")]), subprotocols=iter(["chat"]))
        for _ in range(2):
            dial = kept.make_dial()
            self.assertEqual((dial._headers, dial._subprotocols), ([("X-Y", "z")], ("chat",)))

    def test_a_list_that_is_changed_later_changes_nothing(self) -> None:
        headers, subprotocols = {"X-Y": "z"}, ["chat"]
        kept = options(headers=headers, subprotocols=subprotocols)
        headers["X-Y"], subprotocols[0] = "changed", "changed"
        dial = kept.make_dial()
        self.assertEqual((dial._headers, dial._subprotocols), ([("X-Y", "z")], ("chat",)))

    def test_the_address_for_people(self) -> None:
        self.assertEqual(options(url="ws://u:pw@a.test/ws?token=s3cret").shown_url, "ws://a.test:80/ws")
        self.assertEqual(options(url=lambda: "ws://a.test/").shown_url, "(callable)")


class CheckedTest(unittest.TestCase):
    def test_each_when_it_is_given(self) -> None:
        no_timer, no_monotonic = types.SimpleNamespace(monotonic=print), types.SimpleNamespace(timer=print)
        wrong: tuple[tuple[str, Any, type[Exception], str], ...] = (
            ("url", "http://a.test/", ValueError, "ws://"), ("proxy", "nonsense", ValueError, "proxy"),
            ("origin", 5, TypeError, "origin"), ("cookie", "a\r\nb", ValueError, "cookie"),
            ("headers", {"Upgrade": "h2c"}, ValueError, "Upgrade"), ("subprotocols", "chat", TypeError, "subprotocols"),
            ("open_timeout", 0, ValueError, "open_timeout"), ("compression", 1, TypeError, "compression"),
            ("ssl_context", True, TypeError, "ssl_context"), ("should_reconnect", True, TypeError, "function"),
            ("clock", no_timer, TypeError, "timer"), ("clock", no_monotonic, TypeError, "monotonic"),
        )  # fmt: skip
        for name, bad, error, part in wrong:
            with self.subTest(name, value=bad), self.assertRaisesRegex(error, part):
                options(**{name: bad})

    def test_what_a_function_gives_is_checked_when_it_is_asked(self) -> None:
        bad: Any
        for name, bad in (("url", "nonsense"), ("proxy", 5), ("origin", "a\nb"), ("headers", 5), ("subprotocols", "x")):
            kept = options(**{name: lambda bad=bad: bad})
            with self.subTest(name), self.assertRaises(NotUsable) as caught:
                kept.make_dial()
            self.assertIsInstance(caught.exception.__cause__, (TypeError, ValueError))
            self.assertEqual(str(caught.exception), str(caught.exception.__cause__))

    def test_a_context_that_verifies_nothing_is_warned_of_in_the_line_that_makes_the_client(self) -> None:
        from sync_ws import Client

        half, none = ssl.create_default_context(), ssl.create_default_context()
        half.check_hostname = none.check_hostname = False
        none.verify_mode = ssl.CERT_NONE
        for context in (half, none):
            with self.assertWarnsRegex(RuntimeWarning, "does not verify") as warned:
                Client("wss://a.test/", ssl_context=context)
            self.assertEqual(warned.filename, __file__)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Client("wss://a.test/", ssl_context=ssl.create_default_context())


class DialTest(unittest.TestCase):
    def test_all_of_them_are_in_it(self) -> None:
        context = ssl.create_default_context()
        dial = options(
            origin="http://o.test", cookie="a=1", proxy="http://p.test:8080", ssl_context=context, compression=True,
            open_timeout=7.0,
        ).make_dial()  # fmt: skip
        self.assertEqual((dial._origin, dial._cookie, dial._timeout), ("http://o.test", "a=1", 7.0))
        self.assertEqual((dial._ssl_context, dial._compression), (context, True))
        assert dial._proxy is not None
        self.assertEqual((dial._proxy.host, dial._proxy.port), ("p.test", 8080))

    def test_credentials_are_sent_where_there_are_any_and_once(self) -> None:
        authorized = ("Authorization", "Basic dTpwdw==")
        for url, headers, expected in (
            ("ws://a.test/", None, []),
            ("ws://u:pw@a.test/", None, [authorized]),
            ("ws://u:pw@a.test/", {"X-Y": "z"}, [("X-Y", "z"), authorized]),
            ("ws://u:pw@a.test/", {"authorization": "own"}, [("authorization", "own")]),
        ):
            with self.subTest(url, headers=headers):
                kept = options(url=url, headers=headers)
                self.assertEqual([kept.make_dial()._headers for _ in range(2)], [expected, expected])

    def test_the_environments_proxy_is_taken_where_it_is_asked_for(self) -> None:
        with mock.patch.dict(os.environ, {"http_proxy": "http://p.test:3128", "no_proxy": "b.test"}):
            proxy = options(proxy="environment").make_dial()._proxy
            self.assertEqual(proxy and proxy.host, "p.test")
            self.assertIsNone(options(proxy="environment", url="ws://b.test/").make_dial()._proxy)
            self.assertIsNone(options().make_dial()._proxy)
            proxy = options(proxy=lambda: "environment").make_dial()._proxy
            self.assertEqual(proxy and proxy.host, "p.test")


if __name__ == "__main__":
    unittest.main()
