"""The opening handshake over the wire: what gets in, and the HTTP answer to what does not."""

from __future__ import annotations

import errno
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast
from unittest import mock

from sync_ws import Refusal, Request, bearer_token
from sync_ws.protocol.handshake import Policy
from sync_ws.protocol.http_head import MAX_HEADERS, MAX_LINE, BadHead
from sync_ws.server.upgrade import UpgradeHandler, read_head
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline
from tests.support.raw import KEY, PONG, RawClient, frame, handshake, read_response
from tests.support.refusal_case import RefusalTestCase, noting
from tests.support.server_case import ServerTestCase, wait_until


class RefusalTest(RefusalTestCase):
    def test_each_refusal_is_a_proper_answer_with_one_plain_line(self) -> None:
        server = self.serve(require_name=True)
        good = "/ws/?name=a"
        cases: list[tuple[bytes, int, str]] = [
            (handshake("/x/ws/y?name=a"), 404, "/ws/"),
            (handshake("/ws?name=a"), 404, "/ws/"),
            (handshake("/ws/../ws/?name=a"), 404, "/ws/"),
            (handshake("/WS/?name=a"), 404, "/ws/"),
            (handshake("/%77s/?name=a"), 404, "/ws/"),
            (handshake(good, method="POST"), 405, "method GET"),
            (handshake(good, method="HEAD"), 405, ""),
            (handshake(good, version="HTTP/1.0"), 400, "HTTP/1.1"),
            (handshake(good, drop=["Upgrade"]), 426, "Upgrade: websocket"),
            (handshake(good, drop=["Connection"]), 426, "Upgrade: websocket"),
            (handshake(good, drop=["Connection"], lines=["Connection: keep-alive"]), 426, "Upgrade: websocket"),
            (handshake(good, drop=["Sec-WebSocket-Version"]), 426, "Sec-WebSocket-Version: 13"),
            (handshake(good, drop=["Sec-WebSocket-Version"], lines=["Sec-WebSocket-Version: 8"]), 426, "13"),
            (handshake(good, lines=["Sec-WebSocket-Version: 13"]), 426, "13"),
            (handshake(good, drop=["Sec-WebSocket-Key"]), 400, "Sec-WebSocket-Key"),
            (handshake(good, lines=[f"Sec-WebSocket-Key: {KEY}"]), 400, "Sec-WebSocket-Key"),
            (handshake(good, drop=["Host"]), 400, "Host"),
            (handshake(good, lines=["Host: other"]), 400, "Host"),
            (handshake("/ws/"), 400, "?name="),
            (handshake("/ws/?name="), 400, "printable"),
            (handshake("/ws/?name=a&name=b"), 400, "one name"),
            (handshake(good, lines=["Content-Length: 3"]), 400, "body"),
            (handshake("/ws/?name=" + "a" * 9000), 414, "8192"),
            (handshake(good, lines=[f"X-{number}: y" for number in range(MAX_HEADERS)]), 431, "64 headers"),
            (handshake(good, lines=["X: " + "y" * 40_000]), 431, "32768"),
        ]
        for request, status, says in cases:
            with self.subTest(request=request[:70]):
                if request.startswith(b"HEAD"):
                    with RawClient(server.port) as client:
                        client.send(request)
                        self.assertTrue(client.read_to_end().startswith(b"HTTP/1.1 405 "))
                    continue
                answer = self.ask(server, request)
                self.assert_refused(answer, status, says)
                if status == 426:
                    self.assertEqual(answer.headers["sec-websocket-version"], "13")
                if status == 405:
                    self.assertEqual(answer.headers["allow"], "GET")
        self.assertEqual(server.connections, frozenset())
        self.assertEqual(self.log.tracebacks, [])

    def test_a_key_of_any_other_form_is_refused(self) -> None:
        server = self.serve()
        for key in ("", "short", "A" * 24, KEY + "=", KEY[:-1] + "!", "dGhlIHNhbXBsZSBub25jZQ", f"{KEY}, {KEY}"):
            with self.subTest(key=key):
                request = handshake(drop=["Sec-WebSocket-Key"], lines=[f"Sec-WebSocket-Key: {key}"])
                self.assert_refused(self.ask(server, request), 400, "Sec-WebSocket-Key")
        self.assert_unharmed(server)

    def test_malformed_requests_are_400_and_lose_no_header(self) -> None:
        server = self.serve()
        good = handshake()[:-2]
        for request in (
            good + b"colonless\r\nOrigin: http://evil\r\n\r\n",
            good + b"Origin : http://evil\r\n\r\n",
            good + b" folded\r\n\r\n",
            good + b"X: bare\rCR\r\n\r\n",
            good + b"Host: second\r\n\r\n",
            b"GET /ws/\r\n\r\n",
            b"\r\n\r\n",
            b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
            handshake(version="HTTP/1.0"),
            handshake("http://localhost/ws/"),
        ):
            with self.subTest(request=request[-60:]):
                self.assert_refused(self.ask(server, request), 400)
        self.assert_unharmed(server)

    def test_bytes_behind_a_refused_request_are_never_parsed_as_another(self) -> None:
        server = self.serve()
        smuggled = handshake(method="POST", lines=["Content-Length: 200"]) + handshake("/ws/?name=smuggled")
        self.assert_refused(self.ask(server, smuggled), 400, "body")
        self.assert_refused(self.ask(server, handshake("/nowhere") + handshake("/ws/?name=smuggled")), 404)
        self.assert_unharmed(server)
        self.assertEqual(server.stats()["opened"], 1)

    def test_ten_megabytes_of_headers_are_cut_short(self) -> None:
        server = self.serve()
        with RawClient(server.port) as client:
            client.send(handshake()[:-2])
            line = b"X-Filler: " + b"y" * 1000 + b"\r\n"
            sent = 0
            try:
                while sent < 10_000:
                    client.send(line)
                    sent += 1
            except OSError:
                pass
            self.assertLess(sent, 10_000, "all of it was taken")
        wait_until(lambda: server.stats()["threads"] == 0, message="the thread is held")
        self.assert_unharmed(server)

    def test_two_thousand_headers_and_a_long_line_are_refused(self) -> None:
        server = self.serve()
        many = handshake(lines=[f"X-{number}: {number}" for number in range(2000)])
        self.assert_refused(self.ask(server, many), 431)
        self.assert_refused(self.ask(server, handshake("/ws/?" + "a" * 70_000)), 414)
        self.assert_unharmed(server)

    def test_silence_is_answered_with_408_at_the_deadline(self) -> None:
        server = self.serve(handshake_timeout=0.1)
        with RawClient(server.port) as client:
            client.send(b"GET /ws/ HTT")
            self.assert_refused(read_response(client.sock), 408)
            self.assertEqual(client.read_to_end(), b"")

    def test_a_handshake_dribbled_byte_by_byte_has_one_deadline(self) -> None:
        server = self.serve(handshake_timeout=0.3)
        with RawClient(server.port) as client:
            client.sock.settimeout(0.02)
            endless = handshake()[:-2] + b"X: " + b"y" * 100_000
            for at in range(len(endless)):
                client.send(endless[at : at + 1])
                try:
                    got = client.sock.recv(100)
                except TimeoutError:
                    continue
                self.assertTrue(got.startswith(b"HTTP/1.1 408 "), got)
                break
            else:
                self.fail("the dribble was never cut")

    def test_a_full_server_says_503_and_when_to_come_back(self) -> None:
        server = self.serve(max_connections=2)
        first, _ = self.client(server), self.client(server)
        answer = self.ask(server, handshake())
        self.assert_refused(answer, 503, "try again later")
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        first.finish()
        wait_until(lambda: len(server.connections) == 1)
        self.client(server)

    def test_a_full_server_stays_within_its_bound_when_many_come_at_once(self) -> None:
        server = self.serve(max_connections=5)
        clients = [self.raw(server) for _ in range(9)]
        for client in clients:
            client.send(handshake())
        statuses = sorted(read_response(client.sock).status for client in clients)
        self.assertEqual(statuses, [101] * 5 + [503] * 4)
        wait_until(lambda: len(server.connections) == 5)
        self.assertEqual(server.stats()["opened"], 5)

    def test_beyond_twice_its_connections_a_server_answers_without_a_thread(self) -> None:
        server = self.serve(max_connections=1)
        silent = [self.raw(server), self.raw(server)]
        wait_until(lambda: server.stats()["threads"] == 2)
        answer = self.ask(server, b"")
        self.assertEqual((answer.status, answer.line), (503, "the server is full, try again later"))
        self.assertGreater(int(answer.headers["retry-after"]), 0)
        for client in silent:
            client.close()
        wait_until(lambda: server.stats()["threads"] == 0)


class WhereItIsTest(RefusalTestCase):
    def test_a_wrong_path_is_answered_with_the_right_one_whether_there_are_pages_or_not(self) -> None:
        for server in (self.serve(), self.serve(pages=Path(__file__).parent)):
            for path in ("/", "/ws", "/WS/", "/test_upgrade.py", "/nowhere?token=hush"):
                answer = self.ask(server, handshake(path))
                self.assert_refused(answer, 404, f"expected the path /ws/, got '{path.partition('?')[0]}'")
                self.assertNotIn("hush", answer.line)
            self.assertIn("mind the slash", self.ask(server, handshake("/ws")).line)
        answer = self.ask(server, b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assert_refused(answer, 404, "the WebSocket is at /ws/")
        curl = b"GET /__init__.py HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        self.assertEqual(self.ask(server, curl).status, 200)

    def test_a_browser_that_asks_for_the_path_itself_is_told_that_it_is_a_websocket(self) -> None:
        for server in (self.serve(), self.serve(pages=Path(__file__).parent)):
            answer = self.ask(server, b"GET /ws/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assert_refused(answer, 426, "expected an opening handshake: Upgrade: websocket, Connection: Upgrade")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")


class EarlyBytesTest(ServerTestCase):
    def test_a_frame_in_the_segment_of_the_handshake_is_not_lost(self) -> None:
        server = self.serve()
        client = self.client(server, early=frame(1, b"first") + frame(2, b"second"))
        self.assertEqual(client.read_text(), "first")
        self.assertEqual(client.read_frame().payload, b"second")

    def test_every_byte_may_come_in_a_segment_of_its_own(self) -> None:
        server = self.serve(compression=True)
        client = self.raw(server)
        data = handshake() + frame(1, "grüße".encode()) + frame(9, b"ping") + frame(2, b"x" * 300)
        for at in range(len(data)):
            client.send(data[at : at + 1])
        response = read_response(client.sock)
        client.data = response.rest
        self.assertEqual(response.status, 101)
        got = [client.read_frame() for _ in range(3)]  # the Pong may overtake an echo
        self.assertEqual([item.payload for item in got if item.opcode != PONG], ["grüße".encode(), b"x" * 300])
        self.assertEqual([item.payload for item in got if item.opcode == PONG], [b"ping"])

    def test_a_client_that_resets_in_its_handshake_leaves_nothing(self) -> None:
        server = self.serve()
        for data in (b"", b"GET /ws/ HT", handshake()):
            client = RawClient(server.port)
            client.send(data)
            client.vanish()
        wait_until(lambda: server.stats()["accepted"] == 3 and server.stats()["threads"] == 0)
        self.assertEqual(server.connections, frozenset())
        self.assertEqual(self.log.tracebacks, [])

    def test_a_client_that_ends_its_stream_in_mid_handshake_leaves_nothing(self) -> None:
        server = self.serve()
        client = self.raw(server)
        client.send(b"GET /ws/ HT")
        client.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(client.read_to_end(), b"")
        wait_until(lambda: server.stats()["threads"] == 0)


class OneByteAtATime:
    """A peer that dribbles, for counting the work it makes: what `read_head` needs of a socket."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def settimeout(self, timeout: float | None) -> None:
        """Never waits."""

    def recv(self, size: int) -> bytes:
        self.at += 1
        return self.data[self.at - 1 : self.at]


class PairTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)


class ReadHeadTest(PairTestCase):
    def test_bytes_behind_the_head_are_kept(self) -> None:
        self.theirs.sendall(handshake() + b"\x81\x00more")
        self.assertEqual(read_head(self.ours, Deadline(5)), (handshake()[:-4], b"\x81\x00more"))

    def test_a_silent_peer_is_refused_at_the_deadline(self) -> None:
        self.theirs.sendall(b"GET / HT")
        started = time.monotonic()
        with self.assertRaisesRegex(Refusal, "408 expected the whole request"):
            read_head(self.ours, Deadline(0.05))
        self.assertLess(time.monotonic() - started, 3)

    def test_a_deadline_that_has_passed_does_not_wait(self) -> None:
        with self.assertRaises(Refusal):
            read_head(self.ours, Deadline(0))

    def test_a_peer_that_leaves_is_told_apart_from_a_slow_one(self) -> None:
        self.theirs.sendall(b"GET / HT")
        self.theirs.close()
        with self.assertRaises(ConnectionError):
            read_head(self.ours, Deadline(5))

    def test_a_peer_that_the_kernel_gives_up_is_not_waited_for(self) -> None:
        gone = TimeoutError(errno.ETIMEDOUT, "timed out")
        sock = mock.Mock(recv=mock.Mock(side_effect=[InterruptedError(), b"GET / HT", gone]))
        with self.assertRaises(TimeoutError) as caught:
            read_head(sock, Deadline(60))
        self.assertIs(caught.exception, gone)

    def test_what_has_no_end_is_refused_early(self) -> None:
        self.theirs.setblocking(False)
        self.theirs.send(b"GET /" + b"a" * (MAX_LINE + 4096))
        with self.assertRaises(BadHead) as caught:
            read_head(self.ours, Deadline(5))
        self.assertEqual(caught.exception.status, 414)

    def test_a_head_that_comes_byte_by_byte_costs_linear_time(self) -> None:
        data = handshake(lines=["X: " + "y" * 30_000])
        started = time.process_time()
        head, early = read_head(cast(socket.socket, OneByteAtATime(data)), Deadline(30))
        self.assertLess(time.process_time() - started, 2.0)
        self.assertEqual((head + b"\r\n\r\n", early), (data, b""))


class HandlerTest(PairTestCase):
    """The handler by itself, as whoever has a socket and a policy may use it."""

    def handler(self, policy: Policy = Policy(), **options: Any) -> UpgradeHandler:
        return UpgradeHandler(self.ours, ("127.0.0.1", 4242), policy, Deadline(5), **options)

    def test_making_one_neither_reads_nor_writes(self) -> None:
        self.theirs.sendall(handshake())
        handler = self.handler()
        self.assertIsInstance(handler, BaseHTTPRequestHandler)
        self.assertIsNone(handler.upgrade)
        self.assertEqual(self.ours.recv(4096, socket.MSG_PEEK), handshake())

    def test_what_may_become_a_websocket_is_not_answered_until_it_is_told_to_switch(self) -> None:
        self.theirs.sendall(handshake("/ws/?name=ann") + b"early")
        handler = self.handler(authenticate=lambda request: request.peer)
        handler.handle()
        upgrade = handler.upgrade
        assert upgrade is not None
        self.assertEqual((upgrade.accepted.name, upgrade.accepted.key, upgrade.early), ("ann", KEY, b"early"))
        self.assertEqual(upgrade.identity, ("127.0.0.1", 4242))
        self.theirs.setblocking(False)
        with self.assertRaises(BlockingIOError):
            self.theirs.recv(1)
        handler.switch()
        self.assertTrue(self.theirs.recv(4096).startswith(b"HTTP/1.1 101 Switching Protocols\r\n"))

    def test_what_may_not_is_answered_at_once_and_the_connection_ended(self) -> None:
        self.theirs.sendall(handshake("/nowhere"))
        self.theirs.shutdown(socket.SHUT_WR)
        handler = self.handler()
        handler.handle()
        self.assertIsNone(handler.upgrade)
        answer = read_response(self.theirs)
        self.assertEqual((answer.status, answer.line), (404, "expected the path /ws/, got '/nowhere'"))
        self.assertEqual(self.theirs.recv(1), b"")

    def test_the_policy_is_asked_before_the_application(self) -> None:
        asked: list[Request] = []
        self.theirs.sendall(handshake())
        self.theirs.shutdown(socket.SHUT_WR)
        self.handler(Policy(require_name=True), authenticate=noting(asked)).handle()
        self.assertEqual((read_response(self.theirs).status, asked), (400, []))


class AuthenticateTest(RefusalTestCase):
    def test_what_the_hook_returns_is_the_connections_identity(self) -> None:
        server = self.serve(authenticate=lambda request: {"user": request.query["user"]})
        self.raw(server).upgrade("/ws/?user=ann")
        (connection,) = wait_until(lambda: server.connections)
        self.assertEqual(connection.identity, {"user": "ann"})

    def test_a_false_answer_is_401(self) -> None:
        for answer in (False, None, "", 0):
            server = self.serve(authenticate=lambda request, answer=answer: answer)
            refused = self.ask(server, handshake())
            self.assert_refused(refused, 401, "credentials")
            self.assertEqual(refused.headers["www-authenticate"], "Bearer")

    def test_the_hook_may_refuse_with_a_status_of_its_own(self) -> None:
        def hook(request: Request) -> Any:
            raise Refusal(429, "expected fewer attempts", {"Retry-After": "7"})

        answer = self.ask(self.serve(authenticate=hook), handshake())
        self.assert_refused(answer, 429, "fewer attempts")
        self.assertEqual(answer.headers["retry-after"], "7")

    def test_a_hook_that_raises_is_500_and_logged(self) -> None:
        def hook(request: Request) -> Any:
            raise RuntimeError("database gone")

        answer = self.ask(self.serve(authenticate=hook), handshake())
        self.assert_refused(answer, 500, "could not be checked")
        self.assertNotIn(b"database", answer.body)
        self.assertEqual(len(self.log.tracebacks), 1)

    def test_the_hook_comes_last(self) -> None:
        asked: list[Request] = []
        server = self.serve(authenticate=noting(asked), require_name=True)
        for request in (handshake(), handshake("/no"), handshake("/ws/?name=a", lines=["Origin: http://evil"])):
            self.ask(server, request)
        self.assertEqual(asked, [])

    def test_a_bearer_token_opens_the_door_and_its_lack_does_not(self) -> None:
        server = self.serve(authenticate=bearer_token("hush-1", query="token"))
        for path, line, status in (
            ("/ws/", "Authorization: Bearer hush-1", 101),
            ("/ws/?token=hush-1", "X: y", 101),
            ("/ws/", "Authorization: Bearer \xe9", 401),
            ("/ws/", "X: y", 401),
        ):
            with self.subTest(path=path, line=line), RawClient(server.port) as client:
                self.assertEqual(client.request(handshake(path, lines=[line])).status, status)
        self.assertEqual(self.log.tracebacks, [])

    def test_a_token_never_shows_in_logs_or_reprs(self) -> None:
        def handler(connection: Any) -> None:
            seen.append(repr(connection) + repr(connection.request) + repr(connection.request.headers))
            for _ in connection:
                raise RuntimeError("the handler fails")

        seen: list[str] = []
        server = self.serve(handler, authenticate=bearer_token("hush", query="token"))
        server.on("error", lambda connection, exc: seen.append(repr(connection) + repr(exc) + str(exc)))
        for path, line in (("/ws/?name=a&token=hush", "X: y"), ("/ws/", "Authorization: Bearer hush")):
            client = self.raw(server).upgrade(path, line, "Cookie: session=hush")
            client.send_text("fail")
            self.assertEqual(client.read_close()[0], 1011)
        for request in (
            handshake("/nowhere?token=hush"),
            handshake("/ws/?token=hush&name=%00", lines=["Authorization: Bearer hush"]),
            handshake("/ws/?token=wrong-hush"),
            handshake("/ws/?token=hush", lines=["Authorization Bearer hush"]),
            handshake("/ws/?token=hush", method="POST"),
        ):
            answer = self.ask(server, request)
            self.assertNotIn(b"hush", answer.body)
        self.assertEqual(len(seen), 4)
        self.assertGreater(len(self.log.lines), 5)
        self.assertNotIn("hush", "\n".join(self.log.lines + seen))
