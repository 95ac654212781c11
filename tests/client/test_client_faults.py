"""The client behind a network that cuts, resets, stalls, swallows, corrupts, throttles and splits."""

from __future__ import annotations

import itertools
import time
import unittest
from typing import Any

from sync_ws import Client, ClientState, Connection, ConnectionClosed, HandshakeError, Heartbeat, SyncWsError
from sync_ws.testing import FaultProxy, LedgerTestCase, ManualClock, serving, wait_until
from tests.support.recorder import Recorder

SOON = 4.0
ALLOWED_CODES = (1002, 1006, 1007, 1009)


def echo(conn: Connection) -> None:
    for message in conn:
        conn.send(message)


class FaultTestCase(LedgerTestCase):
    """An echo server behind a proxy."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.enter(serving(echo))
        self.proxy = self.enter(FaultProxy("127.0.0.1", self.server.port))

    def enter(self, manager: Any) -> Any:
        value = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return value

    def client(self, **options: Any) -> Client:
        client = Client(self.proxy.url(), **{"heartbeat": None, "reconnect": 0.01, "close_timeout": 1.0, **options})
        self.addCleanup(client.close, timeout=1.0)
        return client

    def converse(self, timeout: float = SOON) -> tuple[str, list[str]]:
        """Open, one message each way, close, over one connection: how it went, and the events."""
        before = self.proxy.connections
        client = self.client(reconnect=None, open_timeout=timeout)
        recorder = Recorder(client)
        started = time.monotonic()
        try:
            client.open()
            client.send("hello")
            answer = client.recv(timeout)
            self.assertEqual(answer, "hello", "silently wrong")
            outcome = "answered"
        except HandshakeError:
            outcome = "no handshake"
        except ConnectionClosed as exc:
            self.assertIn(exc.code, ALLOWED_CODES)
            outcome = "lost"
        except TimeoutError:
            outcome = "nothing came"
        client.close(timeout=timeout)
        client._thread.join(timeout)
        self.assertLess(time.monotonic() - started, 3 * timeout + 1, "too slow")
        wait_until(lambda: self.proxy.connections > before)  # the proxy may be slower than a client that gave up
        self.assertEqual(self.proxy.connections, before + 1, "a second connection")
        return outcome, recorder.names

    def sizes(self) -> tuple[int, int]:
        """How many bytes a whole conversation takes: to the server, to the client."""
        self.assertEqual(self.converse(), ("answered", ["open", "close"]))
        wait_until(lambda: self.proxy.open_connections == 0)
        return self.proxy.to_server.forwarded, self.proxy.to_client.forwarded


class EveryByteTest(FaultTestCase):
    def sweep(self, fault: str) -> set[str]:
        """Inject it at every byte of handshake, message and close, in either direction."""
        outcomes = set()
        for name, size in zip(("to_server", "to_client"), self.sizes()):
            direction = getattr(self.proxy, name)
            for at in range(size):
                with self.subTest(fault, direction=name, at=at):
                    getattr(direction, fault)(at, scope="next")
                    outcome, events = self.converse()
                    expected = {
                        "no handshake": [["gave_up"]],
                        "lost": [["open", "close", "gave_up"]],
                        "answered": [["open", "close"], ["open", "close", "gave_up"]],  # by whoever is faster
                    }
                    self.assertIn(events, expected[outcome], outcome)
                    outcomes.add(outcome)
        return outcomes

    def test_cut_at_every_byte(self) -> None:
        self.assertEqual(self.sweep("cut_at"), {"no handshake", "lost", "answered"})

    def test_reset_at_every_byte(self) -> None:
        self.assertEqual(self.sweep("reset_at"), {"no handshake", "lost", "answered"})

    def test_bytes_corrupted(self) -> None:
        """The highest bit of a third of the handshake's bytes, and of each of the frames', in turn: ASCII
        becomes something else everywhere, and never wrong data."""
        for name, size in zip(("to_server", "to_client"), self.sizes()):
            for at in itertools.chain(range(0, size - 40, 3), range(size - 40, size)):  # the frames are in the last 40
                with self.subTest(direction=name, at=at):
                    getattr(self.proxy, name).corrupt(at, 0x80, scope="next")
                    outcome, events = self.converse(timeout=0.1)
                    self.assertIn(events[-1], ("close", "gave_up"), outcome)
                    self.assertEqual("open" not in events, outcome == "no handshake", events)

    def test_every_byte_in_a_segment_of_its_own(self) -> None:
        self.proxy.both.split(1)
        with self.client() as client:
            for message in ("hello", "x" * 3000, b"", "ü€𝄞", bytes(range(256)) * 10):
                client.send(message)
                self.assertEqual(client.recv(SOON), message)


class LossTest(FaultTestCase):
    def lose(self, break_it: Any) -> None:
        client = self.client()
        recorder = Recorder(client)
        client.open(SOON)
        break_it()
        recorder.wait_for("reconnected")
        client.send("again")
        self.assertEqual(client.recv(SOON), "again")
        self.assertEqual(recorder.names, ["open", "close", "reconnecting", "open", "reconnected"])
        self.assertEqual(recorder.of("close")[0].reason.code, 1006)
        wait_until(lambda: len(self.server.connections) == 1)
        self.assertEqual(self.proxy.open_connections, 1)

    def test_fin_is_one_disconnect_and_then_a_reconnect(self) -> None:
        self.lose(self.proxy.cut_all)

    def test_reset_is_one_disconnect_and_then_a_reconnect(self) -> None:
        self.lose(self.proxy.reset_all)

    def test_handshakes_that_fail_are_tried_again_until_one_succeeds(self) -> None:
        for at in (0, 10, 100):
            self.proxy.to_client.reset_at(at, scope="next")
            client = self.client()
            recorder = Recorder(client)
            client.open(SOON)
            self.assertEqual(recorder.names, ["reconnecting", "open"])
            client.close()

    def test_refused_for_a_while(self) -> None:
        client = self.client()
        recorder = Recorder(client)
        client.open(SOON)
        self.proxy.refuse()
        self.proxy.reset_all()
        recorder.wait_for("reconnecting", 3)
        self.proxy.accept()
        recorder.wait_for("reconnected")
        self.assertEqual(recorder.names.count("close"), 1)


class SilenceTest(FaultTestCase):
    """One direction, or both, swallows everything: noticed within interval + timeout, whoever reads."""

    def test_each_direction_stalled_and_swallowed(self) -> None:
        for name, how, style in itertools.product(("to_server", "to_client", "both"), ("stall", "blackhole"), (0, 1)):
            with self.subTest(name, how=how, style=style):
                clock = ManualClock()
                client = self.client(heartbeat=Heartbeat(30, 3), clock=clock)
                recorder = Recorder(client, messages=bool(style))
                client.open(SOON)
                clock.advance(30)
                recorder.wait_for("heartbeat")
                clock.advance(3)
                getattr(getattr(self.proxy, name), how)(scope="current")
                clock.advance(27)
                self.assertIs(client.state, ClientState.OPEN)
                clock.advance(3)
                closed = recorder.wait_for("close")
                self.assertIn("no answer to a heartbeat", str(closed.reason))
                clock.wait_for_timer()
                clock.advance(1)
                recorder.wait_for("reconnected")
                client.close()

    def test_silence_in_the_middle_of_a_frame(self) -> None:
        clock = ManualClock()
        client = self.client(heartbeat=Heartbeat(30, 3), clock=clock)
        recorder = Recorder(client, messages=True)
        client.open(SOON)
        before = self.proxy.to_client.forwarded
        self.proxy.to_client.throttle(2000)
        client.send("x" * 5000)
        wait_until(lambda: self.proxy.to_client.forwarded > before + 100)
        self.proxy.to_client.stall(scope="current")
        self.proxy.to_client.throttle(None)
        wait_until(lambda: client.stats()["bytes_received"] == self.proxy.to_client.forwarded - before)
        clock.advance(30)
        clock.advance(3)
        recorder.wait_for("close")
        self.assertEqual(recorder.of("message"), [])

    def test_a_stall_shorter_than_the_timeout_costs_nothing(self) -> None:
        client = self.client()
        client.open(SOON)
        self.proxy.both.stall(scope="current")
        client.send("patience")
        with self.assertRaises(TimeoutError):
            client.recv(0.1)
        self.proxy.both.resume()
        self.assertEqual(client.recv(SOON), "patience")

    def test_a_crawl_is_a_timeout_and_then_the_right_data(self) -> None:
        client = self.client()
        client.open(SOON)
        self.proxy.to_client.throttle(20)
        client.send("slowly but surely")
        with self.assertRaises(TimeoutError):
            client.recv(0.1)
        self.proxy.to_client.throttle(None)
        self.assertEqual(client.recv(SOON), "slowly but surely")

    def test_close_while_the_network_is_silent(self) -> None:
        for how in ("stall", "blackhole"):
            client = self.client()
            recorder = Recorder(client)
            client.open(SOON)
            getattr(self.proxy.both, how)(scope="current")
            started = time.monotonic()
            client.close(timeout=0.3)
            self.assertLess(time.monotonic() - started, SOON)
            client._thread.join(SOON)
            self.assertIs(client.state, ClientState.CLOSED)
            self.assertEqual(recorder.names, ["open", "close"])
            with self.assertRaises(SyncWsError):
                client.send("x")


if __name__ == "__main__":
    unittest.main()
