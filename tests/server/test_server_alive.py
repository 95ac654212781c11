"""Who is dead is found; who is only slow or busy is not taken for dead."""

from __future__ import annotations

import threading
from typing import Any

from sync_ws import Client, Connection, Heartbeat
from sync_ws.testing import FaultProxy
from tests.support.raw import PING, TEXT, frame
from tests.support.server_case import ServerTestCase, wait_until


class AliveTest(ServerTestCase):
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
        server = self.serve(lambda connection: released.wait(20), ping_interval=0.2, ping_timeout=0.3)
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
            awake.wait(1.5)
            connection.send("awake")
            list(connection)

        server = self.serve(handler)
        ends: list[Any] = []
        clients = []
        for kind in ("message", "ping"):
            client = Client(server.url, heartbeat=Heartbeat(interval=0.1, timeout=1.0, kind=kind), reconnect=None)
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
