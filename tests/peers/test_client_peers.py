"""The client against servers that are not ours: node's `ws` as in the article, `websockets`, simple-websocket."""

from __future__ import annotations

import http.server
import itertools
import json
import signal
import socket
import threading
import time
import unittest
from typing import Any

import simple_websocket

from sync_ws import Client, ClientState, ConnectionClosed, Heartbeat, ModeCode, encode
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support import node
from tests.support.recorder import Recorder, sender

SOON = 10.0


class PeerTestCase(LedgerTestCase):
    def client(self, url: str, **options: Any) -> Client:
        client = Client(url, **{"heartbeat": None, "reconnect": 0.1, **options})
        self.addCleanup(client.close, timeout=1.0)
        return client


class ArticleServerTest(PeerTestCase):
    """The server of the article: node with `ws`, an echo of both ModeCodes."""

    def setUp(self) -> None:
        node.require_peer(node.missing())
        super().setUp()
        self.server = self.start()

    def start(self, port: int = 0) -> node.ArticleServer:
        server = node.ArticleServer(port)
        self.addCleanup(server.kill)
        return server

    def test_messages_and_heartbeats_of_both_kinds(self) -> None:
        kinds = ("message", "ping", "auto")
        clients = [self.client(self.server.url(kind), heartbeat=Heartbeat(0.1, 0.5, kind=kind)) for kind in kinds]
        recorders = [Recorder(client) for client in clients]
        for client in clients:
            client.open(SOON)
        for kind, client, recorder in zip(kinds, clients, recorders, strict=True):
            with self.subTest(kind):
                client.send(encode(ModeCode.MESSAGE, "hello"))
                answer = client.recv(SOON)  # `ws` sends back what it got as a binary message
                self.assertEqual(json.loads(answer), {"ModeCode": "message", "msg": "hello"})
                self.assertGreater(recorder.wait_for("heartbeat", 2).rtt, 0)
                self.assertEqual(recorder.of("close"), [])
                if kind == "message":
                    self.server.wait_for("heartbeat of message")
                with self.assertRaises(TimeoutError):
                    client.recv(0.1)
                client.close()
                self.server.wait_for(f"client left {kind} 1000")

    def test_a_wrong_path_is_refused_for_good(self) -> None:
        client = self.client(self.server.url().replace("/ws/", "/other/"))
        recorder = Recorder(client)
        client.run_forever()
        self.assertEqual(recorder.of("gave_up")[0].reason.status, 404)

    def test_killed_and_back_within_one_reconnect_interval(self) -> None:
        interval = 0.5
        client = self.client(self.server.url(), reconnect=interval, heartbeat=Heartbeat(30, 3))
        recorder = Recorder(client)
        client.open(SOON)
        for number in (1, 2):
            self.server.kill()
            recorder.wait_for("close", number)
            client.send(encode(ModeCode.MESSAGE, f"queued {number}"))
            self.server = self.start(self.server.port)
            back = time.monotonic()
            recorder.wait_for("reconnected", number)
            self.assertLess(time.monotonic() - back, interval + 2.0)  # the promise, and a slow machine
            self.assertEqual(json.loads(client.recv(SOON))["msg"], f"queued {number}")
        self.assertEqual(recorder.names.count("close"), 2)

    def test_stopped_is_noticed_within_interval_and_timeout(self) -> None:
        beat = Heartbeat(0.1, 0.3, "message")
        client = self.client(self.server.url(), reconnect=0.1, heartbeat=beat, open_timeout=0.3)
        recorder = Recorder(client)
        client.open(SOON)
        recorder.wait_for("heartbeat")
        self.server.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        closed = recorder.wait_for("close")
        self.assertLess(time.monotonic() - stopped, beat.interval + beat.timeout + 2.0)  # and a slow machine
        self.assertIn("no answer to a heartbeat", str(closed.reason))
        recorder.wait_for("reconnecting", 2)  # stopped before its 101: the kernel accepts, nobody answers
        self.assertIn("no open connection", str(recorder.of("reconnecting")[1].reason))
        self.server.signal(signal.SIGCONT)
        recorder.wait_for("reconnected")

    def test_eight_threads_send_while_it_is_killed_and_restarted(self) -> None:
        client = self.client(self.server.url(), reconnect=0.1)
        recorder = Recorder(client)
        got: list[int] = []
        client.on("message", lambda message: got.append(json.loads(message)["msg"]))
        client.open(SOON)
        self.server.kill()
        recorder.wait_for("close")
        threads = [
            sender(client, [encode(ModeCode.MESSAGE, own * 100 + number) for number in range(8)]) for own in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        self.start(self.server.port)
        wait_until(lambda: len(got) == 64, SOON, "all that was queued")
        for own in range(8):
            mine = [number % 100 for number in got if number // 100 == own]
            self.assertEqual(mine, list(range(8)))


class OtherProtocolTest(PeerTestCase):
    """Servers of node's `ws` that know nothing of the article."""

    def setUp(self) -> None:
        node.require_peer(node.missing())
        super().setUp()

    def server(self, mode: str) -> node.OtherServer:
        server = node.OtherServer(mode)
        self.addCleanup(server.kill)
        return server

    def test_by_default_it_stays_connected_and_leaves_their_protocol_alone(self) -> None:
        modes = ("echo", "silent", "strict")
        servers = [self.server(mode) for mode in modes]
        clients = [self.client(server.url, heartbeat=Heartbeat(0.1, 0.5)) for server in servers]
        recorders = [Recorder(client) for client in clients]
        for client in clients:
            client.open(SOON)
        for mode, server, client, recorder in zip(modes, servers, clients, recorders, strict=True):
            with self.subTest(mode):
                recorder.wait_for("heartbeat", 2)
                with self.assertRaises(TimeoutError):
                    client.recv(0)
                client.close()
                self.assertEqual(recorder.names, ["open", *["heartbeat"] * recorder.names.count("heartbeat"), "close"])
                self.assertEqual({text.split()[0] for text in server.got()}, {"ping"})

    def test_a_heartbeat_in_their_own_words(self) -> None:
        ping, pong = '{"op":"ping"}', '{"op":"pong"}'
        answers: tuple[Any, ...] = (pong, lambda message: json.loads(message)["op"] == "pong")
        server = self.server("strict")
        talks = []
        for answer, messages in itertools.product(answers, (False, True)):
            client = self.client(server.url, heartbeat=Heartbeat(0.1, 0.5, message=lambda: ping, answer=answer))
            talks.append((client, Recorder(client, messages=messages)))
            client.open(SOON)
        for client, recorder in talks:
            self.assertGreater(recorder.wait_for("heartbeat", 2).rtt, 0)
            client.close()
            self.assertEqual(set(recorder.names), {"open", "heartbeat", "close"})
        self.assertEqual(set(server.got()), {f"message {ping}"})

    def test_one_that_answers_no_pings_is_asked_with_a_message(self) -> None:
        server = self.server("no-pong")
        client = self.client(server.url, heartbeat=Heartbeat(0.1, 0.5, message="ping", answer="pong"))
        recorder = Recorder(client)
        client.open(SOON)
        other = self.client(server.url, heartbeat=Heartbeat(0.1, 0.2))
        unanswered = Recorder(other)
        other.open(SOON)
        self.assertIn("within 0.2 s (a Ping)", str(unanswered.wait_for("close").reason))
        recorder.wait_for("heartbeat", 2)
        client.close()

    def test_reconnect_at_the_applications_word(self) -> None:
        server = self.server("echo")
        client = self.client(server.url, reconnect=60)
        recorder = Recorder(client)
        client.open(SOON)
        client.reconnect(4000, "a new token")
        recorder.wait_for("reconnected")
        self.assertEqual(recorder.of("close")[0].reason.code, 4000)
        client.send("hello")
        self.assertEqual(client.recv(SOON), "hello")


class WebsocketsServerTest(PeerTestCase):
    """The `websockets` package's threaded server."""

    def setUp(self) -> None:
        try:
            from websockets.sync.client import connect
            from websockets.sync.server import serve
        except ImportError as exc:
            node.require_peer(f"the package websockets is not installed: {exc}")
            raise
        self.seen: list[Any] = []
        self.messages: list[Any] = []

        def handler(connection: Any) -> None:
            self.seen.append(connection.request.path)
            for message in connection:
                if message == "close":
                    connection.close(1012, "restart")
                    return
                self.messages.append(message)
                if message == "fragments":
                    connection.send(["frag", "men", "ts"])
                else:
                    connection.send(message)

        self.server = serve(handler, "127.0.0.1", 0, compression="deflate")
        self.url = f"ws://127.0.0.1:{self.server.socket.getsockname()[1]}/some/path?name=test"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.addCleanup(self.thread.join, SOON)
        self.addCleanup(self.server.shutdown)
        with connect(self.url):  # then it is up, and has all it needs
            pass
        super().setUp()  # now: that server leaves descriptors to the garbage collector, which is not our business

    def test_messages_fragments_pings_and_the_closing_handshake(self) -> None:
        for compression in (False, True):
            with self.subTest(compression=compression):
                client = self.client(self.url, compression=compression, heartbeat=Heartbeat(0.1, 2, kind="ping"))
                recorder = Recorder(client)
                client.open(SOON)
                for message in ("hello", b"bytes", "", "x" * 100_000, "ü€𝄞" * 1000):
                    client.send(message)
                    self.assertEqual(client.recv(SOON), message)
                client.send("fragments")
                self.assertEqual(client.recv(SOON), "fragments")
                recorder.wait_for("heartbeat")
                client.send("close")
                self.assertEqual(recorder.wait_for("close").reason.code, 1012)
                recorder.wait_for("reconnected")
                client.close()
        self.assertEqual(set(self.seen), {"/some/path?name=test"})

    def test_by_default_it_stays_connected_and_sends_no_message_of_its_own(self) -> None:
        client = self.client(self.url, heartbeat=Heartbeat(0.1, 0.5))
        recorder = Recorder(client)
        client.open(SOON)
        recorder.wait_for("heartbeat", 2)
        client.close()
        self.assertEqual((self.messages, recorder.names.count("close")), ([], 1))


class SimpleWebsocketServerTest(PeerTestCase):
    """Bare simple-websocket behind http.server, as its users have it."""

    def setUp(self) -> None:
        super().setUp()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
                environ["werkzeug.socket"] = self.connection
                peer = simple_websocket.Server(environ)
                try:
                    while (message := peer.receive()) != "close":
                        peer.send(message)
                    peer.close(1000, "as asked")
                except simple_websocket.ConnectionClosed:
                    pass
                peer.thread.join(SOON)
                self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Quietly."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join, SOON)
        self.addCleanup(self.server.shutdown)
        self.url = f"ws://127.0.0.1:{self.server.server_port}/"

    def test_messages_and_closing_by_either_side(self) -> None:
        with self.client(self.url) as client:
            for message in ("hello", b"bytes", "x" * 100_000):
                client.send(message)
                self.assertEqual(client.recv(SOON), message)
        with self.client(self.url) as client:
            client.send("close")
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(SOON)
            self.assertEqual(caught.exception.code, 1000)

    def test_compression(self) -> None:
        with self.client(self.url, compression=True) as client:
            for message in ("hello " * 1000, b"bytes" * 1000):
                client.send(message)
                self.assertEqual(client.recv(SOON), message)

    def test_heartbeats_of_both_kinds(self) -> None:
        for kind in ("message", "ping", "auto"):
            client = self.client(self.url, heartbeat=Heartbeat(0.05, 2, kind=kind))
            recorder = Recorder(client)
            client.open(SOON)
            recorder.wait_for("heartbeat")
            self.assertIs(client.state, ClientState.OPEN)
            client.close()


class NoServerTest(PeerTestCase):
    def test_a_port_that_speaks_something_else(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def greet() -> None:
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(b"220 mail.test ESMTP\r\n\r\n")
                    sock.settimeout(SOON)
                    while sock.recv(4096):
                        pass

            thread = threading.Thread(target=greet)
            thread.start()
            client = self.client(f"ws://127.0.0.1:{listener.getsockname()[1]}/", reconnect=60)
            recorder = Recorder(client)
            client.open(0)
            self.assertIn("HTTP status line", str(recorder.wait_for("reconnecting").reason))
            client.close()
            thread.join(SOON)


if __name__ == "__main__":
    unittest.main()
