"""The demos, as a user runs them: in processes of their own."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

import sync_ws
from sync_ws.testing import make_certificates
from tests.support.program import ROOT, Program, ProgramTest
from tests.support.scripted import ScriptedServer, refusing

DEMO = ROOT / "demo"


class DemoTest(ProgramTest):
    story: Program

    @classmethod
    def setUpClass(cls) -> None:
        """The story takes its time, so it begins before all else."""
        super().setUpClass()
        cls.story = Program(DEMO / "client.py")
        cls.addClassCleanup(cls.story.end, signal.SIGKILL)

    def serve(self, *options: object) -> tuple[Program, str, str]:
        program = self.start(DEMO / "server.py", "--port", 0, *options)
        page = program.wait_for("page ").split()[-1]
        return program, page, program.wait_for("WebSocket").split()[-1]

    def test_the_story_is_told_to_its_end(self) -> None:
        first = ("started", "open", "hello", "answered after", "killed", "attempt 1", "queued")
        for text in (*first, "back at", "reconnected", "sent while the server was away", "and this too", "end"):
            self.story.wait_for(text)
        self.assertEqual(self.story.end(), 0)

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
        client.process.send_signal(signal.SIGINT)
        client.wait_for("end           closed by us")
        self.assertEqual(client.end(), 0)

    def test_the_client_says_how_it_ended(self) -> None:
        with ScriptedServer(refusing("404 X")) as scripted:
            client = self.start(DEMO / "client.py", scripted.url())
            client.wait_for("gave up       the server answered 404")
            client.wait_for("end           the server answered 404")
            self.assertEqual(client.end(), 1)

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
