"""The thread behind a proxy: commands from other threads, its connections, and what is left when it ends."""

from __future__ import annotations

import socket
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws.testing import LedgerTestCase, wait_until
from sync_ws.testing._faults import Faults, Totals
from sync_ws.testing._relay import HOST, Relay, RelayClosed

TIMEOUT = 5.0  # seconds a socket operation of these tests may take


class RelayTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.upstream = socket.create_server((HOST, 0))
        self.addCleanup(self.upstream.close)
        self.upstream.settimeout(TIMEOUT)
        self.relay = Relay(socket.AF_INET, self.upstream.getsockname())
        self.addCleanup(self.relay.close)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = socket.create_connection((HOST, self.relay.port), TIMEOUT)
        self.addCleanup(client.close)
        server, _ = self.upstream.accept()
        self.addCleanup(server.close)
        server.settimeout(TIMEOUT)
        return client, server

    def passes(self, client: socket.socket, server: socket.socket) -> bool:
        """Whether a byte comes through; False when the stream has ended instead."""
        client.sendall(b"x")
        return server.recv(1) == b"x"

    def set(self, names: Any, scope: Any, faults: Faults) -> None:
        self.relay.call(lambda: self.relay.configure(names, scope, lambda _: faults))


class Commands(RelayTest):
    def test_a_command_runs_in_the_relays_thread_and_its_result_comes_back(self) -> None:
        name = self.relay.call(lambda: threading.current_thread().name)
        self.assertEqual(name, f"FaultProxy-{self.relay.port}")

    def test_an_error_of_the_system_is_the_callers_and_the_relay_goes_on(self) -> None:
        with self.assertRaisesRegex(OSError, "planted"):
            self.relay.call(mock.Mock(side_effect=OSError("planted")))
        self.assertTrue(self.passes(*self.connect()))

    def test_commands_of_several_threads_are_all_done(self) -> None:
        done: list[int] = []

        def use() -> None:
            for _ in range(100):
                self.relay.call(lambda: done.append(1))

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(len(done), 400)

    def test_a_defect_ends_the_thread_and_no_caller_waits_for_it(self) -> None:
        with mock.patch("threading.excepthook") as told:
            with self.assertRaises(RelayClosed):
                self.relay.call(mock.Mock(side_effect=KeyError("planted")))
            self.relay._thread.join(TIMEOUT)
        told.assert_called_once()
        with self.assertRaises(RelayClosed):
            self.relay.call(lambda: None)

    def test_a_command_that_comes_as_the_thread_ends_is_told_so(self) -> None:
        entered, leave = threading.Event(), threading.Event()
        failed: list[BaseException] = []

        def hold() -> None:
            entered.set()
            leave.wait(TIMEOUT)
            self.relay._stopping = True

        def late() -> None:
            try:
                self.relay.call(lambda: None)
            except RelayClosed as exc:
                failed.append(exc)

        threads = [threading.Thread(target=self.relay.call, args=(hold,)), threading.Thread(target=late)]
        threads[0].start()
        entered.wait(TIMEOUT)
        threads[1].start()
        wait_until(lambda: bool(self.relay._commands))
        leave.set()
        for thread in threads:
            thread.join(TIMEOUT)
        self.assertEqual(len(failed), 1)


class Connections(RelayTest):
    def test_bytes_and_ends_pass_and_are_counted(self) -> None:
        client, server = self.connect()
        self.assertTrue(self.passes(client, server) and self.passes(server, client))
        self.assertEqual((self.relay.accepted, self.relay.call(self.relay.count_open)), (1, 1))
        client.close()
        self.assertEqual(server.recv(1), b"")
        server.close()
        wait_until(lambda: self.relay.call(self.relay.count_open) == 0)
        self.assertEqual(self.relay.totals, {"to_server": Totals(1, 1), "to_client": Totals(1, 1)})

    def test_a_setting_is_for_the_connections_of_its_scope(self) -> None:
        scopes: tuple[tuple[str, list[bool]], ...] = (
            ("all", [True, True, True]),
            ("current", [True, False, False]),
            ("new", [False, True, True]),
            ("next", [False, True, False]),
        )
        for scope, expected in scopes:
            pairs = [self.connect()]
            self.set(("to_server",), scope, Faults(cut_at=0))
            pairs += [self.connect() for _ in range(2)]
            cut = [not self.passes(client, server) for client, server in pairs]
            with self.subTest(scope):
                self.assertEqual(cut, expected)
            self.set(("to_server", "to_client"), "all", Faults())
            self.relay.call(self.relay.reset_all)

    def test_a_throttled_connection_gets_its_turns(self) -> None:
        client, server = self.connect()
        self.set(("to_server",), "current", Faults(rate=100))
        client.sendall(bytes(12))
        began = time.monotonic()
        received = 0
        while received < 12:
            received += len(server.recv(12))
        self.assertGreaterEqual(time.monotonic() - began, 0.09)  # 5 bytes at once, and every 50 ms
        wait_until(lambda: self.relay.call(lambda: not self.relay._timed))

    def test_cut_and_reset_end_the_present_connections(self) -> None:
        ends: tuple[tuple[Callable[[], None], bool], ...] = ((self.relay.cut_all, False), (self.relay.reset_all, True))
        for end, reset in ends:
            client, server = self.connect()
            self.relay.call(end)
            self.assertEqual(self.relay.call(self.relay.count_open), 0)
            for sock in (client, server):
                if reset:
                    self.assertRaises(ConnectionResetError, sock.recv, 1)
                else:
                    self.assertEqual(sock.recv(1), b"")
            self.set(("to_client",), "current", Faults(mode="stall"))  # one that was cut does not come back
            self.assertTrue(self.passes(*self.connect()))


class Listening(RelayTest):
    def test_it_can_refuse_and_accept_again_on_the_same_port(self) -> None:
        client, server = self.connect()
        for _ in range(2):
            self.relay.call(self.relay.refuse)
            self.relay.call(self.relay.refuse)
            self.assertRaises(ConnectionRefusedError, socket.create_connection, (HOST, self.relay.port), TIMEOUT)
            self.assertTrue(self.passes(client, server))
            self.relay.call(self.relay.accept)
            self.relay.call(self.relay.accept)
            self.connect()

    def test_a_failed_accept_is_tried_again_after_a_pause(self) -> None:
        listener, original, calls = self.relay._listener, socket.socket.accept, list[int]()

        def accept(sock: socket.socket) -> tuple[socket.socket, Any]:
            if sock is not listener:
                return original(sock)
            calls.append(1)
            if len(calls) == 1:
                raise OSError("no descriptor left")
            if len(calls) == 2:
                raise BlockingIOError  # whoever came has gone
            return original(sock)

        pause = mock.patch("sync_ws.testing._relay.ACCEPT_PAUSE", 0.02)
        with pause, mock.patch.object(socket.socket, "accept", accept):
            client, server = self.connect()
            self.assertTrue(self.passes(client, server))
        self.assertGreaterEqual(len(calls), 3)

    def test_a_port_that_cannot_be_had_leaves_nothing_behind(self) -> None:
        with mock.patch.object(socket.socket, "bind", side_effect=OSError("taken")):
            self.assertRaises(OSError, Relay, socket.AF_INET, self.upstream.getsockname())


class Ends(RelayTest):
    def test_close_ends_its_connections_and_may_be_repeated(self) -> None:
        client, server = self.connect()
        self.assertTrue(self.passes(client, server))
        self.relay.close()
        self.relay.close()
        self.assertEqual((client.recv(1), server.recv(1)), (b"", b""))
        self.assertRaises(RelayClosed, self.relay.call, lambda: None)
        self.assertRaises(ConnectionRefusedError, socket.create_connection, (HOST, self.relay.port), TIMEOUT)

    def test_a_thread_that_does_not_end_is_told(self) -> None:
        held = threading.Event()
        holder = threading.Thread(target=lambda: self.relay.call(lambda: held.wait(TIMEOUT)))
        holder.start()
        wait_until(lambda: not self.relay._commands)
        impatient = mock.patch("sync_ws.testing._relay.CONTROL_TIMEOUT", 0.05)
        ending = mock.patch.object(self.relay, "call", side_effect=RelayClosed)  # as if another one had closed it
        with impatient, ending, self.assertRaisesRegex(RuntimeError, "did not end"):
            self.relay.close()
        held.set()
        holder.join(TIMEOUT)


if __name__ == "__main__":
    unittest.main()
