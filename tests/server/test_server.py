"""The server: names, events, broadcasts, keepalive, errors of the application, shutdown."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
import unittest
import warnings
from typing import Any
from unittest import mock

import sync_ws
from sync_ws import Client, ClientState, Connection, ConnectionClosed, Heartbeat, ModeCode, Server
from sync_ws.server.state import ServerState
from sync_ws.testing import FaultProxy, LedgerTestCase
from tests.support.raw import CLOSE, PING, TEXT, RawClient, frame, handshake, read_response
from tests.support.server_case import Events, ServerTestCase, echo, wait_until


class NamesTest(ServerTestCase):
    def test_replace_closes_the_old_one_with_4009(self) -> None:
        server = self.serve()
        old = self.client(server, "a")
        new = self.client(server, "a")
        self.assertEqual(old.read_close()[0], 4009)
        old.send_close(4009)
        self.assertEqual(old.read_to_end(), b"")
        wait_until(lambda: len(server.connections) == 1)
        new.send_text("still here")
        self.assertEqual(new.read_text(), "still here")
        self.assertEqual(list(server.clients), ["a"])

    def test_the_late_end_of_the_replaced_one_does_not_remove_the_new_one(self) -> None:
        released = self.gate()
        ended: list[Connection] = []

        def handler(connection: Connection) -> None:
            for message in connection:
                if message == "work":
                    released.wait(20)
            ended.append(connection)

        server = self.serve(handler)
        old = self.client(server, "a")
        old.send_text("work")
        first = server.clients["a"]
        self.client(server, "a")
        second = server.clients["a"]
        self.assertIsNot(first, second)
        old.close()
        released.set()
        wait_until(lambda: ended == [first] and server.stats()["threads"] == 1)
        self.assertIs(server.clients["a"], second)
        self.assertEqual(server.connections, {second})

    def test_a_replaced_one_that_does_not_answer_is_given_up(self) -> None:
        server, events = self.serve_events(close_timeout=0.2)
        self.client(server, "a")
        self.client(server, "a")
        ((connection, reason),) = events.wait("close")
        self.assertEqual((connection.name, reason.by_us), ("a", True))
        self.assertEqual(len(server.connections), 1)

    def test_many_of_one_name_at_once_leave_exactly_one(self) -> None:
        server = self.serve()
        clients = [self.raw(server) for _ in range(12)]
        for client in clients:
            client.send(handshake("/ws/?name=a"))
        for client in clients:
            client.data = read_response(client.sock).rest
        wait_until(lambda: server.stats()["opened"] == 12)
        # one by one they are told; the one that is not is the holder
        kept = []
        for client in clients:
            client.send_frame(PING)
            got = client.read_frame()
            if got.opcode == CLOSE:
                self.assertEqual(got.close[0], 4009)
                client.send_close(4009)
            else:
                kept.append(client)
        self.assertEqual(len(kept), 1)
        wait_until(lambda: len(server.connections) == 1)
        server.send_to("a", "you")
        self.assertEqual(kept[0].read_text(), "you")

    def test_two_reconnecting_clients_of_one_name_do_not_fight(self) -> None:
        server = self.serve()
        ends: list[Any] = []
        first, second = (Client(server.url + "?name=a", reconnect=0.01) for _ in range(2))
        first.on("close", ends.append)
        first.on("reconnecting", ends.append)
        with first:
            wait_until(lambda: server.clients)
            with second:
                wait_until(lambda: ends)
                wait_until(lambda: first.state is ClientState.CLOSED)
                self.assertEqual([(end.reason.code, end.reconnecting) for end in ends], [(4009, False)])
                second.send("mine")
                self.assertEqual(second.recv(5), "mine")
                self.assertEqual(server.stats()["opened"], 2)
                self.assertEqual(list(server.clients), ["a"])

    def test_reject_answers_409_and_frees_the_name_with_its_holder(self) -> None:
        server = self.serve(name_policy="reject")
        first = self.client(server, "a")
        with RawClient(server.port) as second:
            answer = second.request(handshake("/ws/?name=a"))
            self.assertEqual((answer.status, answer.line), (409, "expected a name that is not in use"))
        first.send_text("still here")
        self.assertEqual(first.read_text(), "still here")
        self.client(server, "b")
        first.finish()
        wait_until(lambda: "a" not in server.clients)
        self.client(server, "a")

    def test_the_name_is_free_though_the_handler_still_works(self) -> None:
        released = self.gate()
        server = self.serve(lambda connection: released.wait(20), name_policy="reject")
        self.client(server, "a").close()
        wait_until(lambda: not server.clients)
        self.client(server, "a")

    def test_allow_keeps_both_and_send_to_reaches_each(self) -> None:
        server = self.serve(name_policy="allow")
        clients = [self.client(server, "a"), self.client(server, "a")]
        self.assertEqual((len(server.connections), len(server.clients)), (2, 1))
        server.send_to("a", "both")
        self.assertEqual([client.read_text() for client in clients], ["both", "both"])

    def test_send_to_reaches_the_others_though_one_is_gone(self) -> None:
        server = self.serve(name_policy="allow", close_timeout=2)
        first, second = self.client(server, "a"), self.client(server, "a")
        old = next(conn for conn in server.connections if conn is not server.clients["a"])
        old.channel.start_close(1001, "")
        with self.assertRaises(ConnectionClosed):
            server.send_to("a", "both")
        self.assertEqual(second.read_text(), "both")
        self.assertEqual(first.read_close()[0], 1001)
        first.send_close(1001)

    def test_send_to_nobody_is_a_key_error(self) -> None:
        with self.assertRaisesRegex(KeyError, "nobody"):
            self.serve().send_to("nobody", "x")

    def test_clients_is_a_live_and_read_only_mapping(self) -> None:
        server = self.serve()
        self.client(server)
        client = self.client(server, "a")
        self.assertEqual([list(server.clients), len(server.clients), "b" in server.clients], [["a"], 1, False])
        self.assertFalse(hasattr(server.clients, "__setitem__") or hasattr(server.clients, "pop"))
        client.finish()
        wait_until(lambda: not server.clients)


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


class BroadcastTest(ServerTestCase):
    def test_everyone_gets_it_once(self) -> None:
        server = self.serve()
        clients = [self.client(server, name) for name in ("a", "b", None)]
        delivery = server.broadcast("grüße")
        self.assertEqual((delivery.taken, delivery.refused), (3, ()))
        server.broadcast(b"\x00")
        for client in clients:
            self.assertEqual(client.read_text(), "grüße")
            self.assertEqual(client.read_frame().payload, b"\x00")
        self.assertEqual(server.stats()["broadcasts"], 2)

    def test_to_some(self) -> None:
        server = self.serve()
        one, other = self.client(server, "one"), self.client(server, "other")
        self.assertEqual(server.broadcast("x", to=[server.clients["one"]]).taken, 1)
        server.broadcast("y")
        self.assertEqual((one.read_text(), one.read_text(), other.read_text()), ("x", "y", "y"))

    def test_to_nobody(self) -> None:
        self.assertEqual(self.serve().broadcast("x").taken, 0)

    def test_one_that_is_closing_refuses(self) -> None:
        server = self.serve()
        client = self.client(server)
        (connection,) = server.connections
        connection.channel.start_close(1000, "")
        self.assertEqual(server.broadcast("late").refused, (connection,))
        self.assertEqual(client.read_close()[0], 1000)
        client.send_close()

    def test_what_is_no_message_is_a_mistake(self) -> None:
        with self.assertRaises(TypeError):
            self.serve().broadcast(3)  # type: ignore[arg-type]


class AliveTest(ServerTestCase):
    """Who is dead is found; who is only slow or busy is not taken for dead."""

    def test_a_silent_client_is_pinged_and_stays_when_it_answers(self) -> None:
        server = self.serve(ping_interval=0.2, ping_timeout=5)
        client = self.client(server)
        for _ in range(2):
            self.assertEqual(client.read_frame().opcode, PING)
            client.send_frame(10)
        self.assertEqual(len(server.connections), 1)

    def test_a_client_that_answers_no_ping_is_removed(self) -> None:
        server, events = self.serve_events(ping_interval=0.2, ping_timeout=0.2)
        self.client(server, "dead")
        ((connection, reason),) = events.wait("close")
        self.assertEqual((connection.name, reason.code), ("dead", 1006))
        self.assertIn("sign of life", reason.text)
        self.assertEqual(dict(server.clients), {})

    def test_any_byte_is_a_sign_of_life(self) -> None:
        server = self.serve(ping_interval=0.3, ping_timeout=0.6)
        client = self.client(server)
        data = frame(TEXT, b"slow as can be")
        client.sock.settimeout(0.15)
        for at in range(9):
            client.send(data[at : at + 1])
            with self.subTest(at=at):
                try:
                    got = client.sock.recv(100)
                    self.assertNotEqual(got, b"", "it was given up")
                except TimeoutError:
                    pass
        self.assertEqual(len(server.connections), 1)

    def test_a_busy_handler_makes_no_client_look_dead(self) -> None:
        released = self.gate()
        server = self.serve(lambda connection: released.wait(20), ping_interval=0.3, ping_timeout=0.3)
        client = self.client(server)
        pinged = 0
        while pinged < 2:
            if client.read_frame().opcode == PING:
                client.send_frame(10)
                pinged += 1
        self.assertEqual(len(server.connections), 1)

    def test_a_handler_asleep_longer_than_the_clients_timeout_does_not_look_dead(self) -> None:
        awake = self.gate()

        def handler(connection: Connection) -> None:
            connection.recv()
            awake.wait(2.2)
            connection.send("awake")
            list(connection)

        server = self.serve(handler)
        ends: list[Any] = []
        clients = []
        for kind in ("message", "ping"):
            client = Client(server.url, heartbeat=Heartbeat(interval=0.2, timeout=1.5, kind=kind), reconnect=None)
            client.on("close", ends.append)
            clients.append(self.stack.enter_context(client))
            client.send("sleep")
        for client in clients:
            self.assertEqual(client.recv(10), "awake")
            self.assertIsNotNone(client.stats()["rtt"])
        self.assertEqual(ends, [])

    def test_a_proxy_that_swallows_one_direction_is_noticed_at_both_ends(self) -> None:
        server, events = self.serve_events(ping_interval=0.3, ping_timeout=0.3)
        for number, direction in enumerate(("to_server", "to_client"), 1):
            with FaultProxy("127.0.0.1", server.port) as proxy:
                client = Client(proxy.url("/ws/?name=a"), heartbeat=Heartbeat(0.2, 0.3), reconnect=None)
                ended = threading.Event()
                client.on("close", lambda event, ended=ended: ended.set())
                with client:
                    wait_until(lambda: "a" in server.clients)
                    getattr(proxy, direction).blackhole()
                    self.assertTrue(ended.wait(10), "the client did not notice")
                    events.wait("close", number)
                    self.assertEqual(dict(server.clients), {})
            self.assertEqual(server.connections, frozenset())


class LifeTest(ServerTestCase):
    def test_url_and_port(self) -> None:
        server = self.serve()
        self.assertEqual(server.url, f"ws://127.0.0.1:{server.port}/ws/")
        self.assertGreater(server.port, 0)
        everywhere = Server("0.0.0.0", path="/other")
        self.assertEqual(everywhere.url, f"ws://127.0.0.1:{everywhere.port}/other")
        everywhere.shutdown()

    def test_ipv6(self) -> None:
        try:
            server = Server("::1", 0, echo)
        except OSError as exc:
            self.skipTest(f"no IPv6 here: {exc}")
        with server.start():
            self.assertEqual(server.url, f"ws://[::1]:{server.port}/ws/")
            with Client(server.url) as client:
                client.send("six")
                self.assertEqual(client.recv(5), "six")
            (address,) = [server.host]
            self.assertEqual(address, "::1")

    def test_a_server_is_started_once(self) -> None:
        server = self.serve()
        self.assertRaises(RuntimeError, server.start)
        server.shutdown()
        self.assertRaises(RuntimeError, server.start)

    def test_a_server_never_started_gives_its_port_back(self) -> None:
        server = Server()
        self.assertEqual(server.shutdown(), ())
        with socket.create_server(("127.0.0.1", server.port)):
            pass

    def test_an_address_in_use_is_an_oserror(self) -> None:
        server = self.serve()
        with self.assertRaises(OSError):
            Server("127.0.0.1", server.port)

    def test_options_that_cannot_be_meant_are_mistakes(self) -> None:
        mistakes: list[dict[str, Any]] = [{"path": "ws"}, {"path": "/a?b"}, {"path": "/a#b"}, {"name_policy": "steal"}]
        for options in mistakes:
            with self.subTest(options=options), self.assertRaises(ValueError):
                Server(**options)
        with self.assertRaises(TypeError):
            Server(subprotocols="chat")

    def test_a_start_that_gets_no_thread_leaves_nothing(self) -> None:
        for name in ("-housekeeper", "-accept"):
            start = threading.Thread.start

            def failing(thread: threading.Thread, name: str = name, start: Any = start) -> None:
                if thread.name.endswith(name):
                    raise RuntimeError("can't start new thread")
                start(thread)

            server = Server()
            with mock.patch.object(threading.Thread, "start", failing):
                self.assertRaises(RuntimeError, server.start)
            with socket.create_server(("127.0.0.1", server.port)):
                pass
            self.assertEqual(server.shutdown(), ())

    def test_an_interrupt_while_it_starts_leaves_nothing(self) -> None:
        for name in ("-housekeeper", "-accept"):
            for late in (False, True):
                start = threading.Thread.start

                def interrupted(
                    thread: threading.Thread, name: str = name, late: bool = late, start: Any = start
                ) -> None:
                    if late or not thread.name.endswith(name):
                        start(thread)
                    if thread.name.endswith(name):
                        raise KeyboardInterrupt

                server = Server()
                with mock.patch.object(threading.Thread, "start", interrupted):
                    self.assertRaises(KeyboardInterrupt, server.serve_forever)
                with socket.create_server(("127.0.0.1", server.port)):
                    pass

    def test_a_shutdown_while_it_starts_ends_what_was_started(self) -> None:
        for name in ("-housekeeper", "-accept"):
            for late in (False, True):
                server = Server()
                start = threading.Thread.start

                def stopping(
                    thread: threading.Thread,
                    server: Server = server,
                    name: str = name,
                    late: bool = late,
                    start: Any = start,
                ) -> None:
                    if late:
                        start(thread)
                    if thread.name.endswith(name):
                        server.shutdown()
                    if not late:
                        start(thread)

                with mock.patch.object(threading.Thread, "start", stopping):
                    server.serve_forever()
                with socket.create_server(("127.0.0.1", server.port)):
                    pass

    def test_serve_forever_starts_and_returns_after_shutdown(self) -> None:
        with Server("127.0.0.1", 0, echo) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            wait_until(lambda: server._state is ServerState.RUNNING)
            with Client(server.url) as client:
                client.send("x")
                self.assertEqual(client.recv(5), "x")
            self.assertTrue(thread.is_alive())
            server.shutdown()
            thread.join(5)
            self.assertFalse(thread.is_alive())
            server.serve_forever()

    def test_one_interrupt_ends_serve_forever(self) -> None:
        with Server("127.0.0.1", 0, echo) as server:

            def interrupt() -> None:
                wait_until(lambda: server._state is ServerState.RUNNING)
                os.kill(os.getpid(), signal.SIGINT)

            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
            with self.assertRaises(KeyboardInterrupt):
                server.serve_forever()
            interrupter.join()
            with self.assertRaises(ConnectionRefusedError):
                RawClient(server.port)

    def test_stats(self) -> None:
        server = self.serve()
        self.client(server, "a").send_text("x")
        self.client(server)
        with RawClient(server.port) as refused:
            refused.request(handshake("/nowhere"))
        silent = self.raw(server)
        wait_until(lambda: server.stats()["refused"] == 1 and server.stats()["accepted"] == 4)
        self.assertEqual(server.stats()["handshakes"], 1)
        stats = server.stats()
        self.assertEqual((stats["opened"], stats["refused"], stats["connections"], stats["clients"]), (2, 1, 2, 1))
        silent.close()


class ShutdownTest(ServerTestCase):
    def test_everyone_gets_1001_and_nothing_is_left(self) -> None:
        server = self.serve(ping_interval=None)
        clients = [self.client(server, name) for name in ("a", "b", None)]
        left: list[Any] = []
        thread = threading.Thread(target=lambda: left.append(server.shutdown()))
        thread.start()
        for client in clients:
            self.assertEqual(client.read_close()[0], 1001)
            client.send_close(1001)
            self.assertEqual(client.read_to_end(), b"")
        thread.join(10)
        self.assertEqual(left, [()])
        self.assertEqual(server.connections, frozenset())
        with self.assertRaises(ConnectionRefusedError):
            RawClient(server.port)
        self.assertEqual(server.shutdown(), ())

    def test_a_client_that_does_not_answer_is_cut_at_the_timeout(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        started = time.monotonic()
        self.assertEqual(server.shutdown(0.1), ())
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(events.of("close")[0][1].code, 1001)
        self.assertEqual(client.read_close()[0], 1001)

    def test_threads_that_do_not_end_are_returned(self) -> None:
        released = self.gate()
        server = self.serve(lambda connection: released.wait(20))
        self.client(server, "a")
        (thread,) = server.shutdown(0.1)
        self.assertTrue(thread.is_alive())
        self.assertTrue(thread.daemon)
        self.assertEqual(dict(server.clients), {})
        released.set()
        thread.join(5)
        self.assertFalse(thread.is_alive())
        self.assertEqual(server.shutdown(), ())

    def test_shutdown_from_a_handler_does_not_wait_for_itself(self) -> None:
        results: list[Any] = []

        def handler(connection: Connection) -> None:
            connection.recv()
            results.append(server.shutdown(3))

        server = self.serve(handler)
        other, client = self.client(server), self.client(server)

        def answer() -> None:
            other.read_close()
            other.send_close(1001)

        closer = threading.Thread(target=answer)
        closer.start()
        client.send_text("stop")
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        wait_until(lambda: results == [()])
        closer.join()

    def test_shutdown_from_an_event_function_does_not_deadlock(self) -> None:
        server, events = self.serve_events()
        server.on("message", lambda connection, message: events.log.append(("left", server.shutdown(1))))
        client = self.client(server)
        client.send_text("stop")
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        self.assertEqual(events.wait("left"), [((),)])
        self.assertEqual(len(events.wait("close")), 1)

    def test_pending_handshakes_do_not_hold_it_up(self) -> None:
        server = self.serve()
        silent = [self.raw(server) for _ in range(3)]
        silent[0].send(b"GET /ws/ HT")
        wait_until(lambda: server.stats()["handshakes"] == 3)
        started = time.monotonic()
        self.assertEqual(server.shutdown(), ())
        self.assertLess(time.monotonic() - started, 4)
        for client in silent:
            client.read_to_end()
        self.assertEqual(self.log.tracebacks, [])

    def test_without_time_it_still_ends_everything(self) -> None:
        server = self.serve()
        client = self.client(server)
        server.shutdown(0)
        self.assertEqual(client.read_close()[0], 1001)
        wait_until(lambda: server.stats()["threads"] == 0)

    def test_clients_that_come_during_it_are_turned_away(self) -> None:
        server = self.serve()
        answers: list[str] = []
        stop = threading.Event()

        def dial() -> None:
            while not stop.is_set():
                try:
                    with RawClient(server.port) as client:
                        client.send(handshake())
                        client.data = read_response(client.sock).rest
                        answers.append(f"close {client.read_close()[0]}" if client.data or client else "")
                        client.send_close(1001)
                except ConnectionRefusedError:
                    answers.append("refused")
                    return
                except (OSError, ConnectionError, AssertionError) as exc:
                    answers.append(type(exc).__name__)

        dialler = threading.Thread(target=dial)
        dialler.start()
        wait_until(lambda: server.stats()["accepted"])
        self.assertEqual(server.shutdown(), ())
        dialler.join(10)
        stop.set()
        self.assertEqual(answers[-1], "refused")
        self.assertEqual(server.connections, frozenset())


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(ServerTestCase):
    def test_a_fork_has_no_part_in_connections_and_does_not_hold_the_port(self) -> None:
        server = self.serve(ping_interval=0.2, ping_timeout=5)
        client = self.client(server, "a")
        connection = server.clients["a"]
        said, say = os.pipe()
        stay, end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads is the point
            child = os.fork()
        if child == 0:
            os.close(end)
            self._in_child(server, connection, say, stay)
        for fd in (say, stay):
            os.close(fd)
        try:
            self.assertEqual(os.read(said, 100), b"closed")
            self.assertEqual(client.read_frame().opcode, PING)
            client.send_frame(10)
            client.send_text("alive")
            got = client.read_frame()
            while got.opcode == PING:
                got = client.read_frame()
            self.assertEqual(got.payload, b"alive")
            self.assertEqual(len(server.connections), 1)
            server.shutdown(0.1)
            with self.assertRaises(ConnectionRefusedError):
                RawClient(server.port)
            client.read_to_end()
        finally:
            os.close(end)
            os.close(said)
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def _in_child(self, server: Server, connection: Connection, say: int, stay: int) -> None:
        """Report what a fork can do with the server, and stay until the parent has seen what that does to it."""
        status = 1
        try:
            try:
                connection.send("from the child")
                answer = "sent"
            except ConnectionClosed:
                answer = "closed"
            os.write(say, answer.encode())
            poller = select.poll()
            poller.register(stay, select.POLLHUP)
            poller.poll(20_000)
            status = 0 if server.shutdown() == () else 2
        finally:
            os._exit(status)


class EndOfTheTestsTest(LedgerTestCase):
    def test_a_server_leaves_nothing_behind(self) -> None:
        for _ in range(3):
            with Server("127.0.0.1", 0, echo).start() as server, RawClient(server.port) as client:
                client.upgrade().send_text("x")
                client.read_text()
                client.finish()
