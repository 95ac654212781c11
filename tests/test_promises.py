"""The README's table of limits and promises, one test a line; times scaled down by the options that set them."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from pathlib import Path

import sync_ws
from sync_ws import Heartbeat
from sync_ws.channel.housekeeper import TICK
from sync_ws.testing import FaultProxy, wait_until
from tests.support.raw import RawClient, frame
from tests.support.server_case import ServerTestCase, echo
from tests.support.slack import at_most


class Promises(ServerTestCase):
    tick = TICK

    def test_a_dead_server_is_noticed_within_interval_plus_timeout(self) -> None:
        server = self.serve()
        with FaultProxy("127.0.0.1", server.port) as proxy:
            lost = threading.Event()
            client = sync_ws.Client(proxy.url(), heartbeat=Heartbeat(0.4, 0.2), reconnect=None)
            client.on("close", lambda event: lost.set())
            with client:
                proxy.both.blackhole()
                began = time.monotonic()
                self.assertTrue(lost.wait(at_most(0.6)))
                self.assertLess(time.monotonic() - began, at_most(0.6))

    def test_a_dead_client_is_noticed_within_ping_interval_plus_ping_timeout(self) -> None:
        server = self.serve(ping_interval=0.3, ping_timeout=0.3)
        with FaultProxy("127.0.0.1", server.port) as proxy, RawClient(proxy.port) as client:
            client.upgrade("/ws/?name=test")
            wait_until(lambda: "test" in server.clients)
            proxy.both.blackhole()
            wait_until(lambda: "test" not in server.clients, at_most(0.3 + 0.3 + 0.5), "the dead client stayed")

    def test_a_client_is_back_within_one_reconnect_delay(self) -> None:
        server = self.serve()
        port = server.port
        with sync_ws.Client(server.url, reconnect=0.3) as client:
            server.shutdown()
            wait_until(lambda: client.state is sync_ws.ClientState.WAITING)
            with sync_ws.Server("127.0.0.1", port, echo).start():
                wait_until(lambda: client.state is sync_ws.ClientState.OPEN, at_most(0.3))
                client.close()

    def test_close_returns_within_its_timeout(self) -> None:
        server = self.serve()
        with FaultProxy("127.0.0.1", server.port) as proxy:
            client = sync_ws.Client(proxy.url(), heartbeat=None).open()
            proxy.both.stall()
            began = time.monotonic()
            client.close(timeout=0.3)
            self.assertLess(time.monotonic() - began, at_most(0.3))
            wait_until(lambda: client.state is sync_ws.ClientState.CLOSED)

    def test_shutdown_returns_within_its_timeout_and_a_second(self) -> None:
        gate = self.gate()
        server = self.serve(lambda conn: gate.wait())
        client = self.client(server)
        wait_until(lambda: len(server.connections) == 1)
        began = time.monotonic()
        (left,) = server.shutdown(timeout=0.3)
        self.assertLess(time.monotonic() - began, at_most(0.3 + 1.0))
        gate.set()
        left.join(5)
        self.assertFalse(left.is_alive())
        client.close()

    def test_an_opening_handshake_is_bounded_on_both_sides(self) -> None:
        server = self.serve(handshake_timeout=0.3)
        with RawClient(server.port) as client:
            client.send(b"GET /ws/ HTTP/1.1\r\n")
            self.assertIn(b" 408 ", client.read_to_end())
        for request, status in (
            (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n", b" 414 "),
            (b"GET /ws/ HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", b" 431 "),
            (b"GET /ws/ HTTP/1.1\r\nA: " + b"b" * 33000 + b"\r\n\r\n", b" 431 "),
        ):
            with RawClient(server.port) as client:
                client.send(request)
                self.assertIn(status, client.read_to_end())
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with self.assertRaises(sync_ws.HandshakeTimeout):
                sync_ws.Client(f"ws://127.0.0.1:{port}/", open_timeout=0.3, reconnect=None).open()

    def test_a_message_is_bounded_from_its_header_on(self) -> None:
        server = self.serve(max_message=1000, max_fragments=10)
        for sent in (
            frame(2, b"x" * 1001)[:8],  # the header alone is enough
            frame(2, b"x" * 600, fin=False) + frame(0, b"x" * 600),
            frame(2, b"", fin=False) + frame(0, b"", fin=False) * 10,
        ):
            with self.client(server) as client:
                client.send(sent)
                self.assertEqual(client.read_close()[0], 1009)

    def test_received_and_not_taken_is_bounded_while_nobody_reads(self) -> None:
        gate = self.gate()
        server = self.serve(lambda conn: gate.wait())
        client = self.client(server)
        wait_until(lambda: len(server.connections) == 1)
        (connection,) = wait_until(lambda: server.connections)
        client.send(frame(1, b"m") * 1000)
        wait_until(lambda: connection.channel.bytes_received > 0)
        for _ in range(3):
            connection.channel.tend()
            self.assertLessEqual(len(connection.channel.receiver._inbox), 16)
        gate.set()
        client.close()

    def test_broadcast_and_not_taken_is_bounded_then_refused_then_closed(self) -> None:
        gate = self.gate()
        server = self.serve(lambda conn: gate.wait(), send_timeout=0.5)
        client = RawClient(server.port, receive_buffer=4096)
        client.upgrade("/ws/")
        wait_until(lambda: len(server.connections) == 1)
        (connection,) = wait_until(lambda: server.connections)
        data = b"x" * 100_000

        def refused() -> bool:
            frames, size = connection.channel.writer.queued
            self.assertLessEqual(frames, 64)
            self.assertLessEqual(size, (1 << 20) + len(data) + 10)
            return bool(server.broadcast(data).refused)

        wait_until(refused)
        wait_until(lambda: connection.close_reason is not None, at_most(0.5 + 1.0))
        self.assertEqual(connection.close_reason.code, 1013)
        gate.set()
        client.close()

    def test_the_offline_queue_is_bounded(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        client = sync_ws.Client(f"ws://127.0.0.1:{port}/", reconnect=30).open(timeout=0)
        self.addCleanup(client.close)
        for _ in range(64):
            client.send("m")
        with self.assertRaises(sync_ws.QueueFull):
            client.send("one too many")
        other = sync_ws.Client(f"ws://127.0.0.1:{port}/", reconnect=30).open(timeout=0)
        self.addCleanup(other.close)
        other.send(b"x" * (1 << 20))
        with self.assertRaises(sync_ws.QueueFull):
            other.send(b"x")

    def test_an_idle_connection_is_one_thread_and_some_forty_kilobytes(self) -> None:
        server = self.serve()
        threads = threading.active_count()
        clients = [self.client(server) for _ in range(20)]
        wait_until(lambda: len(server.connections) == 20)
        gc.collect()
        before = resident()
        clients += [self.client(server) for _ in range(150)]
        wait_until(lambda: len(server.connections) == 170)
        self.assertEqual(threading.active_count() - threads, 170)
        if before is not None:
            # the clients are in this process, too; the benchmark measures the server alone
            self.assertLess(((resident() or 0) - before) / 150, 64 * 1024)
        for client in clients:
            client.close()

    def test_a_client_is_one_thread_and_one_timer(self) -> None:
        server = self.serve()
        threads = set(threading.enumerate())
        with sync_ws.Client(server.url) as client:
            client.send("hello")
            client.recv(timeout=5)
            names = [thread.name for thread in threading.enumerate() if thread not in threads]
            ours = [name for name in names if name.startswith(("sync_ws-client", "sync_ws-timer"))]
            self.assertEqual(len(ours), 2, names)


def resident() -> int | None:
    """Bytes resident, where the system tells."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
