"""The demos and the command line, as a user runs them: in processes of their own."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import sync_ws
from sync_ws.testing import LedgerTestCase, make_certificates

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "demo"


class Program:
    """A Python program in a process of its own, read line by line."""

    def __init__(self, *arguments: object, stdin: bool = False) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)

    def wait_for(self, text: str, timeout: float = 20.0) -> str:
        """The next line that contains ``text``."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} in {self.lines}") from None
            self.lines.append(line.rstrip())
            if text in line:
                return line

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, how: int | None = None, timeout: float = 20.0) -> int:
        """The exit code, after the signal ``how``."""
        if how is not None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()


class ProgramTest(LedgerTestCase):
    def start(self, *arguments: object, stdin: bool = False) -> Program:
        program = Program(*arguments, stdin=stdin)
        self.addCleanup(lambda: program.process.poll() is None and program.end(signal.SIGKILL))
        return program

    def serve(self, *options: object) -> tuple[Program, str, str]:
        program = self.start(DEMO / "server.py", "--port", 0, *options)
        page = program.wait_for("page ").split()[-1]
        return program, page, program.wait_for("WebSocket").split()[-1]


class DemoTest(ProgramTest):
    def test_the_story_is_told_to_its_end(self) -> None:
        program = self.start(DEMO / "client.py")
        first = ("started", "open", "hello", "answered after", "killed", "attempt 1", "queued")
        for text in (*first, "back at", "reconnected", "sent while the server was away", "and this too", "end"):
            program.wait_for(text)
        self.assertEqual(program.end(), 0)

    def test_client_and_server_talk_and_stop_at_a_signal(self) -> None:
        server, _, url = self.serve()
        client = self.start(DEMO / "client.py", url, "--name", "ada", "--message", "good morning", stdin=True)
        client.wait_for("message       good morning")
        client.type("typed")
        client.wait_for("message       typed")
        server.wait_for("typed")
        began = time.monotonic()
        self.assertEqual(server.end(signal.SIGTERM), 0)
        self.assertLess(time.monotonic() - began, 4.0)
        client.wait_for("1001")
        client.wait_for("attempt 1 in 10 s")
        self.assertEqual(client.end(signal.SIGINT), 0)

    def test_the_server_answers_what_it_does_not_understand(self) -> None:
        server, page, url = self.serve("--path", "/chat")
        self.assertTrue(url.endswith("/chat"))
        with sync_ws.Client(url + "?name=ada", heartbeat=None) as client:
            for bad in ("no json", b"binary", "[]", '{"ModeCode":"dance","msg":1}', "[" * 100_000):
                client.send(bad)
                self.assertEqual(sync_ws.decode(client.recv(timeout=10)).mode, "error")
            client.send(sync_ws.encode("message", "still here"))
            self.assertEqual(client.recv_json(timeout=10)["msg"], "still here")
            with sync_ws.Client(url + "?name=ada", heartbeat=None):
                with self.assertRaises(sync_ws.ConnectionClosed) as caught:
                    client.recv(timeout=10)
                self.assertEqual(caught.exception.code, 4009)
                server.wait_for("takeover")
        with urllib.request.urlopen(page, timeout=10) as response:
            self.assertIn(b"<title>", response.read())
        with urllib.request.urlopen(page + "sync_ws/sync-ws.js", timeout=10) as response:
            self.assertEqual(response.headers["Content-Type"], "text/javascript; charset=utf-8")
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(page + "server.py", timeout=10)
        self.assertEqual(refused.exception.code, 404)
        refused.exception.close()
        self.assertEqual(server.end(signal.SIGINT), 0)

    def test_the_server_speaks_tls(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                certificates = make_certificates(Path(folder))
            except RuntimeError as exc:
                if os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
                    raise
                raise unittest.SkipTest(str(exc)) from exc
            server, _, url = self.serve("--tls", certificates.server_cert, certificates.server_key)
            self.assertTrue(url.startswith("wss://"))
            with sync_ws.Client(url, ssl_context=certificates.client_context(), heartbeat=None) as client:
                client.send(sync_ws.encode("message", "secret"))
                self.assertEqual(client.recv_json(timeout=10)["msg"], "secret")
            self.assertEqual(server.end(signal.SIGTERM), 0)

    def test_bad_arguments_end_with_one_line(self) -> None:
        program = self.start(DEMO / "client.py", "http://127.0.0.1:1/")
        program.wait_for("error: expected ws:// or wss://, got http://127.0.0.1:1/")
        self.assertEqual(program.end(), 1)
        program = self.start(DEMO / "server.py", "--host", "203.0.113.1")
        program.wait_for("cannot listen on 203.0.113.1:1024")
        self.assertEqual(program.end(), 1)


class CommandLineTest(ProgramTest):
    def test_serve_and_connect(self) -> None:
        server = self.start("-m", "sync_ws", "serve", "--port", 0)
        url = server.wait_for("sending back").split()[-1]
        options = ("--header", "X-Test: 1", "--stay")
        client = self.start("-m", "sync_ws", "connect", url + "?name=ada", *options, stdin=True)
        client.wait_for("connected")
        client.type("hello")
        client.wait_for("hello")
        server.wait_for("ada")
        self.assertEqual(client.end(signal.SIGTERM), 0)
        self.assertEqual(server.end(signal.SIGINT), 0)

    def test_connect_says_why_it_failed(self) -> None:
        client = self.start("-m", "sync_ws", "connect", "ws://127.0.0.1:1/")
        client.wait_for("gave up: no connection to 127.0.0.1:1: Connection refused")
        self.assertEqual(client.end(), 1)
