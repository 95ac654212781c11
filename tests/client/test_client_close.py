"""close() wherever the client is."""

from __future__ import annotations

import itertools
import threading
import time
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from sync_ws import Client, ClientState, ConnectionClosed, Heartbeat
from sync_ws.client import line
from sync_ws.testing import ManualClock, free_port, serving, wait_until
from tests.support.client_case import SOON, ClientTestCase, echo, obey
from tests.support.interrupt import Interrupt
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, frame


class CloseTest(ClientTestCase):
    """close() wherever the client is: back in time, and nothing afterwards. Threads left are the ledger's business."""

    def assert_over(self, client: Client, recorder: Recorder, before: list[str]) -> None:
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertFalse(client._thread.is_alive())
        self.assertEqual(recorder.names, [*before, "close"])
        self.assertTrue(recorder.of("close")[-1].reason.by_us)
        self.assertFalse(recorder.of("close")[-1].reconnecting)
        for call in (lambda: client.send("x"), lambda: client.recv(1)):
            with self.assertRaises(ConnectionClosed):
                call()
        client.close()
        self.assertEqual(recorder.names, [*before, "close"])

    def test_idle(self) -> None:
        client = self.client("ws://a.test/")
        recorder = Recorder(client)
        client.close()
        self.assertIs(client.state, ClientState.CLOSED)
        with self.assertRaises(RuntimeError):
            client.open()
        self.assertEqual(recorder.names, [])

    def test_open(self) -> None:
        closes: list[Any] = []
        with serving(lambda conn: list(conn)) as server:
            server.on("close", lambda conn, reason: closes.append(reason))
            client = self.client(server.url, reconnect=0.01)
            recorder = Recorder(client)
            client.open(SOON)
            client.close(4000, "bye")
            wait_until(lambda: not server.connections)
        self.assert_over(client, recorder, ["open"])
        self.assertIn("4000", str(recorder.of("close")[0].reason))

    def test_a_code_that_must_not_be_sent_or_a_reason_too_long_is_an_error(self) -> None:
        wrong: list[tuple[type[Exception], tuple[Any, ...]]] = [
            (ValueError, bad) for bad in ((1005,), (1006,), (999,), (5000,), (1000, "x" * 124), (1000, "\ud800"))
        ]
        wrong += [(TypeError, bad) for bad in (("1000",), (None,), (True,), (1000.0,), (1000, b"bye"), (1000, None))]
        with serving(echo) as server:
            client = self.client(server.url)
            recorder = Recorder(client)
            for state in (ClientState.IDLE, ClientState.OPEN):
                if state is ClientState.OPEN:
                    client.open(SOON)
                for error, arguments in wrong:
                    with self.subTest(arguments), self.assertRaises(error):
                        client.close(*arguments)
                    self.assertIs(client.state, state)
            client.send("nothing has changed")
            self.assertEqual(client.recv(SOON), "nothing has changed")
            client.close()
            self.assert_over(client, recorder, ["open"])

    def test_dialling(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            client.open(0)
            wait_until(lambda: server.accepted)
            with self.within():
                client.close(timeout=30)
            self.assert_over(client, recorder, [])
            self.assertEqual(server.accepted, 1)

    def test_in_name_resolution(self) -> None:
        asked, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def resolve(*args: Any) -> list[Any]:
            asked.set()
            release.wait(SOON * 2)
            return []

        with mock.patch("socket.getaddrinfo", resolve):
            client = self.client("ws://slow.test/", reconnect=0.01)
            recorder = Recorder(client)
            client.open(0)
            self.assertTrue(asked.wait(SOON))
            with self.within():
                client.close(timeout=30)
            self.assert_over(client, recorder, [])
            release.set()

    def test_in_backoff(self) -> None:
        clock = ManualClock()
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=10, clock=clock)
        recorder = Recorder(client)
        client.open(0)
        clock.wait_for_timer()
        with self.within():
            client.close(timeout=30)
        self.assertEqual(clock.pending, [])
        clock.advance(3600)
        self.assert_over(client, recorder, ["reconnecting"])

    def test_blocked_in_recv(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url, reconnect=0.01).open(SOON)
            outcome: list[Any] = []

            def receive() -> None:
                try:
                    client.recv()
                except ConnectionClosed as exc:
                    outcome.append(exc)

            reader = threading.Thread(target=receive)
            reader.start()
            wait_until(lambda: client._inbox.receiving)
            with self.within():
                client.close()
            reader.join(SOON)
            self.assertEqual(len(outcome), 1)

    def test_blocked_in_send(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            release.wait(SOON * 2)

        release = threading.Event()
        with ScriptedServer(script, receive_buffer=4096) as server:
            client = self.client(server.url(), reconnect=0.01, send_timeout=60).open(SOON)
            outcome: list[Any] = []

            def send() -> None:
                try:
                    for _ in range(100):
                        client.send(bytes(1 << 20))
                except ConnectionClosed as exc:
                    outcome.append(exc)

            sender = threading.Thread(target=send)
            sender.start()
            wait_until(
                lambda: client._line.reading_channel and client._line.reading_channel.writer.queued[1],
                message="send never blocked",
            )
            with self.within():
                client.close(timeout=0.3)
            sender.join(SOON)
            self.assertEqual(len(outcome), 1)
            release.set()

    def test_a_server_that_never_answers_our_close(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            release.wait(SOON * 2)

        release = threading.Event()
        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            client.open(SOON)
            with self.within():
                client.close(timeout=0.2)
            self.assert_over(client, recorder, ["open"])
            release.set()

    def test_a_server_that_floods_and_never_answers_our_close(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            while True:
                wire.send(frame(2, bytes(1000)) * 100)

        with ScriptedServer(script) as server:
            client = self.client(server.url()).open(SOON)
            with self.within():
                client.close(timeout=0.3)

    def test_in_a_slow_function(self) -> None:
        release = threading.Event()
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            got: list[Any] = []

            def work(message: Any) -> None:
                got.append(message)
                release.wait(SOON * 2)

            client.on("message", work)
            client.open(SOON)
            client.send("burst")
            wait_until(lambda: got)
            with self.within():
                client.close(timeout=0.2)
            release.set()
            wait_until(lambda: client.state is ClientState.CLOSED)
            wait_until(lambda: not client._thread.is_alive())
        self.assertEqual((got, recorder.names), (["m0"], ["open", "close"]))

    def test_by_many_threads_at_once(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            recorder = Recorder(client)
            client.open(SOON)
            threads = [threading.Thread(target=client.close) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
            self.assert_over(client, recorder, ["open"])

    def test_by_a_signal_handler_that_interrupted_a_send_at_any_instruction(self) -> None:
        url = f"ws://127.0.0.1:{free_port()}/"
        for number in itertools.count(1):
            client = self.client(url, reconnect=60)
            recorder = Recorder(client)
            client.open(0)
            recorder.wait_for("reconnecting")
            queued = True
            with Interrupt(line, number, partial(client.close, timeout=30)) as interrupt, self.within():
                try:
                    client.send("x")
                except ConnectionClosed:
                    queued = False
            client.close()
            self.assertEqual(recorder.of("close")[0].undelivered, ("x",) if queued else ())
            self.assert_over(client, recorder, ["reconnecting"])
            if not interrupt.came:
                break

    def close_in(self, event: str, begin: Callable[[Client], object], **options: Any) -> list[str]:
        """The names of the events from the one on whose function calls close()."""
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), **{"reconnect": 0.01, **options})
            recorder = Recorder(client, messages=True)
            took: list[float] = []

            def close(what: Any) -> None:
                started = time.monotonic()
                client.close()
                took.append(time.monotonic() - started)

            client.on(event, close)
            client.open(0)
            begin(client)
            wait_until(lambda: client.state is ClientState.CLOSED, SOON * 2, f"closed in {event}")
            client._thread.join(SOON)
            self.assertLess(max(took), SOON)
            accepted = server.accepted
            names = recorder.names[recorder.names.index(event) :]
        self.assertEqual(server.accepted, accepted)
        return names

    def test_in_every_function(self) -> None:
        def fail(client: Client) -> None:
            client.on("message", lambda message: 1 / 0)
            client.send("burst")

        for event, begin, expected in (
            ("open", lambda client: None, ["open", "close"]),
            ("message", lambda client: client.send("burst"), ["message", "close"]),
            ("heartbeat", lambda client: None, ["heartbeat", "close"]),
            ("close", lambda client: client.send("drop"), ["close", "close"]),
            ("close", lambda client: client.send("close 1000"), ["close", "gave_up"]),
            ("reconnecting", lambda client: client.send("drop"), ["reconnecting", "close"]),
            ("reconnected", lambda client: client.send("drop"), ["reconnected", "close"]),
        ):
            with self.subTest(event):
                beat = Heartbeat(0.02, 1, kind="ping") if event == "heartbeat" else None
                self.assertEqual(self.close_in(event, begin, heartbeat=beat), expected)
        with self.subTest("error"), self.assertLogs("sync_ws.client", "ERROR"):
            self.assertEqual(self.close_in("error", fail), ["error", "close"])
        with self.subTest("gave_up"):
            client = self.client(f"ws://127.0.0.1:{free_port()}/")
            recorder = Recorder(client)
            client.on("gave_up", lambda event: client.close())
            with self.within():
                client.run_forever()
            self.assertEqual(recorder.names, ["gave_up"])

    def test_a_function_that_closes_and_then_raises_is_still_reported(self) -> None:
        def close(message: Any) -> None:
            client.close()
            raise ZeroDivisionError

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            recorder = Recorder(client)
            client.on("message", close)
            client.open(SOON)
            client.send("burst")
            with self.within():
                client.run_forever()
        self.assertEqual(recorder.names, ["open", "error", "close"])


if __name__ == "__main__":
    unittest.main()
