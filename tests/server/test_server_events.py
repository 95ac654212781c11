"""A server's events and the errors of the application's functions."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any
from unittest import mock

import sync_ws
from sync_ws import Connection, ConnectionClosed, ModeCode
from tests.support.server_case import Events, ServerTestCase, wait_until


class EventsTest(ServerTestCase):
    def test_events_come_in_order_in_the_connections_own_thread(self) -> None:
        server, events = self.serve_events()
        client = self.client(server, "a")
        client.send_text("one")
        client.send_frame(2, b"two")
        client.finish(4000)
        events.wait("close")
        (opened,) = events.of("open")
        self.assertEqual([entry[0] for entry in events.log], ["open", "message", "message", "close"])
        self.assertEqual([args[1] for args in events.of("message")], ["one", b"two"])
        self.assertEqual({args[0] for args in (entry[1:] for entry in events.log)}, {opened[0]})
        self.assertEqual(len(events.threads[opened[0]]), 1)
        self.assertNotIn(threading.get_ident(), events.threads[opened[0]])
        self.assertEqual(events.of("close")[0][1].code, 4000)

    def test_the_articles_server_in_event_style(self) -> None:
        server, _ = self.serve_events()

        def on_message(connection: Connection, message: str | bytes) -> None:
            envelope = sync_ws.decode(message)
            if envelope.mode != ModeCode.MESSAGE:
                raise ValueError(f"expected the ModeCode message, not {envelope.mode!r}")
            connection.send(sync_ws.encode(ModeCode.MESSAGE, envelope.msg))

        server.on("message", on_message)
        client = self.client(server, "test")
        client.send_text('{"ModeCode":"message","msg":"hello"}')
        self.assertEqual(json.loads(client.read_text()), {"ModeCode": "message", "msg": "hello"})
        client.send_text('{"ModeCode":"heart_beat","msg":"1"}')
        self.assertEqual(client.read_text(), '{"ModeCode":"heart_beat","msg":"1"}')

    def test_bad_messages_become_error_events_and_the_thread_lives(self) -> None:
        server, events = self.serve_events()

        def on_message(connection: Connection, message: Any) -> None:
            envelope = sync_ws.decode(message)
            if envelope.mode != ModeCode.MESSAGE:
                raise ValueError(f"unknown ModeCode {envelope.mode!r}")
            connection.send(envelope.msg)

        server.on("message", on_message)
        client = self.client(server, "a")
        for bad in ("{nonsense", "[]", "null", '{"ModeCode":7}', '{"msg":"x"}', '{"ModeCode":"dance"}', "[" * 100_000):
            client.send_text(bad)
        client.send_frame(2, b"\x00\xff")
        client.send_text('{"ModeCode":"message","msg":"alive"}')
        self.assertEqual(client.read_text(), "alive")
        self.assertEqual(len(events.of("error")), 8)
        self.assertEqual(len(self.log.tracebacks), 8)
        self.assertIn("a", server.clients)

    def test_what_event_functions_raise_is_logged_and_emitted_and_stops_nothing(self) -> None:
        server, events = self.serve_events()
        for name in ("open", "message", "heartbeat", "close"):
            server.on(name, mock.Mock(side_effect=RuntimeError(f"in {name}")))
        client = self.client(server, "a")
        client.send_text("x")
        client.send_text('{"ModeCode":"heart_beat"}')
        client.read_text()
        client.finish()
        events.wait("error", 4)
        self.assertEqual(
            [str(args[1]) for args in events.of("error")], ["in open", "in message", "in heartbeat", "in close"]
        )
        self.assertEqual(len(self.log.tracebacks), 4)
        wait_until(lambda: server.stats()["threads"] == 0)

    def test_an_error_function_that_raises_is_logged_and_does_not_recurse(self) -> None:
        server = self.serve(None)
        server.on("error", mock.Mock(side_effect=RuntimeError("in error")))
        server.on("message", mock.Mock(side_effect=RuntimeError("in message")))
        client = self.client(server)
        client.send_text("x")
        client.finish()
        wait_until(lambda: len(self.log.tracebacks) == 2)

    def test_a_handler_that_raises_closes_with_1011_and_is_reported(self) -> None:
        def handler(connection: Connection) -> None:
            connection.recv()
            raise RuntimeError("oh no")

        server = self.serve(handler)
        events = Events(server)
        client = self.client(server, "a")
        client.send_text("x")
        self.assertEqual(client.read_close()[0], 1011)
        client.send_close(1011)
        ((connection, exc),) = events.wait("error")
        self.assertEqual((connection.name, str(exc)), ("a", "oh no"))
        self.assertEqual(len(self.log.tracebacks), 1)
        events.wait("close")
        self.assertEqual(server.connections, frozenset())

    def test_the_end_of_the_own_connection_is_no_error(self) -> None:
        def handler(connection: Connection) -> None:
            connection.recv()

        server = self.serve(handler)
        events = Events(server)
        self.client(server).finish()
        events.wait("close")
        self.assertEqual((events.of("error"), self.log.tracebacks), ([], []))

    def test_the_end_of_another_connection_is_one(self) -> None:
        """A relay: what the sender's handler raises is not about the sender's own connection."""
        gone = ConnectionClosed(sync_ws.Reason("another one's end"))
        relay = self.serve(mock.Mock(side_effect=gone))
        self.assertEqual(self.raw(relay).upgrade().read_close()[0], 1011)
        server, events = self.serve_events()
        server.on("message", mock.Mock(side_effect=gone))
        self.client(server).send_text("x")
        self.assertEqual(events.wait("error")[0][1], gone)
        self.assertEqual(len(self.log.tracebacks), 2)

    def test_sys_exit_in_a_handler_ends_its_connection_alone(self) -> None:
        def handler(connection: Connection) -> None:
            sys.exit(3)

        server = self.serve(handler)
        client = self.raw(server).upgrade()
        self.assertEqual(client.read_close()[0], 1000)

    def test_off_takes_a_subscription_back_and_unknown_events_are_mistakes(self) -> None:
        server = self.serve(None)
        function = server.on("message", mock.Mock())
        self.assertTrue(server.off("message", function))
        self.assertFalse(server.off("message", function))
        with self.assertRaisesRegex(ValueError, "heartbeat"):
            server.on("mesage", function)

    def test_every_method_may_be_called_from_an_event_function(self) -> None:
        server, events = self.serve_events()

        def on_message(connection: Connection, message: Any) -> None:
            server.broadcast("broadcast")
            server.send_to("a", "direct")
            connection.send(json.dumps(server.stats()["connections"]))
            server.on("close", lambda conn, reason: None)
            connection.close(4000, timeout=1)

        server.on("message", on_message)
        client = self.client(server, "a")
        client.send_text("go")
        self.assertEqual([client.read_text() for _ in range(3)], ["broadcast", "direct", "1"])
        self.assertEqual(client.read_close()[0], 4000)
        client.send_close(4000)
        events.wait("close")
        self.assertEqual(events.of("error"), [])
