"""What is sent while there is no connection, or nobody who reads."""

from __future__ import annotations

import itertools
import signal
import threading
import tracemalloc
import unittest
from functools import partial
from typing import Any

import sync_ws
from sync_ws import Backoff, Client, ConnectionClosed, NotConnected, Offline, QueueFull, SendTimeout, Server
from sync_ws.channel.housekeeper import TICK
from sync_ws.client.events import Closed
from sync_ws.testing import ManualClock, free_port, wait_until
from tests.support.client_case import SOON, ClientTestCase, obey
from tests.support.recorder import Recorder, sender
from tests.support.scripted import ScriptedServer, Wire
from tests.support.wire import join


class OfflineTest(ClientTestCase):
    tick = TICK  # the time that a thread in send() has to find out first that nobody reads

    def test_what_is_queued_goes_out_in_order_before_anything_else(self) -> None:
        got: list[Any] = []
        port = free_port()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=0.05)
        client.open(0)
        queued = [f"text {number}" if number % 2 else f"bytes {number}".encode() for number in range(64)]
        for message in queued:
            client.send(message)
        self.assertEqual(client.stats()["queued_messages"], 64)
        with sync_ws.Server("127.0.0.1", port, lambda conn: got.extend(itertools.islice(conn, 65))) as server:
            server.start()
            wait_until(lambda: client._line.sending_channel)
            client.send("last")
            wait_until(lambda: len(got) == 65)
            client.close()
        self.assertEqual(got, [*queued, "last"])

    def test_the_queue_is_bounded_in_messages_and_bytes_and_says_so(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
        recorder = Recorder(client)
        client.open(0)
        client.send(bytes(1 << 20))
        with self.assertRaises(QueueFull):
            client.send(b"x")
        self.assertEqual(client.stats()["queued_bytes"], 1 << 20)
        client.close()
        self.assertEqual(recorder.of("close")[0].undelivered, (bytes(1 << 20),))
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60).open(0)
        for _ in range(64):
            client.send("x")
        with self.assertRaisesRegex(QueueFull, "64 messages"):
            client.send("x")
        with self.assertRaises(TypeError):
            client.send(None)  # type: ignore[arg-type]

    def test_its_bounds_are_the_applications(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline=Offline(1000, 5000)).open(0)
        for _ in range(1000):
            client.send(bytes(5))
        with self.assertRaisesRegex(QueueFull, "at most 1000 and 5000"):
            client.send(b"")
        self.assertEqual(client.stats()["queued_bytes"], 5000)

    def test_a_sensor_survives_a_night_and_the_newest_arrive_in_order(self) -> None:
        got: list[Any] = []
        port = free_port()
        policy, clock = Offline(100, 1 << 20, "drop_oldest"), ManualClock()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=10, offline=policy, clock=clock)
        client.open(0)
        clock.wait_for_timer()
        with self.assertLogs("sync_ws.client", "WARNING") as logs:
            client.send("warm")
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            before = tracemalloc.get_traced_memory()[0]
            for number in range(100_000):
                client.send(f"reading {number}")
                if number % 25_000 == 0:
                    armed = clock.armed
                    clock.advance(10)  # an attempt in vain
                    clock.wait_for_timer(after=armed)
            self.assertLess(tracemalloc.get_traced_memory()[0] - before, 256 * 1024)
            tracemalloc.stop()
            stats = client.stats()
            self.assertEqual((stats["queued_messages"], stats["dropped_messages"]), (100, 99_901))
            self.assertEqual(
                [record.getMessage() for record in logs.records if "dropped" in record.getMessage()],
                ["not connected, and the queue is full: the oldest messages are dropped from now on"],
            )
            with Server("127.0.0.1", port, lambda conn: got.extend(itertools.islice(conn, 101))).start():
                clock.advance(10)
                wait_until(lambda: client._line.sending_channel)
                client.send("live")
                wait_until(lambda: len(got) == 101)
                client.close()
        self.assertEqual(got, [*(f"reading {number}" for number in range(99_900, 100_000)), "live"])
        self.assertTrue(any("99901 messages were dropped" in line for line in logs.output), logs.output)

    def test_where_it_blocks_senders_wait_for_room_and_all_arrives(self) -> None:
        got: list[Any] = []
        port = free_port()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=0.05, offline=Offline(2, 100, "block")).open(0)
        threads = [sender(client, [f"{own} {number}" for number in range(20)]) for own in range(3)]
        for thread in threads:
            thread.start()
        wait_until(lambda: client.stats()["queued_messages"] == 2)
        with Server("127.0.0.1", port, lambda conn: got.extend(itertools.islice(conn, 60))).start():
            for thread in threads:
                join(thread)
            wait_until(lambda: len(got) == 60)
            client.close()
        for own in "012":
            self.assertEqual([text for text in got if text[0] == own], [f"{own} {number}" for number in range(20)])

    def test_where_it_blocks_the_wait_ends_with_the_send_timeout_or_close(self) -> None:
        url, policy = f"ws://127.0.0.1:{free_port()}/", Offline(1, 100, "block")
        client = self.client(url, reconnect=60, offline=policy, send_timeout=0.05).open(0)
        client.send("one")
        with self.within(), self.assertRaisesRegex(QueueFull, "no room within 0.05 s"):
            client.send("two")
        client = self.client(url, reconnect=60, offline=policy).open(0)
        client.send("one")
        raised: list[BaseException] = []

        def send() -> None:
            try:
                client.send("two")
            except ConnectionClosed as exc:
                raised.append(exc)

        with self.within():
            thread = threading.Thread(target=send)
            thread.start()
            client.close()
            join(thread)
        self.assertEqual([str(exc) for exc in raised], ["closed by us"])

    def test_where_it_blocks_a_signal_handler_may_close(self) -> None:
        client = self.client(
            f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline=Offline(1, 100, "block"), send_timeout=60
        ).open(0)
        client.send("one")
        before = signal.signal(signal.SIGALRM, lambda number, frame: client.close())
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with self.within(), self.assertRaises(ConnectionClosed):
            client.send("two")

    def test_where_it_blocks_the_clients_own_thread_is_told_at_once(self) -> None:
        raised: list[str] = []
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline=Offline(1, 100, "block"))

        def send(event: object) -> None:
            client.send("one")
            try:
                client.send("two")
            except QueueFull as exc:
                raised.append(str(exc))

        client.on("reconnecting", send)
        recorder = Recorder(client)
        with self.within():
            client.open(0)
            recorder.wait_for("reconnecting")
            self.assertRegex(raised[0], "the client's own thread does not wait for room")

    def test_a_queued_message_is_a_copy(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
        recorder = Recorder(client)
        client.open(0)
        data = bytearray(b"abc")
        client.send(data)
        data[:] = b"xyz"
        client.close()
        self.assertEqual(recorder.of("close")[0].undelivered, (b"abc",))

    def test_raise_mode(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline="raise")
        recorder = Recorder(client)
        client.open(0)
        with self.assertRaises(NotConnected):
            client.send("x")
        recorder.wait_for("reconnecting")
        with self.assertRaisesRegex(NotConnected, "refused"):
            client.send("x")

    def test_undelivered_messages_are_reported_when_it_gives_up(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=Backoff.fixed(0.05, attempts=1))
        recorder = Recorder(client)
        client.open(0)
        client.send("one")
        client.send(b"two")
        gave_up = recorder.wait_for("gave_up")
        self.assertEqual(gave_up.undelivered, ("one", b"two"))
        self.assertIn("refused", gave_up.reason.text)
        with self.assertRaises(ConnectionClosed):
            client.send("three")

    def test_nothing_is_taken_into_the_queue_once_the_last_event_is_on_its_way(self) -> None:
        with ScriptedServer(obey) as server:
            for code, last in ((1000, "close"), (1001, "gave_up")):
                with self.subTest(code):
                    client = self.client(server.url(), reconnect=Backoff(0.01, 0.01, attempts=1, stable=60))
                    raised: list[Exception] = []

                    def send(event: Closed, client: Client = client, raised: list[Exception] = raised) -> None:
                        if not event.reconnecting:
                            try:
                                client.send("lost?")
                            except ConnectionClosed as exc:
                                raised.append(exc)

                    client.on("close", send)
                    recorder = Recorder(client)
                    client.open(SOON)
                    if code == 1001:
                        client.send("close 1001")
                        recorder.wait_for("reconnected")
                        wait_until(partial(getattr, client._line, "sending_channel"))
                    client.send(f"close {code}")
                    recorder.wait_for(last)
                    self.assertEqual(len(raised), 1)

    def test_send_times_out_when_the_server_does_not_read_and_the_client_reconnects(self) -> None:
        release = threading.Event()

        def script(wire: Wire) -> None:
            wire.switch()
            if wire.number == 1:
                release.wait(SOON * 2)
            else:
                wire.wait_for_end()

        with ScriptedServer(script, receive_buffer=4096) as server:
            client = self.client(server.url(), reconnect=0.01, send_timeout=0.2, close_timeout=0.2)
            recorder = Recorder(client)
            client.open(SOON)
            with self.within(), self.assertRaises(SendTimeout):
                for _ in range(100):
                    client.send(bytes(1 << 20))
            self.assertEqual(recorder.wait_for("close").reason.code, 1013)
            recorder.wait_for("reconnected")
            release.set()


if __name__ == "__main__":
    unittest.main()
