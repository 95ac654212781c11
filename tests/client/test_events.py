"""A client's events: in order, from one thread, each with its reason; and what functions that raise do."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
import unittest
from typing import Any

from sync_ws import Client, ClientState, Headers, Heartbeat, NotConnected
from sync_ws.client.events import (
    EVENTS,
    Closed,
    Error,
    Event,
    GaveUp,
    HeartbeatAnswered,
    Opened,
    Reconnected,
    Reconnecting,
)
from sync_ws.endings import Reason
from sync_ws.testing import serving, wait_until
from tests.support.client_case import SOON, ClientTestCase, echo, obey
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, staying_open


class EventTest(ClientTestCase):
    def test_an_unknown_event_lists_those_there_are(self) -> None:
        with self.assertRaisesRegex(ValueError, "reconnecting"):
            Client("ws://a.test/").on("conect", print)

    def test_events_come_in_order_from_one_thread_with_their_reasons(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01, heartbeat=Heartbeat(0.05, 1, kind="ping"))
            recorder = Recorder(client, messages=True)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("message", 3)
            recorder.wait_for("heartbeat")
            client.send("drop")
            recorder.wait_for("reconnected")
            client.close(reason="enough")
        names = [name for name in recorder.names if name != "heartbeat"]
        self.assertEqual(names, ["open", *["message"] * 3, "close", "reconnecting", "open", "reconnected", "close"])
        self.assertEqual(len(recorder.threads), 1)
        lost, ours = recorder.of("close")
        self.assertEqual((lost.reason.code, lost.reconnecting), (1006, True))
        self.assertIn("without a Close frame", lost.reason.text)
        self.assertEqual((ours.reason.by_us, ours.reconnecting), (True, False))
        self.assertIn("enough", ours.reason.text)
        (again,) = recorder.of("reconnecting")
        self.assertEqual((again.attempt, again.delay, again.reason), (1, 0.01, lost.reason))
        self.assertEqual(recorder.of("reconnected")[0].count, 1)
        self.assertGreater(recorder.of("heartbeat")[0].rtt, 0)

    def test_open_event_has_the_subprotocol_and_headers_of_the_response(self) -> None:
        with ScriptedServer(staying_open(headers=("X-One: 1", "Sec-WebSocket-Protocol: a"))) as server:
            client = self.client(server.url(), subprotocols=["a"], close_timeout=0.1)
            event = Recorder(client)
            client.open(SOON)
            opened = event.wait_for("open")
        self.assertEqual((opened.subprotocol, opened.headers["x-one"]), ("a", "1"))

    def test_a_function_that_raises_is_reported_once_with_its_traceback_and_does_no_harm(self) -> None:
        def fail(message: Any) -> None:
            raise ZeroDivisionError(f"on {message}")

        with serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR") as logs:
            client = self.client(server.url)
            recorder = Recorder(client)
            got: list[Any] = []
            client.on("message", fail)
            client.on("message", got.append)
            client.open(SOON)
            client.send("one")
            client.send("two")
            wait_until(lambda: len(got) == 2)
            self.assertIs(client.state, ClientState.OPEN)
        self.assertEqual(got, ["one", "two"])
        self.assertEqual([str(error.exception) for error in recorder.of("error")], ["on one", "on two"])
        self.assertEqual(len(logs.records), 2)
        self.assertIn("ZeroDivisionError: on one", logs.output[0])
        self.assertIn("in fail", logs.output[0])

    def test_every_function_may_raise_and_the_client_lives_on(self) -> None:
        def fail(event: Any) -> None:
            raise ValueError("on purpose")

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url(), reconnect=0.01, heartbeat=Heartbeat(0.02, 1, kind="ping"))
            recorder = Recorder(client, messages=True)
            for name in EVENTS:
                client.on(name, fail)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("message", 3)
            client.send("drop")
            recorder.wait_for("reconnected")
            recorder.wait_for("heartbeat")
            client.close()
        self.assertEqual(recorder.names[-2:], ["close", "error"])
        failed = [name for name in recorder.names if name != "error"]
        self.assertEqual(len(recorder.of("error")), len(failed))

    def test_functions_may_be_taken_back(self) -> None:
        client = Client("ws://a.test/")
        self.assertTrue(client.off("open", client.on("open", print)))
        self.assertFalse(client.off("open", print))

    def test_a_message_function_may_send_and_receive(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            got: list[Any] = []

            def converse(message: Any) -> None:
                if message == "begin":
                    client.send("question")
                    got.append(client.recv(SOON))
                else:
                    got.append(("event", message))

            client.on("message", converse)
            client.open(SOON)
            client.send("begin")
            wait_until(lambda: got)
            client.send("after")
            wait_until(lambda: len(got) == 2)
        self.assertEqual(got, ["question", ("event", "after")])

    def test_recv_in_a_function_called_without_a_connection_does_not_wait_for_itself(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)
            raised: list[Exception] = []

            def receive(event: Any) -> None:
                try:
                    client.recv()
                except NotConnected as exc:
                    raised.append(exc)

            client.on("reconnecting", receive)
            recorder = Recorder(client)
            client.open(SOON)
            client.send("drop")
            recorder.wait_for("reconnected")
            client.close()
        self.assertEqual(len(raised), 1)

    def test_what_an_open_function_sends_goes_out_before_what_was_queued(self) -> None:
        got: list[Any] = []
        with serving(lambda conn: got.extend(itertools.islice(conn, 2))) as server:
            client = self.client(server.url)
            client.on("open", lambda event: client.send("hello"))
            client.open(0)
            client.send("queued")
            wait_until(lambda: len(got) == 2)
        self.assertEqual(got, ["hello", "queued"])

    def test_a_slow_function_does_not_look_like_a_dead_client(self) -> None:
        with serving(None, ping_interval=0.2, ping_timeout=0.4) as server:
            ended: list[Any] = []
            server.on("close", lambda conn, reason: ended.append(reason))
            server.on("open", lambda conn: conn.send("work"))
            client = self.client(server.url, heartbeat=Heartbeat(0.2, 0.3))
            done = threading.Event()

            def work(message: Any) -> None:
                time.sleep(0.9)
                done.set()

            client.on("message", work)
            recorder = Recorder(client)
            client.open(SOON)
            self.assertTrue(done.wait(SOON))
            self.assertIs(client.state, ClientState.OPEN)
            recorder.wait_for("heartbeat")
            self.assertEqual((ended, recorder.of("close")), ([], []))


class ValueTest(unittest.TestCase):
    def test_every_event_object_is_frozen_and_an_event(self) -> None:
        reason = Reason("lost")
        for event in (
            Opened(), Closed(reason), Error(ValueError()), Reconnecting(1, 0.5, reason), Reconnected(1), GaveUp(reason),
            HeartbeatAnswered(0.1),
        ):  # fmt: skip
            with self.subTest(type(event).__name__):
                self.assertIsInstance(event, Event)
                with self.assertRaises(dataclasses.FrozenInstanceError):
                    setattr(event, dataclasses.fields(event)[0].name, None)

    def test_headers_and_messages_do_not_show_when_an_event_is_printed(self) -> None:
        for event in (
            Opened(None, Headers([("x", "s3cret")])),
            Closed(Reason(""), False, ("s3cret",)),
            GaveUp(Reason(""), (b"s3cret",)),
        ):
            self.assertNotIn("s3cret", repr(event))


if __name__ == "__main__":
    unittest.main()
