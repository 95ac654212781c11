"""The stream under websocket-client's handshake: bounded, and honest about what came."""

from __future__ import annotations

import socket
import threading
import time
import unittest
from collections.abc import Callable

from sync_ws.client.handshake_stream import MAX_BODY, HandshakeStream
from sync_ws.errors import HandshakeError
from sync_ws.net.waiting import wait
from sync_ws.protocol.http_head import MAX_HEADERS, MAX_RESPONSE
from sync_ws.testing import LedgerTestCase

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
REQUEST = f"GET / HTTP/1.1\r\nHost: a.test\r\nSec-WebSocket-Key: {KEY}\r\nCookie: jar=1\r\n\r\n".encode()
GOOD = f"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode()


class Waiting:
    """How the stream waits: at most a few seconds."""

    def wait(self, sock: socket.socket, events: int) -> None:
        if not wait(sock.fileno(), events, 5):
            raise AssertionError("waited in vain")


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
        HandshakeStream(self.sock, Waiting(), cookie="mine=1").send(REQUEST)
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
        for line in (b"no colon", b" folded: x", b"Name : x", b"a\x00b: x", b"X: a\rb", b"X: a\nY: b", b": x"):
            with self.subTest(line):
                self.renew()
                self.refuse(b"HTTP/1.1 503 X\r\n" + line + b"\r\n\r\n", say="malformed header")
                self.assertEqual((self.stream.status, self.stream.response), (503, None))

    def test_thirty_thousand_blanks_and_a_nul_are_refused_at_once(self) -> None:
        started = time.process_time()
        self.refuse(b"HTTP/1.1 101 X\r\nX:" + b" " * 30_000 + b"\x00\r\n\r\n", say="malformed header")
        self.assertLess(time.process_time() - started, 0.5)

    def test_the_end_of_the_stream_in_the_response_is_a_lost_connection(self) -> None:
        self.refuse(GOOD[:40], HandshakeError, "lost during the opening handshake")

    def test_the_body_of_a_refusal_is_bounded(self) -> None:
        self.answer(b"HTTP/1.1 404 X\r\n\r\n" + b"x" * (MAX_BODY + 100_000))
        self.read_head()
        with self.assertRaisesRegex(ValueError, "body"):
            while True:
                self.stream.recv(16384)

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
            (b"HTTP/1.1 407 X\r\n\r\n", True, "the proxy answered 407"),
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


def _read_exactly(recv: Callable[[int], bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += recv(65536)
    return data


if __name__ == "__main__":
    unittest.main()
