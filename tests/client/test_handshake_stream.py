"""The stream under websocket-client's handshake: bounded, and honest about what came."""

from __future__ import annotations

import errno
import socket
import threading
import time
import unittest
from collections.abc import Callable
from unittest import mock

from sync_ws.client.handshake_stream import MAX_BODY, MAX_INTERIM, HandshakeStream, Refused
from sync_ws.errors import HandshakeError, HandshakeTimeout
from sync_ws.net.waiting import wait
from sync_ws.protocol.http_head import MAX_HEADERS, MAX_RESPONSE, BadHead, TlsInstead
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
REQUEST = f"GET / HTTP/1.1\r\nHost: a.test\r\nSec-WebSocket-Key: {KEY}\r\nCookie: jar=1\r\n\r\n".encode()
GOOD = f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode()


class Waiting:
    """How the stream waits: at most a few seconds."""

    def wait(self, sock: socket.socket, events: int, share: Deadline | None = None) -> None:
        if not wait(sock.fileno(), events, share.remaining() if share is not None else 5):
            raise TimeoutError("waited in vain")

    def too_late(self) -> HandshakeTimeout:
        raise AssertionError("it is never too late here")


class HandshakeStreamTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.renew()

    def renew(self) -> None:
        """A stream and a peer, unused."""
        self.sock, self.peer = socket.socketpair()
        self.addCleanup(self.sock.close)
        self.addCleanup(self.peer.close)
        self.sock.setblocking(False)
        self.stream = HandshakeStream(self.sock, Waiting())

    def answer(self, data: bytes, *, end: bool = True) -> None:
        """Have the peer send this, from a thread: it may be more than the socket's buffers take."""

        peer = self.peer

        def write() -> None:
            try:
                peer.sendall(data)
                if end:
                    peer.shutdown(socket.SHUT_WR)
            except OSError:
                return  # the stream had enough of it

        thread = threading.Thread(target=write)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.sock.close)

    def read_head(self) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.stream.recv(1)
        return head

    def refuse(self, data: bytes, error: type[Exception] = ValueError, say: str = "") -> None:
        self.answer(data)
        with self.assertRaisesRegex(error, say):
            self.read_head()

    def test_the_response_and_what_came_behind_it_in_one_segment(self) -> None:
        self.stream.send(REQUEST)
        self.answer(GOOD + b"\x81\x02hi")
        self.assertEqual(self.read_head().lower(), GOOD.lower())
        self.assertEqual((self.stream.status, self.stream.key), (101, KEY))
        assert self.stream.response is not None
        self.assertEqual(self.stream.response.headers["Sec-WebSocket-Accept"], ACCEPT)
        self.assertEqual(self.stream.rest(), b"\x81\x02hi")

    def test_a_cookie_of_the_shared_jar_is_not_sent_and_our_own_is(self) -> None:
        self.stream.send(REQUEST)
        self.assertNotIn(b"Cookie", self.peer.recv(4096))
        HandshakeStream(self.sock, Waiting(), "/", "mine=1").send(REQUEST)
        sent = self.peer.recv(4096)
        self.assertIn(b"\r\nCookie: mine=1\r\n\r\n", sent)
        self.assertNotIn(b"jar", sent)

    def test_a_cookie_that_the_server_sets_is_not_shown_to_the_jar(self) -> None:
        self.answer(GOOD.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=1; Domain=a.test\r\n\r\n"))
        self.assertNotIn(b"cookie", self.read_head().lower())
        assert self.stream.response is not None
        self.assertEqual(self.stream.response.headers["set-cookie"], "a=1; Domain=a.test")

    def test_letters_beyond_ascii_do_not_upset_websocket_client(self) -> None:
        self.answer(GOOD.replace(b"101 X", b"101 \xe4").replace(b"\r\n\r\n", b"\r\nX-Name: J\xf6rg\r\n\r\n"))
        self.assertIn("x-name: J\xf6rg", self.read_head().decode())

    def test_three_mebibytes_of_headers_are_refused_early_and_quickly(self) -> None:
        started = time.process_time()
        self.refuse(b"HTTP/1.1 101 X\r\n" + b"X-Fill: " + b"a" * (3 << 20) + b"\r\n\r\n", say="more than 40960 bytes")
        self.assertLess(time.process_time() - started, 1.0)
        self.assertLess(len(self.stream.rest()), MAX_RESPONSE)

    def test_more_headers_than_allowed_are_refused(self) -> None:
        self.refuse(b"HTTP/1.1 101 X\r\n" + b"X: y\r\n" * (MAX_HEADERS + 1) + b"\r\n", say="more than 64 headers")

    def test_a_response_dribbled_byte_by_byte_is_read_in_linear_time(self) -> None:
        def dribble() -> None:
            for byte in GOOD:
                self.peer.sendall(bytes([byte]))

        thread = threading.Thread(target=dribble)
        thread.start()
        self.addCleanup(thread.join)
        self.assertEqual(self.read_head().lower(), GOOD.lower())

    def test_what_is_not_http_is_refused(self) -> None:
        for line in (b"SSH-2.0-x", b"HTTP/2 101 X", b"HTTP/1.1 1O1 X", b"HTTP/1.1  101 X", b"HTTP/1.1 101\tX", b""):
            with self.subTest(line):
                self.renew()
                self.refuse(line + b"\r\n\r\n", say="status line")

    def test_malformed_headers_are_refused(self) -> None:
        for line in (b"no colon", b" folded: x", b"Name : x", b"a\x00b: x", b"X: a\rb", b"X: a\nY b", b": x"):
            with self.subTest(line):
                self.renew()
                self.refuse(b"HTTP/1.1 503 X\r\n" + line + b"\r\n\r\n", say="malformed header")
                self.assertEqual((self.stream.status, self.stream.response), (503, None))

    def test_thirty_thousand_blanks_and_a_nul_are_refused_at_once(self) -> None:
        started = time.process_time()
        self.refuse(b"HTTP/1.1 101 X\r\nX:" + b" " * 30_000 + b"\x00\r\n\r\n", say="malformed header")
        self.assertLess(time.process_time() - started, 0.5)

    def test_the_end_of_the_stream_in_the_response(self) -> None:
        self.refuse(GOOD[:40], EOFError, "the connection was ended")
        self.assertTrue(self.stream.heard)
        self.renew()
        self.refuse(b"", EOFError, "the connection was ended")
        self.assertFalse(self.stream.heard)

    def test_what_was_raised_here_is_kept_under_its_own_name(self) -> None:
        self.refuse(b"", EOFError)
        self.assertIsInstance(self.stream.failure, EOFError)

    def test_whoever_speaks_another_protocol_is_refused_at_its_first_bytes(self) -> None:
        for said in (b"SSH-2.0-OpenSSH_9\r\n", b"220 mail.test\r\n", b"\x00\x00\x12\x04", b"<html>", b"HTTP-", b"\n\n"):
            with self.subTest(said):
                self.renew()
                self.answer(said, end=False)
                with self.assertRaisesRegex(BadHead, "status line, but: "):
                    self.read_head()

    def test_tls_is_known_by_its_first_byte(self) -> None:
        for said in (b"\x15\x03\x03\x00\x02\x02\x0a", b"\x16\x03\x01", b"\x15"):
            with self.subTest(said):
                self.renew()
                self.answer(said, end=False)
                with self.assertRaises(TlsInstead):
                    self.read_head()

    def test_informational_responses_before_the_101_are_skipped(self) -> None:
        for interim in (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 102\r\n\r\n" * 3 + b"HTTP/1.1 199 X\n\n",
            b"HTTP/1.1 103 X\r\n\r\n" * MAX_INTERIM,
        ):
            with self.subTest(interim[:20]):
                self.renew()
                self.stream.send(REQUEST)
                self.answer(interim + GOOD + b"\x81\x02hi", end=False)
                self.assertEqual(self.read_head().lower(), GOOD.lower())
                self.assertEqual((self.stream.status, self.stream.rest()), (101, b"\x81\x02hi"))

    def test_informational_responses_without_end_are_an_error(self) -> None:
        self.refuse(b"HTTP/1.1 103 X\r\n\r\n" * (MAX_INTERIM + 1), BadHead, f"more than {MAX_INTERIM} responses")
        self.renew()
        self.refuse(
            b"HTTP/1.1 103 X\r\nX: " + b"y" * (MAX_RESPONSE + 9000) + b"\r\n\r\n", BadHead, "more than 40960 bytes"
        )

    def test_a_malformed_informational_response_is_no_status(self) -> None:
        self.refuse(b"HTTP/1.1 103 X\r\nno colon\r\n\r\n", BadHead, "malformed")
        self.assertIsNone(self.stream.status)

    def test_lines_that_end_in_a_bare_lf_and_folded_ones(self) -> None:
        self.answer(GOOD.replace(b"\r\n\r\n", b"\r\nX-Long: a\r\n\t b\r\n\r\n").replace(b"\r\n", b"\n") + b"\x81\x00")
        self.assertIn(b"x-long: a b\r\n", self.read_head())
        self.assertEqual(self.stream.rest(), b"\x81\x00")

    def read_body(self, answer: bytes, *, end: bool = False) -> bytes:
        self.renew()
        self.answer(answer, end=end)
        with self.assertRaises(Refused):
            self.stream.recv(1)
        return self.stream.read_body()

    def test_the_body_of_a_refusal_by_its_length_its_chunks_or_to_the_end(self) -> None:
        head = b"HTTP/1.1 404 X\r\n"
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
        for answer, end, body in (
            (head + b"Content-Length: 4\r\n\r\nbodymore", False, b"body"),
            (head + b"Content-Length: 9\r\n\r\nbody", True, b"body"),
            (head + b"Content-Length: 9\r\n\r\nbody", False, b"body"),
            (head + b"Content-Length: x\r\n\r\nbody", True, b"body"),
            (head + b"Content-Length: 0\r\n\r\nbody", False, b""),
            (head + b"\r\nbody", True, b"body"),
            (head + b"\r\n", True, b""),
            (chunked + b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n", False, b"body"),
            (chunked + b"2\nbo\n2\ndy\n0\n\n", False, b"body"),
            (chunked + b"2\r\nbo\r\n9\r\ndy", True, b"body"),
            (chunked + b"2\r\nbo\r\nzz\r\ndy", False, b"bo"),
            (chunked + b"-2\r\nbo\r\n", False, b""),
            (chunked + b"fffffffff\r\nbo\r\n", False, b""),
            (b"HTTP/1.1 304 X\r\nContent-Length: 4\r\n\r\n", False, b""),
            (b"HTTP/1.1 204 X\r\n\r\n", False, b""),
        ):
            with self.subTest(answer), mock.patch("sync_ws.client.handshake_stream.BODY_PATIENCE", 0.1):
                self.assertEqual(self.read_body(answer, end=end), body)

    def test_the_body_of_a_refusal_is_bounded(self) -> None:
        for head in (b"", b"Content-Length: 99999999999\r\n"):
            body = self.read_body(b"HTTP/1.1 404 X\r\n" + head + b"\r\n" + b"x" * (MAX_BODY + 100_000))
            self.assertEqual(len(body), MAX_BODY)
        chunks = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        body = self.read_body(b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks * 9)
        self.assertTrue(MAX_BODY - 100 < len(body) <= MAX_BODY)

    def test_the_path_is_sent_as_it_is(self) -> None:
        stream = HandshakeStream(self.sock, Waiting(), "/a;b?c#d")
        stream.send(REQUEST)
        self.assertTrue(self.peer.recv(4096).startswith(b"GET /a;b?c#d HTTP/1.1\r\nHost: a.test\r\n"))

    def test_an_answer_that_came_before_the_request_was_written_is_read(self) -> None:
        self.peer.sendall(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
        self.peer.close()
        self.stream.send(REQUEST)
        with self.assertRaises(Refused):
            self.stream.recv(1)
        self.assertEqual(self.stream.status, 413)

    def test_why_the_request_could_not_be_written_is_told_where_nothing_came(self) -> None:
        self.peer.close()
        self.stream.send(REQUEST)
        with self.assertRaises(BrokenPipeError):
            self.stream.recv(1)

    def test_where_it_could_not_be_written_the_server_is_not_left_waiting_for_the_rest(self) -> None:
        gone = TimeoutError(errno.ETIMEDOUT, "timed out")
        sock = mock.Mock(wraps=self.sock, send=mock.Mock(side_effect=gone))
        stream = HandshakeStream(sock, Waiting())
        stream.send(REQUEST)
        self.peer.settimeout(5)
        self.assertEqual(self.peer.recv(1), b"")
        self.peer.close()
        with self.assertRaises(TimeoutError) as caught:
            stream.recv(1)
        self.assertIs(caught.exception, gone)

    def test_an_interrupted_call_is_made_again(self) -> None:
        usual = self.sock.send, self.sock.recv
        send, recv = (mock.Mock(side_effect=[InterruptedError(), *[mock.DEFAULT] * 2], wraps=call) for call in usual)
        stream = HandshakeStream(mock.Mock(wraps=self.sock, send=send, recv=recv), Waiting())
        stream.send(REQUEST)
        self.assertTrue(self.peer.recv(4096).endswith(b"\r\n\r\n"))
        self.answer(GOOD)
        self.assertEqual(stream.recv(4), b"HTTP")
        self.assertEqual((send.call_count, recv.call_count), (2, 2))

    def test_a_request_larger_than_the_socket_takes_is_written_whole(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        big = b"GET / HTTP/1.1\r\nX: " + b"a" * 500_000 + b"\r\n\r\n"
        got: list[bytes] = []
        thread = threading.Thread(target=lambda: got.append(_read_exactly(self.peer.recv, len(big))))
        thread.start()
        self.stream.send(big)
        thread.join(10)
        self.assertEqual(got, [big])

    def test_a_tunnel_is_asked_for_with_and_without_a_password(self) -> None:
        self.answer(b"HTTP/1.1 200 OK\r\n\r\n", end=False)
        self.stream.tunnel("b.test:443", "dTpw")
        self.assertEqual(
            self.peer.recv(4096),
            b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n",
        )

    def test_a_proxy_that_refuses_says_so(self) -> None:
        for answer, permanent, say in (
            (b"HTTP/1.1 407 X\r\n\r\n", True, "the proxy answered 407 X; .*user:password@"),
            (b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 403 \x1b\r\n\r\n", True, r"the proxy answered 403 \\x1b"),
            (b"HTTP/1.1 101 X\r\n\r\n", True, "the proxy answered 101"),
            (b"\x15\x03\x01\x00\x02\x02\x0a", True, "the proxy speaks TLS"),
            (b"HTTP/1.1 502 X\r\n\r\n", False, "the proxy answered 502"),
            (b"HTTP/1.1 200 X\r\n\r\nearly", False, "before the tunnel was used"),
            (b"garbage\r\n\r\n", False, "did not answer as one"),
        ):
            with self.subTest(answer):
                self.renew()
                self.answer(answer, end=False)
                with self.assertRaisesRegex(HandshakeError, say) as caught:
                    self.stream.tunnel("b.test:443", None)
                self.assertEqual(caught.exception.reason.permanent, permanent)


class LogTest(LedgerTestCase):
    def test_the_handshake_is_in_the_debug_log_line_by_line_without_its_secrets(self) -> None:
        sock, peer = socket.socketpair()
        self.addCleanup(sock.close)
        self.addCleanup(peer.close)
        stream = HandshakeStream(sock, Waiting(), "/ws/?token=hush", "sid=hush")
        answer = b"\r\nSet-Cookie: a=hush; Path=/\r\nSet-Cookie: b=hush\r\nX-Forged: \xe4\r\n\r\n"
        peer.sendall(GOOD.replace(b"\r\n\r\n", answer))
        with self.assertLogs("sync_ws.client", "DEBUG") as logs:
            stream.send(REQUEST.replace(b"Cookie: jar=1", b"Authorization: Bearer hush"))
            stream.recv(1)
        lines = [record.getMessage() for record in logs.records]
        for line in (
            "> GET /ws/?token=*** HTTP/1.1", "> Host: a.test", "> Authorization: Bearer ***", "> Cookie: sid=***",
            "< HTTP/1.1 101 X", "< upgrade: websocket", "< set-cookie: a=***; Path=/", "< set-cookie: b=***",
            "< x-forged: \\xe4",
        ):  # fmt: skip
            self.assertIn(line, lines)
        self.assertNotIn("hush", "".join(lines))

    def test_a_tunnel_is_in_it_too(self) -> None:
        sock, peer = socket.socketpair()
        self.addCleanup(sock.close)
        self.addCleanup(peer.close)
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        with self.assertLogs("sync_ws.client", "DEBUG") as logs:
            HandshakeStream(sock, Waiting()).tunnel("b.test:443", "aHVzaA==")
        lines = [record.getMessage() for record in logs.records]
        expected = ["> CONNECT b.test:443 HTTP/1.1", "> Host: b.test:443", "> Proxy-Authorization: Basic ***"]
        self.assertEqual(lines, [*expected, "< HTTP/1.1 200 OK"])


def _read_exactly(recv: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += recv(65536)
    return data


if __name__ == "__main__":
    unittest.main()
