"""A client's batch: over the connection there is, or queued; in either case as a whole."""

from __future__ import annotations

import itertools
import threading
import unittest
from typing import Any

from sync_ws import Client, ClientState, Close, Connection, ConnectionClosed, NotConnected, Offline, QueueFull
from sync_ws.channel.writer import BATCH_BYTES
from sync_ws.endings import Reason
from sync_ws.testing import free_port, serving, wait_until
from tests.support.client_case import SOON, ReconnectTestCase, obey
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire
from tests.support.wire import join


def cut(client: Client) -> None:
    """The connection ends without a word; back when nothing can be sent over it any more."""
    channel = client._line.reading_channel
    assert channel is not None
    channel.abort(Reason("cut", 1006))


class OfflineTest(ReconnectTestCase):
    def waiting(self, offline: Offline | str = Offline()) -> Client:
        """One that waits for its next attempt."""
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline=offline).open(0)
        self.wait_for_state(client, ClientState.WAITING)
        return client

    def queued(self, client: Client) -> int:
        return int(client.stats()["queued_messages"])

    def test_it_is_queued_when_the_block_is_left_and_not_before(self) -> None:
        client = self.waiting()
        recorder = Recorder(client)
        with client.batch():
            client.send("1")
            client.send([b"2", b"!"])
            self.assertEqual(self.queued(client), 0)
        client.send("3")
        client.close()
        self.assertEqual(recorder.of("close")[0].undelivered, ("1", b"2!", "3"))

    def test_the_queue_takes_all_of_it_or_none(self) -> None:
        client = self.waiting(Offline(max_messages=2))
        with self.assertRaises(QueueFull), client.batch():
            for text in "123":
                client.send(text)
        self.assertEqual(self.queued(client), 0)

    def test_what_is_gathered_is_bounded(self) -> None:
        client = self.waiting(Offline(max_bytes=10 * BATCH_BYTES))
        with client.batch():
            client.send(bytes(BATCH_BYTES - 28))  # two frames' headers are counted
            self.assertEqual(self.queued(client), 0)
            client.send(b"")
            self.assertEqual(self.queued(client), 2)

    def test_before_this_thread_waits_for_a_message_it_is_queued(self) -> None:
        client = self.waiting()
        with client.batch():
            client.send("1")
            with self.assertRaises(TimeoutError):
                client.recv(0)
            self.assertEqual(self.queued(client), 1)

    def test_another_threads_is_left_alone(self) -> None:
        client, entered, leave = self.waiting(), threading.Event(), threading.Event()

        def gather() -> None:
            with client.batch():
                client.send("theirs")
                entered.set()
                leave.wait(SOON)

        thread = threading.Thread(target=gather)
        thread.start()
        self.assertTrue(entered.wait(SOON))
        client.send("ours")
        with self.assertRaises(TimeoutError):
            client.recv(0)
        self.assertEqual(self.queued(client), 1)
        leave.set()
        thread.join(SOON)
        self.assertEqual(self.queued(client), 2)

    def test_an_empty_one_is_nothing(self) -> None:
        client = self.waiting("raise")
        with client.batch():
            pass
        with self.assertRaises(NotConnected), client.batch():
            client.send("x")

    def test_in_it_too_one_is_told_at_once_that_it_is_over(self) -> None:
        client = self.waiting()
        with client.batch():
            client.send("1")
            client.close()
            with self.assertRaisesRegex(ConnectionClosed, "closed by us"):
                client.send("2")
            with self.assertRaises(ConnectionClosed):
                client._write_batch()
        self.assertEqual(self.queued(client), 0)

    def test_the_clients_own_thread_does_not_wait_for_room(self) -> None:
        client, raised = self.waiting(Offline(1, when_full="block")), list[str]()
        client.send("one")

        def send(event: object) -> None:
            try:
                with client.batch():
                    client.send("two")
            except QueueFull as exc:
                raised.append(str(exc))

        client.on("reconnecting", send)
        with self.within():
            client.reconnect()
            wait_until(lambda: raised)
        self.assertIn("own thread does not wait for room", raised[0])


class DisconnectTest(ReconnectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.got: list[Any] = []

    def collect(self, conn: Connection) -> None:
        self.got.extend(conn)

    def test_one_that_a_disconnect_met_goes_out_over_the_next_connection(self) -> None:
        with serving(self.collect) as server:
            client = self.client(server.url, reconnect=0.01).open(SOON)
            with client.batch():
                client.send("1")
                cut(client)
                client.send("2")
            client.send("3")
            wait_until(lambda: len(self.got) == 3)
        self.assertEqual(self.got, ["1", "2", "3"])

    def test_where_no_connection_is_to_come_leaving_the_block_raises(self) -> None:
        with serving(self.collect) as server:
            client = self.client(server.url, reconnect=None).open(SOON)
            with self.assertRaises(ConnectionClosed), client.batch():
                client.send("1")
                cut(client)
                self.wait_for_state(client, ClientState.CLOSED)
        self.assertEqual((self.got, client.stats()["queued_messages"]), ([], 0))

    def test_close_inside_the_block_gives_up_what_a_disconnect_met(self) -> None:
        raised: list[str] = []
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)

            def close(message: object) -> None:
                try:
                    with client.batch():
                        client.send("never")
                        cut(client)
                        client.close()
                except ConnectionClosed as exc:
                    raised.append(str(exc))

            client.on("message", close)
            recorder = Recorder(client)
            client.open(SOON).send("burst")
            self.assertEqual(recorder.wait_for("close").undelivered, ())
        self.assertEqual(len(raised), 1)

    def test_what_is_left_when_close_has_begun_is_told_with_our_close_frame(self) -> None:
        asked, answer = threading.Event(), threading.Event()

        def script(wire: Wire) -> None:
            wire.switch()
            wire.read_close()
            asked.set()
            answer.wait(SOON)
            wire.send_frame(8, b"\x03\xe8")

        with ScriptedServer(script) as server:
            client = self.client(server.url(), close_timeout=SOON).open(SOON)
            closer = threading.Thread(target=client.close)
            with self.assertRaises(ConnectionClosed) as caught, client.batch():
                client.send("never")
                closer.start()
                self.assertTrue(asked.wait(SOON))
            answer.set()
            join(closer)
        self.assertEqual(caught.exception.sent, Close(1000))

    def test_what_was_given_up_inside_the_block_is_not_tried_again(self) -> None:
        raised: list[str] = []
        with serving(self.collect) as server:
            client = self.client(server.url, reconnect=0.01)

            def greet(event: object) -> None:
                with client.batch():
                    client.send("hello")
                    client.send("world")
                    if not raised:
                        cut(client)
                        try:
                            client.recv(0)  # before it waits it writes
                        except ConnectionClosed as exc:
                            raised.append(str(exc))

            client.on("open", greet)
            recorder = Recorder(client)
            client.open(0)
            wait_until(lambda: len(self.got) == 2)
        self.assertEqual((self.got, len(raised), recorder.of("error")), (["hello", "world"], 1, []))

    def test_a_greeting_that_a_disconnect_met_is_not_sent_after_the_next_one(self) -> None:
        raised: list[str] = []
        with serving(self.collect) as server:
            client, number = self.client(server.url, reconnect=0.01), itertools.count(1)

            def greet(event: object) -> None:
                greeting = next(number)
                try:
                    with client.batch():
                        client.send(f"hello {greeting}")
                        client.send("world")
                        if greeting == 1:
                            cut(client)
                except ConnectionClosed as exc:
                    raised.append(str(exc))

            client.on("open", greet)
            client.open(0)
            client.send("queued")
            wait_until(lambda: len(self.got) == 3)
        self.assertEqual((self.got, len(raised)), (["hello 2", "world", "queued"], 1))

    def test_a_single_greeting_neither(self) -> None:
        raised: list[str] = []
        with serving(self.collect) as server:
            client = self.client(server.url, reconnect=0.01)

            def greet(event: object) -> None:
                if not raised:
                    cut(client)
                try:
                    client.send("hello")
                except ConnectionClosed as exc:
                    raised.append(str(exc))

            client.on("open", greet)
            client.open(0)
            client.send("queued")
            wait_until(lambda: len(self.got) == 2)
        self.assertEqual((self.got, len(raised)), (["hello", "queued"], 1))


if __name__ == "__main__":
    unittest.main()
