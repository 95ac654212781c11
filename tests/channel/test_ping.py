"""A Ping that the application waits for: its round-trip time, whoever reads the Pong; and each way it may fail."""

from __future__ import annotations

import socket
import threading
import time

from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.errors import ConcurrentReceive, ConnectionClosed, QueueFull
from sync_ws.messages import Opcode
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.wire import End, Owner, join, make_channel

TEXT, PING, PONG = Opcode.TEXT, Opcode.PING, Opcode.PONG


class PingTest(LedgerTestCase):
    channel: Channel
    owner: Owner
    end: End

    def setUp(self) -> None:
        super().setUp()
        ours, theirs = socket.socketpair()
        self.channel, self.owner = make_channel(ours, client=True, limits=Limits(max_queued=1))
        self.end = End(theirs, client=True)

        def clean() -> None:
            theirs.close()
            self.channel.abort()
            self.channel.release()

        self.addCleanup(clean)

    def answering(self, *before: bytes) -> threading.Thread:
        """A peer that answers one Ping, and sends these first."""

        def answer() -> None:
            [ping] = self.end.read(1)
            assert ping.opcode == PING
            self.end.sock.sendall(b"".join(before) + self.end.frame(PONG, ping.payload))

        thread = threading.Thread(target=answer)
        thread.start()
        self.addCleanup(join, thread)
        return thread

    def test_the_round_trip_time_while_nobody_reads(self) -> None:
        self.answering(self.end.frame(TEXT, b"before"), self.end.frame(PONG, b"of another"))
        began = time.monotonic()
        rtt = self.channel.ping(10)
        self.assertTrue(0 < rtt <= time.monotonic() - began)
        self.assertEqual(self.channel.read(0), "before")  # nothing is lost for the one who reads later
        self.assertEqual(self.owner.pongs[0], b"of another")

    def test_another_thread_that_is_in_read_takes_the_pong(self) -> None:
        got = []
        reader = threading.Thread(target=lambda: got.append(self.channel.read(10)))
        reader.start()
        wait_until(lambda: self.channel.receiver._busy)
        self.answering()
        self.assertGreater(self.channel.ping(10), 0)
        self.end.send(TEXT, b"later")
        join(reader)
        self.assertEqual(got, ["later"])

    def test_several_at_once_each_have_their_own(self) -> None:
        times: list[float] = []
        threads = [threading.Thread(target=lambda: times.append(self.channel.ping(10))) for _ in range(3)]
        for thread in threads:
            thread.start()
        pings = self.end.read(3)
        self.assertEqual(len({ping.payload for ping in pings}), 3)
        for ping in reversed(pings):
            self.end.send(PONG, ping.payload)
        join(*threads)
        self.assertEqual(len(times), 3)

    def test_no_answer_is_a_timeout_and_the_connection_goes_on(self) -> None:
        with self.assertRaisesRegex(TimeoutError, "no answer to a Ping within 0.05 s"):
            self.channel.ping(0.05)
        self.assertTrue(self.channel.open)
        self.assertEqual(self.channel._pings, {})

    def test_the_end_of_the_connection_ends_it(self) -> None:
        def close() -> None:
            self.end.read(1)
            self.end.send_close(1001)

        closing = threading.Thread(target=close)
        closing.start()
        self.addCleanup(join, closing)
        with self.assertRaisesRegex(ConnectionClosed, "1001"):
            self.channel.ping(10)
        with self.assertRaises(ConnectionClosed):
            self.channel.ping(10)

    def test_a_full_queue_is_told(self) -> None:
        while self.channel.writer.post(TEXT, bytes(100_000)):
            continue
        with self.assertRaises(QueueFull):
            self.channel.ping(1)

    def test_a_handler_that_interrupted_a_read_is_told_that_nobody_would_hear_the_pong(self) -> None:
        with self.channel.receiver.lock:
            self.channel.receiver._busy = True
            with self.assertRaises(ConcurrentReceive):
                self.channel.ping(1)
            self.channel.receiver._busy = False


if __name__ == "__main__":
    import unittest

    unittest.main()
