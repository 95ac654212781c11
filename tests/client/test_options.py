"""A client's options: wrong ones are errors in the line that has them; functions are asked before every attempt."""

from __future__ import annotations

import itertools
import unittest
from typing import Any

from sync_ws import Client
from sync_ws.testing import serving
from tests.support.client_case import SOON, ReconnectTestCase, echo
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire


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
            ({"offline": "drop"}, ValueError), ({"subprotocols": "chat"}, TypeError),
            ({"ssl_context": True}, TypeError), ({"open_timeout": 0}, ValueError),
            ({"send_timeout": -1}, ValueError), ({"close_timeout": "5"}, TypeError),
            ({"max_message": 0}, ValueError), ({"max_fragments": 1.5}, TypeError), ({"reconnect": 0}, ValueError),
            ({"proxy": "nonsense"}, ValueError), ({"headers": {"Cookie": "a=1"}}, ValueError),
        )  # fmt: skip
        for options, error in wrong:
            with self.subTest(options), self.assertRaises(error):
                Client("ws://a.test/", **options)
        for url in ("http://a.test/", "nonsense", ""):
            with self.subTest(url), self.assertRaises(ValueError):
                Client(url)


class CallableTest(ReconnectTestCase):
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
            if next(calls) < 2:
                raise ValueError("the token server answered nonsense")
            return {}

        calls = itertools.count()
        with serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url, headers=headers, reconnect=0.01)
            recorder = Recorder(client)
            client.open(SOON)
            self.assertEqual(recorder.names, ["error", "reconnecting", "error", "reconnecting", "open"])

    def test_one_that_gives_what_cannot_be_used_ends_it(self) -> None:
        for options in ({"url": lambda: "http://a.test/"}, {"url": lambda: 5}, {"headers": lambda: {"X": "a\r\nb"}}):
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
