"""The server under load and with bad peers among good ones: nothing corrupt, nobody stalled, nothing left."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import tempfile
import threading
import time
import zlib
from typing import Any

from sync_ws import Client, Connection, ConnectionClosed, Heartbeat, SendTimeout, Server
from sync_ws.channel.housekeeper import TICK
from sync_ws.testing import FaultProxy, make_certificates, wait_until
from tests.support.raw import PING, PONG, TEXT, Frame, RawClient, handshake, read_response
from tests.support.server_case import Events, ServerTestCase, echo

THREADS, SENDS = 8, 50
FILLER = random.Random(1).randbytes(10_000).hex()  # deflate makes half of it, not nothing
SMALL_BUFFER = 4096  # bytes asked of the kernel for SO_SNDBUF or SO_RCVBUF


def connection_of(server: Server, name: str) -> Connection:
    wait_until(lambda: name in server.clients, message=f"{name} never came")
    return server.clients[name]


class ManySendersTest(ServerTestCase):
    """8 threads send on one connection with a small send buffer while Pings are under way."""

    def flood(self, server: Server, client: RawClient, inflate: bool = False) -> None:
        connection = connection_of(server, "a")
        with socket.socket(fileno=os.dup(connection.channel.fileno())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        failures: list[BaseException] = []

        def sender(number: int) -> None:
            rng = random.Random(number)
            try:
                for count in range(SENDS):
                    filler = FILLER[: rng.choice((0, 10, 200, 3000, 20_000))]
                    connection.send(json.dumps([number, count, filler]))
            except BaseException as exc:
                failures.append(exc)

        senders = [threading.Thread(target=sender, args=(number,)) for number in range(THREADS)]
        for thread in senders:
            thread.start()
        inflater = zlib.decompressobj(-15)
        counts, pings, pongs = [0] * THREADS, 0, 0
        while sum(counts) < THREADS * SENDS or pongs < pings:
            if pings < 40 and pings == pongs:
                client.send_frame(PING, b"%d" % pings)
                pings += 1
            got = client.read_frame()
            if got.opcode == PONG:
                self.assertEqual(got.payload, b"%d" % pongs)
                pongs += 1
                continue
            number, count, filler = json.loads(self.text(got, inflater, inflate))
            self.assertEqual(count, counts[number], "order within a thread")
            self.assertEqual(filler, FILLER[: len(filler)])
            counts[number] += 1
        for thread in senders:
            thread.join(10)
        self.assertEqual((failures, counts), ([], [SENDS] * THREADS))
        self.assertEqual(client.finish()[0], 1000)

    def text(self, got: Frame, inflater: Any, inflate: bool) -> bytes:
        if inflate and got.first == 0xC1:
            return bytes(inflater.decompress(got.payload + b"\0\0\xff\xff"))
        self.assertEqual(got.first, 0x80 | TEXT)
        return got.payload

    def test_plain(self) -> None:
        server = self.serve()
        self.flood(server, self.raw(server).upgrade("/ws/?name=a"))

    def test_compressed(self) -> None:
        server = self.serve(compression=True)
        client = self.raw(server).upgrade("/ws/?name=a", "Sec-WebSocket-Extensions: permessage-deflate")
        self.flood(server, client, inflate=True)

    def test_over_tls(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = make_certificates(folder)
            contexts = made.server_context(), made.client_context()
        server = self.serve(ssl_context=contexts[0])
        self.flood(server, self.raw(server, context=contexts[1]).upgrade("/ws/?name=a"))


class SlowReaderTest(ServerTestCase):
    tick = TICK  # the time that a thread in send() has to find out first that nobody reads

    """A peer that stops reading costs its own connection, and nobody else anything."""

    def stuck(self, server: Server, name: str = "stuck") -> tuple[RawClient, Connection]:
        client = self.raw(server, receive_buffer=SMALL_BUFFER).upgrade(f"/ws/?name={name}")
        return client, connection_of(server, name)

    def round_trips(self, client: RawClient, count: int) -> float:
        """Seconds the slowest of them took."""
        slowest = 0.0
        for number in range(count):
            started = time.monotonic()
            client.send_text(str(number))
            self.assertEqual(client.read_text(), str(number))
            slowest = max(slowest, time.monotonic() - started)
        return slowest

    def test_send_raises_by_the_write_deadline_and_others_go_on(self) -> None:
        outcome: list[Any] = []

        def handler(connection: Connection) -> None:
            if connection.name != "stuck":
                echo(connection)
                return
            started = time.monotonic()
            try:
                while True:
                    connection.send(b"x" * 100_000)
            except SendTimeout as exc:
                outcome.append(exc)
            try:
                connection.send("after")
            except ConnectionClosed as exc:
                outcome.append(exc)
            connection.close()
            outcome.append(time.monotonic() - started)

        server = self.serve(handler, send_timeout=0.5)
        events = Events(server)
        good = self.client(server)
        self.stuck(server)
        self.assertLess(self.round_trips(good, 100), 2.0)
        wait_until(lambda: len(outcome) == 3, 10)
        self.assertIsInstance(outcome[0], TimeoutError)
        self.assertEqual(outcome[1].code, 1013)
        self.assertLess(outcome[2], 5)
        self.assertEqual(events.wait("close")[0][1].code, 1013)
        self.assertEqual(list(server.clients), [])
        self.assertLess(self.round_trips(good, 10), 2.0)

    def test_close_returns_though_the_peer_does_not_read(self) -> None:
        seconds: list[float] = []

        def handler(connection: Connection) -> None:
            while connection.stats()["queued_messages"] < 8:
                server.broadcast(b"x" * 100_000, to=[connection])
            started = time.monotonic()
            connection.close(timeout=0.2)
            seconds.append(time.monotonic() - started)

        server = self.serve(handler)
        self.stuck(server)
        wait_until(lambda: seconds, 10)
        self.assertLess(seconds[0], 3)

    def test_broadcasts_are_never_stalled_and_the_one_that_does_not_read_is_given_up(self) -> None:
        server, events = self.serve_events(send_timeout=0.6)
        good = [self.client(server), self.client(server)]
        _, slow = self.stuck(server)
        payload = b"x" * 60_000
        received: list[int] = [0, 0]

        def read(index: int) -> None:
            with contextlib.suppress(OSError, ConnectionError):
                while True:
                    received[index] += good[index].read_frame().payload == payload

        readers = [threading.Thread(target=read, args=(index,)) for index in range(2)]
        for thread in readers:
            thread.start()
        refused, sent, slowest = 0, 0, 0.0
        deadline = time.monotonic() + 15
        while not events.of("close") and time.monotonic() < deadline:
            started = time.monotonic()
            delivery = server.broadcast(payload)
            slowest = max(slowest, time.monotonic() - started)
            sent += 1
            refused += slow in delivery.refused
            self.wait_for_all(received, sent)
            self.assertLessEqual(slow.stats()["queued_messages"], 64)
            self.assertLess(slow.stats()["queued_bytes"], (1 << 20) + len(payload))
        ((connection, reason),) = events.wait("close")
        self.assertIs(connection, slow)
        self.assertEqual(reason.code, 1013)
        self.assertGreater(refused, 0)
        self.assertLess(slowest, 2.0)
        self.assertEqual(server.stats()["broadcasts_refused"], refused)
        for client in good:
            client.sock.shutdown(socket.SHUT_RDWR)
        for thread in readers:
            thread.join(5)

    def wait_for_all(self, received: list[int], sent: int) -> None:
        wait_until(lambda: min(received) == sent, 10, "a good client is missing a message")

    def test_a_peer_that_reads_again_gets_everything_that_was_taken_in_order(self) -> None:
        server, _ = self.serve_events()
        client, connection = self.stuck(server)
        taken = 0
        while connection.stats()["queued_messages"] < 30:
            taken += server.broadcast(f"{taken:06}" + "x" * 20_000).taken
        for number in range(taken):
            self.assertEqual(client.read_text()[:6], f"{number:06}")
        wait_until(lambda: connection.stats()["queued_bytes"] == 0)
        self.assertEqual(server.broadcast("again").taken, 1)
        self.assertEqual(client.read_text(), "again")


class CrowdTest(ServerTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2048 and (hard == resource.RLIM_INFINITY or hard >= 2048):
            resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
            cls.addClassCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    def crowd(self, server: Server, count: int) -> list[RawClient]:
        """So many sockets; never more at once than the backlog holds, for a lost SYN costs a second."""
        clients = []
        for number in range(count):
            clients.append(self.raw(server))
            if number % 50 == 49:
                self.wait_for_accepted(server, number + 1)
        return clients

    def wait_for_accepted(self, server: Server, count: int) -> None:
        wait_until(lambda: server.stats()["accepted"] >= count, 10)

    def test_many_silent_sockets_are_cut_at_the_deadline_while_a_good_client_gets_in(self) -> None:
        server = self.serve(handshake_timeout=0.5)
        silent = self.crowd(server, 300)
        client = self.client(server)
        client.send_text("I am in")
        self.assertEqual(client.read_text(), "I am in")
        self.assertGreater(server.stats()["accepted"], 1)
        for sock in silent:
            self.assertEqual(read_response(sock.sock).status, 408)
            sock.close()
        wait_until(lambda: server.stats()["threads"] == 1, message="threads are held")
        self.assertEqual(self.log.tracebacks, [])

    def test_two_hundred_idle_connections_are_held_and_served(self) -> None:
        server = self.serve()
        clients = self.crowd(server, 200)
        for client in clients:
            client.send(handshake())
        for client in clients:
            response = read_response(client.sock)
            self.assertEqual(response.status, 101)
            client.data = response.rest
        wait_until(lambda: len(server.connections) == 200)
        self.assertEqual(server.broadcast("everyone").taken, 200)
        for client in clients:
            self.assertEqual(client.read_text(), "everyone")

    def test_a_hundred_in_use_while_one_blocks_and_one_does_not_read(self) -> None:
        gate = self.gate()

        def handler(connection: Connection) -> None:
            if connection.name == "blocks":
                gate.wait(30)
            elif connection.name == "deaf":
                with contextlib.suppress(SendTimeout, ConnectionClosed):
                    while True:
                        connection.send(b"x" * 100_000)
            else:
                echo(connection)

        server = self.serve(handler)
        for name in ("blocks", "deaf"):
            self.raw(server, receive_buffer=SMALL_BUFFER).upgrade(f"/ws/?name={name}")
        clients = [self.raw(server).upgrade() for _ in range(100)]
        started = time.monotonic()
        for number in range(3):
            for client in clients:
                client.send_text(f"round {number}")
            for client in clients:
                self.assertEqual(client.read_text(), f"round {number}")
        self.assertLess(time.monotonic() - started, 15)
        self.assertEqual(len(server.connections), 102)
        server.shutdown(0.5)

    def test_when_half_of_the_clients_die_the_registry_holds_the_living(self) -> None:
        server, events = self.serve_events(ping_interval=0.4, ping_timeout=0.8)
        proxy = self.stack.enter_context(FaultProxy("127.0.0.1", server.port))
        living = []
        for number in range(10):
            client = Client(f"{server.url}?name=living-{number}", heartbeat=Heartbeat(0.3, 5))
            living.append(self.stack.enter_context(client))
        dying = [self.client(server, f"reset-{number}") for number in range(5)]
        for number in range(5):
            sock = socket.create_connection(("127.0.0.1", proxy.port), 10)
            self.stack.callback(sock.close)
            sock.sendall(handshake(f"/ws/?name=gone-{number}"))
            self.assertEqual(read_response(sock).status, 101)
        wait_until(lambda: len(server.clients) == 20)
        proxy.both.blackhole()
        for raw in dying:
            raw.vanish()
        events.wait("close", 10)
        wait_until(lambda: len(server.clients) == 10)
        self.assertEqual(sorted(server.clients), [f"living-{number}" for number in range(10)])
        self.assertEqual(len(server.connections), 10)
        codes = {connection.name: reason.code for connection, reason in events.of("close")}
        self.assertEqual(set(codes.values()), {1006})
        self.assertEqual({name.split("-")[0] for name in codes if name}, {"reset", "gone"})
        for client in living:
            client.send("alive")
        events.wait("message", 10)

    def test_connections_that_come_and_go_leave_nothing(self) -> None:
        server = self.serve()

        def visit(number: int) -> None:
            for count in range(15):
                with RawClient(server.port) as client:
                    client.upgrade(f"/ws/?name={number}-{count % 2}").send_text("x")
                    self.assertEqual(client.read_text(), "x")
                    if count % 3 == 0:
                        client.finish()
                    elif count % 3 == 1:
                        client.vanish()

        visitors = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
        for thread in visitors:
            thread.start()
        for thread in visitors:
            thread.join(30)
        wait_until(lambda: server.stats()["threads"] == 0)
        self.assertEqual((server.stats()["connections"], server.stats()["opened"]), (0, 90))
        self.assertEqual(self.log.tracebacks, [])
