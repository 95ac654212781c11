"""The client over many connections: when the next attempt comes, and a server that comes and goes."""

from __future__ import annotations

import gc
import itertools
import socket
import sys
import threading
import tracemalloc
import unittest
from functools import partial
from typing import Any
from unittest import mock

import sync_ws
from sync_ws import Backoff, Client, ClientState, Connection
from sync_ws.testing import FaultProxy, ManualClock, free_port, serving, wait_until
from tests.support.client_case import SOON, ReconnectTestCase, echo, silent
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire


class WhenTest(ReconnectTestCase):
    def refused(self, clock: ManualClock, **options: Any) -> tuple[Client, Recorder]:
        """A client of a port that nobody listens on, after its first attempt."""
        client = self.client(f"ws://127.0.0.1:{free_port()}/", clock=clock, **options)
        recorder = Recorder(client)
        client.open(0)
        return client, recorder

    def delays(self, clock: ManualClock, recorder: Recorder, count: int) -> list[float]:
        """Of so many attempts, each let through when it is due; there is never more than one timer."""
        for number in range(1, count + 1):
            recorder.wait_for("reconnecting", number)
            wait_until(lambda: clock.pending)
            self.assertEqual(len(clock.pending), 1)
            if number < count:
                clock.advance(clock.pending[0])
        events = recorder.of("reconnecting")
        self.assertEqual([event.attempt for event in events], list(range(1, count + 1)))
        return [event.delay for event in events]

    def test_fixed_delay(self) -> None:
        clock = ManualClock()
        _, recorder = self.refused(clock, reconnect=10)
        self.assertEqual(self.delays(clock, recorder, 4), [10.0] * 4)

    def test_exponential_delay_up_to_the_maximum(self) -> None:
        clock = ManualClock()
        _, recorder = self.refused(clock, reconnect=Backoff(first=1, maximum=10, jitter=False))
        self.assertEqual(self.delays(clock, recorder, 6), [1.0, 2.0, 4.0, 8.0, 10.0, 10.0])

    def test_full_jitter_stays_under_the_cap(self) -> None:
        clock = ManualClock()
        _, recorder = self.refused(clock, reconnect=Backoff(first=1, maximum=8))
        delays = self.delays(clock, recorder, 8)
        for delay, cap in zip(delays, (1, 2, 4, 8, 8, 8, 8, 8)):
            self.assertTrue(0 <= delay <= cap, delays)
        self.assertGreater(len(set(delays)), 4)

    def test_not_a_moment_before_it_is_due(self) -> None:
        clock = ManualClock()
        with ScriptedServer(lambda wire: wire.answer("503 X")) as server:
            client = self.client(server.url(), clock=clock, reconnect=10)
            recorder = Recorder(client)
            client.open(0)
            recorder.wait_for("reconnecting")
            clock.wait_for_timer()
            clock.advance(9.999)
            self.assertEqual((server.accepted, client.state), (1, ClientState.WAITING))
            clock.advance(0.001)
            recorder.wait_for("reconnecting", 2)
            self.assertEqual(server.accepted, 2)

    def test_the_limit_of_attempts_leads_to_gave_up(self) -> None:
        clock = ManualClock()
        client, recorder = self.refused(clock, reconnect=Backoff.fixed(10, attempts=3))
        client.send("never sent")
        self.delays(clock, recorder, 3)
        clock.advance(10)
        self.assertEqual(recorder.wait_for("gave_up").undelivered, ("never sent",))
        wait_until(lambda: client.state is ClientState.CLOSED)
        self.assertEqual((recorder.names, clock.pending), ([*["reconnecting"] * 3, "gave_up"], []))

    def test_a_stable_connection_starts_the_count_anew_and_a_short_one_does_not(self) -> None:
        clock = ManualClock()
        with ScriptedServer(silent) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            policy = Backoff(first=1, maximum=8, jitter=False, stable=60)
            client = self.client(proxy.url(), clock=clock, reconnect=policy)
            recorder = Recorder(client)
            client.open(SOON)
            for number, lived in enumerate((0, 59, 60, 0), 1):
                clock.advance(lived)
                proxy.reset_all()
                recorder.wait_for("reconnecting", number)
                clock.wait_for_timer()
                clock.advance(60 if number < 4 else 0)
                if number < 4:
                    recorder.wait_for("reconnected", number)
            self.assertEqual([event.delay for event in recorder.of("reconnecting")], [1.0, 2.0, 1.0, 2.0])

    def test_retry_after_is_honoured_when_it_is_longer(self) -> None:
        clock = ManualClock()

        def script(wire: Wire) -> None:
            wire.answer("503 X", b"", (f"Retry-After: {(120, 1)[wire.number - 1]}",))

        with ScriptedServer(script) as server:
            client = self.client(server.url(), clock=clock, reconnect=10)
            recorder = Recorder(client)
            client.open(0)
            self.assertEqual(recorder.wait_for("reconnecting").delay, 120.0)
            clock.wait_for_timer()
            clock.advance(119)
            self.assertEqual(server.accepted, 1)
            clock.advance(1)
            self.assertEqual(recorder.wait_for("reconnecting", 2).delay, 10.0)

    def test_retry_after_of_our_own_full_server(self) -> None:
        with serving(echo, max_connections=1) as server:
            first = self.client(server.url, reconnect=None).open(SOON)
            second = self.client(server.url, reconnect=0.01)
            recorder = Recorder(second)
            second.open(0)
            self.assertEqual(recorder.wait_for("reconnecting").delay, 5.0)
            first.close()

    def test_a_reconnect_timer_that_cannot_be_had_delays_nothing_for_ever(self) -> None:
        clock = ManualClock()
        clock.fail_timers(1)
        with ScriptedServer(Wire.switch) as server, self.assertLogs("sync_ws.client", "WARNING"):
            client = self.client(server.url(), clock=clock, reconnect=0.01)
            recorder = Recorder(client)
            client.open(0)
            recorder.wait_for("reconnected")

    def test_six_hours_without_name_resolution(self) -> None:
        clock = ManualClock()
        failing = threading.Event()
        failing.set()
        real = socket.getaddrinfo

        def resolve(host: str, port: int, *args: Any) -> Any:
            if failing.is_set():
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return real("127.0.0.1", port, *args)

        with serving(echo) as server, mock.patch("socket.getaddrinfo", resolve):
            client = self.client(
                f"ws://server.test:{server.port}/ws/", clock=clock, reconnect=Backoff(first=1, maximum=60, jitter=False)
            )
            delays: list[float] = []
            client.on("reconnecting", lambda event: delays.append(event.delay))
            client.open(0)
            client.send("kept")
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            settled, armed = 0, 0
            while clock.monotonic() < 1000 + 6 * 3600:
                clock.wait_for_timer(after=armed)
                self.assertEqual(len(clock.pending), 1)
                armed = clock.armed
                clock.advance(clock.pending[0])
                if len(delays) in (60, 360):
                    gc.collect()
                    before, settled = settled, tracemalloc.get_traced_memory()[0]
                    # what measures coverage keeps its own books in the same memory
                    allowed = 2_000_000 if "coverage" in sys.modules else 100_000
                    self.assertTrue(before == 0 or settled - before < allowed, (before, settled))
            self.assertEqual(delays[:7], [1, 2, 4, 8, 16, 32, 60])
            self.assertEqual(set(delays[6:]), {60})
            clock.wait_for_timer(after=armed)
            failing.clear()
            clock.advance(60)
            self.assertEqual(client.recv(SOON), "kept")


class ServerComesAndGoesTest(ReconnectTestCase):
    def test_open_with_the_server_down_and_then_up(self) -> None:
        port = free_port()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=0.02)
        opened = threading.Event()

        def open_it() -> None:
            client.open(SOON)
            opened.set()

        opener = threading.Thread(target=open_it)
        opener.start()
        wait_until(lambda: client.stats()["attempts_failed"] > 1)
        self.assertFalse(opened.is_set())
        with sync_ws.Server("127.0.0.1", port, echo) as server:
            server.start()
            self.assertTrue(opened.wait(SOON))
            opener.join()
            client.send("x")
            self.assertEqual(client.recv(SOON), "x")
            client.close()

    def test_iteration_goes_on_across_reconnects(self) -> None:
        numbers = itertools.count()

        def three(conn: Connection) -> None:
            for _ in range(3):
                conn.send(str(next(numbers)))
            conn.close(1012)

        with serving(three) as server:
            client = self.client(server.url, reconnect=0.01).open(SOON)
            got = list(itertools.islice(client, 12))
            self.assertEqual(got, [str(number) for number in range(12)])
            self.assertGreaterEqual(client.stats()["reconnects"], 3)

    def test_recv_waits_across_a_reconnect_and_times_out_in_between(self) -> None:
        with serving(echo) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(), reconnect=0.02).open(SOON)
            proxy.refuse()
            proxy.reset_all()
            wait_until(lambda: client.state is not ClientState.OPEN)
            with self.assertRaises(TimeoutError):
                client.recv(0.1)
            client.send("queued")
            got: list[Any] = []
            reader = threading.Thread(target=lambda: got.append(client.recv(SOON)))
            reader.start()
            proxy.accept()
            reader.join(SOON * 2)
            self.assertEqual(got, ["queued"])

    def test_there_is_never_more_than_one_connection(self) -> None:
        now, most = 0, 0
        lock = threading.Lock()

        def count(conn: Connection) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            try:
                list(conn)
            finally:
                with lock:
                    now -= 1

        with serving(count) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(), reconnect=0.05)
            recorder = Recorder(client)
            client.open(SOON)
            for number in range(1, 6):
                proxy.reset_all()
                recorder.wait_for("open", number + 1)
            self.assertEqual(proxy.open_connections, 1)
        self.assertEqual(most, 1)

    def test_eight_threads_send_while_the_server_comes_and_goes(self) -> None:
        """What was queued arrives; each thread's messages in order, none twice."""
        got: list[str] = []

        def collect(conn: Connection) -> None:
            got.extend(str(message) for message in conn)

        sent: dict[int, list[int]] = {own: [] for own in range(8)}
        stop = threading.Event()
        with serving(collect) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(), reconnect=0.02)
            recorder = Recorder(client)
            client.open(SOON)

            def send(own: int) -> None:
                for number in itertools.count():
                    if stop.wait(0.002):
                        return
                    try:
                        client.send(f"{own} {number}")
                        sent[own].append(number)
                    except sync_ws.QueueFull:
                        stop.wait(0.02)

            threads = [threading.Thread(target=send, args=(own,)) for own in sent]
            for thread in threads:
                thread.start()
            queued: list[str] = []
            for number in range(1, 4):
                proxy.refuse()
                proxy.cut_all()
                recorder.wait_for("close", number)
                wait_until(lambda: client.stats()["queued_messages"] > 8)
                with client._line._lock:
                    queued += [str(entry.message) for entry in client._line._outbox._entries]
                proxy.accept()
                recorder.wait_for("reconnected", number)
                # what was in the kernel when the next cut comes is lost, and cannot be known to be
                wait_until(partial(set(queued).issubset, got), message="queued, and lost")
            stop.set()
            for thread in threads:
                thread.join(SOON)
            wait_until(lambda: client.connected and not client.stats()["queued_messages"])
            client.send("end")
            wait_until(lambda: "end" in got)
            client.close()
        for own, numbers in sent.items():
            arrived = [int(message.split()[1]) for message in got if message.startswith(f"{own} ")]
            self.assertEqual(arrived, sorted(set(arrived)), "out of order, or twice")
            self.assertLessEqual(set(arrived), set(numbers))


if __name__ == "__main__":
    unittest.main()
