"""What a server says in its log: each thing once, at its level, on one line, without secrets."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from typing import Any
from unittest import mock

from sync_ws import Connection, Hub, Refusal, Request
from sync_ws.server import voice
from sync_ws.server.voice import PERIOD, WARNINGS, Sparing
from tests.support.raw import KEY, RawClient, frame, handshake
from tests.support.server_case import ServerTestCase, wait_until

PEER = r"127\.0\.0\.1:\d+"


class VoiceTestCase(ServerTestCase):
    def said(self, *levels: str) -> list[str]:
        """The lines of these levels without the logger's name; all but DEBUG, without any."""
        lines = [line.replace(" sync_ws.server ", " ") for line in list(self.log.lines)]
        return [line for line in lines if line.partition(" ")[0] in (levels or ("INFO", "WARNING", "ERROR"))]

    def wait_said(self, pattern: str, *levels: str) -> str:
        """The one line that has the pattern."""
        wait_until(lambda: any(re.search(pattern, line) for line in self.said(*levels)), message=f"not said: {pattern}")
        (line,) = [line for line in self.said(*levels) if re.search(pattern, line)]
        return line


class DiaryTest(VoiceTestCase):
    def test_a_life_is_told_from_beginning_to_end_each_thing_once(self) -> None:
        server = self.serve(subprotocols=["chat"])
        client = self.client(server, "ann", "Sec-WebSocket-Protocol: chat")
        client.send_text("hello")
        self.assertEqual(client.read_text(), "hello")
        client.finish()
        self.wait_said("^INFO closed")
        staying = self.client(server)
        server.shutdown(0.05)
        staying.close()
        wait_until(lambda: server.stats()["threads"] == 0)
        expected = [
            rf"INFO listening: ws://127\.0\.0\.1:{server.port}/ws/",
            rf"INFO open: 'ann' at {PEER}, path /ws/, subprotocol chat",
            rf"INFO closed: 'ann' at {PEER}, after \d+\.\d s, messages in: 1, out: 1: closed by the peer: 1000",
            rf"INFO open: {PEER}, path /ws/",
            rf"INFO shutting down: ws://127\.0\.0\.1:{server.port}/ws/, open connections: 1",
            rf"INFO closed: {PEER}, after \d+\.\d s, messages in: 0, out: 0: the server was shut down",
        ]
        for line, pattern in zip(self.said(), expected, strict=True):
            self.assertRegex(line, f"^{pattern}$")

    def test_a_takeover_is_told(self) -> None:
        server = self.serve()
        old = self.client(server, "ann")
        new = self.client(server, "ann")
        line = self.wait_said("takeover")
        ports = [client.sock.getsockname()[1] for client in (new, old)]
        self.assertEqual(line, "INFO takeover: 'ann' at 127.0.0.1:{}, replacing 127.0.0.1:{}".format(*ports))
        self.assertEqual(old.read_close()[0], 4009)
        old.send_close(4009)
        self.wait_said("^INFO closed: .* closed by us: 4009")

    def test_one_that_was_too_late_is_replaced_by_the_one_that_is_there(self) -> None:
        hub = self.stack.enter_context(Hub(lambda connection: None))
        first, second = hub.admit("ann"), hub.admit("ann")
        request = Request("GET", "/ws/", {}, mock.MagicMock(), ("a door", 1))
        pairs = [socket.socketpair() for _ in range(2)]
        late = hub.connect(first, pairs[0][0], request)
        fast = hub.connect(second, pairs[1][0], Request("GET", "/ws/", {}, mock.MagicMock(), ("a door", 2)))
        hub.opened(fast)
        hub.opened(late)
        self.assertEqual(self.wait_said("takeover"), "INFO takeover: 'ann' at a door:2, replacing a door:1")
        for connection, (_, theirs) in zip((late, fast), pairs, strict=True):
            theirs.close()
            hub.ended(connection)

    def test_every_refusal_is_told_with_status_peer_path_and_reason(self) -> None:
        def authenticate(request: Request) -> bool:
            if "teapot" in request.query:
                raise Refusal(418, "no \x1b[31mtea\u202e today")
            return "token" in request.query

        server = self.serve(authenticate=authenticate, require_name=True, max_connections=1, name_policy="reject")
        self.client(server, "ann&token=hush")
        for request, pattern in (
            (handshake("/ws"), "404: PEER, GET /ws: expected the path /ws/"),
            (handshake("/ws/?name=a"), "401: PEER, GET /ws/: expected valid credentials"),
            (handshake("/ws/?name=a&teapot=1"), r"418: PEER, GET /ws/: no \\x1b\[31mtea\\u202e today"),
            (handshake("/ws/?name=b&token=hush"), "503: PEER, GET /ws/: the server is full"),
            (handshake("/ws/?token=hush"), "400: PEER, GET /ws/: expected a name"),
            (handshake(method="POST"), "405: PEER, POST /ws/: expected the method GET"),
            (handshake(lines=["Origin: http://evil"]), "403: PEER, GET /ws/: expected an allowed Origin"),
            (
                handshake(host=f"evil:{server.port}", lines=[f"Origin: http://evil:{server.port}"]),
                "403: PEER, GET /ws/: expected a loopback name",
            ),
            (b"nonsense\r\n\r\n", "400: PEER, -: expected a request line"),
            (handshake("/" + "a" * 9000), "414: PEER, -: expected a request line of at most"),
            (handshake(drop=["Upgrade"]), "426: PEER, GET /ws/: expected an opening handshake"),
        ):
            with self.subTest(pattern=pattern):
                wait_until(lambda: server.stats()["threads"] == 1, message="the one before is held")
                self.log.lines.clear()
                with RawClient(server.port) as client:
                    client.request(request)
                    client.read_to_end()
                (line,) = self.said()
                self.assertRegex(line, f"^INFO refused {pattern.replace('PEER', PEER)}")
                self.assertTrue(line.isprintable() and line.isascii())
                self.assertLess(len(line), 900)
                self.assertNotIn("hush", "\n".join(self.log.lines))

    def test_one_too_many_to_be_read_is_told_as_refused(self) -> None:
        server = self.serve(max_connections=1)
        waiting = [self.raw(server) for _ in range(2)]
        wait_until(lambda: server.stats()["threads"] == 2)
        with RawClient(server.port) as client:
            client.read_to_end()
        self.assertRegex(self.wait_said("refused"), rf"^INFO refused 503: {PEER}, -: too many connections")
        for client in waiting:
            client.close()

    def test_a_flood_of_refusals_wakes_nobody(self) -> None:
        server = self.serve()
        for _ in range(3 * WARNINGS):
            with RawClient(server.port) as client:
                client.request(handshake("/nowhere"))
        self.assertEqual(self.said("WARNING", "ERROR"), [])
        self.assertEqual(len(self.said("INFO")), 1 + 3 * WARNINGS)


class EndsTest(VoiceTestCase):
    def test_ends_that_somebody_chose_are_no_warnings(self) -> None:
        def handler(connection: Connection) -> None:
            message = connection.recv()
            if message == "return":
                return
            if message == "close":
                connection.close(4001, "enough")
            connection.recv()

        server = self.serve(handler)
        for message, how in (("return", "closed by us: 1000"), ("close", "closed by us: 4001 enough"), ("stay", "")):
            client = self.client(server, message)
            client.send_text(message)
            if message == "stay":
                client.finish(1001)
                how = "closed by the peer: 1001"
            else:
                client.read_close()
                client.send_close(1000)
            self.wait_said(f"^INFO closed: '{message}' .*: {how}")
        unanswered = self.client(server, "unanswered")
        unanswered.send_text("return")
        self.assertEqual(unanswered.read_close()[0], 1000)
        unanswered.close()
        self.wait_said("^INFO closed: 'unanswered' .*: closed by us: 1000")
        self.assertEqual(self.said("WARNING"), [])

    def test_ends_that_nobody_chose_are(self) -> None:
        server = self.serve(ping_interval=0.2, ping_timeout=0.2, max_message=100)
        for name, data, how in (
            ("unmasked", frame(1, b"x", masked=False), "1002"),
            ("large", frame(1, b"x" * 101), "1009"),
            ("crooked", frame(1, b"\xff"), "1007"),
            ("mute", b"", "no sign of life"),
        ):
            client = self.client(server, name)
            client.send(data)
            self.wait_said(rf"^WARNING closed: '{name}' at {PEER}, after .* s, messages in: 0, out: 0: .*{how}")
        self.client(server, "gone").vanish()
        self.wait_said("^WARNING closed: 'gone' .*: the connection was lost without a Close frame")
        self.assertEqual(len(self.said("WARNING")), 5)

    def test_one_that_does_not_read_is_given_up_with_a_warning(self) -> None:
        server = self.serve(lambda connection: connection.recv(), send_timeout=0.2)
        client = self.stack.enter_context(RawClient(server.port, receive_buffer=4096)).upgrade("/ws/?name=slow")
        wait_until(lambda: "slow" in server.clients)
        connection = server.clients["slow"]
        wait_until(lambda: server.broadcast(b"x" * 100_000).refused)
        self.wait_said("^WARNING closed: 'slow' .*")
        self.assertEqual(connection.close_reason.code, 1013)
        client.close()

    def test_an_attackers_broken_connections_wake_somebody_a_few_times_only(self) -> None:
        server = self.serve()
        for _ in range(WARNINGS + 5):
            client = self.client(server)
            client.send(frame(1, b"\xff"))
            client.read_to_end()
            client.close()
        wait_until(lambda: len(self.said()) == 1 + 2 * (WARNINGS + 5))
        warnings = self.said("WARNING")
        self.assertEqual(len(warnings), WARNINGS)
        self.assertTrue(warnings[-1].endswith("(further ones within 60 s are for INFO only)"))
        self.assertFalse(warnings[-2].endswith("only)"))

    def test_after_a_while_there_are_warnings_again(self) -> None:
        sparing, now = Sparing(), time.monotonic()
        for later in (0.0, PERIOD, 3 * PERIOD):
            with mock.patch.object(time, "monotonic", return_value=now + later):
                levels = [sparing.next()[0] for _ in range(WARNINGS + 2)]
            self.assertEqual(levels, [logging.WARNING] * WARNINGS + [logging.INFO] * 2)


class HandshakeTest(VoiceTestCase):
    def test_request_and_answer_are_shown_line_by_line_without_secrets(self) -> None:
        server = self.serve(authenticate=lambda request: True)
        secrets = (
            "Authorization: Bearer hush-1", "Cookie: session=hush-2; theme=dark", "X-Api-Key: hush-3",
            "Sec-WebSocket-Protocol: hush-4" + "x" * 40, "Proxy-Authorization: Basic hush-5",
        )  # fmt: skip
        query = "ann&token=hush-6&next=http://x/?a=hush-7&api_key=hush-8"
        self.client(server, query, *secrets, "X-Forged: a\tb\xe9").finish()
        self.wait_said("^INFO closed")
        said = [re.sub(PEER, "PEER", line) for line in self.said("DEBUG")]
        for line in (
            "DEBUG PEER < GET /ws/?name=ann&token=***&next=***&api_key=*** HTTP/1.1",
            "DEBUG PEER < Host: localhost",
            "DEBUG PEER < Authorization: Bearer ***",
            f"DEBUG PEER < Sec-WebSocket-Key: {KEY}",
            r"DEBUG PEER < X-Forged: a\tb\xe9",
            "DEBUG PEER > HTTP/1.1 101 Switching Protocols",
            "DEBUG PEER > Upgrade: websocket",
        ):
            self.assertEqual(said.count(line), 1, line)
        self.assertNotIn("hush", "\n".join(self.log.lines))
        for line in self.log.lines:
            self.assertTrue(line.isprintable(), line)

    def test_a_query_that_is_a_token_as_a_whole_is_not_shown(self) -> None:
        server = self.serve()
        for query in ("hush", "hush=", "name=a&hush"):
            with RawClient(server.port) as client:
                client.request(handshake(f"/nowhere?{query}"))
        shown = [line for line in self.said("DEBUG") if "GET /nowhere" in line]
        self.assertEqual(
            [line.partition("?")[2] for line in shown], ["*** HTTP/1.1", "hush= HTTP/1.1", "name=a&*** HTTP/1.1"]
        )

    def test_the_answer_of_a_refusal_is_shown_without_its_body_and_a_page_too(self) -> None:
        server = self.serve()
        with RawClient(server.port) as client:
            client.request(handshake("/nowhere"))
        self.wait_said("> HTTP/1.1 404 Not Found", "DEBUG")
        self.assertEqual([line for line in self.said("DEBUG") if "expected the path" in line], [])


class CostTest(VoiceTestCase):
    def test_what_nobody_reads_is_not_written(self) -> None:
        """At the level that is usual, nothing is put together for a connection that comes, talks and goes."""
        logging.getLogger("sync_ws").setLevel(logging.WARNING)
        not_to_be_called = mock.Mock(side_effect=AssertionError("put together for nobody"))
        with (
            mock.patch.object(voice, "escaped", not_to_be_called),
            mock.patch.object(voice, "shown_lines", not_to_be_called),
            mock.patch.object(voice, "place", not_to_be_called),
        ):
            server = self.serve()
            client = self.client(server, "ann")
            client.send_text("hello")
            self.assertEqual(client.read_text(), "hello")
            self.client(server, "ann").finish()
            with RawClient(server.port) as refused:
                self.assertEqual(refused.request(handshake("/nowhere")).status, 404)
            server.shutdown(0.05)
        self.assertEqual(self.log.lines, [])


class SignalTest(VoiceTestCase):
    def test_shutdown_writes_nothing_in_the_thread_that_calls_it(self) -> None:
        """It may be a signal's handler, which interrupted a log handler that holds a lock."""
        server = self.serve()
        self.client(server, "ann")
        threads: list[int] = []

        class Noting(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno >= logging.INFO:
                    threads.append(record.thread or 0)

        noting: Any = Noting()
        self.log._logger.addHandler(noting)
        self.addCleanup(self.log._logger.removeHandler, noting)
        server.shutdown(0.05)
        self.wait_said("shutting down")
        self.assertNotIn(threading.get_ident(), threads)
