"""Dialling who says no, or is not what was expected: what is told of it, and what is worth another attempt."""

from __future__ import annotations

import socket
import unittest
from unittest import mock

import websocket

from sync_ws import HandshakeRejected, should_reconnect
from tests.support.dial_case import DialTestCase
from tests.support.scripted import ScriptedServer, Wire, refusing

RETRIED = {408, 425, 429}


class RefusalTest(DialTestCase):
    def test_every_status_is_reported_and_decides_about_another_attempt(self) -> None:
        statuses = [200, 204, *range(300, 309), *range(400, 432), 451, 499, *range(500, 512), 599]

        def script(wire: Wire) -> None:
            wire.answer(f"{statuses[wire.number - 1]} Some Reason", b"what was wrong\nmore")

        with ScriptedServer(script) as server:
            for status in statuses:
                with self.subTest(status):
                    error = self.fail_to_dial(server.url())
                    assert isinstance(error, HandshakeRejected), error
                    self.assertEqual((error.status, error.reason.status), (status, status))
                    self.assertEqual(should_reconnect(error.reason), status >= 500 or status in RETRIED)
                    self.assertIn(f"the server answered {status}", str(error))

    def test_the_body_and_headers_of_a_refusal_are_there_and_its_first_line_is_in_the_text(self) -> None:
        with ScriptedServer(lambda wire: wire.answer("403 No", b"go away\nnow", ("X-Why: because",))) as server:
            error = self.fail_to_dial(server.url())
        assert isinstance(error, HandshakeRejected)
        self.assertEqual((error.body, error.headers["x-why"]), (b"go away\nnow", "because"))
        asked = "(asked: GET /ws/, no Origin, without credentials)"
        self.assertEqual(str(error), f"the server answered 403: go away {asked}")

    def test_what_was_asked_is_in_the_text(self) -> None:
        with ScriptedServer(refusing("403 No")) as server:
            options = {"origin": "http://page.test", "subprotocols": ["a", "b"], "headers": [("authorization", "hush")]}
            text = str(self.fail_to_dial(server.url("/ws/?token=hush"), **options))
        asked = "GET /ws/, Origin http://page.test, subprotocols a, b, with credentials"
        self.assertEqual(text, f"the server answered 403 No (asked: {asked})")

    def test_a_page_is_its_title_and_all_of_it_is_in_the_exception(self) -> None:
        page = b"<html><title>Not here</title>" + b"<p>hush" * 999
        with ScriptedServer(
            refusing("404 X", page, "Content-Type: text/html", "Set-Cookie: a", "Set-Cookie: b")
        ) as server:
            error = self.fail_to_dial(server.url())
        assert isinstance(error, HandshakeRejected)
        self.assertEqual(str(error), "the server answered 404: an HTML page, 'Not here' (asked: GET /ws/)")
        self.assertEqual((error.body, error.headers.get_all("set-cookie")), (page, ["a", "b"]))

    def test_a_refusal_before_the_request_was_read_is_told(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(b"HTTP/1.1 431 X\r\nContent-Length: 8\r\n\r\ntoo long")
            wire.sock.shutdown(socket.SHUT_WR)
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            self.assertEqual(str(self.fail_to_dial(server.url())), "the server answered 431: too long")

    def test_the_text_of_a_refusal_cannot_forge_a_log_line(self) -> None:
        with ScriptedServer(lambda wire: wire.answer("403 No", "\x1b[31m\u202eevil\x00".encode())) as server:
            text = str(self.fail_to_dial(server.url()))
        self.assertTrue(text.isprintable() and text.isascii(), text)

    def test_a_refusal_whose_body_is_cut_off_keeps_its_status(self) -> None:
        for tail in (
            b"Content-Length: 100\r\n\r\nhalf",
            b"Content-Length: x\r\n\r\n",
            b"\r\n",
            b"Content-Length: 0\r\n\r\n",
            b"Content-Length: -5\r\n\r\n",
            b"Content-Length: 99999999999999\r\n\r\nhalf",
        ):

            def script(wire: Wire, tail: bytes = tail) -> None:
                wire.read_request()
                wire.send(b"HTTP/1.1 401 X\r\n" + tail)

            with self.subTest(tail), ScriptedServer(script) as server:
                error = self.fail_to_dial(server.url())
                self.assertEqual((error.reason.status, error.reason.permanent), (401, True))

    @mock.patch("sync_ws.client.handshake_stream.BODY_PATIENCE", 0.2)
    def test_a_refusal_whose_body_is_reset_or_never_comes_keeps_its_status(self) -> None:
        def reset(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 401 X\r\nContent-Length: 100\r\n\r\nhalf")
            wire.reset()

        def stall(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 503 X\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nhalf")
            wire.wait_for_end()

        with ScriptedServer(stall) as server:
            error = self.fail_to_dial(server.url(), timeout=0.15)
            self.assertEqual((error.reason.status, error.reason.retry_after), (503, 7.0))
        with ScriptedServer(reset) as server:
            reason = self.fail_to_dial(server.url()).reason
            self.assertIn(reason.status, (401, None))  # None: the reset overtook the head

    def test_retry_after_in_seconds_is_understood_and_bounded(self) -> None:
        for value, seconds in (
            ("7", 7.0),
            ("0", 0.0),
            ("999999999", 3600.0),
            ("9" * 400, 3600.0),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("٣", None),
        ):
            header = f"Retry-After: {value}"
            with self.subTest(value), ScriptedServer(refusing("503 X", b"", header)) as server:
                self.assertEqual(self.fail_to_dial(server.url()).reason.retry_after, seconds)

    def test_a_redirect_is_an_error_and_credentials_do_not_follow_it(self) -> None:
        with ScriptedServer(Wire.switch) as second:
            location = f"Location: {second.url()}"
            with ScriptedServer(lambda wire: wire.answer("302 Found", b"", (location,))) as first:
                error = self.fail_to_dial(first.url(), headers=[("Authorization", "Bearer t")], cookie="c=1")
            self.assertEqual(second.accepted, 0)
        self.assertEqual((error.reason.status, error.reason.permanent), (302, True))
        self.assertIn(f"redirects are not followed: to {second.url()}", str(error))
        assert isinstance(error, HandshakeRejected)
        self.assertEqual(error.headers["Location"], second.url())

    def test_a_redirect_with_a_valid_accept_value_is_an_error_too(self) -> None:
        for status in ("301 Moved", "302 Found", "307 X", "308 X", "200 OK"):
            with self.subTest(status), ScriptedServer(lambda wire, status=status: wire.switch(status=status)) as server:  # type: ignore[misc]
                self.assertIsInstance(self.fail_to_dial(server.url()), HandshakeRejected)

    def test_cookies_of_one_server_never_reach_another(self) -> None:
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.switch(headers=("Set-Cookie: session=s3cret; Domain=127.0.0.1",))
            seen.append(wire.header("Cookie"))

        with ScriptedServer(script) as one, ScriptedServer(script) as other:
            self.dial(one.url())
            self.dial(one.url())
            self.dial(other.url())
        self.assertEqual(seen, [None, None, None])
        self.assertNotIn("s3cret", repr(vars(websocket._handshake.CookieJar)))


if __name__ == "__main__":
    unittest.main()
