"""Accepting connections, and surviving what goes wrong there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from sync_ws.server import listener as listener_module
from sync_ws.server.listener import Listener
from sync_ws.server.voice import WARNINGS
from sync_ws.testing import LedgerTestCase, wait_until
from sync_ws.timing import Deadline
from tests.support.raw import RawClient, handshake, read_response
from tests.support.server_case import LogLines, ServerTestCase
from tests.support.wire import fork

ROOT = Path(__file__).parents[2]

SCARCE = """
import resource, sys, time
import sync_ws

def echo(connection):
    for message in connection:
        connection.send(message)

server = sync_ws.Server("127.0.0.1", 0, echo, handshake_timeout=60).start()
resource.setrlimit(resource.RLIMIT_NOFILE, (24, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
print(server.port, flush=True)
for line in sys.stdin:
    print(time.process_time(), server.stats()["accepted"], flush=True)
left = server.shutdown()
print("left", len(left), flush=True)
"""


@contextlib.contextmanager
def child(action: Callable[[], object]) -> Iterator[None]:
    """A forked process that does this and then stays, without another step, as long as the block."""
    ours, theirs = socket.socketpair()
    pid = fork()
    if not pid:
        try:
            ours.close()
            action()
            theirs.send(b"done")
            theirs.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    try:
        with ours:
            assert ours.recv(4) == b"done"
            yield
    finally:
        os.waitpid(pid, 0)


class ListenerTest(LedgerTestCase):
    def listen(self, accepted: Callable[[socket.socket, Any], bool], refusal: bytes = b"") -> Listener:
        listener = Listener("127.0.0.1", 0, accepted, refusal)
        self.addCleanup(lambda: listener.stop(Deadline(5)))
        listener.start("test-accept")
        return listener

    def dial(self, listener: Listener) -> socket.socket:
        sock = socket.create_connection(listener.address, 5)
        self.addCleanup(sock.close)
        return sock

    def test_every_connection_is_handed_over_with_its_peer(self) -> None:
        got: list[Any] = []

        def accepted(sock: socket.socket, peer: Any) -> bool:
            got.append(peer)
            sock.close()
            return True

        listener = self.listen(accepted)
        clients = [self.dial(listener) for _ in range(5)]
        wait_until(lambda: len(got) == 5)
        self.assertEqual(sorted(got), sorted(client.getsockname() for client in clients))

    def test_one_too_many_is_refused_and_closed(self) -> None:
        listener = self.listen(lambda sock, peer: False, b"refused")
        client = self.dial(listener)
        self.assertEqual((client.recv(100), client.recv(100)), (b"refused", b""))

    def test_without_a_thread_the_refusal_reaches_a_client_that_has_sent_its_request(self) -> None:
        def accepted(sock: socket.socket, peer: Any) -> bool:
            raise RuntimeError("can't start new thread")

        with LogLines() as log:
            listener = self.listen(accepted, b"refused")
            for _ in range(2):
                client = self.dial(listener)
                client.sendall(handshake())
                self.assertEqual((client.recv(100), client.recv(100)), (b"refused", b""))
        (_, line) = [line for line in log.lines if not line.startswith("DEBUG")]
        place = f"127.0.0.1:{client.getsockname()[1]}"
        self.assertEqual(line, f"WARNING sync_ws.server refused 503: {place}, no thread for it: can't start new thread")
        self.assertEqual(log.tracebacks, [])

    def test_trouble_that_goes_on_wakes_somebody_a_few_times_only(self) -> None:
        real = socket.socket.accept
        failures = iter(range(3 * WARNINGS))

        def failing(sock: socket.socket) -> Any:
            if next(failures, None) is not None:
                raise OSError(24, "Too many open files")
            return real(sock)

        with (
            LogLines() as log,
            mock.patch.object(listener_module, "PAUSE", 0.001),
            mock.patch.object(socket.socket, "accept", failing),
        ):
            listener = self.listen(lambda sock, peer: False, b"refused")
            client = self.dial(listener)
            self.assertEqual(client.recv(100), b"refused")
        levels = [line.partition(" ")[0] for line in log.lines if "Too many open files" in line]
        self.assertEqual(levels, ["WARNING"] * WARNINGS + ["INFO"] * 2 * WARNINGS)

    def test_out_of_memory_or_interrupted_it_accepts_later(self) -> None:
        real = socket.socket.accept
        failures = iter([MemoryError("no room"), InterruptedError()])

        def failing(sock: socket.socket) -> Any:
            for failure in failures:
                raise failure
            return real(sock)

        with (
            LogLines() as log,
            mock.patch.object(listener_module, "PAUSE", 0.001),
            mock.patch.object(socket.socket, "accept", failing),
        ):
            client = self.dial(self.listen(lambda sock, peer: False, b"refused"))
            self.assertEqual(client.recv(100), b"refused")
        (line,) = [line for line in log.lines if line.startswith("WARNING")]
        self.assertIn("accept failed, next try in 0.001 s: no room", line)

    def test_it_tells_when_it_was_told_to_stop_in_its_own_thread_while_the_port_is_held(self) -> None:
        told: list[Any] = []

        def stopped() -> None:
            try:
                socket.create_server(listener.address).close()
            except OSError:
                told.append(threading.current_thread().name)

        listener = Listener("127.0.0.1", 0, lambda sock, peer: False, stopped=stopped)
        listener.start("test-accept")
        listener.stop(Deadline(5))
        listener.stop(Deadline(5))
        self.assertEqual(told, ["test-accept"])

    def test_stop_releases_the_port_and_is_idempotent(self) -> None:
        listener = self.listen(lambda sock, peer: False)
        listener.stop(Deadline(5))
        listener.stop(Deadline(5))
        with self.assertRaises(ConnectionRefusedError):
            self.dial(listener)
        with socket.create_server(listener.address):
            pass

    def test_stop_before_start_releases_the_port(self) -> None:
        listener = Listener("127.0.0.1", 0, lambda sock, peer: False)
        listener.stop(Deadline(5))
        with self.assertRaises(ConnectionRefusedError):
            self.dial(listener)

    def test_start_after_stop_does_nothing(self) -> None:
        listener = Listener("127.0.0.1", 0, lambda sock, peer: False)
        listener.stop(Deadline(5))
        listener.start("test-accept")
        with self.assertRaises(ConnectionRefusedError):
            self.dial(listener)

    def test_trouble_in_accepting_after_it_was_told_to_stop_is_not_worth_a_word(self) -> None:
        tried = threading.Event()

        def failing(sock: socket.socket) -> Any:
            listener.stop(Deadline(5))
            tried.set()
            raise OSError(24, "Too many open files")

        with LogLines() as log, mock.patch.object(socket.socket, "accept", failing):
            listener = self.listen(lambda sock, peer: False)
            with contextlib.suppress(ConnectionResetError):
                self.dial(listener)
            self.assertTrue(tried.wait(10))
            listener.stop(Deadline(5))
        self.assertEqual(log.lines, [])

    def test_a_forked_child_does_not_hold_the_port(self) -> None:
        listener = self.listen(lambda sock, peer: False)
        with child(lambda: None):
            listener.stop(Deadline(5))
            socket.create_server(listener.address).close()

    def test_what_was_not_started_yet_is_left_to_a_forked_child_which_may_be_meant_to(self) -> None:
        listener = Listener("127.0.0.1", 0, lambda sock, peer: False, b"from the child")
        self.addCleanup(lambda: listener.stop(Deadline(5)))
        with child(lambda: listener.start("test-accept")):
            self.assertEqual(self.dial(listener).recv(100), b"from the child")

    def test_stop_from_its_own_thread_does_not_deadlock(self) -> None:
        listener: Listener
        done = threading.Event()

        def accepted(sock: socket.socket, peer: Any) -> bool:
            listener.stop(Deadline(5))
            done.set()
            return False

        listener = self.listen(accepted)
        self.dial(listener)
        self.assertTrue(done.wait(5))

    def test_a_start_that_gets_no_thread_can_still_be_stopped(self) -> None:
        listener = Listener("127.0.0.1", 0, lambda sock, peer: False)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.assertRaises(RuntimeError, listener.start, "test-accept")
        listener.stop(Deadline(5))

    def test_an_address_in_use_is_an_oserror(self) -> None:
        listener = self.listen(lambda sock, peer: False)
        with self.assertRaises(OSError):
            Listener(*listener.address, lambda sock, peer: False)


class NoThreadTest(ServerTestCase):
    """Thread.start is made to fail as it does when the system has no thread: RLIMIT_NPROC does not bind root."""

    def test_no_thread_for_a_connection_is_503_and_the_server_survives(self) -> None:
        server = self.serve()
        start = threading.Thread.start

        def failing(thread: threading.Thread) -> None:
            if thread.name.startswith(f"sync_ws-{server.port}-"):
                raise RuntimeError("can't start new thread")
            start(thread)

        with mock.patch.object(threading.Thread, "start", failing):
            for _ in range(2):
                with RawClient(server.port) as client:
                    answer = client.request(handshake())
                    self.assertEqual((answer.status, answer.line), (503, "the server is full, try again later"))
                    self.assertGreater(int(answer.headers["retry-after"]), 0)
                    self.assertEqual(client.read_to_end(), b"")
        self.assertEqual(server.stats()["threads"], 0)
        self.assertEqual(self.log.tracebacks, [])
        client = self.client(server)
        client.send_text("alive")
        self.assertEqual(client.read_text(), "alive")


@unittest.skipUnless(os.path.isdir("/proc/self/fd"), "needs a limit on descriptors that is known to bind")
class NoDescriptorTest(LedgerTestCase):
    def test_a_server_out_of_descriptors_survives_without_spinning(self) -> None:
        child = subprocess.Popen(
            [sys.executable, "-c", SCARCE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdin and child.stdout and child.stderr
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        stdin, stdout = child.stdin, child.stdout
        for stream in (child.stdin, child.stdout, child.stderr):
            self.addCleanup(stream.close)

        def ask() -> tuple[float, int]:
            stdin.write("\n")
            stdin.flush()
            seconds, accepted = stdout.readline().split()
            return float(seconds), int(accepted)

        port = int(stdout.readline())
        silent = []
        for _ in range(40):
            client = RawClient(port)
            self.addCleanup(client.close)
            silent.append(client)
        wait_until(lambda: ask()[1] >= 10)
        before, accepted = ask()
        self.assertLess(accepted, 24)
        with self.assertRaises(TimeoutError):  # nothing can become of this one: as good a wait as any
            silent[-1].sock.settimeout(0.6)
            silent[-1].sock.recv(1)
        self.assertLess(ask()[0] - before, 0.2, "seconds of CPU in 0.6 s of waiting")
        for client in silent:
            client.close()
        with RawClient(port) as client:
            client.send(handshake())
            client.data = read_response(client.sock).rest
            client.send_text("alive")
            self.assertEqual(client.read_text(), "alive")
            client.finish()
        stdin.close()
        self.assertEqual(stdout.readline(), "left 0\n")
        self.assertEqual(child.wait(10), 0)
        errors = child.stderr.read()
        self.assertIn("accept failed", errors)
        self.assertNotIn("Traceback", errors)
