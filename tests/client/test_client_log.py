"""A client that is left alone: whoever comes to look finds in the log what happened, once and no secret."""

from __future__ import annotations

import contextlib
import logging
import threading
import unittest
from collections.abc import Iterator
from typing import Any

from sync_ws import Backoff, Client, ClientState, ConnectionClosed, HandshakeError, Heartbeat, SendTimeout
from sync_ws.channel.housekeeper import TICK
from sync_ws.testing import FaultProxy, ManualClock, free_port, serving, wait_until
from tests.support.client_case import SOON, ReconnectTestCase, echo, obey, silent
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, refusing


class LogTestCase(ReconnectTestCase):
    @contextlib.contextmanager
    def heard(self) -> Iterator[list[tuple[str, str]]]:
        """Level and text of every record; when it is over, only those above DEBUG."""
        records: list[tuple[str, str]] = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append((record.levelname, record.getMessage()))  # type: ignore[method-assign]
        logger = logging.getLogger("sync_ws.client")
        level, propagate = logger.level, logger.propagate
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(handler)
        try:
            yield records
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
            records[:] = [record for record in records if record[0] != "DEBUG"]

    def only(self, level: str, records: list[tuple[str, str]]) -> list[str]:
        return [text for at, text in records if at == level]


class OutageTest(LogTestCase):
    def test_a_server_that_was_never_there_is_told_of_once_with_address_and_cause(self) -> None:
        url = f"ws://127.0.0.1:{free_port()}/ws/"
        clock = ManualClock()
        with self.heard() as records:
            client = self.client(url + "?token=s3cret", reconnect=10, clock=clock)
            opener = threading.Thread(target=lambda: self.assertRaises(HandshakeError, client.open))
            opener.start()
            for _ in range(20):
                clock.wait_for_timer()
                clock.advance(10)
            wait_until(lambda: client.stats()["attempts_failed"] > 20)
            client.close()
            opener.join(SOON)
        (warning,) = self.only("WARNING", records)
        self.assertIn(url, warning)
        self.assertIn("Connection refused", warning)
        self.assertEqual(len(records), 2)  # and INFO: closed
        self.assertNotIn("s3cret", repr(records))

    def test_one_that_comes_is_told_of_with_time_and_attempts(self) -> None:
        clock = ManualClock()
        with self.heard() as records, ScriptedServer(self.unwilling) as server:
            client = self.client(server.url(), reconnect=10, clock=clock, subprotocols=["chat"])
            client.open(0)
            for _ in range(2):
                clock.wait_for_timer()
                clock.advance(10)
            wait_until(lambda: client.connected)
            client.close()
        (warning,) = self.only("WARNING", records)
        self.assertIn("503", warning)
        self.assertIn(f"{server.url()} after 20.0 s, attempts: 3, subprotocol chat", self.only("INFO", records)[0])

    @staticmethod
    def unwilling(wire: Wire) -> None:
        if wire.number < 3:
            wire.answer("503 X")
        else:
            wire.switch(headers=("Sec-WebSocket-Protocol: chat",))
            wire.wait_for_end()

    def test_a_connection_that_was_lost_and_came_back(self) -> None:
        with self.heard() as records, serving(echo) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url("/ws/"), reconnect=0.02)
            recorder = Recorder(client)
            client.open(SOON)
            proxy.reset_all()
            recorder.wait_for("reconnected")
            client.close()
        self.assertEqual([level for level, _ in records], ["INFO", "WARNING", "INFO", "INFO", "INFO"])
        for (_, text), words in zip(records, ("connected to", "ended after", "reconnecting", "reconnected", "closed")):
            self.assertIn(words, text)

    def test_attempts_are_for_whoever_asks(self) -> None:
        with ScriptedServer(refusing("503 X")) as server, self.assertLogs("sync_ws.client", "DEBUG") as logs:
            client = self.client(server.url(), reconnect=0.01)
            client.open(0)
            wait_until(lambda: client.stats()["attempts_failed"] > 3)
            client.close()
        self.assertTrue(any("attempt 3 failed: the server answered 503" in line for line in logs.output), logs.output)


class EndTest(LogTestCase):
    tick = TICK  # the time that a thread in send() has to find out first that nobody reads

    def test_our_own_end_is_no_news(self) -> None:
        with self.heard() as records, ScriptedServer(obey) as server:
            self.client(server.url()).open(SOON).close(4000, "done")
        self.assertEqual([level for level, _ in records], ["INFO", "INFO"])
        self.assertIn("closed by us: 4000 done", records[1][1])

    def test_every_end_by_the_server_is_one_warning_that_says_why_it_is_over(self) -> None:
        for code, why in ((1000, "has finished"), (1008, "policy"), (4009, "newer connection"), (1009, "size")):
            with self.subTest(code), self.heard() as records, ScriptedServer(obey) as server:
                client = self.client(server.url(), reconnect=60)
                client.on("open", lambda event, code=code: client.send(f"close {code}"))  # noqa: B023
                client.run_forever()
                (warning,) = self.only("WARNING", records)
                for part in ("gave up", server.url(), f"{code} as told", f"close code {code} is final", why):
                    self.assertIn(part, warning)

    def test_refusals_and_limits_of_attempts_too(self) -> None:
        for status, options, why in (
            ("404 X", {}, "HTTP status 404 is final"),
            ("503 X", {"reconnect": None}, "reconnect=None"),
            ("503 X", {"should_reconnect": lambda reason: False}, "should_reconnect says so"),
            ("503 X", {"reconnect": Backoff.fixed(0.01, attempts=2)}, "its 2 attempts are used up"),
        ):
            settings: dict[str, Any] = {"reconnect": 60, **options}
            with self.subTest(why), self.heard() as records, ScriptedServer(refusing(status)) as server:
                self.client(server.url(), **settings).run_forever()
                self.assertIn(why, self.only("WARNING", records)[-1])

    def test_a_server_that_is_given_up(self) -> None:
        with self.subTest("heartbeat"), self.heard() as records, ScriptedServer(silent) as server:
            client = self.client(server.url(), reconnect=None, heartbeat=Heartbeat(0.02, 0.02, kind="ping"))
            client.run_forever()
            self.assertIn("no answer to a heartbeat", self.only("WARNING", records)[0])
        with self.subTest("send"), self.heard() as records, ScriptedServer(self.deaf, receive_buffer=4096) as server:
            client = self.client(server.url(), reconnect=60, send_timeout=0.1)
            client.open(SOON)
            with self.assertRaises(SendTimeout):
                while True:
                    client.send(bytes(1 << 20))
            wait_until(lambda: self.only("WARNING", records))
            self.release.set()
            client.close()
            self.assertIn("did not read", self.only("WARNING", records)[0])

    def setUp(self) -> None:
        super().setUp()
        self.release = threading.Event()
        self.addCleanup(self.release.set)

    def deaf(self, wire: Wire) -> None:
        wire.switch()
        self.release.wait(SOON * 2)

    def test_a_function_that_raised_comes_with_its_traceback(self) -> None:
        def fail(message: Any) -> None:
            raise ZeroDivisionError

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "WARNING") as logs:
            client = self.client(server.url())
            recorder = Recorder(client)
            client.on("message", fail)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("error", 3)
            client.close()
        self.assertEqual(len(logs.records), 3)
        self.assertIn("in fail", logs.output[0])

    def test_a_client_that_is_closed_while_it_tries(self) -> None:
        with self.heard() as records:
            client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
            client.open(0)
            wait_until(lambda: client.state is ClientState.WAITING)
            client.close()
        self.assertEqual([level for level, _ in records], ["WARNING", "INFO"])

    def test_one_that_was_never_opened_has_nothing_to_say(self) -> None:
        with self.heard() as records:
            client = Client("ws://a.test/")
            client.close()
            self.assertRaises(ConnectionClosed, client.send, "x")
        self.assertEqual(records, [])


if __name__ == "__main__":
    unittest.main()
