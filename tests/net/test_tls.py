"""The TLS socket over memory: what an opening handshake needs of a socket, waiting or not."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections import Counter
from typing import Any
from unittest import mock

from sync_ws.net.tls import TlsSocket
from sync_ws.net.transport import Transport, transport_for
from sync_ws.testing import Certificates, LedgerTestCase, make_certificates
from tests.support.wire import join

MIB = 1 << 20


def taken(transport: Transport, data: bytes | memoryview) -> int:
    """How much of it the kernel took."""
    try:
        return next(transport.sending(data))
    except BlockingIOError:
        return 0


class TlsCase(LedgerTestCase):
    certificates: Certificates

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.certificates = make_certificates(folder)

    def pair(self, timeout: float | None = 10, **certificate: Any) -> tuple[TlsSocket, TlsSocket]:
        """A server's and a client's, connected, without their handshake."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.settimeout(timeout)
        server = TlsSocket(ours, self.certificates.server_context(**certificate), server_side=True)
        client = TlsSocket(theirs, self.certificates.client_context(), server_hostname="localhost")
        self.addCleanup(server.close)
        self.addCleanup(client.close)
        return server, client

    def shaken(self) -> tuple[TlsSocket, TlsSocket]:
        server, client = self.pair()
        thread = threading.Thread(target=client.do_handshake)
        thread.start()
        server.do_handshake()
        join(thread)
        return server, client


class Blocking(TlsCase):
    def test_an_interrupted_call_is_made_again(self) -> None:
        calls: Counter[tuple[str, int]] = Counter()

        def interrupted(name: str) -> Any:
            usual = getattr(socket.socket, name)

            def call(sock: socket.socket, *args: Any) -> Any:
                calls[name, id(sock)] += 1
                if calls[name, id(sock)] % 2:
                    raise InterruptedError
                return usual(sock, *args)

            return mock.patch.object(socket.socket, name, call)

        with interrupted("recv"), interrupted("send"):
            server, client = self.shaken()
            self.assertEqual((client.send(b"x"), server.recv(1)), (1, b"x"))

    def test_it_takes_the_descriptor_and_the_timeout_of_the_socket(self) -> None:
        plain, other = socket.socketpair()
        self.addCleanup(other.close)
        plain.settimeout(3)
        number = plain.fileno()
        with TlsSocket(plain, self.certificates.server_context(), server_side=True) as sock:
            self.assertEqual((plain.fileno(), sock.fileno(), sock.gettimeout()), (-1, number, 3))

    def test_a_closed_socket_is_an_error_of_the_system(self) -> None:
        plain = socket.socket()
        plain.close()
        with self.assertRaises(OSError):
            TlsSocket(plain, self.certificates.server_context(), server_side=True)

    def test_what_cannot_be_tls_leaves_the_socket_alone(self) -> None:
        plain, other = socket.socketpair()
        self.addCleanup(other.close)
        self.addCleanup(plain.close)
        with self.assertRaises(ValueError):
            TlsSocket(plain, self.certificates.client_context(), server_hostname="")
        self.assertGreaterEqual(plain.fileno(), 0)

    def test_bytes_arrive_as_they_were_sent(self) -> None:
        server, client = self.shaken()
        data = bytes(range(256)) * 4096 * 3
        thread = threading.Thread(target=client.sendall, args=(data,))
        thread.start()
        got = bytearray()
        while len(got) < len(data):
            got += server.recv(100_000)
        join(thread)
        self.assertEqual(got, data)

    def test_no_more_than_was_asked_for(self) -> None:
        server, client = self.shaken()
        client.sendall(b"abcdef")
        self.assertEqual((server.recv(2), server.recv(1), server.recv(100)), (b"ab", b"c", b"def"))

    def test_the_end_of_the_stream_with_and_without_goodbye(self) -> None:
        server, client = self.shaken()
        socket.socket.shutdown(client, socket.SHUT_WR)
        self.assertEqual((server.recv(10), server.recv(10)), (b"", b""))
        server, client = self.shaken()
        with self.assertRaises(ssl.SSLWantReadError):  # it has said goodbye and would wait for the answer
            client.tls.unwrap()
        client.sendall(b"")
        self.assertEqual(server.recv(10), b"")

    def test_a_peer_that_keeps_still_is_a_timeout(self) -> None:
        server, _client = self.pair(timeout=0.05)
        with self.assertRaises(TimeoutError):
            server.do_handshake()

    def test_a_peer_that_speaks_something_else_is_a_tls_error(self) -> None:
        server, client = self.pair()
        socket.socket.send(client, b"GET / HTTP/1.1\r\n\r\n")
        with self.assertRaisesRegex(ssl.SSLError, "HTTP_REQUEST"):
            server.do_handshake()

    def test_a_certificate_that_is_refused_is_refused_on_the_wire_too(self) -> None:
        server, client = self.pair(certificate=self.certificates.expired_cert)
        errors: list[BaseException] = []

        def refuse() -> None:
            try:
                client.do_handshake()
            except ssl.SSLCertVerificationError as exc:
                errors.append(exc)

        thread = threading.Thread(target=refuse)
        thread.start()
        with self.assertRaisesRegex(ssl.SSLError, "ALERT_CERTIFICATE_EXPIRED"):
            server.do_handshake()  # TLS 1.3: the server may be done before it hears of it
            server.recv(1)
        join(thread)
        self.assertEqual(len(errors), 1)


class WithoutWaiting(TlsCase):
    def test_a_handshake_step_by_step(self) -> None:
        pair = self.pair(timeout=0)
        done: set[TlsSocket] = set()
        for _ in range(10):
            for sock in pair:
                try:
                    sock.do_handshake()
                    done.add(sock)
                except ssl.SSLWantReadError:
                    continue
        self.assertEqual(done, set(pair))

    def test_nothing_there_is_want_read(self) -> None:
        server, _client = self.shaken()
        server.setblocking(False)
        with self.assertRaises(ssl.SSLWantReadError):
            server.recv(10)

    def test_what_was_taken_and_found_no_room_goes_out_first(self) -> None:
        server, client = self.shaken()
        client.setblocking(False)
        data, sent = bytes(16 * 1024), 0
        with self.assertRaises(ssl.SSLWantWriteError):
            while True:
                sent += client.send(data)
        got = len(server.recv(MIB))
        while got < sent:  # reading writes as well
            with self.assertRaises(ssl.SSLWantReadError):
                client.recv(1)
            got += len(server.recv(MIB))
        self.assertEqual(client.send(b"and more"), 8)
        self.assertEqual((got, server.recv(100)), (sent, b"and more"))

    def test_the_transport_begins_with_what_found_no_room(self) -> None:
        server, client = self.shaken()
        client.setblocking(False)
        sent = 0
        with self.assertRaises(ssl.SSLWantWriteError):
            while True:
                sent += client.send(bytes(16 * 1024))
        got, transport = len(server.recv(MIB)), transport_for(client)
        rest = memoryview(b"and more")
        tail = b""
        while got < sent or len(tail) < 8:
            rest = rest[taken(transport, rest) :] if rest else rest
            data = server.recv(MIB)
            tail = (tail + data[max(0, sent - got) :])[-8:]
            got += len(data)
        self.assertEqual((bytes(tail), bytes(rest)), (b"and more", b""))


class KeyUpdate(TlsCase):
    def test_new_keys_are_taken_and_answered(self) -> None:
        """RFC 8446 section 4.6.3; Python cannot ask for it, the openssl command can."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            host, port = listener.getsockname()
            command = ["openssl", "s_client", "-connect", f"{host}:{port}"]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            sock, _ = listener.accept()
        server = TlsSocket(sock, self.certificates.server_context(), server_side=True)
        self.addCleanup(server.close)
        server.do_handshake()
        transport = transport_for(server)
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        for text in (b"one", b"two"):
            process.stdin.write(b"K\n")  # new keys for both directions
            process.stdin.flush()
            while process.stderr.readline() != b"KEYUPDATE\n":
                pass
            process.stdin.write(text + b"\n")
            process.stdin.flush()
            got = b""
            while text not in got:
                got += next(transport.receiving(100))
            answer = b"<" + text + b">\n"
            self.assertEqual(taken(transport, answer), len(answer))
            while process.stdout.readline() != answer:
                pass
