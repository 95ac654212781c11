"""FaultProxy: corrupted, throttled and split streams, and which connections a setting is for."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
import unittest
from collections.abc import Callable

from sync_ws.testing._faults import Ending, Faults, Totals
from sync_ws.testing._flow import Flow
from sync_ws.testing.proxy import Scope
from tests.testing.test_proxy import MESSAGE, TIMEOUT, ProxyTestCase, receive, receive_all, send_and_close


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

    def test_split_sends_each_piece_on_its_own(self) -> None:
        for size in (1, 5, 64):
            with self.subTest(size=size):
                source, sink = socket.socketpair()
                with source, sink:
                    recorder = Recorder()
                    flow = Flow(source, recorder, Faults(piece=size), Totals())
                    sink.sendall(MESSAGE)
                    flow.read()
                    self.assertIsNone(flow.write(0.0))
                    self.assertEqual(b"".join(recorder.sends), MESSAGE)
                    self.assertEqual({len(piece) for piece in recorder.sends[:-1]} - {size}, set())

    def test_a_long_write_yields_and_comes_back_for_the_rest_and_the_end(self) -> None:
        source, sink = socket.socketpair()
        recorder = Recorder()
        with source:
            flow = Flow(source, recorder, Faults(piece=1, reset_at=256), Totals())
            with sink:
                sink.sendall(bytes(300))
            flow.read()
            self.assertIsNone(flow.write(0.0))
            self.assertEqual(flow.wants_turn_at(), 0.0)
            self.assertIs(flow.write(0.0), Ending.RESET)
            self.assertEqual(len(recorder.sends), 256)

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


class Recorder(socket.socket):
    """A sink that takes everything and remembers each send."""

    def __init__(self) -> None:
        super().__init__()
        self.close()
        self.sends: list[bytes] = []

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override]
        self.sends.append(bytes(data))
        return len(data)


if __name__ == "__main__":
    unittest.main()
