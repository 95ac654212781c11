"""A hub's events, what the application's functions raise, and what is said of that."""

from __future__ import annotations

import gc
import inspect
import threading
import weakref
from dataclasses import replace
from typing import Any
from unittest import mock

from sync_ws import Close, Connection, ConnectionClosed, Hub, Reason, Server
from sync_ws.testing import wait_until
from tests.support.hub_case import REQUEST, HubTestCase
from tests.support.server_case import Events
from tests.support.wire import join


class MistakesTest(HubTestCase):
    def test_an_option_has_the_same_default_as_the_servers(self) -> None:
        servers = inspect.signature(Server).parameters
        for name, parameter in inspect.signature(Hub).parameters.items():
            if name != "name":
                self.assertEqual(parameter.default, servers[name].default, name)

    def test_what_cannot_be_called_is_refused_where_it_is_given(self) -> None:
        with self.assertRaisesRegex(TypeError, "handler is a function that takes a connection"):
            Hub("not a function")  # type: ignore[arg-type]
        with self.assertRaisesRegex(TypeError, "an event's function is a function that takes a connection"):
            self.hub(None).on("open", "not a function")  # type: ignore[type-var]

    def test_messages_go_to_the_handler_or_to_the_event_and_not_to_both(self) -> None:
        with self.assertRaisesRegex(ValueError, "the handler receives the messages"):
            self.hub().on("message", print)


class SayingTestCase(HubTestCase):
    def said(self, level: str) -> list[str]:
        """The first lines of what was said at that level."""
        prefix = f"{level} sync_ws.server "
        return [line.removeprefix(prefix).partition("\n")[0] for line in self.log.lines if line.startswith(prefix)]


class DiaryTest(SayingTestCase):
    """Of each guest is said when it came, whom it replaced, and how it ended."""

    def two(self, hub: Hub) -> tuple[Connection, Connection]:
        """Of one name, the second at another door."""
        claims = hub.admit("ann"), hub.admit("ann")
        (first, _), (sock, _) = self.connect(hub, claims[0]), self.pair()
        return first, hub.connect(claims[1], sock, replace(REQUEST, peer=("the back door", 1)))

    def end(self, hub: Hub, *connections: Connection) -> None:
        for connection in connections:
            connection.channel.abort(Reason("the test is over"))
            hub.ended(connection)

    def test_that_it_came_that_it_took_over_and_that_it_left(self) -> None:
        hub = self.hub()
        old, new = self.two(hub)
        hub.opened(old)
        hub.opened(new)
        self.assertEqual(
            self.said("INFO"),
            [
                "open: 'ann' at a door:0, path /ws/",
                "open: 'ann' at the back door:1, path /ws/",
                "takeover: 'ann' at the back door:1, replacing a door:0",
            ],
        )
        self.assertEqual(old.channel.close_frames[0], Close(4009, "replaced by a newer connection of this name"))
        self.log.lines.clear()
        self.end(hub, old, new)
        for line, door in zip(self.said("WARNING"), ("a door:0", "the back door:1"), strict=True):
            self.assertRegex(line, f"^closed: 'ann' at {door}, after .*: the test is over$")

    def test_one_that_was_slower_than_a_newer_one_is_replaced_by_that_one(self) -> None:
        hub = self.hub()
        slow, fast = self.two(hub)
        hub.opened(fast)
        hub.opened(slow)
        self.assertEqual(self.said("INFO")[-1], "takeover: 'ann' at the back door:1, replacing a door:0")
        self.assertEqual(dict(hub.clients), {"ann": fast})
        self.assertTrue(fast.connected)
        self.end(hub, slow, fast)


class EndTest(HubTestCase):
    def test_heartbeats_that_nobody_received_up_to_are_told_before_the_end(self) -> None:
        hub = self.hub()
        events = Events(hub)
        connection, client = self.connect(hub, hub.admit())
        client.send_text('{"ModeCode":"heart_beat","msg":1}')
        client.send_close(1000)
        hub.opened(connection)
        connection.channel.tend()
        hub.ended(connection)
        self.assertEqual([entry[0] for entry in events.log], ["open", "heartbeat", "close"])

    def test_who_is_told_of_it_finds_it_gone_though_the_thread_that_ended_it_is_not_so_far(self) -> None:
        hub = self.hub()
        release, told = hub._registry.release, threading.Event()

        def slow_release(claim: Any) -> bool:
            if threading.current_thread() is aborter:
                told.wait(10)
            return release(claim)

        left: list[object] = []
        hub.on("close", lambda connection, reason: left.append((hub.connections, dict(hub.clients))))
        connection, _ = self.connect(hub, hub.admit("ann"))
        hub.opened(connection)
        aborter = threading.Thread(target=connection.channel.abort, args=(Reason("the test is over"),))
        with mock.patch.object(hub._registry, "release", slow_release):
            aborter.start()
            wait_until(lambda: connection.channel.ended)
            hub.ended(connection)
            told.set()
            join(aborter)
        self.assertEqual(left, [(frozenset(), {})])

    def test_nobody_looks_after_it_any_more(self) -> None:
        hub = self.hub()
        connection, client = self.connect(hub, hub.admit())
        client.send_close(1000)
        gone = weakref.ref(connection.channel)
        hub.run(connection)
        del connection
        gc.collect()
        self.assertIsNone(gone())


class RaisingTest(SayingTestCase):
    """What a handler or an event's function raises: an error to tell of, or the end of its connection."""

    def gone(self) -> ConnectionClosed:
        return ConnectionClosed(Reason("another one's end"))

    def converse(self, hub: Hub, *texts: str) -> Connection:
        """A whole conversation in this thread: the messages, and the end."""
        connection, client = self.connect(hub, hub.admit("ann"))
        for text in texts:
            client.send_text(text)
        client.send_close(1000)
        hub.run(connection)
        client.close()
        return connection

    def test_a_handler_that_ends_with_its_connection_is_no_error(self) -> None:
        hub = self.hub(lambda connection: connection.recv(5))
        events = Events(hub)
        connection = self.converse(hub)
        self.assertEqual([entry[0] for entry in events.log], ["open", "close"])
        self.assertEqual(self.said("ERROR"), [])
        (line,) = [line for line in self.said("DEBUG") if "handler" in line]
        expected = "^<Connection 'ann' .* closed>: the handler ended with its connection: closed by the peer: 1000"
        self.assertRegex(line, expected)
        self.assertEqual(connection.close_reason.code, 1000)

    def test_a_handler_that_ends_with_another_ones_connection_has_failed(self) -> None:
        gone = self.gone()
        hub = self.hub(mock.Mock(side_effect=gone))
        events = Events(hub)
        connection, client = self.connect(hub, hub.admit("ann"))
        client.send_close(1000)
        hub.run(connection)
        self.assertEqual(client.read_close()[0], 1011)
        self.assertEqual(events.of("error"), [(connection, gone)])
        (line,) = self.said("ERROR")
        self.assertRegex(line, "^the handler of <Connection 'ann' .*> raised$")

    def test_what_a_handler_raises_after_the_end_of_its_connection_is_an_error_all_the_same(self) -> None:
        raised = RuntimeError("oh no")

        def handler(connection: Connection) -> None:
            list(connection)
            raise raised

        hub = self.hub(handler)
        events = Events(hub)
        connection = self.converse(hub)
        self.assertEqual(events.of("error"), [(connection, raised)])
        self.assertEqual((len(self.said("ERROR")), len(self.log.tracebacks)), (1, 1))

    def test_a_function_that_ends_with_its_connection_is_no_error(self) -> None:
        hub = self.hub(None)
        hub.on("message", lambda connection, message: connection.close(4000, timeout=1))
        hub.on("message", lambda connection, message: connection.send("to nobody"))
        events = Events(hub)
        self.converse(hub, "x")
        self.assertEqual([entry[0] for entry in events.log], ["open", "message", "close"])
        self.assertEqual(self.said("ERROR"), [])
        (line,) = [line for line in self.said("DEBUG") if "function" in line]
        self.assertRegex(line, "^message function of <Connection 'ann' .* closed>: ")

    def test_what_a_function_raises_is_told_as_an_error_and_the_others_are_called(self) -> None:
        for raised in (RuntimeError("oh no"), self.gone()):
            with self.subTest(raised=raised):
                self.log.lines.clear()
                hub = self.hub(None)
                hub.on("message", mock.Mock(side_effect=raised))
                events = Events(hub)
                connection = self.converse(hub, "one", "two")
                told = [args[1] for args in events.of("message")]
                self.assertEqual((told, events.of("error")), (["one", "two"], [(connection, raised)] * 2))
                lines = self.said("ERROR")
                self.assertRegex(lines[0], "^a function for the event 'message' of <Connection 'ann' .*> raised$")
                self.assertEqual((len(lines), len(self.log.tracebacks)), (2, 2))

    def test_what_a_function_for_errors_raises_is_said_and_told_nobody(self) -> None:
        for raised in (RuntimeError("in error"), self.gone()):
            with self.subTest(raised=raised):
                self.log.lines.clear()
                hub = self.hub(None)
                failing = hub.on("error", mock.Mock(side_effect=raised))
                hub.on("close", mock.Mock(side_effect=RuntimeError("in close")))
                self.converse(hub)
                self.assertEqual(failing.call_count, 1)
                names = [line.split("'")[1] for line in self.said("ERROR")]
                self.assertEqual(names, ["close", "error"])


class SendToTest(HubTestCase):
    def test_every_holder_has_its_turn_and_the_first_failure_is_raised(self) -> None:
        hub = self.hub(name_policy="allow")
        clients = [self.guest(hub, "ann") for _ in range(3)]
        holders = hub._registry.holders("ann")
        hub.send_to("ann", "to all")
        self.assertEqual([client.read_text() for client in clients], ["to all"] * 3)
        holders[0].channel.start_close(4000, "")
        holders[2].channel.start_close(4002, "")
        with self.assertRaises(ConnectionClosed) as caught:
            hub.send_to("ann", "to the second")
        self.assertEqual(caught.exception.sent, holders[0].channel.close_frames[0])
        self.assertEqual(clients[1].read_text(), "to the second")
        for client in clients:
            client.close()

    def test_nobody_of_that_name_is_a_key_error_that_says_so(self) -> None:
        with self.assertRaisesRegex(KeyError, "no client is named 'ann'"):
            self.hub().send_to("ann", "x")
