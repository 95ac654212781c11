"""The server's door: its options and addresses, who gets a thread, and what becomes of those who get none."""

from __future__ import annotations

import ast
import inspect
import os
import re
import signal
import socket
import threading
import unittest
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

from sync_ws import Client, Hub, Server
from sync_ws.server.admission import Reception
from sync_ws.server.answers import NO_THREAD
from sync_ws.server.joining import join
from sync_ws.testing import LedgerTestCase, wait_until
from sync_ws.timing import Deadline
from tests.support.raw import RawClient, handshake, read_response
from tests.support.server_case import ServerTestCase, echo
from tests.support.wire import fork

README = Path(__file__).parents[2] / "README.md"
UNITS = {"1 MiB": 1 << 20}


class OptionsTest(LedgerTestCase):
    @unittest.skipUnless(README.exists(), "the README is not beside the tests")
    def test_the_defaults_are_those_of_the_readme(self) -> None:
        table = README.read_text(encoding="utf-8").partition("| `Server(host, port, handler, ...)` |")[2]
        promised: dict[str, Any] = {}
        for row in table.partition("\n\n")[0].splitlines()[2:]:
            names, values = row.split("|")[1:3]
            defaults = [values.strip()] if values.strip() == "()" else values.strip().split(", ")
            for name, value in zip(re.findall(r"`(\w+)`", names), defaults, strict=True):
                promised[name] = UNITS[value] if value in UNITS else ast.literal_eval(value.strip("`"))
        parameters = inspect.signature(Server).parameters.values()
        self.assertEqual({parameter.name: parameter.default for parameter in parameters}, promised)

    @mock.patch("sync_ws.server.server.Listener", side_effect=AssertionError("bound"))
    def test_what_cannot_be_called_or_listened_on_is_refused_before_anything_is_bound(self, listener: Any) -> None:
        with self.assertRaisesRegex(TypeError, "handler is a function that takes a connection"):
            Server(handler="not a function")  # type: ignore[arg-type]
        with self.assertRaisesRegex(ValueError, "port is from 1 to 65535"):
            Server(port=65536)

    def test_addresses_are_for_clients_and_browsers_on_this_machine(self) -> None:
        with Server("0.0.0.0", path="/chat") as server:
            self.assertEqual(server.url, f"ws://127.0.0.1:{server.port}/chat")
            self.assertEqual(server.page_url, f"http://127.0.0.1:{server.port}/")


class LifeTest(ServerTestCase):
    def test_that_it_listens_is_said_once_and_that_it_does_not_any_more(self) -> None:
        server = self.serve()
        self.assertEqual(self.log.lines, [f"INFO sync_ws.server listening: {server.url}"])
        client = self.client(server)
        answering = threading.Thread(target=lambda: client.send_close(client.read_close()[0]))
        answering.start()
        server.shutdown()
        answering.join()
        line = f"INFO sync_ws.server shutting down: {server.url}, open connections: 1"
        self.assertEqual([line for line in self.log.lines if "shutting down: " in line], [line])

    def test_that_it_listens_is_not_said_when_it_was_shut_down_meanwhile(self) -> None:
        server = Server()
        with mock.patch.object(Hub, "start", lambda hub: server.shutdown()):  # a signal's handler
            server.start()
        self.assertEqual(self.log.lines, [])

    def test_a_server_that_is_being_shut_down_is_not_started_any_more(self) -> None:
        server = Server()
        stop = server._listener.stop

        def late(deadline: Deadline) -> None:
            with self.assertRaisesRegex(RuntimeError, "a server is started once; this one is stopping"):
                server.start()
            stop(deadline)

        with mock.patch.object(server._listener, "stop", late):
            self.assertEqual(server.shutdown(), ())

    def test_who_comes_while_it_is_being_shut_down_is_turned_away(self) -> None:
        server = self.serve()
        stop, statuses = server._listener.stop, list[int]()

        def late(deadline: Deadline) -> None:
            statuses.append(self.raw(server).request(handshake()).status)
            stop(deadline)

        with mock.patch.object(server._listener, "stop", late):
            self.assertEqual(server.shutdown(), ())
        self.assertEqual((statuses, server.stats()["refused"]), ([503], 1))

    def test_shut_down_in_its_midst_it_returns_when_all_that_it_started_has_ended(self) -> None:
        server = Server()
        start, joined = threading.Thread.start, threading.Event()

        def stopping(thread: threading.Thread) -> None:
            server.shutdown()  # a signal's handler
            with mock.patch.object(threading.Thread, "start", start):
                thread.start()

        def joining(threads: Iterable[threading.Thread], deadline: Deadline) -> None:
            joined.set()
            join(threads, deadline)

        server._listener._stopped = lambda: joined.wait(5)
        with mock.patch("sync_ws.server.listener.join", joining):
            server._hub.start()
            with mock.patch.object(threading.Thread, "start", stopping):
                server.start()
            names = [thread.name for thread in threading.enumerate() if thread.name.startswith("sync_ws-")]
        joined.set()
        self.assertEqual(names, [])

    def test_shutdown_has_five_seconds_unless_it_is_told_otherwise(self) -> None:
        server = self.serve()
        for arguments, seconds in (((), 5.0), ((20,), 20.0)):
            with mock.patch.object(server._hub, "end_all") as end_all:
                server.shutdown(*arguments)
            self.assertAlmostEqual(end_all.call_args[0][0].remaining(), seconds, delta=0.9)


class ThreadsTest(ServerTestCase):
    """Each connection gets a thread, or an answer."""

    def failing_start(self, server: Server, number: int) -> Any:
        """There is no thread for the connection of that number."""
        start = threading.Thread.start

        def failing(thread: threading.Thread) -> None:
            if thread.name == f"sync_ws-{server.port}-{number}":
                raise RuntimeError("can't start new thread")
            start(thread)

        return mock.patch.object(threading.Thread, "start", failing)

    def test_their_names_tell_the_port_and_the_number(self) -> None:
        names: list[str] = []
        server = self.serve(lambda connection: names.append(threading.current_thread().name))
        for _ in range(2):
            self.raw(server).upgrade().finish()
        self.assertEqual(names, [f"sync_ws-{server.port}-{number}" for number in (1, 2)])

    @mock.patch("sync_ws.server.listener.PAUSE", 0.02)
    def test_without_a_thread_a_client_is_told_so_and_the_next_one_gets_in(self) -> None:
        server = self.serve()
        with self.failing_start(server, 1):
            client = self.raw(server)
            self.assertEqual(client.read_to_end(), NO_THREAD)
        self.assertEqual({name: server.stats()[name] for name in ("accepted", "handshakes", "threads")},
                         {"accepted": 1, "handshakes": 0, "threads": 0})  # fmt: skip
        self.client(server).send_text("x")

    def test_there_are_at_most_twice_as_many_as_connections(self) -> None:
        server = self.serve(max_connections=1)
        self.client(server)
        waiting = self.raw(server)
        wait_until(lambda: server.stats()["threads"] == 2)
        self.assertEqual(read_response(self.raw(server).sock).status, 503)
        self.assertEqual((server.stats()["accepted"], server.stats()["refused"]), (3, 1))
        waiting.close()
        wait_until(lambda: server.stats()["threads"] == 1)
        self.assertEqual(server.stats()["refused"], 1)
        with RawClient(server.port) as third:
            self.assertEqual(third.request(handshake()).status, 503)  # there is a thread, and no place
        wait_until(lambda: server.stats()["refused"] == 2)

    def test_who_leaves_in_the_opening_handshake_is_a_line_for_debug(self) -> None:
        server = self.serve()
        with mock.patch.object(Reception, "receive", side_effect=ConnectionResetError("gone")):
            client = self.raw(server)
            self.assertEqual(client.read_to_end(), b"")
        wait_until(lambda: server.stats()["threads"] == 0)
        (line,) = [line for line in self.log.lines if "opening handshake" in line]
        host, port = client.sock.getsockname()
        self.assertEqual(line, f"DEBUG sync_ws.server {host}:{port} left during its opening handshake: gone")
        self.assertEqual(server.stats()["refused"], 0)

    def test_a_fault_in_the_opening_handshake_is_logged_and_ends_its_connection_alone(self) -> None:
        server = self.serve()
        with mock.patch.object(Reception, "receive", side_effect=RuntimeError("oh no")):
            client = self.raw(server)
            self.assertEqual(client.read_to_end(), b"")
        (line,) = wait_until(lambda: self.log.tracebacks)
        host, port = client.sock.getsockname()
        self.assertIn(f"ERROR sync_ws.server the opening handshake of {host}:{port} failed\n", line)
        self.assertIn("RuntimeError: oh no", line)
        self.client(server).send_text("x")


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class ForkTest(LedgerTestCase):
    def test_a_server_that_was_not_started_begins_in_the_child(self) -> None:
        server = Server("127.0.0.1", 0, echo)
        child = fork()
        if child == 0:
            status = 1
            try:
                with server.start():
                    status = 0 if self.echoed(server) == "in the child" else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(server.shutdown(), ())
        with socket.create_server(("127.0.0.1", server.port)):
            pass

    def test_a_copy_of_a_running_server_is_stopped_and_has_nothing(self) -> None:
        with Server("127.0.0.1", 0, echo).start() as server, Client(server.url) as client:
            wait_until(lambda: server.connections)
            child = fork()
            if child == 0:
                status = 1
                try:
                    signal.alarm(10)
                    with self.assertRaisesRegex(RuntimeError, "this one is stopped"):
                        server.start()
                    server.serve_forever()
                    stats = server.stats()
                    status = stats["threads"] + stats["connections"] + stats["handshakes"]
                finally:
                    os._exit(status)
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            client.send("still here")
            self.assertEqual(client.recv(5), "still here")

    def echoed(self, server: Server) -> Any:
        with Client(server.url) as client:
            client.send("in the child")
            return client.recv(5)
