"""A batch that meets a disconnect: in the kernel as a whole, or queued as a whole; none lost, none twice."""

from __future__ import annotations

import unittest
from typing import Any

from sync_ws import Client, ClientState, Connection, ConnectionClosed, NotConnected, Offline, QueueFull
from sync_ws.channel.writer import BATCH_BYTES
from sync_ws.endings import Reason
from sync_ws.testing import wait_until
from tests.support.server_case import ServerTestCase

SOON = 5.0  # seconds
RECONNECT = 0.01  # seconds


class BatchTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.got: list[Any] = []

        def collect(conn: Connection) -> None:
            for message in conn:
                self.got.append(message)

        self.server = self.serve(collect)

    def opened(self, **options: Any) -> Client:
        client = Client(self.server.url, heartbeat=None, **{"reconnect": RECONNECT, **options})
        self.stack.callback(client.close, timeout=1)
        return client.open(SOON)

    def cut(self, client: Client) -> None:
        """The server ends the connection without a word; back when nothing can be sent over it any more."""
        channel = client._line.reading_channel
        assert channel is not None
        (conn,) = wait_until(lambda: self.server.connections)
        conn.channel.abort(Reason("cut"))
        wait_until(lambda: not channel.open)

    def all_of_it(self, expected: list[Any]) -> None:
        wait_until(lambda: len(self.got) >= len(expected), SOON)
        self.assertEqual(self.got, expected)

    def test_a_disconnect_in_the_middle_of_the_block(self) -> None:
        client = self.opened()
        with client.batch():
            client.send("1")
            self.cut(client)
            client.send("2")
            client.send([b"3", b"!"])
        client.send("4")
        self.all_of_it(["1", "2", b"3!", "4"])

    def test_a_new_connection_in_the_middle_of_the_block(self) -> None:
        client = self.opened()
        with client.batch():
            client.send("1")
            self.cut(client)
            wait_until(lambda: client.stats()["opened"] == 2 and client._line.sending_channel is not None)
            client.send("2")
            self.assertEqual(self.got, [])
        self.all_of_it(["1", "2"])

    def test_a_disconnect_before_the_block_is_left_with_no_connection_to_come(self) -> None:
        client = self.opened(reconnect=None)
        with self.assertRaises(ConnectionClosed), client.batch():
            client.send("1")
            client.send("2")
            self.cut(client)
            wait_until(lambda: client.state is ClientState.CLOSED)
        self.assertEqual((self.got, client.stats()["queued_messages"]), ([], 0))

    def test_the_queue_takes_all_of_it_or_none(self) -> None:
        client = self.opened(offline=Offline(max_messages=2), reconnect=60)
        self.cut(client)
        wait_until(lambda: client.state is ClientState.WAITING)
        with self.assertRaises(QueueFull), client.batch():
            for text in ("1", "2", "3"):
                client.send(text)
        self.assertEqual(client.stats()["queued_messages"], 0)
        with client.batch():
            client.send("1")
            client.send("2")
            self.assertEqual(client.stats()["queued_messages"], 0)
        self.assertEqual(client.stats()["queued_messages"], 2)

    def test_without_a_queue_it_raises_as_a_whole(self) -> None:
        client = self.opened(offline="raise", reconnect=60)
        self.cut(client)
        wait_until(lambda: client.state is ClientState.WAITING)
        with self.assertRaises(NotConnected), client.batch():
            client.send("1")

    def test_before_this_thread_waits_for_a_message_it_is_queued(self) -> None:
        client = self.opened(reconnect=60)
        self.cut(client)
        wait_until(lambda: client.state is ClientState.WAITING)
        with client.batch():
            client.send("1")
            with self.assertRaises(TimeoutError):
                client.recv(0)
            self.assertEqual(client.stats()["queued_messages"], 1)

    def test_what_is_gathered_without_a_connection_is_bounded(self) -> None:
        client = self.opened(offline=Offline(max_bytes=10 * BATCH_BYTES), reconnect=60)
        self.cut(client)
        wait_until(lambda: client.state is ClientState.WAITING)
        with client.batch():
            client.send(bytes(BATCH_BYTES - 1000))
            self.assertEqual(client.stats()["queued_messages"], 0)
            client.send(bytes(1000))
            self.assertEqual(client.stats()["queued_messages"], 2)


if __name__ == "__main__":
    unittest.main()
