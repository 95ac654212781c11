"""Known defects of simple-websocket 1.1.0: sync_ws, which stands on it, is immune; and the bare package still has them.

For each defect there is a test of our server and a canary (`test_bare_...`). A canary that fails means that the
package has been repaired: the test says so, and what sync_ws does about the defect may be looked at again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import select
import socket
import ssl
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from unittest import mock

import simple_websocket
from wsproto.utilities import RemoteProtocolError

from sync_ws import Connection, SendTimeout
from sync_ws.testing import make_certificates, wait_until
from tests.support.raw import BINARY, CLOSE, PING, TEXT, RawClient, frame, handshake, read_response
from tests.support.server_case import ServerTestCase

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
BIG = 8 << 20
QUIET = 0.2  # seconds without a byte after which nothing more is expected to come


class BareHandler(BaseHTTPRequestHandler):
    """How the bare package is put under http.server: as Werkzeug does it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, sock: socket.socket, peer: Any, options: dict[str, Any]) -> None:
        self.options = options
        self.made: Any = None
        super().__init__(sock, peer, None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in self.headers.items()}
        self.close_connection = True
        self.made = simple_websocket.Server({**environ, "werkzeug.socket": self.connection}, **self.options)


class DefectTestCase(ServerTestCase):
    def bare(
        self, *lines: str, early: bytes = b"", context: Any = None, trust: Any = None, **options: Any
    ) -> tuple[Any, RawClient]:
        """A simple_websocket.Server and the client at its other end. The client's close ends its reader thread."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(10)
            port = listener.getsockname()[1]
            if context is None:
                client = self.stack.enter_context(RawClient(port))
                sock, peer = listener.accept()
            else:
                clients: list[RawClient] = []
                dialler = threading.Thread(target=lambda: clients.append(RawClient(port, context=trust)))
                dialler.start()
                plain, peer = listener.accept()
                sock = context.wrap_socket(plain, server_side=True)
                dialler.join()
                (client,) = clients
                self.stack.callback(client.close)
        client.send(handshake(lines=lines) + early)
        self.stack.callback(sock.close)
        made = BareHandler(sock, peer, options).made
        client.response = read_response(client.sock)
        client.data = client.response.rest
        self.stack.callback(self.end, made)
        return made, client

    def end(self, server: Any) -> None:
        """Before the client is closed: let go of what may be blocked in the socket, and of the reader."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(server.sock, socket.SHUT_RDWR)
        server.thread.join(10)
        server.sock.close()

    def ours(self, **options: Any) -> tuple[Connection, RawClient]:
        """The same with our server, whose handler waits for the end of the test."""
        gate = self.gate()
        server = self.serve(lambda connection: gate.wait(30), **options)
        client = self.client(server, "a", *([DEFLATE] if options.get("compression") else []))
        return server.clients["a"], client

    def thread(self, function: Callable[[], object]) -> threading.Thread:
        """Run it in a thread that the end of its connection ends."""

        def run() -> None:
            with contextlib.suppress(OSError, SendTimeout, simple_websocket.ConnectionClosed):
                function()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def setUp(self) -> None:
        super().setUp()
        self.threads: list[threading.Thread] = []
        self.stack.callback(self.join)  # the first callback is the last to run: when everything is closed

    def join(self) -> None:
        for thread in self.threads:
            thread.join(10)

    def still(self, message: str = "the defect is gone") -> str:
        return f"{message}: has simple-websocket been repaired?"


class SendTest(DefectTestCase):
    """`send` ignores how much the socket took, has no lock and no deadline."""

    def test_all_of_a_large_message_arrives(self) -> None:
        connection, client = self.ours()
        data = os.urandom(BIG)
        self.thread(lambda: connection.send(data))
        self.assertEqual(hashlib.sha256(client.read_frame().payload).digest(), hashlib.sha256(data).digest())

    def test_bare_send_drops_what_the_socket_did_not_take(self) -> None:
        server, client = self.bare()
        server.sock.settimeout(5)  # a socket with a timeout takes what fits, as http servers have them
        server.send(bytes(BIG))
        server.sock.shutdown(socket.SHUT_WR)
        self.assertLess(len(client.read_to_end()), BIG, self.still())

    def interleaved(self, send: Callable[[bytes], None], client: RawClient, second: Callable[[], object]) -> bool:
        """Whether what `second` writes while a send is blocked ends up inside that send's frame."""
        data = b"a" * (4 << 20)
        first = self.thread(lambda: send(data))
        wait_until(lambda: select.select([client.sock], [], [], 0)[0])
        time.sleep(0.05)  # for the first one to fill the buffers; too short only makes the test say nothing
        other = self.thread(second)
        time.sleep(0.05)
        found = client.read_frame().payload != data
        if not found:
            first.join(10)
            client.read_frame()
            other.join(10)
        return found

    def test_frames_of_two_threads_do_not_interleave(self) -> None:
        connection, client = self.ours()
        self.assertFalse(self.interleaved(connection.send, client, lambda: connection.send(b"b" * (1 << 20))))

    def test_bare_frames_of_two_threads_interleave(self) -> None:
        for _ in range(5):
            server, client = self.bare()
            if self.interleaved(server.send, client, functools.partial(server.send, b"b" * (1 << 20))):
                return
        self.fail(self.still())

    def test_a_pong_does_not_cut_into_a_frame(self) -> None:
        connection, client = self.ours()
        self.assertFalse(self.interleaved(connection.send, client, lambda: client.send_frame(PING, b"ping")))

    def test_bare_pongs_cut_into_frames(self) -> None:
        for _ in range(5):
            server, client = self.bare()
            server.sock.settimeout(10)  # else the reader blocks beside the sender
            data = bytes(BIG)
            server.send(data)
            client.send_frame(PING, b"ping")
            client.sock.settimeout(QUIET)
            with contextlib.suppress(TimeoutError):
                while piece := client.sock.recv(1 << 20):
                    client.data += piece
            client.sock.settimeout(10)
            if client.data.endswith(b"\x8a\x04ping") and len(client.data) < BIG:
                return
        self.fail(self.still())

    def test_deflate_survives_many_threads(self) -> None:
        connection, client = self.ours(compression=True)
        self.assertTrue(self.deflate_intact(connection.send, client))

    def test_bare_deflate_is_garbled_by_many_threads(self) -> None:
        for _ in range(5):
            server, client = self.bare(DEFLATE)
            if not self.deflate_intact(server.send, client):
                return
        self.fail(self.still())

    def deflate_intact(self, send: Callable[[str], None], client: RawClient) -> bool:
        texts = [[f"{number} {count} " + "x" * 100 for count in range(200)] for number in range(6)]
        barrier = threading.Barrier(6)

        def sender(mine: list[str]) -> None:
            barrier.wait(10)
            for text in mine:
                send(text)

        threads = [self.thread(functools.partial(sender, mine)) for mine in texts]
        inflater = zlib.decompressobj(-15)
        got = []
        client.sock.settimeout(5)
        try:
            for _ in range(6 * 200):
                data = client.read_frame()
                payload = data.payload
                if data.first & 0x40:
                    payload = inflater.decompress(payload + b"\0\0\xff\xff")
                got.append(payload.decode())
        except (AssertionError, UnicodeDecodeError, zlib.error, TimeoutError, ConnectionError):
            return False
        for thread in threads:
            thread.join(10)
        return sorted(got) == sorted(text for mine in texts for text in mine)

    def test_a_peer_that_does_not_read_ends_send(self) -> None:
        connection, _client = self.ours(send_timeout=0.3)
        with self.assertRaises(SendTimeout):
            connection.send(bytes(4 * BIG))

    def test_bare_send_blocks_for_as_long_as_the_peer_does_not_read(self) -> None:
        server, _client = self.bare()
        thread = self.thread(lambda: server.send(bytes(4 * BIG)))
        thread.join(0.5)
        self.assertTrue(thread.is_alive(), self.still())


class CloseTest(DefectTestCase):
    def test_close_wakes_recv_closes_the_socket_and_waits(self) -> None:
        ended = threading.Event()

        def handler(connection: Connection) -> None:
            list(connection)
            ended.set()

        server = self.serve(handler, close_timeout=0.3)
        client = self.client(server, "a")
        server.clients["a"].close()
        self.assertTrue(ended.wait(5))
        self.assertEqual(client.read_close()[0], 1000)
        self.assertEqual(client.read_to_end(), b"")

    def test_bare_close_neither_wakes_receive_nor_closes_the_socket(self) -> None:
        server, client = self.bare()
        thread = self.thread(server.receive)
        wait_until(thread.is_alive)
        server.close()
        self.assertEqual(client.read_close()[0], 1000)
        thread.join(QUIET)
        self.assertTrue(thread.is_alive(), self.still("receive was woken"))
        self.assertGreaterEqual(server.sock.fileno(), 0, self.still("the socket was closed"))

    def test_no_message_revives_a_connection_that_is_closing(self) -> None:
        server = self.serve(lambda connection: connection.close(timeout=1.0))
        client = self.raw(server).upgrade("/ws/?name=a")
        self.assertEqual(client.read_close()[0], 1000)
        client.send_text("are you there?")
        client.send_close()
        self.assertEqual(client.read_to_end(), b"")
        self.assertEqual(server.connections, frozenset())

    def test_bare_message_after_close_revives_the_connection(self) -> None:
        server, client = self.bare()
        server.close()
        self.assertFalse(server.connected)
        client.send_text("are you there?")
        wait_until(lambda: server.connected, message=self.still())


class PingTest(DefectTestCase):
    """Its keepalive goes by the wall clock, and waits with select even where TLS holds decrypted data."""

    def test_a_stepped_wall_clock_changes_nothing(self) -> None:
        server = self.serve(ping_interval=60)
        client = self.client(server)
        real = time.time
        for hours in (2, -2):
            with mock.patch("time.time", lambda hours=hours: real() + 3600 * hours):
                client.send_frame(PING, b"x")
                self.assertEqual(client.read_frame().payload, b"x")
                client.sock.settimeout(QUIET)
                with self.assertRaises(TimeoutError):
                    client.read_frame()
                client.sock.settimeout(10)
        self.assertEqual(len(server.connections), 1)

    def test_bare_pings_come_at_once_when_the_wall_clock_is_stepped(self) -> None:
        _server, client = self.bare(ping_interval=3600)
        real = time.time
        with mock.patch("simple_websocket.ws.time", lambda: real() + 7200):
            client.send_text("something to wake its reader")
            client.send_text("and again")
            client.sock.settimeout(5)
            try:
                got = client.read_frame()
            except TimeoutError:
                self.fail(self.still())
        self.assertEqual(got.opcode, PING)

    def contexts(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        with tempfile.TemporaryDirectory() as folder:
            made = make_certificates(folder)
            return made.server_context(), made.client_context()

    def test_a_tls_record_larger_than_a_read_is_taken_whole(self) -> None:
        context, trust = self.contexts()
        server = self.serve(ssl_context=context, ping_interval=60)
        client = self.raw(server, context=trust).upgrade()
        client.send(frame(TEXT, b"x" * 10_000) + frame(TEXT, b"y"))
        self.assertEqual((client.read_text(), client.read_text()), ("x" * 10_000, "y"))

    def test_bare_reader_does_not_see_what_tls_has_decrypted(self) -> None:
        context, trust = self.contexts()
        server, client = self.bare(context=context, trust=trust, ping_interval=60)
        client.send(frame(TEXT, b"x" * 10_000))
        self.assertIsNone(server.receive(timeout=QUIET), self.still())


class BoundsTest(DefectTestCase):
    def test_what_nobody_takes_is_bounded(self) -> None:
        connection, client = self.ours()
        client.sock.settimeout(0.4)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 400:
                client.send_frame(BINARY, bytes(100_000))
                sent += 1
        self.assertLess(sent, 400)
        self.assertLessEqual(len(connection.channel.receiver._inbox), 64)
        self.assertLess(sum(map(len, connection.channel.receiver._inbox)), 6 << 20)

    def test_bare_input_queue_has_no_bound(self) -> None:
        server, client = self.bare()
        data = frame(BINARY, bytes(100_000))
        for _ in range(400):
            client.send(data)
        wait_until(lambda: len(server.input_buffer) == 400, message=self.still())

    def bomb(self) -> bytes:
        packer = zlib.compressobj(9, wbits=-15)
        return (packer.compress(bytes(4 * BIG)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def test_deflate_is_off_by_default_and_bounded_when_on(self) -> None:
        server = self.serve()
        self.assertNotIn("sec-websocket-extensions", self.client(server, None, DEFLATE).response.headers)
        _connection, client = self.ours(compression=True)
        client.send_frame(BINARY, self.bomb(), rsv=4)
        self.assertEqual(client.read_close()[0], 1009)

    def test_bare_deflate_is_always_accepted_and_inflates_without_a_bound(self) -> None:
        server, client = self.bare(DEFLATE)
        self.assertIn("permessage-deflate", client.response.headers.get("sec-websocket-extensions", ""), self.still())
        bomb = self.bomb()
        self.assertLess(len(bomb), 40_000)
        client.send_frame(BINARY, bomb, rsv=4)
        self.assertEqual(len(server.receive(10)), 4 * BIG, self.still())


class HandshakeTest(DefectTestCase):
    def test_a_bad_handshake_gets_an_http_answer(self) -> None:
        with RawClient(self.serve().port) as client:
            self.assertEqual(client.request(handshake(drop=["Sec-WebSocket-Key"])).status, 400)

    def test_bare_bad_handshake_raises_and_answers_nothing(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            environ = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade", "HTTP_HOST": "localhost"}
            with self.assertRaises(RemoteProtocolError):
                simple_websocket.Server({**environ, "werkzeug.socket": ours})
            theirs.settimeout(QUIET)
            with self.assertRaises(TimeoutError, msg=self.still()):
                theirs.recv(1)

    def test_bytes_behind_the_handshake_are_not_lost(self) -> None:
        server = self.serve()
        client = self.raw(server).upgrade(early=frame(TEXT, b"early"))
        self.assertEqual(client.read_text(), "early")

    def test_bare_bytes_behind_the_handshake_are_lost(self) -> None:
        server, client = self.bare(early=frame(TEXT, b"early"))
        client.send_text("late")
        self.assertEqual(server.receive(10), "late", self.still())

    def test_no_thread_of_ours_keeps_a_process_alive(self) -> None:
        before = set(threading.enumerate())
        _connection, _client = self.ours()
        threads = set(threading.enumerate()) - before
        self.assertGreaterEqual(len(threads), 3)
        self.assertEqual([thread for thread in threads if not thread.daemon], [])

    def test_bare_reader_keeps_a_process_alive(self) -> None:
        server, client = self.bare()
        self.assertFalse(server.thread.daemon, self.still())
        client.send_close()
        self.assertEqual(client.read_frame().opcode, CLOSE)
