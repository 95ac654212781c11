"""The server's own life: start, options, forever, shutdown, forks."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
import unittest
from typing import Any
from unittest import mock

from sync_ws import Client, Connection, ConnectionClosed, Server
from sync_ws.server.state import ServerState
from sync_ws.testing import LedgerTestCase
from tests.support.raw import PING, RawClient, handshake, read_response
from tests.support.server_case import ServerTestCase, echo, wait_until
from tests.support.wire import fork


class LifeTest(ServerTestCase):
    def test_url_and_port(self) -> None:
        server = self.serve()
        self.assertEqual(server.url, f"ws://127.0.0.1:{server.port}/ws/")
        self.assertGreater(server.port, 0)
        everywhere = Server("0.0.0.0", path="/other")
        self.assertEqual(everywhere.url, f"ws://127.0.0.1:{everywhere.port}/other")
        everywhere.shutdown()

    def test_ipv6(self) -> None:
        try:
            server = Server("::1", 0, echo)
        except OSError as exc:
            self.skipTest(f"no IPv6 here: {exc}")
        with server.start():
            self.assertEqual(server.url, f"ws://[::1]:{server.port}/ws/")
            with Client(server.url) as client:
                client.send("six")
                self.assertEqual(client.recv(5), "six")
            (address,) = [server.host]
            self.assertEqual(address, "::1")

    def test_a_server_is_started_once(self) -> None:
        server = self.serve()
        self.assertRaises(RuntimeError, server.start)
        server.shutdown()
        self.assertRaises(RuntimeError, server.start)

    def test_a_server_never_started_gives_its_port_back(self) -> None:
        server = Server()
        self.assertEqual(server.shutdown(), ())
        with socket.create_server(("127.0.0.1", server.port)):
            pass

    def test_an_address_in_use_is_an_oserror(self) -> None:
        server = self.serve()
        with self.assertRaises(OSError):
            Server("127.0.0.1", server.port)

    def test_options_that_cannot_be_meant_are_mistakes(self) -> None:
        mistakes: list[dict[str, Any]] = [{"path": "ws"}, {"path": "/a?b"}, {"path": "/a#b"}, {"name_policy": "steal"}]
        for options in mistakes:
            with self.subTest(options=options), self.assertRaises(ValueError):
                Server(**options)
        with self.assertRaises(TypeError):
            Server(subprotocols="chat")

    def test_a_start_that_gets_no_thread_leaves_nothing(self) -> None:
        for name in ("-housekeeper", "-accept"):
            start = threading.Thread.start

            def failing(thread: threading.Thread, name: str = name, start: Any = start) -> None:
                if thread.name.endswith(name):
                    raise RuntimeError("can't start new thread")
                start(thread)

            server = Server()
            with mock.patch.object(threading.Thread, "start", failing):
                self.assertRaises(RuntimeError, server.start)
            with socket.create_server(("127.0.0.1", server.port)):
                pass
            self.assertEqual(server.shutdown(), ())

    def test_an_interrupt_while_it_starts_leaves_nothing(self) -> None:
        for name in ("-housekeeper", "-accept"):
            for late in (False, True):
                start = threading.Thread.start

                def interrupted(
                    thread: threading.Thread, name: str = name, late: bool = late, start: Any = start
                ) -> None:
                    if late or not thread.name.endswith(name):
                        start(thread)
                    if thread.name.endswith(name):
                        raise KeyboardInterrupt

                server = Server()
                with mock.patch.object(threading.Thread, "start", interrupted):
                    self.assertRaises(KeyboardInterrupt, server.serve_forever)
                with socket.create_server(("127.0.0.1", server.port)):
                    pass

    def test_a_shutdown_while_it_starts_ends_what_was_started(self) -> None:
        for name in ("-housekeeper", "-accept"):
            for late in (False, True):
                server = Server()
                start = threading.Thread.start

                def stopping(
                    thread: threading.Thread,
                    server: Server = server,
                    name: str = name,
                    late: bool = late,
                    start: Any = start,
                ) -> None:
                    if late:
                        start(thread)
                    if thread.name.endswith(name):
                        server.shutdown()
                    if not late:
                        start(thread)

                with mock.patch.object(threading.Thread, "start", stopping):
                    server.serve_forever()
                with socket.create_server(("127.0.0.1", server.port)):
                    pass

    def test_serve_forever_starts_and_returns_after_shutdown(self) -> None:
        with Server("127.0.0.1", 0, echo) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            wait_until(lambda: server._state is ServerState.RUNNING)
            with Client(server.url) as client:
                client.send("x")
                self.assertEqual(client.recv(5), "x")
            self.assertTrue(thread.is_alive())
            server.shutdown()
            thread.join(5)
            self.assertFalse(thread.is_alive())
            server.serve_forever()

    def test_one_interrupt_ends_serve_forever(self) -> None:
        with Server("127.0.0.1", 0, echo) as server:

            def interrupt() -> None:
                wait_until(lambda: server._state is ServerState.RUNNING)
                os.kill(os.getpid(), signal.SIGINT)

            before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            self.addCleanup(signal.signal, signal.SIGINT, before)
            interrupter = threading.Thread(target=interrupt)
            interrupter.start()
            with self.assertRaises(KeyboardInterrupt):
                server.serve_forever()
            interrupter.join()
            with self.assertRaises(ConnectionRefusedError):
                RawClient(server.port)

    def test_stats(self) -> None:
        server = self.serve()
        self.client(server, "a").send_text("x")
        self.client(server)
        with RawClient(server.port) as refused:
            refused.request(handshake("/nowhere"))
        silent = self.raw(server)
        wait_until(lambda: server.stats()["refused"] == 1 and server.stats()["accepted"] == 4)
        self.assertEqual(server.stats()["handshakes"], 1)
        stats = server.stats()
        self.assertEqual((stats["opened"], stats["refused"], stats["connections"], stats["clients"]), (2, 1, 2, 1))
        silent.close()


class ShutdownTest(ServerTestCase):
    @mock.patch("sync_ws.server.hub.GRACE", 0.1)
    def test_from_a_signal_that_interrupted_whoever_held_a_lock(self) -> None:
        server = self.serve()
        self.client(server)
        previous = signal.signal(signal.SIGUSR1, lambda number, frame: left.append(server.shutdown(0)))
        self.addCleanup(signal.signal, signal.SIGUSR1, previous)
        for lock in (server._lock, server._reception._lock, server._hub._lock, server._hub._registry._lock):
            left: list[Any] = []
            with self.subTest(lock=lock), lock:
                signal.raise_signal(signal.SIGUSR1)
                self.assertEqual(len(left), 1)
        self.assertEqual(server.shutdown(), ())

    def test_everyone_gets_1001_and_nothing_is_left(self) -> None:
        server = self.serve(ping_interval=None)
        clients = [self.client(server, name) for name in ("a", "b", None)]
        left: list[Any] = []
        thread = threading.Thread(target=lambda: left.append(server.shutdown()))
        thread.start()
        for client in clients:
            self.assertEqual(client.read_close()[0], 1001)
            client.send_close(1001)
            self.assertEqual(client.read_to_end(), b"")
        thread.join(10)
        self.assertEqual(left, [()])
        self.assertEqual(server.connections, frozenset())
        with self.assertRaises(ConnectionRefusedError):
            RawClient(server.port)
        self.assertEqual(server.shutdown(), ())

    def test_a_client_that_does_not_answer_is_cut_at_the_timeout(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        started = time.monotonic()
        self.assertEqual(server.shutdown(0.1), ())
        self.assertLess(time.monotonic() - started, 5)
        self.assertEqual(events.of("close")[0][1].code, 1001)
        self.assertEqual(client.read_close()[0], 1001)

    @mock.patch("sync_ws.server.hub.GRACE", 0.1)
    def test_threads_that_do_not_end_are_returned(self) -> None:
        released = self.gate()
        server = self.serve(lambda connection: released.wait(20))
        self.client(server, "a")
        (thread,) = server.shutdown(0.1)
        self.assertTrue(thread.is_alive())
        self.assertTrue(thread.daemon)
        self.assertEqual(dict(server.clients), {})
        released.set()
        thread.join(5)
        self.assertFalse(thread.is_alive())
        self.assertEqual(server.shutdown(), ())

    def test_shutdown_from_a_handler_does_not_wait_for_itself(self) -> None:
        results: list[Any] = []

        def handler(connection: Connection) -> None:
            connection.recv()
            results.append(server.shutdown(3))

        server = self.serve(handler)
        other, client = self.client(server), self.client(server)

        def answer() -> None:
            other.read_close()
            other.send_close(1001)

        closer = threading.Thread(target=answer)
        closer.start()
        client.send_text("stop")
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        wait_until(lambda: results == [()])
        closer.join()

    def test_shutdown_from_an_event_function_does_not_deadlock(self) -> None:
        server, events = self.serve_events()
        server.on("message", lambda connection, message: events.log.append(("left", server.shutdown(1))))
        client = self.client(server)
        client.send_text("stop")
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        self.assertEqual(events.wait("left"), [((),)])
        self.assertEqual(len(events.wait("close")), 1)

    def test_pending_handshakes_do_not_hold_it_up(self) -> None:
        server = self.serve()
        silent = [self.raw(server) for _ in range(3)]
        silent[0].send(b"GET /ws/ HT")
        wait_until(lambda: server.stats()["handshakes"] == 3)
        started = time.monotonic()
        self.assertEqual(server.shutdown(), ())
        self.assertLess(time.monotonic() - started, 4)
        for client in silent:
            client.read_to_end()
        self.assertEqual(self.log.tracebacks, [])

    def test_without_time_it_still_ends_everything(self) -> None:
        server = self.serve()
        client = self.client(server)
        server.shutdown(0)
        self.assertEqual(client.read_close()[0], 1001)
        wait_until(lambda: server.stats()["threads"] == 0)

    def test_clients_that_come_during_it_are_turned_away(self) -> None:
        server = self.serve()
        answers: list[str] = []
        stop = threading.Event()

        def dial() -> None:
            while not stop.is_set():
                try:
                    with RawClient(server.port) as client:
                        client.send(handshake())
                        client.data = read_response(client.sock).rest
                        answers.append(f"close {client.read_close()[0]}" if client.data or client else "")
                        client.send_close(1001)
                except ConnectionRefusedError:
                    answers.append("refused")
                    return
                except (OSError, ConnectionError, AssertionError) as exc:
                    answers.append(type(exc).__name__)

        dialler = threading.Thread(target=dial)
        dialler.start()
        wait_until(lambda: server.stats()["accepted"])
        self.assertEqual(server.shutdown(), ())
        dialler.join(10)
        stop.set()
        self.assertEqual(answers[-1], "refused")
        self.assertEqual(server.connections, frozenset())


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(ServerTestCase):
    def test_a_fork_has_no_part_in_connections_and_does_not_hold_the_port(self) -> None:
        server = self.serve(ping_interval=0.2, ping_timeout=5)
        client = self.client(server, "a")
        connection = server.clients["a"]
        said, say = os.pipe()
        stay, end = os.pipe()
        child = fork()
        if child == 0:
            os.close(end)
            self._in_child(server, connection, say, stay)
        for fd in (say, stay):
            os.close(fd)
        try:
            self.assertEqual(os.read(said, 100), b"closed")
            self.assertEqual(client.read_frame().opcode, PING)
            client.send_frame(10)
            client.send_text("alive")
            got = client.read_frame()
            while got.opcode == PING:
                got = client.read_frame()
            self.assertEqual(got.payload, b"alive")
            self.assertEqual(len(server.connections), 1)
            server.shutdown(0.1)
            with self.assertRaises(ConnectionRefusedError):
                RawClient(server.port)
            client.read_to_end()
        finally:
            os.close(end)
            os.close(said)
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_a_fork_leaves_those_alone_who_are_in_their_handshake(self) -> None:
        server = self.serve()
        client = self.raw(server)
        request = handshake()
        client.send(request[:20])
        wait_until(lambda: server.stats()["handshakes"] == 1)
        said, say = os.pipe()
        stay, end = os.pipe()
        child = fork()
        if child == 0:
            try:
                os.close(end)
                signal.alarm(20)
                os.write(say, repr((server.shutdown(), server.stats()["handshakes"])).encode())
                os.read(stay, 1)
            finally:
                os._exit(0)
        for fd in (say, stay):
            os.close(fd)
        try:
            self.assertEqual(os.read(said, 100), b"((), 0)")
            client.send(request[20:])
            self.assertEqual(read_response(client.sock).status, 101)
            server.shutdown(0.1)
            client.read_to_end()  # though the child lives
        finally:
            os.close(end)
            os.close(said)
            os.waitpid(child, 0)

    def test_locks_that_were_held_at_the_fork_hold_nobody_up_in_the_child(self) -> None:
        server = self.serve()
        held, release = threading.Event(), self.gate()

        def hold() -> None:
            with server._lock, server._reception._lock:
                held.set()
                release.wait(20)

        holder = threading.Thread(target=hold)
        holder.start()
        self.assertTrue(held.wait(10))
        child = fork()
        if child == 0:
            status = 99
            try:
                signal.alarm(20)
                status = len(server.shutdown())
            finally:
                os._exit(status)
        release.set()
        holder.join()
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def _in_child(self, server: Server, connection: Connection, say: int, stay: int) -> None:
        """Report what a fork can do with the server, and stay until the parent has seen what that does to it."""
        status = 1
        try:
            try:
                connection.send("from the child")
                answer = "sent"
            except ConnectionClosed:
                answer = "closed"
            os.write(say, answer.encode())
            poller = select.poll()
            poller.register(stay, select.POLLHUP)
            poller.poll(20_000)
            status = 0 if server.shutdown() == () else 2
        finally:
            os._exit(status)


class EndOfTheTestsTest(LedgerTestCase):
    def test_a_server_leaves_nothing_behind(self) -> None:
        for _ in range(3):
            with Server("127.0.0.1", 0, echo).start() as server, RawClient(server.port) as client:
                client.upgrade().send_text("x")
                client.read_text()
                client.finish()
