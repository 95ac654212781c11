"""A peer that was stopped (SIGSTOP, a hung machine) is noticed, also while bytes of it wait that nobody has read."""

from __future__ import annotations

import os
import signal
import time
import unittest

from sync_ws import Client, ClientState, Connection, Heartbeat
from sync_ws.channel.housekeeper import TICK
from sync_ws.protocol.liveness import CROWDED
from sync_ws.testing import wait_until
from tests.support.program import Program
from tests.support.server_case import ServerTestCase
from tests.support.slack import at_most

PATIENCE = 0.3  # seconds: interval and timeout, of each side
SERVER = """
import sys
import sync_ws

def handler(conn):
    for _ in range(int(sys.argv[1])):
        conn.send("x" * int(sys.argv[2]))
    for message in conn:
        pass

server = sync_ws.Server("127.0.0.1", 0, handler, send_timeout=60, ping_interval=None).start()
print("url", server.url, flush=True)
sys.stdin.read()
"""
CLIENT = """
import sys
import sync_ws

with sync_ws.Client(sys.argv[1], heartbeat=None) as client:
    for _ in range(100):
        client.send("more than are taken while nobody receives")
    print("sent", flush=True)
    client.recv()
"""


@unittest.skipUnless(hasattr(signal, "SIGSTOP"), "no process can be stopped here")
class StoppedTest(ServerTestCase):
    def start(self, *arguments: object) -> Program:
        program = Program(*arguments, stdin=True)
        self.stack.callback(program.end, signal.SIGKILL)
        return program

    def client_of(self, messages: int, size: int) -> tuple[Program, Client]:
        """A server that sends so many messages, and a client that receives none of them."""
        program = self.start("-c", SERVER, messages, size)
        url = program.wait_for("url").split()[1]
        client = Client(url, heartbeat=Heartbeat(PATIENCE, PATIENCE), reconnect=None)
        self.stack.callback(client.close, timeout=1)
        return program, client.open(5)

    def noticed(self, client: Client, within: float) -> None:
        wait_until(lambda: client.state is not ClientState.OPEN, at_most(within), "it was not noticed")

    def test_a_server_whose_messages_wait_unread(self) -> None:
        program, client = self.client_of(messages=30, size=10)
        channel = client._line.reading_channel
        assert channel is not None
        wait_until(channel.unread_bytes)
        # every answer waits behind the messages, and there is one to each question
        time.sleep(4 * PATIENCE)
        self.assertIs(client.state, ClientState.OPEN)
        os.kill(program.process.pid, signal.SIGSTOP)
        # it may just have answered a question, to which its time is seen to have come a timeout later
        self.noticed(client, 3 * PATIENCE)

    def test_a_server_whose_messages_leave_no_room_for_an_answer(self) -> None:
        program, client = self.client_of(messages=100_000, size=1000)
        channel = client._line.reading_channel
        assert channel is not None
        wait_until(channel.crowded)
        began = time.monotonic()
        time.sleep(4 * PATIENCE)
        self.assertIs(client.state, ClientState.OPEN)  # it lives, and cannot say so
        os.kill(program.process.pid, signal.SIGSTOP)
        self.noticed(client, PATIENCE + CROWDED * 2 * PATIENCE - (time.monotonic() - began))

    def test_once_there_is_room_again_a_server_that_lives_is_believed(self) -> None:
        _, client = self.client_of(messages=2000, size=1000)
        channel = client._line.reading_channel
        assert channel is not None
        wait_until(channel.crowded)
        time.sleep(4 * PATIENCE)
        for _ in range(2000):
            client.recv(5)
        time.sleep(4 * PATIENCE)
        self.assertIs(client.state, ClientState.OPEN)

    def test_a_client_whose_messages_wait_unread(self) -> None:
        gate = self.gate()

        def handler(conn: Connection) -> None:
            gate.wait()

        server = self.serve(handler, ping_interval=PATIENCE, ping_timeout=PATIENCE)
        program = self.start("-c", CLIENT, server.url)
        program.wait_for("sent")
        (conn,) = wait_until(lambda: server.connections)
        wait_until(conn.channel.unread_bytes)
        time.sleep(4 * PATIENCE)
        self.assertEqual(len(server.connections), 1)
        os.kill(program.process.pid, signal.SIGSTOP)
        wait_until(lambda: not server.connections, at_most(3 * PATIENCE + 2 * TICK), "it was not noticed")
