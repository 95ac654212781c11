"""The handler of one request by itself: what it writes, what it tells the log, and what it leaves alone."""

from __future__ import annotations

import socket
import tempfile
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

from sync_ws import Refusal, Request
from sync_ws.protocol.handshake import Policy
from sync_ws.server.upgrade import UpgradeHandler, read_head
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline
from tests.support.raw import RawClient, handshake
from tests.support.server_case import LogLines

PEER = ("127.0.0.1", 4242)


class HandlerTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, theirs = socket.socketpair()
        self.client = RawClient.over(theirs)
        self.addCleanup(self.ours.close)
        self.addCleanup(self.client.close)
        self.log = LogLines()
        self.log.__enter__()
        self.addCleanup(self.log.__exit__)

    def handle(self, request: bytes, **options: Any) -> UpgradeHandler:
        """Who has sent this request and will send nothing more is handled."""
        self.client.send(request)
        self.client.sock.shutdown(socket.SHUT_WR)
        handler = UpgradeHandler(self.ours, PEER, Policy(), Deadline(5), **options)
        handler.handle()
        return handler

    def answer(self, request: bytes, **options: Any) -> tuple[list[str], bytes]:
        """The lines of the head of its answer, and the body: all there is until the end."""
        self.assertIsNone(self.handle(request, **options).upgrade)
        head, _, body = self.client.read_to_end().partition(b"\r\n\r\n")
        return head.decode().split("\r\n"), body


class AnswerTest(HandlerTestCase):
    def test_a_status_that_has_no_name_is_answered_all_the_same(self) -> None:
        def hook(request: Request) -> Any:
            raise Refusal(499, "expected another client")

        (status, *_), body = self.answer(handshake(), authenticate=hook)
        self.assertEqual((status, body), ("HTTP/1.1 499 Refused", b"expected another client\n"))

    def test_head_is_answered_with_the_headers_alone(self) -> None:
        request = handshake(method="HEAD")
        (status, *headers), body = self.answer(request)
        self.assertEqual((status, body), ("HTTP/1.1 405 Method Not Allowed", b""))
        (length,) = [line for line in headers if line.startswith("Content-Length: ")]
        self.assertGreater(int(length.partition(": ")[2]), 0)

    def test_head_of_a_page_is_answered_with_its_length_alone(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "page.txt").write_text("hello")
            request = b"%s /page.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"
            (status, *headers), body = self.answer(request % b"HEAD", pages=Path(folder))
        self.assertEqual((status, body), ("HTTP/1.1 200 OK", b""))
        self.assertIn("Content-Length: 5", headers)

    def test_a_page_is_answered_whole(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "page.txt").write_text("hello")
            (status, *headers), body = self.answer(
                b"GET /page.txt HTTP/1.1\r\nHost: localhost\r\n\r\n", pages=Path(folder)
            )
        self.assertEqual((status, body), ("HTTP/1.1 200 OK", b"hello"))
        self.assertIn("Connection: close", headers)

    def test_without_pages_whoever_asks_for_one_is_told_where_the_websocket_is(self) -> None:
        (status, *_), body = self.answer(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual((status, body), ("HTTP/1.1 404 Not Found", b"expected the path /ws/, got '/index.html'\n"))

    def test_what_has_passed_every_check_cannot_be_changed_afterwards(self) -> None:
        upgrade = self.handle(handshake(), authenticate=lambda request: "ann").upgrade
        assert upgrade is not None
        with self.assertRaises(FrozenInstanceError):
            upgrade.identity = "bob"  # type: ignore[misc]

    def test_what_is_not_said_to_have_come_over_tls_did_not(self) -> None:
        upgrade = self.handle(handshake()).upgrade
        assert upgrade is not None
        self.assertFalse(upgrade.request.secure)

    def test_whether_it_came_over_tls_is_known_to_whoever_looks_at_the_request(self) -> None:
        upgrade = self.handle(handshake(), secure=True).upgrade
        assert upgrade is not None
        self.assertTrue(upgrade.request.secure)


class LogTest(HandlerTestCase):
    def test_both_heads_of_an_opening_handshake_are_told_for_debugging(self) -> None:
        self.handle(handshake("/ws/?name=ann")).switch()
        text = "\n".join(self.log.lines)
        self.assertIn("DEBUG sync_ws.server 127.0.0.1:4242 < GET /ws/?name=ann HTTP/1.1", text)
        self.assertIn("DEBUG sync_ws.server 127.0.0.1:4242 > HTTP/1.1 101 Switching Protocols", text)

    def test_a_refusal_is_told_once_and_its_answer_for_debugging(self) -> None:
        self.answer(handshake("/nowhere"))
        told = [line.partition(" ")[0] for line in self.log.lines if "404" in line]
        self.assertEqual(told, ["INFO", "DEBUG"])
        self.assertIn("DEBUG sync_ws.server 127.0.0.1:4242 > HTTP/1.1 404 Not Found", self.log.lines)

    def test_what_is_no_request_has_no_line_to_be_told_by(self) -> None:
        self.answer(b"nonsense\r\n\r\n")
        self.assertRegex(
            self.log.lines[0], r"^INFO sync_ws.server refused 400: 127.0.0.1:4242, -: expected a request line"
        )

    def test_a_peer_that_does_not_take_its_answer_is_told_for_debugging_and_nothing_more(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        with ours:
            client.sendall(handshake("/nowhere"))
            head, _ = read_head(ours, Deadline(5))
            self.assertTrue(head)
            RawClient.over(client).vanish()
            handler = UpgradeHandler(ours, PEER, Policy(), Deadline(5))
            handler.refuse(Refusal(404, "expected another path"))
        (line,) = [line for line in self.log.lines if "did not take" in line]
        self.assertRegex(line, r"^DEBUG sync_ws.server 127.0.0.1 did not take its answer: ")
