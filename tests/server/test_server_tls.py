"""The server over TLS: where it can differ from plain sockets."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import tempfile
import threading
import time
from typing import Any
from unittest import mock

from sync_ws import Client, Connection, Heartbeat, Server
from sync_ws.testing import Certificates, make_certificates, wait_until
from tests.support.raw import BINARY, PING, PONG, RawClient, frame, handshake, read_response
from tests.support.server_case import Events, ServerTestCase, echo


class TlsTestCase(ServerTestCase):
    folder: tempfile.TemporaryDirectory[str]
    certificates: Certificates

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.certificates = make_certificates(cls.folder.name)

    def serve_tls(self, handler: Any = echo, **options: Any) -> Server:
        return self.serve(handler, ssl_context=self.certificates.server_context(), **options)

    def tls_client(self, server: Server, *, name: str = "a", tls13: bool = True) -> RawClient:
        context = self.certificates.client_context()
        if not tls13:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        return self.raw(server, context=context).upgrade(f"/ws/?name={name}")


class TlsTest(TlsTestCase):
    def test_messages_pings_and_close(self) -> None:
        server = self.serve_tls()
        self.assertTrue(server.url.startswith("wss://"))
        self.assertEqual(server.page_url, f"https://127.0.0.1:{server.port}/")
        for tls13 in (True, False):
            client = self.tls_client(server, tls13=tls13)
            client.send_text("hello")
            self.assertEqual(client.read_text(), "hello")
            client.send_frame(PING, b"p")
            self.assertEqual(client.read_frame().opcode, PONG)
            self.assertEqual(client.finish(), (1000, ""))
        wait_until(lambda: server.stats()["threads"] == 0)
        self.assertEqual(self.log.tracebacks, [])

    def test_the_request_says_that_it_came_over_tls(self) -> None:
        server = self.serve_tls()
        self.tls_client(server)
        (connection,) = wait_until(lambda: server.connections)
        self.assertTrue(connection.request.secure)

    def test_refusals_are_answered_over_tls_too(self) -> None:
        server = self.serve_tls(max_connections=1)
        client = self.raw(server, context=self.certificates.client_context())
        answer = client.request(handshake("/nowhere"))
        self.assertEqual((answer.status, answer.line), (404, "expected the path /ws/, got '/nowhere'"))

    @mock.patch("sync_ws.server.listener.PAUSE", 0.02)
    def test_without_a_thread_nothing_is_sent_for_it_could_not_be_read(self) -> None:
        server = self.serve_tls()
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.assertEqual(self.raw(server).read_to_end(), b"")

    def test_who_fails_in_tls_is_told_of_as_refused_and_who_leaves_is_not(self) -> None:
        server = self.serve_tls()
        for leave in (b"", b"\x16\x03"):
            with self.raw(server) as client:
                client.send(leave)
        wait_until(lambda: server.stats()["accepted"] == 2 and server.stats()["threads"] == 0)
        self.assertEqual([line for line in self.log.lines if "refused" in line], [])
        with self.raw(server) as client:
            client.send(handshake())
            client.read_to_end()
        self.raw(server).send(b"\xff" * 100)
        wait_until(lambda: len([line for line in self.log.lines if "refused" in line]) == 2)
        plain, odd = (line for line in self.log.lines if "refused" in line)
        peer = r"127\.0\.0\.1:\d+"
        self.assertRegex(
            plain, rf"^INFO sync_ws.server refused TLS: {peer}, -: expected TLS, got plain HTTP: use wss://$"
        )
        self.assertRegex(odd, rf"^INFO sync_ws.server refused TLS: {peer}, -: .*SSL")

    def test_bytes_behind_the_handshake_and_many_frames_in_one_record_are_not_lost(self) -> None:
        server = self.serve_tls()
        client = self.raw(server, context=self.certificates.client_context())
        client.upgrade("/ws/", early=b"".join(frame(1, b"%d" % number) for number in range(300)))
        for number in range(300):
            self.assertEqual(client.read_text(), str(number))

    def test_large_messages(self) -> None:
        server = self.serve_tls(max_message=8 << 20)
        client = self.tls_client(server)
        data = os.urandom(4 << 20)
        writer = threading.Thread(target=client.send_frame, args=(BINARY, data))
        writer.start()
        got = client.read_frame()
        writer.join()
        self.assertEqual(hashlib.sha256(got.payload).digest(), hashlib.sha256(data).digest())

    def test_one_connection_sends_and_receives_at_once(self) -> None:
        """Both directions full at the same time, from threads of their own, each message with its checksum."""
        count, size = 60, 40_000
        received: list[bool] = []

        def stamped(number: int) -> bytes:
            body = number.to_bytes(4, "big") + os.urandom(size)
            return hashlib.sha256(body).digest() + body

        def intact(message: Any, number: int) -> bool:
            body = bytes(message[32:])
            return bool(message[:32] == hashlib.sha256(body).digest() and body[:4] == number.to_bytes(4, "big"))

        def send_all(peer: Connection | Client) -> None:
            for number in range(count):
                peer.send(stamped(number))

        def handler(connection: Connection) -> None:
            sender = threading.Thread(target=send_all, args=(connection,))
            sender.start()
            received.extend(intact(connection.recv(20), number) for number in range(count))
            sender.join()
            connection.send("done")

        server = self.serve_tls(handler)
        with Client(server.url, ssl_context=self.certificates.client_context(), heartbeat=Heartbeat(0.1, 10)) as client:
            sender = threading.Thread(target=send_all, args=(client,))
            sender.start()
            got = [intact(client.recv(20), number) for number in range(count)]
            sender.join()
            self.assertEqual(client.recv(20), "done")
        self.assertEqual((got, received), ([True] * count, [True] * count))

    def test_a_send_is_not_stuck_behind_a_thread_blocked_in_recv(self) -> None:
        server = self.serve_tls()
        client = self.tls_client(server)
        wait_until(lambda: server.clients)
        connection = server.clients["a"]
        for number in range(20):
            connection.send(str(number))
            self.assertEqual(client.read_text(), str(number))

    def test_heart_beats_are_answered_while_the_handler_is_busy(self) -> None:
        gate = self.gate()
        server = self.serve_tls(lambda connection: gate.wait(20))
        client = self.tls_client(server)
        text = '{"ModeCode":"heart_beat","msg":1}'
        client.send_text(text)
        self.assertEqual(client.read_text(), text)


class TlsFaultsTest(TlsTestCase):
    def test_a_plain_client_on_the_tls_port_is_cut_and_the_server_goes_on(self) -> None:
        server = self.serve_tls()
        for data in (handshake(), b"\x00" * 50, b"\x16\x03\x01\xff\xff"):
            client = self.raw(server)
            with contextlib.suppress(OSError):  # it may be cut already
                client.send(data)
                client.sock.shutdown(socket.SHUT_WR)
            self.assertNotIn(b"101 Switching", client.read_to_end())
        wait_until(lambda: server.stats()["threads"] == 0)
        self.tls_client(server)
        self.assertEqual(self.log.tracebacks, [])

    def test_a_client_silent_in_the_tls_handshake_is_cut_at_the_deadline(self) -> None:
        server = self.serve_tls(handshake_timeout=0.2)
        client = self.raw(server)
        self.assertEqual(client.read_to_end(), b"")
        wait_until(lambda: server.stats()["threads"] == 0)

    def test_a_tls_handshake_under_way_does_not_hold_up_shutdown(self) -> None:
        server = self.serve_tls()
        silent = [self.raw(server) for _ in range(3)]
        silent[0].send(b"\x16\x03\x01")
        wait_until(lambda: server.stats()["handshakes"] == 3)
        started = time.monotonic()
        self.assertEqual(server.shutdown(), ())
        self.assertLess(time.monotonic() - started, 4)

    def test_a_client_that_does_not_trust_the_certificate_leaves_nothing(self) -> None:
        server = self.serve_tls()
        with self.assertRaises(ssl.SSLCertVerificationError):
            RawClient(server.port, context=ssl.create_default_context())
        wait_until(lambda: server.stats()["accepted"] == 1 and server.stats()["threads"] == 0)
        self.assertEqual(self.log.tracebacks, [])

    def test_half_closed_and_vanished_peers_end_with_1006(self) -> None:
        def tls_end(client: RawClient) -> None:
            assert isinstance(client.sock, ssl.SSLSocket)
            client.sock.settimeout(0)
            try:
                client.sock.unwrap()
            except OSError:
                pass

        def tcp_half(client: RawClient) -> None:
            socket.socket.shutdown(client.sock, socket.SHUT_WR)

        server = self.serve_tls(None)
        events = Events(server)
        for number, end in enumerate((tls_end, tcp_half, RawClient.close, RawClient.vanish), 1):
            client = self.tls_client(server)
            wait_until(lambda: server.clients)
            end(client)
            self.assertEqual(events.wait("close", number)[-1][1].code, 1006)
            client.close()
        self.assertEqual(self.log.tracebacks, [])

    def test_a_peer_that_does_not_read_is_given_up_and_shutdown_is_quick(self) -> None:
        server = self.serve_tls(None, send_timeout=0.4)
        events = Events(server)
        self.tls_client(server)
        wait_until(lambda: server.clients)
        while not events.of("close") and server.connections:
            server.broadcast(b"x" * 200_000)
        self.assertEqual(events.wait("close")[0][1].code, 1013)

    def test_a_token_and_the_first_message_survive_a_dribbled_tls_stream(self) -> None:
        server = self.serve_tls()
        client = self.raw(server, context=self.certificates.client_context())
        data = handshake() + frame(1, b"first")
        for at in range(len(data)):
            client.send(data[at : at + 1])  # a TLS record a byte
        client.data = read_response(client.sock).rest
        self.assertEqual(client.read_text(), "first")
