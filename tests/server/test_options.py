"""A server's and a hub's options: what is taken, and what is a mistake in the line that has it."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import unittest
from pathlib import Path
from typing import Any

from sync_ws import Hub, Server
from sync_ws.channel.limits import Limits
from sync_ws.protocol.handshake import Policy
from sync_ws.server.options import HubOptions, ServerOptions

HUB: dict[str, Any] = {
    "name_policy": "replace", "max_connections": 1000, "max_message": 1 << 20, "max_fragments": 1024,
    "send_timeout": 10.0, "close_timeout": 5.0, "ping_interval": 20.0, "ping_timeout": 20.0,
}  # fmt: skip
SERVER: dict[str, Any] = {
    **HUB,
    "path": "/ws/", "ssl_context": None, "require_name": False, "origins": None, "authenticate": None,
    "subprotocols": (), "compression": False, "pages": None, "handshake_timeout": 10.0,
}  # fmt: skip


class HubOptionsTest(unittest.TestCase):
    def mistake(self, error: type[Exception], name: str, value: Any) -> None:
        with self.subTest(name, value=value):
            with self.assertRaisesRegex(error, name):
                HubOptions(**{**HUB, name: value})
            with self.assertRaisesRegex(error, name):
                Hub(**{name: value})

    def test_counts_are_whole_numbers_from_one_on(self) -> None:
        for name in ("max_connections", "max_message", "max_fragments"):
            self.mistake(ValueError, name, 0)
            self.mistake(TypeError, name, 1.5)
            self.mistake(TypeError, name, True)

    def test_times_are_finite_and_above_zero(self) -> None:
        for name in ("send_timeout", "close_timeout", "ping_interval", "ping_timeout"):
            for value in (0, -1.0, math.inf, math.nan):
                self.mistake(ValueError, name, value)
            self.mistake(TypeError, name, "5")
        self.mistake(TypeError, "ping_timeout", None)

    def test_an_unknown_name_policy_is_answered_with_those_there_are(self) -> None:
        self.mistake(ValueError, "name_policy", "steal")
        with self.assertRaisesRegex(ValueError, "replace, reject, allow"):
            HubOptions(**{**HUB, "name_policy": "steal"})

    def test_no_pings_is_no_mistake(self) -> None:
        self.assertIsNone(HubOptions(**{**HUB, "ping_interval": None}).ping_interval)

    def test_the_limits_of_a_connection_are_made_of_them(self) -> None:
        options = HubOptions(**{**HUB, "max_message": 7, "max_fragments": 8, "send_timeout": 9, "close_timeout": 10})
        limits = Limits(max_message=7, max_fragments=8, send_timeout=9, close_timeout=10)
        self.assertEqual(options.limits, limits)

    def test_options_do_not_change(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            HubOptions(**HUB).max_message = 1  # type: ignore[misc]


class ServerOptionsTest(unittest.TestCase):
    def mistake(self, error: type[Exception], name: str, value: Any) -> None:
        with self.subTest(name, value=value):
            with self.assertRaisesRegex(error, name):
                ServerOptions(**{**SERVER, name: value})
            with self.assertRaisesRegex(error, name):
                Server(**{name: value})

    def test_what_is_a_mistake_for_a_hub_is_one_for_a_server(self) -> None:
        self.mistake(ValueError, "name_policy", "steal")
        self.mistake(ValueError, "max_connections", 0)
        self.mistake(ValueError, "ping_interval", 0)

    def test_a_path_is_absolute_and_has_no_query(self) -> None:
        for value in ("ws", "", "/a?b", "/a#b"):
            self.mistake(ValueError, "path", value)

    def test_lists_of_strings_are_no_strings(self) -> None:
        self.mistake(TypeError, "origins", "https://example.org")
        self.mistake(TypeError, "subprotocols", "chat")

    def test_the_handshake_has_a_time(self) -> None:
        self.mistake(ValueError, "handshake_timeout", 0)

    def test_pages_that_are_not_there_are_a_mistake(self) -> None:
        self.mistake(ValueError, "pages", "/no/such/folder")

    def test_subprotocols_from_a_generator_are_kept(self) -> None:
        options = ServerOptions(**{**SERVER, "subprotocols": (name for name in ("a", "b"))})
        self.assertEqual(options.policy.subprotocols, ("a", "b"))

    def test_the_policy_is_made_of_them(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            options = ServerOptions(
                **{**SERVER, "path": "/x", "origins": ["*"], "require_name": True, "compression": True, "pages": folder}
            )
            self.assertEqual(options.policy, Policy("/x", frozenset("*"), require_name=True, compression=True))
            self.assertEqual((options.site, ServerOptions(**SERVER).site), (Path(folder), None))
