"""The command line, as a user runs it: in a process of its own, or called with what the user typed."""

from __future__ import annotations

import contextlib
import io
import logging
import signal
import socket
import sys
import unittest
from collections.abc import Callable, Iterable, Iterator
from unittest import mock

import sync_ws
from sync_ws.__main__ import main
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.program import Program, ProgramTest
from tests.support.scripted import ScriptedServer, Wire, refusing


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

    def connect(self, script: Callable[[Wire], object], *options: str, stdin: bool = False) -> Program:
        server = ScriptedServer(script)
        self.addCleanup(server.close)
        return self.start("-m", "sync_ws", "connect", server.url(), *options, stdin=stdin)

    def test_connect_says_how_it_ended_and_only_a_clean_end_is_0(self) -> None:
        def closing(code: int) -> Callable[[Wire], object]:
            def script(wire: Wire) -> None:
                wire.switch()
                wire.send_frame(8, code.to_bytes(2, "big") + b"says the server")
                wire.wait_for_end()

            return script

        for script, said, exit_code in (
            (closing(1000), "closed: closed by the peer: 1000 says the server", 0),
            (closing(1008), "gave up: closed by the peer: 1008 says the server", 1),
            (closing(1001), "gave up: closed by the peer: 1001 says the server", 1),
            (Wire.switch, "gave up: the connection was lost", 1),
            (refusing("404 X"), "gave up: the server answered 404", 1),
        ):
            with self.subTest(said):
                client = self.connect(script, "--stay")
                client.wait_for(said)
                self.assertEqual(client.end(), exit_code)
                self.assertEqual(sum("says the server" in line for line in client.lines), "says" in said)

    def test_connect_ends_with_its_input_and_says_what_was_not_sent(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(1, wire.read_frame()[1])
            wire.read_close()
            wire.send_frame(8, b"\x03\xe8")
            wire.wait_for_end()

        client = self.connect(script, stdin=True)
        client.type("hello")
        client.wait_for("hello")
        assert client.process.stdin is not None
        client.process.stdin.close()
        client.wait_for("closed: closed by us: 1000")
        self.assertEqual(client.end(), 0)
        client = self.connect(refusing("503 X"), "--reconnect", "60", "--stay", stdin=True)
        client.wait_for("next attempt in 60.0 s: the server answered 503")
        client.process.send_signal(signal.SIGINT)
        client.wait_for("closed: closed by us")
        self.assertEqual(client.end(), 0)


class Called(LedgerTestCase):
    """``main`` in this process: what it says and the code it ends with."""

    def setUp(self) -> None:
        super().setUp()
        logger = logging.getLogger("sync_ws.client")  # a program of its own may leave it as it likes
        self.addCleanup(logger.setLevel, logger.level)
        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))

    def call(self, *arguments: str, typed: Iterable[str] = ()) -> int:
        """The exit code.  What is printed is in ``out``, what is said in ``err``."""
        self.out, self.err = io.StringIO(), io.StringIO()
        typing = mock.patch.object(sys, "stdin", typed)
        with contextlib.redirect_stderr(self.err), contextlib.redirect_stdout(self.out), typing:
            return main(list(arguments))

    def connect(self, script: Callable[[Wire], object], *options: str, typed: Iterable[str] = ()) -> int:
        with ScriptedServer(script) as server:
            return self.call("connect", server.url(), *options, typed=typed)

    def test_what_is_typed_is_sent_and_what_comes_is_printed(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            self.request = wire.request
            wire.send_frame(1, wire.read_frame()[1].upper())
            wire.send_frame(2, bytes(range(70)))
            wire.send_frame(8, (wire.read_close()).to_bytes(2, "big"))
            wire.wait_for_end()

        def typed() -> Iterator[str]:
            yield "hello\n"
            wait_until(lambda: self.out.getvalue().count("\n") == 2)

        self.assertEqual(self.connect(script, "--header", "X-Test: a: b", typed=typed()), 0)
        self.assertIn(b"\r\nX-Test: a: b\r\n", self.request)
        self.assertEqual(self.out.getvalue().splitlines()[0], "HELLO")
        self.assertRegex(self.out.getvalue().splitlines()[1], r"^\(70 bytes\) 00 01 02.* 3f$")
        self.assertIn("connected", self.err.getvalue())

    def test_a_line_that_cannot_be_sent_is_told_and_the_next_one_is_read(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8, wire.read_close().to_bytes(2, "big"))
            wire.wait_for_end()

        with mock.patch.object(sync_ws.Client, "send", side_effect=sync_ws.QueueFull("planted")) as send:
            self.assertEqual(self.connect(script, typed=["one\n", "two\n"]), 0)
        self.assertEqual((send.call_count, self.err.getvalue().count("not sent: planted")), (2, 2))

    def test_a_refused_connection_is_told_and_ends_it_with_1(self) -> None:
        self.assertEqual(self.connect(refusing("404 X")), 1)
        self.assertIn("gave up: the server answered 404", self.err.getvalue())

    def test_an_attempt_that_will_be_repeated_is_announced(self) -> None:
        def script(wire: Wire) -> None:
            if wire.number == 1:
                wire.answer("503 X")
            else:
                wire.switch()
                wire.send_frame(8, wire.read_close().to_bytes(2, "big"))
                wire.wait_for_end()

        with mock.patch.object(sync_ws.Client, "run_forever", sync_ws.Client.close):
            self.assertEqual(self.connect(script, "--reconnect", "0.01", "--stay"), 0)
        self.assertIn("next attempt in 0.0 s: the server answered 503", self.err.getvalue())

    def test_a_server_sends_back_and_says_who_comes_and_goes(self) -> None:
        def forever(server: sync_ws.Server) -> None:
            with sync_ws.Client(f"{server.url}?name=ada", heartbeat=None) as client:
                client.send("hello")
                self.assertEqual(client.recv(timeout=10), "hello")
            wait_until(lambda: "- ada" in self.err.getvalue())
            raise KeyboardInterrupt

        with mock.patch.object(sync_ws.Server, "serve_forever", forever):
            self.assertEqual(self.call("serve", "--port", "0", "--path", "/x/"), 0)
        first, came, went = self.err.getvalue().splitlines()
        self.assertRegex(first, "sending back every message at ws://127.0.0.1:[0-9]+/x/$")
        self.assertRegex(came, r"\+ ada 127.0.0.1:[0-9]+$")
        self.assertRegex(went, "- ada .*1000")

    def test_a_server_that_has_been_shut_down_is_a_clean_end(self) -> None:
        with mock.patch.object(sync_ws.Server, "serve_forever", lambda server: server.shutdown()):
            self.assertEqual(self.call("serve", "--port", "0"), 0)

    def test_trouble_is_one_line_and_the_code_1(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.assertEqual(self.call("serve", "--port", str(taken.getsockname()[1])), 1)
        self.assertRegex(self.err.getvalue(), r"^error: .+\n$")
        self.assertEqual(self.call("connect", "http://127.0.0.1/"), 1)
        self.assertRegex(self.err.getvalue(), r"^error: expected ws:// or wss://, got http://127.0.0.1/.*\n$")

    def test_a_termination_is_as_good_as_ctrl_c(self) -> None:
        with mock.patch.object(sync_ws.Server, "serve_forever", lambda server: signal.raise_signal(signal.SIGTERM)):
            self.assertEqual(self.call("serve", "--port", "0"), 0)
        with mock.patch.object(sync_ws.Client, "open", lambda client: signal.raise_signal(signal.SIGTERM)):
            self.assertEqual(self.call("connect", "ws://127.0.0.1:1/"), 0)

    def test_what_is_no_command_is_told_how_it_is_done(self) -> None:
        for arguments in ((), ("dance",), ("connect",)):
            with self.assertRaises(SystemExit) as ended:
                self.call(*arguments)
            self.assertEqual((ended.exception.code, "usage: python -m sync_ws" in self.err.getvalue()), (2, True))


if __name__ == "__main__":
    unittest.main()
