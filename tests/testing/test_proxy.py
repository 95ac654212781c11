"""FaultProxy: what it is told to harm is harmed exactly so, and everything else arrives as it was sent."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import struct
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from unittest import mock

from sync_ws.testing import FaultProxy, LedgerTestCase, free_port, wait_until
from sync_ws.testing.proxy import Direction, Scope

TIMEOUT = 5.0  # seconds a socket operation of these tests may take
MESSAGE = bytes(range(32, 64))


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or those before the end."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return bytes(data)


def receive_all(sock: socket.socket) -> tuple[bytes, str]:
    """What comes until the end, and which end it was."""
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        return bytes(data), "reset"
    return bytes(data), "fin"


def send_and_close(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.close()


def abort(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class ProxyTestCase(LedgerTestCase):
    """A proxy before a listening socket; `connect` gives both ends of a connection through it."""

    timeout = 20.0

    def setUp(self) -> None:
        super().setUp()
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.upstream.close)
        self.upstream.settimeout(TIMEOUT)
        self.proxy = FaultProxy("127.0.0.1", self.upstream.getsockname()[1])
        self.addCleanup(self.proxy.close)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection(("127.0.0.1", self.proxy.port), TIMEOUT)
        self.addCleanup(client.close)
        server, _ = self.upstream.accept()
        self.addCleanup(server.close)
        server.settimeout(TIMEOUT)
        return client, server

    def both_ways(self) -> Iterator[tuple[socket.socket, socket.socket, Direction]]:
        """For each direction: a new connection's sender, its receiver, and the controls."""
        client, server = self.connect()
        yield client, server, self.proxy.to_server
        client.close()
        server.close()
        client, server = self.connect()
        yield server, client, self.proxy.to_client
        client.close()
        server.close()

    def wait_discarded(self, direction: Direction, total: int) -> None:
        wait_until(lambda: direction.discarded == total, message="discarded")

    def assert_silent(self, *socks: socket.socket) -> None:
        """Nothing is there to be read. Not a guess: the proxy settles all before it answers a control."""
        self.proxy.both.split(None)
        for sock in socks:
            sock.setblocking(False)
            with self.assertRaises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(TIMEOUT)


class Transparent(ProxyTestCase):
    def test_bytes_pass_both_ways_and_are_counted(self) -> None:
        client, server = self.connect()
        client.sendall(MESSAGE)
        self.assertEqual(receive(server, len(MESSAGE)), MESSAGE)
        server.sendall(MESSAGE[:5])
        self.assertEqual(receive(client, 5), MESSAGE[:5])
        proxy = self.proxy
        self.assertEqual((proxy.to_server.received, proxy.to_server.forwarded), (len(MESSAGE), len(MESSAGE)))
        self.assertEqual((proxy.to_client.received, proxy.to_client.forwarded), (5, 5))
        self.assertEqual((proxy.both.forwarded, proxy.both.discarded), (len(MESSAGE) + 5, 0))
        self.assertEqual((proxy.connections, proxy.open_connections), (1, 1))

    def test_fin_passes_and_the_other_direction_goes_on(self) -> None:
        for sender, receiver, _ in self.both_ways():
            sender.sendall(MESSAGE)
            sender.shutdown(socket.SHUT_WR)
            self.assertEqual(receive_all(receiver), (MESSAGE, "fin"))
            receiver.sendall(MESSAGE)
            receiver.close()
            self.assertEqual(receive_all(sender), (MESSAGE, "fin"))
            wait_until(lambda: self.proxy.open_connections == 0, message="both ends are closed")

    def test_rst_passes(self) -> None:
        for sender, receiver, _ in self.both_ways():
            abort(sender)
            self.assertEqual(receive_all(receiver), (b"", "reset"))

    def test_a_full_receiver_pushes_back_and_nothing_is_lost_or_reordered(self) -> None:
        data = random.Random(1).randbytes(16 << 20)
        client, server = self.connect()
        client.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += client.send(data[sent : sent + 65536])
        flow = self.proxy.to_server
        wait_until(lambda: flow.received > flow.forwarded, message="pressure")
        self.assertLess(flow.received, len(data))
        client.settimeout(TIMEOUT)
        sender = threading.Thread(target=send_and_close, args=(client, data[sent:]))
        sender.start()
        self.assertEqual(receive_all(server), (data, "fin"))
        sender.join(TIMEOUT)

    def test_a_refusing_upstream_is_a_reset(self) -> None:
        with FaultProxy("127.0.0.1", free_port()) as proxy, socket.socket() as client:
            client.settimeout(TIMEOUT)
            with self.assertRaises(ConnectionResetError):
                client.connect(("127.0.0.1", proxy.port))  # may find it out at once
                client.recv(1)

    def test_url_and_repr(self) -> None:
        port = self.proxy.port
        self.assertEqual(self.proxy.url("/x/?name=a"), f"ws://127.0.0.1:{port}/x/?name=a")
        self.assertEqual(self.proxy.url(scheme="wss"), f"wss://127.0.0.1:{port}/ws/")
        self.assertIn(f"127.0.0.1:{port} -> 127.0.0.1:", repr(self.proxy))


class Silence(ProxyTestCase):
    def test_stall_holds_bytes_and_fin_back_in_its_direction_alone(self) -> None:
        for sender, receiver, direction in self.both_ways():
            direction.stall()
            sender.sendall(MESSAGE)
            sender.shutdown(socket.SHUT_WR)
            receiver.sendall(b"back")
            self.assertEqual(receive(sender, 4), b"back")
            self.assert_silent(receiver)
            direction.resume()
            self.assertEqual(receive_all(receiver), (MESSAGE, "fin"))

    def test_stall_holds_the_reset_back(self) -> None:
        client, server = self.connect()
        self.proxy.to_server.stall()
        abort(client)
        self.assert_silent(server)
        self.proxy.to_server.resume()
        self.assertEqual(receive_all(server), (b"", "reset"))

    def test_blackhole_discards_and_keeps_the_end_back(self) -> None:
        for sender, receiver, direction in self.both_ways():
            direction.blackhole()
            discarded = direction.discarded
            sender.sendall(MESSAGE)
            sender.shutdown(socket.SHUT_WR)
            self.wait_discarded(direction, discarded + len(MESSAGE))
            self.assert_silent(receiver)
            direction.resume()
            self.assertEqual(receive_all(receiver), (b"", "fin"))

    def test_blackhole_hides_a_dead_client_until_it_is_lifted(self) -> None:
        client, server = self.connect()
        self.proxy.to_server.blackhole()
        abort(client)
        for _ in range(3):  # goes to nobody, and the server must not learn that
            server.sendall(MESSAGE)
            self.assert_silent(server)
        self.proxy.to_server.resume()
        self.assertEqual(receive_all(server), (b"", "reset"))

    def test_blackhole_takes_what_a_throttle_held(self) -> None:
        client, server = self.connect()
        self.proxy.to_server.throttle(1)
        client.sendall(MESSAGE)
        self.assertEqual(receive(server, 1), MESSAGE[:1])
        self.proxy.to_server.blackhole()
        self.proxy.to_server.clear()
        client.sendall(b"after")
        self.assertEqual(receive(server, 5), b"after")


class Ends(ProxyTestCase):
    def test_cut_at_every_byte(self) -> None:
        for n in range(len(MESSAGE) + 1):
            for sender, receiver, direction in self.both_ways():
                direction.cut_at(n, scope="current")
                if n:
                    sender.sendall(MESSAGE)
                self.assertEqual(receive_all(receiver), (MESSAGE[:n], "fin"))
                self.assertEqual(receive_all(sender), (b"", "fin"))
        self.assertEqual(self.proxy.open_connections, 0)

    def test_cut_at_is_at_once_when_the_bytes_have_passed(self) -> None:
        client, server = self.connect()
        client.sendall(MESSAGE)
        receive(server, len(MESSAGE))
        self.proxy.to_server.stall()
        self.proxy.to_server.cut_at(3)
        self.assertEqual((receive_all(server), receive_all(client)), ((b"", "fin"), (b"", "fin")))

    def test_a_cut_connection_is_closed_though_its_peers_hold_on(self) -> None:
        client, server = self.connect()
        with mock.patch("sync_ws.testing._flow.LINGER", 0.1):
            self.proxy.cut_all()
        self.assertEqual(receive_all(client), (b"", "fin"))
        with self.assertRaises(OSError):  # EPIPE or ECONNRESET, after that time
            wait_until(lambda: client.send(b"x") == 0, 4.0, "the proxy never closed")
        self.assertEqual(receive_all(server), (b"", "fin"))

    def test_reset_at(self) -> None:
        for n in (0, 1, 7, len(MESSAGE)):
            for sender, receiver, direction in self.both_ways():
                direction.reset_at(n, scope="current")
                if n:
                    sender.sendall(MESSAGE)
                data, end = receive_all(receiver)
                self.assertTrue(MESSAGE[:n].startswith(data), "what a reset leaves is a beginning")
                self.assertEqual((end, receive_all(sender)), ("reset", (b"", "reset")))

    def test_cut_all_and_reset_all_take_the_present_connections_alone(self) -> None:
        for act, end in ((self.proxy.cut_all, "fin"), (self.proxy.reset_all, "reset")):
            with self.subTest(end):
                pairs = [self.connect() for _ in range(3)]
                act()
                self.assertEqual(self.proxy.open_connections, 0)
                for sock in sum(pairs, ()):
                    self.assertEqual(receive_all(sock), (b"", end))
                client, server = self.connect()
                client.sendall(MESSAGE)
                self.assertEqual(receive(server, len(MESSAGE)), MESSAGE)
                client.close()
                self.assertEqual(receive_all(server), (b"", "fin"))
                server.close()
                wait_until(lambda: self.proxy.open_connections == 0)

    def test_refuse_and_accept_keep_port_and_present_connections(self) -> None:
        client, server = self.connect()
        for _ in range(3):
            self.proxy.refuse()
            self.proxy.refuse()
            with self.assertRaises(ConnectionRefusedError):
                self.connect()
            client.sendall(MESSAGE)
            self.assertEqual(receive(server, len(MESSAGE)), MESSAGE)
            self.proxy.accept()
            self.proxy.accept()
            self.connect()
        self.assertEqual(self.proxy.connections, 4)


class Harm(ProxyTestCase):
    def test_corrupt_changes_these_bytes_and_no_others(self) -> None:
        for sender, receiver, direction in self.both_ways():
            direction.corrupt(at=3)
            direction.corrupt(at=9, xor=0x80)
            direction.split(2)
            sender.sendall(MESSAGE)
            expected = bytearray(MESSAGE)
            expected[3] ^= 0x01
            expected[9] ^= 0x80
            self.assertEqual(receive(receiver, len(MESSAGE)), bytes(expected))
            direction.clear()
            sender.sendall(MESSAGE)
            self.assertEqual(receive(receiver, len(MESSAGE)), MESSAGE)

    def test_throttle_is_no_faster_than_told_and_can_be_lifted(self) -> None:
        client, server = self.connect()
        self.proxy.to_server.throttle(100)
        begin = time.monotonic()
        client.sendall(MESSAGE)
        self.assertEqual(receive(server, 21), MESSAGE[:21])
        self.assertGreaterEqual(time.monotonic() - begin, 0.19)  # 5 bytes at once, and every 50 ms
        self.proxy.to_server.throttle(1)
        receive(server, 1)
        self.proxy.to_server.throttle(None)
        client.sendall(MESSAGE)
        self.assertTrue(receive(server, len(MESSAGE) * 2 - 22).endswith(MESSAGE))

    def test_all_at_once_from_several_threads_keeps_the_order(self) -> None:
        data = random.Random(2).randbytes(1 << 20)
        client, server = self.connect()
        over = threading.Event()

        def disturb(seed: int) -> None:
            choice = random.Random(seed)
            while not over.is_set():
                choice.choice((self.proxy.to_server.stall, self.proxy.to_server.resume))()
                self.proxy.to_server.split(choice.choice((None, 700, 5000)))
                self.proxy.to_server.resume()

        threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(3)]
        threads.append(threading.Thread(target=send_and_close, args=(client, data)))
        for thread in threads:
            thread.start()
        received = receive_all(server)
        over.set()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(received, (data, "fin"))


class Scopes(ProxyTestCase):
    def cut_connections(self, scope: Scope) -> list[bool]:
        """Of two connections before and two after cut_at(0), which were cut."""
        pairs = [self.connect() for _ in range(2)]
        self.proxy.to_client.cut_at(0, scope=scope)
        pairs += [self.connect() for _ in range(2)]
        for _, server in pairs:
            with contextlib.suppress(OSError):
                server.sendall(b"x")
        result = [receive(client, 1) == b"" for client, _ in pairs]
        self.proxy.reset_all()
        self.proxy.both.clear()
        return result

    def test_scope(self) -> None:
        self.assertEqual(self.cut_connections("all"), [True, True, True, True])
        self.assertEqual(self.cut_connections("current"), [True, True, False, False])
        self.assertEqual(self.cut_connections("new"), [False, False, True, True])
        self.assertEqual(self.cut_connections("next"), [False, False, True, False])

    def test_wrong_arguments_are_refused(self) -> None:
        direction = self.proxy.to_server
        calls: tuple[Callable[[], None], ...] = (
            lambda: direction.cut_at(-1),
            lambda: direction.reset_at(-1),
            lambda: direction.corrupt(-1),
            lambda: direction.corrupt(0, xor=0),
            lambda: direction.corrupt(0, xor=256),
            lambda: direction.throttle(0),
            lambda: direction.split(0),
            lambda: direction.stall(scope="some"),  # type: ignore[arg-type]
        )
        for call in calls:
            with self.assertRaises(ValueError):
                call()


class Lifetime(ProxyTestCase):
    def test_close_ends_connections_in_any_state_and_is_idempotent(self) -> None:
        clients = []
        states: tuple[Callable[[], None], ...] = (
            self.proxy.both.clear,
            self.proxy.both.stall,
            self.proxy.both.blackhole,
            lambda: self.proxy.both.throttle(1),
            self.proxy.cut_all,
        )
        for prepare in states:
            clients.append(self.connect()[0])
            prepare()
            with contextlib.suppress(OSError):
                clients[-1].sendall(MESSAGE)
        self.proxy.close()
        self.proxy.close()
        for client in clients:
            receive_all(client)
        self.assertEqual((self.proxy.open_connections, self.proxy.connections), (0, 5))
        for control in (self.proxy.cut_all, self.proxy.refuse, self.proxy.to_client.stall):
            with self.assertRaises(RuntimeError):
                control()
        with self.assertRaises(ConnectionRefusedError):
            self.connect()

    def test_close_while_others_use_the_controls(self) -> None:
        def use() -> None:
            with contextlib.suppress(RuntimeError):
                while True:
                    self.proxy.both.split(1)

        threads = [threading.Thread(target=use) for _ in range(3)]
        for thread in threads:
            thread.start()
        self.proxy.close()
        for thread in threads:
            thread.join(TIMEOUT)
            self.assertFalse(thread.is_alive())

    def test_an_unknown_upstream_name_raises_and_leaves_nothing(self) -> None:
        with self.assertRaises(OSError):
            FaultProxy("name.invalid\0", 1)

    def test_a_process_out_of_descriptors_accepts_later(self) -> None:
        client = socket.socket()
        self.addCleanup(client.close)
        client.settimeout(TIMEOUT)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = client.fileno() + 1
        with contextlib.ExitStack() as fill:
            while (filler := fill.enter_context(socket.socket())).fileno() < lowest_free:
                lowest_free = max(lowest_free, filler.fileno() + 1)
            resource.setrlimit(resource.RLIMIT_NOFILE, (filler.fileno() + 1, hard))
            try:
                client.connect(("127.0.0.1", self.proxy.port))
                wait_until(lambda: self.proxy._relay._accept_again is not None, message="accept failed")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        server, _ = self.upstream.accept()
        with server:
            client.sendall(MESSAGE)
            self.assertEqual(receive(server, len(MESSAGE)), MESSAGE)


if __name__ == "__main__":
    unittest.main()
