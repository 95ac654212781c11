"""Who floods pays for it: deadlines of the others hold, and so do their conversations."""

from __future__ import annotations

import time

from sync_ws import Connection, Server
from sync_ws.channel.housekeeper import TICK
from sync_ws.testing import wait_until
from tests.support.program import Program
from tests.support.raw import PING, RawClient, frame
from tests.support.server_case import ServerTestCase
from tests.support.slack import at_most

FLOODERS = 16
PATIENCE = 0.5  # seconds of silence before a Ping, and after it
NOTICED = 2 * PATIENCE + 2 * TICK  # the README's promise
ANSWERED = 4 * TICK  # a handler at work has its Pings answered for it, as the time for that goes round


class FloodTest(ServerTestCase):
    tick = TICK

    def flooded(self, kind: str, *, busy: bool) -> Server:
        """A server with flooders.  ``busy``: its handlers do not receive, so the housekeeper reads for them."""
        gate = self.gate()

        def handler(conn: Connection) -> None:
            if busy:
                gate.wait()
            for message in conn:
                conn.send(message)

        patience = {"ping_interval": PATIENCE, "ping_timeout": PATIENCE}
        # up to 128 KiB of each flood were read, and are gone through: that takes seconds while coverage is measured
        server = self.serve(handler, compression=True, shutdown_timeout=30, **patience)
        flooder = Program("-m", "tests.hardening.flooder", server.port, kind, FLOODERS, stdin=True)
        self.stack.callback(gate.set)
        self.stack.callback(flooder.end, 9)
        flooder.wait_for("flooding")
        wait_until(lambda: len(server.connections) == FLOODERS)
        wait_until(lambda: all(conn.channel.bytes_received > 1000 for conn in server.connections))
        return server

    def check(self, kind: str, *, busy: bool) -> None:
        server = self.flooded(kind, busy=busy)
        try:
            self.converse(server)
            self.assertGreaterEqual(len(server.connections), FLOODERS, "the flooders are gone")
        finally:
            for conn in server.connections:
                conn.channel.abort()  # a closing handshake would wait until the flood has been gone through
            self.stack.close()

    def converse(self, server: Server) -> None:
        """With a client that vanishes, and one whose Ping is to be answered."""
        self.client(server, "dead")
        with RawClient(server.port).upgrade("/ws/?name=alive") as alive:
            began = time.monotonic()
            alive.send(frame(PING, b"alive?"))
            while (answer := alive.read_frame()).payload != b"alive?":
                self.assertEqual(answer.opcode, PING)  # the server's own
            self.assertLess(time.monotonic() - began, at_most(ANSWERED))
            wait_until(lambda: "dead" not in server.clients, at_most(NOTICED), "a dead client was not noticed")

    def test_a_dead_client_is_noticed_while_others_flood_busy_handlers(self) -> None:
        for kind in ("pings", "heartbeats", "fragments"):
            with self.subTest(kind):
                self.check(kind, busy=True)

    def test_a_dead_client_is_noticed_while_others_flood_those_who_read(self) -> None:
        for kind in ("pings", "compressed", "fragments"):
            with self.subTest(kind):
                self.check(kind, busy=False)
