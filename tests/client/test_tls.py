"""TLS while a connection is opened: one default context, who does not speak it, and what its failures mean."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
import threading
import time
import unittest
from typing import Any, ClassVar
from unittest import mock

from sync_ws import CertificateError, HandshakeError, HandshakeTimeout, should_reconnect
from sync_ws.client import tls
from sync_ws.client.address import parse_url
from sync_ws.net.waiting import WRITABLE, wait
from sync_ws.testing import Certificates, LedgerTestCase, make_certificates
from sync_ws.timing import Deadline

TARGET = parse_url("wss://localhost/")


class MadeCertificates(LedgerTestCase):
    certificates: ClassVar[Certificates]
    folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.certificates = make_certificates(cls.folder.name)


class DefaultContextTest(MadeCertificates):
    def setUp(self) -> None:
        super().setUp()
        self.file = os.path.join(self.folder.name, "trusted.pem")
        self.trust(self.certificates.ca.read_bytes())
        self.enterContextOf(mock.patch.dict(os.environ, {"SSL_CERT_FILE": self.file, "SSL_CERT_DIR": "/nowhere"}))
        self.enterContextOf(mock.patch.object(tls, "_shared", None))
        self.enterContextOf(mock.patch.object(tls, "_left_to_parent", []))

    def enterContextOf(self, manager: Any) -> None:
        manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)

    def trust(self, data: bytes) -> None:
        with open(self.file, "wb") as file:
            file.write(data)

    def test_there_is_one_and_it_verifies(self) -> None:
        context = tls.default_context()
        self.assertIs(tls.default_context(), context)
        self.assertTrue(context.check_hostname)
        self.assertIs(context.verify_mode, ssl.CERT_REQUIRED)
        self.assertEqual(context.cert_store_stats()["x509_ca"], 1)

    def test_it_is_made_again_when_the_systems_certificates_have_changed(self) -> None:
        context = tls.default_context()
        self.trust(self.certificates.ca.read_bytes() * 2)
        changed = tls.default_context()
        self.assertIsNot(changed, context)
        os.utime(self.file, (1, 1))
        self.assertIsNot(tls.default_context(), changed)
        before = tls.default_context()
        with mock.patch.dict(os.environ, {"SSL_CERT_DIR": self.folder.name}):
            self.assertIsNot(tls.default_context(), before)
        os.remove(self.file)
        self.assertEqual(tls.default_context().cert_store_stats()["x509_ca"], 0)

    def test_a_file_that_vanishes_while_one_looks_is_none(self) -> None:
        with mock.patch("os.stat", side_effect=FileNotFoundError):
            self.assertEqual(tls._certificates()[1:], [(None, None), (None, None)])
        with mock.patch("ssl.get_default_verify_paths", return_value=mock.Mock(cafile="/nowhere", capath=None)):
            self.assertEqual(tls._certificates()[1:], [("/nowhere", None), (None, None)])

    def test_it_is_made_again_after_a_day(self) -> None:
        times = [0.0]
        context = tls.default_context(lambda: times[0])
        times[0] = tls.MAX_AGE - 1
        self.assertIs(tls.default_context(lambda: times[0]), context)
        times[0] = tls.MAX_AGE
        self.assertIsNot(tls.default_context(lambda: times[0]), context)

    def test_a_forked_child_makes_its_own_and_does_not_free_its_parents(self) -> None:
        context = tls.default_context()
        with mock.patch("os.getpid", return_value=os.getpid() + 1):
            self.assertIsNot(tls.default_context(), context)
            self.assertIs(tls.default_context(), tls.default_context())
        self.assertIs(tls._left_to_parent[0], context)

    def test_certificates_that_could_not_be_read_are_an_error_and_are_read_the_next_time(self) -> None:
        with mock.patch("ssl.create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):  # reads nothing
            failing = mock.patch.object(ssl.SSLContext, "load_verify_locations", side_effect=OSError(24, "Too many"))
            with failing, self.assertRaises(OSError) as caught:
                tls.default_context()
            self.assertEqual(caught.exception.errno, 24)
            self.assertEqual(tls.default_context().cert_store_stats()["x509_ca"], 1)

    def test_a_file_without_certificates_is_a_context_that_trusts_nobody(self) -> None:
        self.trust(b"")
        self.assertEqual(tls.default_context().cert_store_stats()["x509_ca"], 0)

    def test_many_threads_at_once_get_a_context_that_works(self) -> None:
        got: list[ssl.SSLContext] = []
        threads = [threading.Thread(target=lambda: got.append(tls.default_context())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        self.assertEqual([context.cert_store_stats()["x509_ca"] for context in got], [1] * 8)
        self.assertIn(tls.default_context(), got)


class Waiting:
    """How the handshake waits: as a dial does, with a deadline."""

    def __init__(self, seconds: float) -> None:
        self.deadline = Deadline(seconds)
        self.begun = threading.Event()

    def wait(self, sock: socket.socket, events: int, share: Deadline | None = None) -> None:
        self.begun.set()
        if not wait(sock.fileno(), events, (share or self.deadline).remaining()):
            raise self.too_late() if share is None else TimeoutError()

    def too_late(self) -> HandshakeTimeout:
        return HandshakeTimeout("too late")


class FirstBytesTest(MadeCertificates):
    def handshake(self, answer: Any, seconds: float = 5.0, io: Waiting | None = None) -> Exception:
        """What comes of it when the peer, in a thread, does ``answer(peer)``."""
        io = io or Waiting(seconds)
        sock, peer = socket.socketpair()
        sock.setblocking(False)
        thread = threading.Thread(target=answer, args=(peer,))
        thread.start()
        try:
            with self.assertRaises((HandshakeError, OSError)) as caught:
                secure = tls.wrap(sock, self.certificates.client_context(), TARGET)
                self.addCleanup(secure.close)
                tls.shake_hands(secure, TARGET, io, seconds)
        finally:
            thread.join(10)
            peer.close()
            sock.close()
        return caught.exception

    def handshake_with_line_ends(self, answer: Any) -> Exception:
        """The same; nothing need come for a tenth of a second, and then there is time enough."""
        with mock.patch.multiple(tls, LAST_SHARE=0.98, LAST_SECONDS=9.0):
            return self.handshake(answer, seconds=5.0)

    def said(self, *pieces: bytes) -> Exception:
        def answer(peer: socket.socket) -> None:
            peer.recv(1)
            for piece in pieces:
                peer.sendall(piece)

        return self.handshake(answer)

    def test_plain_http_is_named_at_once_and_final(self) -> None:
        for answer in (
            [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
            [b"HTTP/1.0 400 X\r\n"],
            [b"H", b"TTP/", b"1.1 400"],
            [b"<!DOCTYPE html><html>"],
        ):
            with self.subTest(answer):
                started = time.monotonic()
                error = self.said(*answer)
                self.assertIn("localhost:443 speaks plain HTTP, not TLS: use ws://", str(error))
                assert isinstance(error, HandshakeError)
                self.assertFalse(should_reconnect(error.reason))
                self.assertLess(time.monotonic() - started, 3.0)

    def test_whatever_else_is_no_tls_is_named_and_shown(self) -> None:
        for answer in (
            b"SSH-2.0-x\r\n",
            b"\x1b[31m\x1b[31m",
            b"\x00\x00\x12\x04\x00\x00",
            b"\x16\x02\x00\x00\x00",
            b"HTTP/",
        ):
            with self.subTest(answer):
                error = self.said(answer)
                self.assertIn("localhost:443 does not speak TLS", str(error))
                self.assertIn("begins with ws://", str(error))
                self.assertTrue(str(error).isprintable())
                assert isinstance(error, HandshakeError)
                self.assertTrue(should_reconnect(error.reason))
        self.assertIn("(it said: ....0-x\\r\\n)", str(self.said(b"SSH-2.0-x\r\n")))

    def test_an_end_without_a_word_is_told_with_what_it_may_be(self) -> None:
        def end(peer: socket.socket) -> None:
            peer.recv(65536)
            peer.close()

        def reset(peer: socket.socket) -> None:
            peer.recv(1)
            peer.close()  # with bytes unread

        for answer in (end, reset):
            with self.subTest(answer.__name__):
                error = self.handshake(answer)
                self.assertIn(
                    "localhost:443 ended the connection in the TLS handshake; if it has no TLS there", str(error)
                )
                assert isinstance(error, HandshakeError)
                self.assertTrue(should_reconnect(error.reason))

    def test_a_plain_server_that_waits_for_the_end_of_a_request_gets_one_before_it_is_too_late(self) -> None:
        def answer(peer: socket.socket) -> None:
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(65536)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        self.assertIn("speaks plain HTTP", str(self.handshake_with_line_ends(answer)))

    def test_a_tls_server_that_answers_after_that_is_too_late(self) -> None:
        def answer(peer: socket.socket) -> None:
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(65536)
            peer.sendall(b"\x16\x03\x03\x00\x04\xff\x00\x00\x00")  # a message that there is none of

        self.assertIsInstance(self.handshake_with_line_ends(answer), HandshakeTimeout)

    def test_an_alert_after_that_is_too_late_as_well(self) -> None:
        def answer(peer: socket.socket) -> None:
            data = b""
            while b"\r\n\r\n" not in data:
                data += peer.recv(65536)
            peer.sendall(b"\x15\x03\x03\x00\x02\x02\x0a")

        self.assertIsInstance(self.handshake_with_line_ends(answer), HandshakeTimeout)

    def test_an_alert_in_answer_is_named(self) -> None:
        self.assertIn("or wants a client certificate", str(self.said(b"\x15\x03\x03\x00\x02\x02\x28")))

    def test_a_server_with_tls(self) -> None:
        sock, peer = socket.socketpair()
        sock.setblocking(False)
        got: list[bytes] = []

        def answer() -> None:
            with self.certificates.server_context().wrap_socket(peer, server_side=True) as secure:
                got.append(secure.recv(9))

        thread = threading.Thread(target=answer)
        thread.start()
        with tls.wrap(sock, self.certificates.client_context(), TARGET) as secure:
            tls.shake_hands(secure, TARGET, Waiting(5.0), 5.0)
            secure.send(b"hello")
            thread.join(10)
        self.assertEqual(got, [b"hello"])

    def test_what_cannot_be_written_yet_is_waited_for(self) -> None:
        sock, peer = socket.socketpair()
        self.addCleanup(peer.close)
        self.addCleanup(sock.close)
        waits: list[int] = []
        secure = mock.Mock(fileno=sock.fileno)
        secure.do_handshake.side_effect = [ssl.SSLWantWriteError, ssl.SSLWantWriteError, None]
        io = Waiting(5.0)
        with mock.patch.object(io, "wait", lambda sock, events: waits.append(events)):
            tls.shake_hands(secure, TARGET, io, 5.0)
        self.assertEqual(waits, [WRITABLE, WRITABLE])

    def test_one_that_never_says_anything_is_too_late(self) -> None:
        self.assertIsInstance(self.handshake(lambda peer: None, seconds=0.2), HandshakeTimeout)

    def test_a_server_with_tls_that_comes_slowly_gets_no_line_ends(self) -> None:
        got: list[bytes] = []
        waiting = Waiting(5.0)

        def answer(peer: socket.socket) -> None:
            got.append(peer.recv(65536))
            waiting.begun.wait(5)
            peer.sendall(b"\x16\x03\x03")
            peer.settimeout(0.6)  # longer than anybody waits who waits for the first bytes
            with self.assertRaises(TimeoutError):
                got.append(peer.recv(65536))
            peer.shutdown(socket.SHUT_WR)

        self.assertIn("ended the connection", str(self.handshake(answer, 0.5, waiting)))
        self.assertEqual(len(got), 1)


class FaultTest(MadeCertificates):
    def alert(self, number: int) -> ssl.SSLError:
        """What OpenSSL makes of it, whatever its version calls it."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        connection = self.certificates.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
        incoming.write(bytes([0x15, 3, 3, 0, 2, 2, number]))
        with self.assertRaises(ssl.SSLError) as caught:
            connection.do_handshake()
        return caught.exception

    def test_alerts_are_named(self) -> None:
        for number, says, final in (
            (116, "the server wants a client certificate: ssl_context.load_cert_chain", True),
            (42, "did not accept the client's certificate", True),
            (43, "did not accept the client's certificate", True),
            (44, "did not accept the client's certificate", True),
            (45, "did not accept the client's certificate", True),
            (46, "did not accept the client's certificate", True),
            (48, "did not accept the client's certificate", True),
            (49, "did not accept the client's certificate", True),
            (40, "shares no TLS version or cipher with us, or wants a client certificate", False),
            (70, "does not speak the TLS versions that this side allows", False),
            (71, "wants stronger ciphers", False),
            (112, "has no certificate for this host name", False),
            (80, "TLS failed with localhost:443: tlsv1 alert internal error", False),
        ):
            with self.subTest(number):
                error = tls.fault(self.alert(number), TARGET)
                assert isinstance(error, HandshakeError)
                self.assertIn(says, str(error))
                self.assertIn("localhost:443", str(error))
                self.assertEqual(should_reconnect(error.reason), not final)

    def test_an_alert_that_python_has_no_name_for_is_known_by_openssls_text(self) -> None:
        exc = ssl.SSLError(1, "[SSL] tlsv13 alert certificate required (_ssl.c:1)")
        exc.reason = None  # type: ignore[assignment]
        self.assertIn("wants a client certificate", str(tls.fault(exc, TARGET)))

    def verdict(self, code: int, message: str = "some reason") -> Exception:
        exc = ssl.SSLCertVerificationError(1, "x")
        exc.verify_code, exc.verify_message = code, message
        return tls.fault(exc, TARGET)

    def test_a_certificate_that_was_not_accepted_is_final_unless_time_will_mend_it(self) -> None:
        for code, says, final in (
            (10, "the certificate of localhost:443 was not accepted: some reason", True),
            (18, "to trust it: ssl_context=", True),
            (20, "to trust it: ssl_context=", True),
            (9, "is the clock of this machine right?", False),
        ):
            with self.subTest(code):
                error = self.verdict(code)
                assert isinstance(error, CertificateError)
                self.assertIn(says, str(error))
                self.assertEqual(should_reconnect(error.reason), not final)

    def test_an_authority_that_could_not_be_opened_is_no_verdict(self) -> None:
        with mock.patch("os.open", side_effect=OSError(24, "Too many open files")):
            error = self.verdict(20)
            self.assertIsInstance(self.verdict(10), CertificateError)
        assert isinstance(error, OSError)
        self.assertEqual(error.errno, 24)

    def test_memory_and_a_broken_line_are_faults_of_the_system(self) -> None:
        out_of_memory = ssl.SSLError(1, "x")
        out_of_memory.reason = "MALLOC_FAILURE"
        self.assertNotIsInstance(tls.fault(out_of_memory, TARGET), HandshakeError)
        for exc in (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), ssl.SSLZeroReturnError(6, "closed")):
            self.assertIsInstance(tls.fault(exc, TARGET), ConnectionResetError)


if __name__ == "__main__":
    unittest.main()
