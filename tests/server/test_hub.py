"""A hub without a server: guests from socket pairs and from an http.server, names, events, shutdown, forks."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
import unittest
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from unittest import mock
from urllib.parse import parse_qsl

from sync_ws import Client, Close, CloseCode, Connection, ConnectionClosed, Headers, Hub, Reason, Refusal, Request
from sync_ws.channel.channel import Channel
from sync_ws.protocol.frames import encode_frame
from sync_ws.protocol.handshake import Policy, answer, check
from sync_ws.server.hub import Delivery
from sync_ws.server.state import Life, ServerState
from sync_ws.testing import ResourceLedger, wait_until
from sync_ws.timing import Deadline
from tests.support.hub_case import REQUEST, HubTestCase, housekeepers
from tests.support.raw import PING, PONG, RawClient, handshake
from tests.support.server_case import Events, echo
from tests.support.wire import fork, join


class GuestTest(HubTestCase):
    def test_the_handler_converses_in_the_callers_thread_to_the_last_byte(self) -> None:
        threads: list[int] = []

        def handler(connection: Connection) -> None:
            threads.append(threading.get_ident())
            echo(connection)

        hub = self.hub(handler)
        connection, client = self.connect(hub, hub.admit("a"))
        client.send_text("hello")
        client.send_close(4000)
        hub.run(connection)
        self.assertEqual(threads, [threading.get_ident()])
        self.assertEqual((client.read_text(), client.read_close()), ("hello", (4000, "")))
        self.assertEqual(client.read_to_end(), b"")
        self.assertEqual((connection.name, connection.request), ("a", REQUEST))
        self.assertEqual((dict(hub.clients), hub.connections, hub.stats()["opened"]), ({}, frozenset(), 1))

    def test_events_come_in_order_in_the_callers_thread(self) -> None:
        hub = self.hub(None)
        events = Events(hub)
        connection, client = self.connect(hub, hub.admit())
        client.send_text("one")
        client.send_text('{"ModeCode":"heart_beat","msg":"1"}')
        client.send_text("two")
        client.send_close(1000)
        hub.run(connection)
        self.assertEqual([entry[0] for entry in events.log], ["open", "message", "heartbeat", "message", "close"])
        self.assertEqual([args[1] for args in events.of("message")], ["one", "two"])
        self.assertEqual(events.threads, {connection: {threading.get_ident()}})

    def test_a_caller_without_a_thread_for_each_does_it_in_parts(self) -> None:
        hub = self.hub(None)
        events = Events(hub)
        hub.on("message", lambda connection, message: connection.send(message.upper()))
        pairs = [self.connect(hub, hub.admit(name)) for name in ("a", "b")]
        for connection, _ in pairs:
            hub.opened(connection)
        self.assertEqual(dict(hub.clients), {"a": pairs[0][0], "b": pairs[1][0]})
        for _ in range(2):
            for connection, client in pairs:
                client.send_text(f"to {connection.name}")
                hub.message(connection, connection.recv(5))
                self.assertEqual(client.read_text(), f"TO {str(connection.name).upper()}")
        for connection, client in pairs:
            client.send_close(1000)
            self.assertRaises(ConnectionClosed, connection.recv, 5)
            hub.ended(connection)
            self.assertEqual(client.read_close()[0], 1000)
        self.assertEqual([args[0].name for args in events.of("close")], ["a", "b"])
        self.assertEqual((dict(hub.clients), hub.connections), ({}, frozenset()))

    def test_off_takes_a_subscription_back_and_unknown_events_are_mistakes(self) -> None:
        hub = self.hub(None)
        function = hub.on("message", mock.Mock())
        self.assertTrue(hub.off("message", function))
        self.assertFalse(hub.off("message", function))
        self.assertRaises(ValueError, hub.on, "mesage", function)

    def test_what_a_handler_raises_is_told_and_closes_with_1011(self) -> None:
        hub = self.hub(mock.Mock(side_effect=RuntimeError("oh no")))
        events = Events(hub)
        client = self.guest(hub)
        self.assertEqual(client.read_close()[0], 1011)
        client.send_close(1011)
        self.assertEqual(str(events.wait("error")[0][1]), "oh no")
        self.assertEqual(len(self.log.tracebacks), 1)

    def test_an_interrupt_ends_the_connection_and_goes_on_to_the_caller(self) -> None:
        for interrupted in ("the handler", "the closing too"):
            with self.subTest(interrupted):
                hub = self.hub(mock.Mock(side_effect=KeyboardInterrupt), close_timeout=0.2)
                events = Events(hub)
                connection, client = self.connect(hub, hub.admit())
                closing = mock.patch.object(Channel, "close", side_effect=KeyboardInterrupt)
                with closing if interrupted != "the handler" else contextlib.nullcontext():
                    self.assertRaises(KeyboardInterrupt, hub.run, connection)
                client.read_to_end()
                self.assertEqual((hub.connections, hub.shutdown(0)), (frozenset(), ()))
                self.assertEqual(events.of("close"), [(connection, connection.close_reason)])
                self.assertIsInstance(connection.close_reason, Reason)
                if interrupted != "the handler":
                    reason = Reason("interrupted while closing", CloseCode.ABNORMAL, by_us=True)
                    self.assertEqual(connection.close_reason, reason)

    def test_a_connection_that_cannot_be_made_gives_its_place_back(self) -> None:
        hub = self.hub(max_connections=1)
        ours, _ = self.pair()
        ours.close()
        self.assertRaises(OSError, hub.connect, hub.admit("a"), ours, REQUEST)
        self.guest(hub, "a").finish()


class NamesTest(HubTestCase):
    def test_a_second_one_of_a_name_takes_over(self) -> None:
        hub = self.hub()
        old, new = self.guest(hub, "a"), self.guest(hub, "a")
        self.assertEqual(old.read_close()[0], 4009)
        old.send_close(4009)
        hub.send_to("a", "mine")
        self.assertEqual(new.read_text(), "mine")
        self.assertRaises(KeyError, hub.send_to, "b", "x")

    def test_a_taken_name_is_a_refusal_to_answer_with(self) -> None:
        hub = self.hub(name_policy="reject")
        claim = hub.admit("a")
        with self.assertRaises(Refusal) as caught:
            hub.admit("a")
        self.assertEqual((caught.exception.status, caught.exception.headers), (409, {}))
        hub.withdraw(claim)
        self.guest(hub, "a")

    def test_a_full_hub_is_a_refusal_that_says_when_to_come_again(self) -> None:
        hub = self.hub(max_connections=1)
        claim = hub.admit()
        with self.assertRaises(Refusal) as caught:
            hub.admit("a")
        self.assertEqual((caught.exception.status, caught.exception.headers), (503, {"Retry-After": "5"}))
        self.assertEqual(self.log.lines, [])  # whose guest it was says so
        hub.withdraw(claim)
        hub.withdraw(claim)
        self.guest(hub)


class BroadcastTest(HubTestCase):
    def test_what_came_of_it_is_a_fact(self) -> None:
        delivery = self.hub().broadcast("to nobody")
        self.assertEqual(delivery, Delivery(0))
        with self.assertRaises(FrozenInstanceError):
            delivery.taken = 1  # type: ignore[misc]

    def test_everyone_gets_it_and_it_is_encoded_once(self) -> None:
        hub = self.hub()
        clients = [self.guest(hub, name) for name in ("a", "b", None)]
        with mock.patch("sync_ws.server.hub.encode_frame", wraps=encode_frame) as encode:
            delivery = hub.broadcast("grüße")
        self.assertEqual((delivery.taken, delivery.refused, encode.call_count), (3, (), 1))
        self.assertEqual([client.read_text() for client in clients], ["grüße"] * 3)

    def test_where_nobody_wants_to_see_each_frame_that_one_encoding_is_what_all_get(self) -> None:
        logging.getLogger("sync_ws").setLevel(logging.INFO)
        hub = self.hub()
        clients = [self.guest(hub) for _ in range(2)]
        with mock.patch("sync_ws.channel.writer.encode_frame", side_effect=AssertionError("encoded again")):
            self.assertEqual(hub.broadcast("grüße").taken, 2)
        self.assertEqual([client.read_text() for client in clients], ["grüße"] * 2)

    def test_to_some_and_those_that_are_closing_refuse(self) -> None:
        hub = self.hub()
        self.guest(hub, "a")
        client = self.guest(hub, "b")
        one, other = hub.clients["a"], hub.clients["b"]
        one.channel.start_close(1000, "")
        delivery = hub.broadcast("x", to=[one, other])
        self.assertEqual((delivery.taken, delivery.refused), (1, (one,)))
        self.assertEqual(client.read_text(), "x")
        self.assertEqual((hub.stats()["broadcasts"], hub.stats()["broadcasts_refused"]), (1, 1))


class LifeTest(HubTestCase):
    def test_nothing_runs_and_nothing_is_open_before_the_first_guest(self) -> None:
        ledger = ResourceLedger()
        hub = self.hub(name="mine")
        hub.on("open", mock.Mock())
        self.assertEqual((hub.broadcast("x").taken, dict(hub.clients), hub.stats()["connections"]), (0, {}, 0))
        ledger.check(0)
        hub.withdraw(hub.admit())
        self.assertEqual(housekeepers(), ["mine-housekeeper"])
        self.guest(hub)
        self.assertEqual(housekeepers(), ["mine-housekeeper"])

    def test_guests_that_come_at_once_make_one_housekeeper(self) -> None:
        hub = self.hub()
        start = threading.Barrier(8)

        def come() -> None:
            start.wait(10)
            hub.withdraw(hub.admit())

        join(*[self.spawn(come) for _ in range(8)])
        wait_until(lambda: len(housekeepers()) == 1)

    def test_without_a_thread_for_the_housekeeper_the_guest_is_refused_and_the_next_one_gets_in(self) -> None:
        hub = self.hub()
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            with self.assertRaises(Refusal) as caught:
                hub.admit("a")
            self.assertRaises(RuntimeError, hub.start)
        self.assertEqual((caught.exception.status, caught.exception.headers), (503, {"Retry-After": "5"}))
        (line,) = [line for line in self.log.lines if "WARNING" in line]
        self.assertIn("no thread or pipe to look after connections: can't start new thread", line)
        self.guest(hub, "a")

    def test_a_silent_guest_is_pinged(self) -> None:
        client = self.guest(self.hub(ping_interval=0.2))
        self.assertEqual(client.read_frame().opcode, PING)
        client.send_frame(PONG)

    def test_shutdown_says_goodbye_to_everyone(self) -> None:
        hub = self.hub()
        clients = [self.guest(hub), self.guest(hub, "a")]
        left: list[Any] = []
        stopping = self.spawn(lambda: left.append(hub.shutdown()))
        for client in clients:
            self.assertEqual(client.read_close()[0], 1001)
            client.send_close(1001)
            self.assertEqual(client.read_to_end(), b"")
        join(stopping)
        self.assertEqual((left, hub.connections, housekeepers()), ([()], frozenset(), []))
        self.assertEqual(hub.shutdown(), ())

    def test_a_guest_that_does_not_answer_is_cut_off(self) -> None:
        hub = self.hub()
        events = Events(hub)
        client = self.guest(hub)
        self.assertEqual(hub.shutdown(0.1), ())
        self.assertEqual(client.read_close()[0], 1001)
        ((_, reason),) = events.of("close")
        self.assertEqual((reason.code, reason.by_us), (1001, True))

    @mock.patch("sync_ws.server.hub.GRACE", 0.1)
    def test_a_handler_that_does_not_return_is_in_the_result(self) -> None:
        released = threading.Event()
        self.addCleanup(released.set)
        hub = self.hub(lambda connection: released.wait(20))
        self.guest(hub, "a")
        connection = hub.clients["a"]
        self.assertEqual(hub.shutdown(0.1), (connection,))
        released.set()
        self.assertEqual(hub.shutdown(5), ())

    def test_shutdown_from_a_handler_does_not_wait_for_itself(self) -> None:
        results: list[Any] = []

        def handler(connection: Connection) -> None:
            connection.recv(10)
            results.append(hub.shutdown(3))

        hub = self.hub(handler)
        client = self.guest(hub)
        client.send_text("stop")
        self.assertEqual(client.read_close()[0], 1001)
        self.assertEqual(client.read_to_end(), b"")
        wait_until(lambda: results == [()])

    def test_it_waits_until_the_deadline_and_then_for_less_than_a_second(self) -> None:
        hub = self.hub()
        waits: list[Deadline] = []
        deadline = Deadline(3)
        hub.end_all(deadline, waits.append)
        first, last = waits
        self.assertIs(first, deadline)
        remaining = last.remaining()
        assert remaining is not None
        self.assertTrue(0 < 2 * remaining < 1, remaining)  # once for the guests, once for the housekeeper

    def test_it_has_five_seconds_unless_it_is_told_otherwise(self) -> None:
        hub = self.hub()
        for arguments, seconds in (((), 5.0), ((20,), 20.0)):
            with mock.patch.object(hub, "end_all") as end_all:
                hub.shutdown(*arguments)
            self.assertAlmostEqual(end_all.call_args[0][0].remaining(), seconds, delta=0.9)

    def test_a_signals_handler_that_shuts_down_in_the_midst_of_the_start_leaves_no_housekeeper(self) -> None:
        """Wherever the start looks where it is, the handler may come right behind it."""
        for number in (1, 2, 3):
            hub = self.hub()

            class Interrupted(Life):
                looks = 0

                @property
                def state(self, hub: Hub = hub, number: int = number) -> ServerState:
                    seen = super().state
                    self.looks += 1
                    if self.looks == number:
                        hub.shutdown(0)
                    return seen

            hub._life = life = Interrupted()
            with self.subTest(number=number):
                hub.start()
                wait_until(lambda: housekeepers() == [])
                self.assertIs(hub._state, ServerState.STOPPED)
                self.assertGreaterEqual(life.looks, number)

    def test_nobody_is_admitted_after_it(self) -> None:
        hub = self.hub(name_policy="reject", max_connections=2)
        hub.shutdown()
        for _ in range(3):  # and whoever is not leaves no trace
            with self.assertRaises(Refusal) as caught:
                hub.admit("a")
            self.assertEqual(caught.exception.status, 503)
            self.assertIn("shutting down", caught.exception.text)
        self.assertEqual(housekeepers(), [])

    def test_it_waits_for_a_guest_that_the_same_thread_has_brought_in_for_another_one(self) -> None:
        hub = self.hub()
        connection, client = self.connect(hub, hub.admit())
        said: list[Any] = []

        def run() -> None:
            wait_until(lambda: hub._state not in (ServerState.NEW, ServerState.RUNNING))
            hub.run(connection)

        def answer() -> None:
            said.append(client.read_close())
            client.send_close(1001)

        threads = self.spawn(run), self.spawn(answer)
        self.assertEqual(hub.shutdown(20), ())
        self.assertEqual(connection.channel.close_frames[1], Close(1001, ""))
        join(*threads)
        self.assertEqual(said, [(1001, "the server is shutting down")])

    @mock.patch("sync_ws.interrupts.STEP", 60.0)  # nobody looks again who is not woken
    def test_it_waits_for_a_guest_that_is_being_answered(self) -> None:
        hub = self.hub()
        claim = hub.admit("a")
        stopping = self.spawn(lambda: hub.shutdown(20))
        wait_until(lambda: hub._state is ServerState.STOPPING)
        self.assertTrue(stopping.is_alive())
        connection, client = self.connect(hub, claim)
        client.send_close(1001)
        hub.run(connection)
        self.assertEqual(client.read_close()[0], 1001)
        join(stopping)
        other = self.hub()
        claim = other.admit()
        stopping = self.spawn(lambda: other.shutdown(20))
        wait_until(lambda: other._state is ServerState.STOPPING)
        other.withdraw(claim)
        join(stopping)

    def test_who_comes_too_late_is_cut_off(self) -> None:
        """Nobody would look after a peer that does not answer."""
        hub = self.hub()
        events = Events(hub)
        claim = hub.admit("a")
        self.assertEqual(hub.shutdown(0), ())
        connection, client = self.connect(hub, claim)
        hub.run(connection)
        client.read_to_end()
        self.assertEqual([entry[0] for entry in events.log], ["open", "close"])
        self.assertEqual((connection.close_reason.code, hub.connections), (1001, frozenset()))


class Door(BaseHTTPRequestHandler):
    """Another one's HTTP server: it hands over what asks for a WebSocket."""

    hub: Hub

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request("GET", path, dict(parse_qsl(query)), Headers(self.headers.items()), self.client_address)
        try:
            accepted = check(request, Policy(path="/chat", subprotocols=("talk",)))
            claim = self.hub.admit(accepted.name)
        except Refusal as refusal:
            self.send_error(refusal.status, refusal.text)
            return
        self.wfile.write(answer(accepted))
        self.hub.run(self.hub.connect(claim, self.connection, request, agreed=accepted.agreed))

    def log_message(self, format: str, *args: Any) -> None:
        """Not on standard error."""


class DoorTest(HubTestCase):
    @contextlib.contextmanager
    def door(self, hub: Hub) -> Iterator[int]:
        with ThreadingHTTPServer(("127.0.0.1", 0), type("DoorOfOne", (Door,), {"hub": hub})) as httpd:
            serving = self.spawn(lambda: httpd.serve_forever(0.01))
            try:
                yield httpd.server_port
            finally:
                httpd.shutdown()
                join(serving)
                hub.shutdown()

    def test_an_http_servers_handler_hands_its_socket_over(self) -> None:
        hub = self.hub(name_policy="reject")
        with self.door(hub) as port, Client(f"ws://127.0.0.1:{port}/chat?name=a", subprotocols=["talk"]) as client:
            client.send("through the door")
            self.assertEqual(client.recv(5), "through the door")
            self.assertEqual((hub.clients["a"].request.path, hub.clients["a"].subprotocol), ("/chat", "talk"))
            for path, status in (("/chat?name=a", 409), ("/elsewhere", 404)):
                with RawClient(port) as second:
                    self.assertEqual(second.request(handshake(path)).status, status)
            hub.broadcast("to all")
            self.assertEqual(client.recv(5), "to all")
            self.assertEqual(housekeepers()[:1], ["sync_ws-hub-housekeeper"])

    def test_its_clients_come_back_when_the_hub_is_another_one(self) -> None:
        """1001 is an end that leads to a reconnect."""
        old, new = self.hub(), self.hub()
        ends: list[Any] = []
        with self.door(old) as port:
            client = Client(f"ws://127.0.0.1:{port}/chat", reconnect=0.01)
            client.on("reconnecting", lambda event: ends.append(event.reason.code))
            with client, mock.patch.object(Door, "hub", new, create=True):
                self.assertEqual(old.shutdown(), ())
                wait_until(lambda: ends)
        self.assertEqual(ends[0], 1001)


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(HubTestCase):
    def in_child(self, function: Callable[[], bytes]) -> bytes:
        """What ``function`` gives in a forked process; it has ten seconds."""
        reading, writing = os.pipe()
        child = fork()
        if child == 0:
            try:
                signal.alarm(10)
                os.write(writing, function())
            finally:
                os._exit(0)
        os.close(writing)
        try:
            said = os.read(reading, 1000)
        finally:
            os.close(reading)
            os.waitpid(child, 0)
        return said

    def test_a_hub_without_guests_begins_in_the_child(self) -> None:
        hub = self.hub()
        ours, client = self.pair()

        def work() -> bytes:
            hub.run(hub.connect(hub.admit("a"), ours, REQUEST))
            return b"%d guests, %d left" % (hub.stats()["opened"], len(hub.shutdown()))

        client.send_text("x")
        client.send_close()
        self.assertEqual(self.in_child(work), b"1 guests, 0 left")
        ours.close()
        self.assertEqual((client.read_text(), client.read_close()[0]), ("x", 1000))
        self.assertEqual(hub.stats()["opened"], 0)
        self.guest(hub, "a")

    def test_a_copy_of_a_running_hub_is_stopped_and_empty_and_the_original_goes_on(self) -> None:
        hub = self.hub(ping_interval=None)
        client = self.guest(hub, "a")

        def look() -> bytes:
            try:
                hub.admit()
            except Refusal as refusal:
                status = refusal.status
            return repr((dict(hub.clients), hub.connections, hub.broadcast("x").taken, status, hub.shutdown())).encode()

        self.assertEqual(self.in_child(look), repr(({}, frozenset(), 0, 503, ())).encode())
        client.send_text("still here")
        self.assertEqual(client.read_text(), "still here")
        self.assertEqual(list(hub.clients), ["a"])
        self.assertEqual(select.select([client.sock], [], [], 0)[0], [])

    def test_a_handler_that_forks_and_returns_in_the_child_says_and_does_nothing_there(self) -> None:
        children: list[int] = []
        status: list[int] = []

        def forking(connection: Connection) -> None:
            for message in connection:
                children.append(fork())
                if children[-1]:
                    status.append(os.waitpid(children[-1], 0)[1])
                    connection.send(message)

        def run() -> None:
            ended = "nothing"
            try:
                hub.run(hub.connect(hub.admit("a"), ours, REQUEST))
            except BaseException as exc:
                ended = repr(exc)
            if children[-1] == 0:
                os._exit(0 if ended == "nothing" and told == [] else 1)

        hub = self.hub(forking)
        told: list[object] = []
        hub.on("close", lambda *args: told.append(args))
        ours, client = self.pair()
        runner = self.spawn(run)
        client.send_text("x")
        self.assertEqual(client.read_text(), "x")
        client.send_close()
        self.assertEqual(client.read_close()[0], 1000)
        join(runner)
        self.assertEqual((status, len(told)), ([0], 1))

    def test_a_fork_while_it_ends_says_and_does_nothing_in_the_child_either(self) -> None:
        def forking(*args: object) -> None:
            children.append(fork())

        closing = Channel.close

        def close(channel: Channel) -> None:
            forking()
            closing(channel)

        for place in ("a function for close", "closing"):
            with self.subTest(place):
                children: list[int] = []
                ended = "nothing"
                hub = self.hub(lambda connection: connection.send("done"))
                connection, client = self.connect(hub, hub.admit())
                client.send_close()
                patch = mock.patch.object(Channel, "close", close) if place == "closing" else contextlib.nullcontext()
                if place != "closing":
                    hub.on("close", forking)
                with patch:
                    try:
                        hub.run(connection)
                    except BaseException as exc:
                        ended = repr(exc)
                if children == [0]:
                    os._exit(0 if ended == "nothing" else 1)
                (child,) = children
                self.assertEqual((os.waitpid(child, 0)[1], ended), (0, "nothing"))
                self.assertEqual((client.read_text(), client.read_close()[0]), ("done", 1000))
                self.assertEqual(client.read_to_end(), b"")

    def test_a_lock_that_another_thread_held_at_the_fork_holds_nobody_up(self) -> None:
        hubs = [self.hub(), self.hub()]
        self.guest(hubs[1])
        held, release = threading.Event(), threading.Event()

        def hold() -> None:
            with contextlib.ExitStack() as stack:
                for hub in hubs:
                    stack.enter_context(hub._lock)
                    stack.enter_context(hub._registry._lock)
                held.set()
                release.wait(20)

        holder = self.spawn(hold)
        self.assertTrue(held.wait(10))

        def use() -> bytes:
            return repr([(list(hub.clients), hub.stats()["connections"], hub.shutdown()) for hub in hubs]).encode()

        try:
            self.assertEqual(self.in_child(use), repr([([], 0, ())] * 2).encode())
        finally:
            release.set()
            join(holder)
