"""Whom a message reaches: names and takeovers, broadcasts."""

from __future__ import annotations

from typing import Any

from sync_ws import Client, ClientState, Connection, ConnectionClosed
from tests.support.raw import CLOSE, PING, RawClient, handshake, read_response
from tests.support.server_case import ServerTestCase, wait_until


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
        (connection,) = wait_until(lambda: server.connections)
        connection.channel.start_close(1000, "")
        self.assertEqual(server.broadcast("late").refused, (connection,))
        self.assertEqual(client.read_close()[0], 1000)
        client.send_close()

    def test_what_is_no_message_is_a_mistake(self) -> None:
        with self.assertRaises(TypeError):
            self.serve().broadcast(3)  # type: ignore[arg-type]
