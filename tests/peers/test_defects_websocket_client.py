"""Proven defects of websocket-client: sync_ws, which dials with it, is immune, and the bare package still has each.

Each defect has two tests. The canary fails when a newer release has mended the defect: then there is one reason less
for what sync_ws does about it, and its test may go.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import threading
import time
import unittest
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest import mock

import websocket
from websocket._abnf import ABNF, continuous_frame

from sync_ws import Client, ClientState, ConnectionClosed, HandshakeError, Heartbeat
from sync_ws.client.handshake_stream import HandshakeStream
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.testing import FaultProxy, LedgerTestCase, wait_until
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, frame, refusing, staying_open

SOON = 5.0


def collect_quietly() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class DefectTestCase(LedgerTestCase):
    """`bare` and `ours` connect to a scripted server; both are closed at the end."""

    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(collect_quietly)  # the bare package leaves sockets to it
        jar = websocket._handshake.CookieJar.jar
        jar.clear()
        self.addCleanup(jar.clear)

    def bare(self, url: str, **options: Any) -> Any:
        peer = websocket.create_connection(url, timeout=SOON, **options)
        self.addCleanup(peer.shutdown)
        return peer

    def ours(self, url: str, **options: Any) -> Client:
        client = Client(url, **{"heartbeat": None, "reconnect": None, "close_timeout": 0.5, **options})
        self.addCleanup(client.close, timeout=0.5)
        return client

    def app(self, url: str, **options: Any) -> tuple[Any, list[tuple[str, Any]]]:
        """A WebSocketApp running in a thread, and the list of its events."""
        events: list[tuple[str, Any]] = []

        def noter(name: str) -> Callable[..., None]:
            return lambda app, *what: events.append((name, what))

        names = ("on_open", "on_message", "on_error", "on_close", "on_pong", "on_reconnect")
        app = websocket.WebSocketApp(url, **dict[str, Any]((name, noter(name)) for name in names))
        thread = threading.Thread(target=lambda: app.run_forever(**options), daemon=True)
        thread.start()
        self.addCleanup(thread.join, SOON)
        self.addCleanup(app.close)
        return app, events

    def serve(self, script: Callable[[Wire], object]) -> ScriptedServer:
        server = ScriptedServer(script)
        self.addCleanup(server.close)
        return server


class ReceiveLimitTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(staying_open(then=frame(2, bytes(4 << 20))))

    def test_a_message_over_the_limit_is_refused(self) -> None:
        with self.assertRaises(ConnectionClosed) as caught:
            self.ours(self.server.url()).open(SOON).recv(SOON)
        self.assertEqual(caught.exception.reason.code, 1009)

    def test_canary_there_is_no_limit(self) -> None:
        self.assertEqual(len(self.bare(self.server.url()).recv()), 4 << 20)


class FragmentJoiningTest(DefectTestCase):
    def test_thousands_of_fragments_take_linear_time(self) -> None:
        reader = FrameReader(
            expect_masked=False,
            max_message=1 << 24,
            max_fragments=10_000,
        )
        started = time.process_time()
        messages: deque[str | bytes] = deque()
        reader.feed(frame(2, bytes(1024), fin=False) + frame(0, bytes(1024), fin=False) * 8000 + frame(0, b"end"))
        while reader.buffered:
            reader.parse(messages, 10)
        self.assertEqual(len(messages[0]), 8001 * 1024 + 3)
        self.assertLess(time.process_time() - started, 3.0)  # 32 GiB of copying, if each fragment copied the rest

    def test_canary_each_fragment_copies_all_before_it(self) -> None:
        joined = continuous_frame(False, False)
        for number, fin in enumerate((0, 0, 1)):
            joined.add(ABNF(fin, 0, 0, 0, 2 if number == 0 else 0, 0, b"xy"))
            assert joined.cont_data is not None
            self.assertEqual((type(joined.cont_data[1]), joined.cont_data[1]), (bytes, b"xy" * (number + 1)))


class CloseTimeoutTest(DefectTestCase):
    """A server that answers our Close frame with a frame that never ends, a byte now and then."""

    def setUp(self) -> None:
        super().setUp()
        self.over = threading.Event()
        self.server = self.serve(self.dribble)

    def dribble(self, wire: Wire) -> None:
        wire.switch()
        wire.read_close()
        with contextlib.suppress(OSError):
            wire.send(frame(2, size=4096))
            for _ in range(8):
                time.sleep(0.1)
                wire.send(b"x")
            self.over.set()

    def test_close_is_back_within_its_timeout(self) -> None:
        client = self.ours(self.server.url()).open(SOON)
        client.close(timeout=0.2)
        self.assertFalse(self.over.is_set())

    def test_canary_every_byte_prolongs_it(self) -> None:
        self.bare(self.server.url()).close(timeout=0.2)
        self.assertTrue(self.over.wait(0.5))


class InterruptTest(DefectTestCase):
    """Ctrl-C during close()."""

    def setUp(self) -> None:
        super().setUp()
        self.stop = threading.Event()
        self.server = self.serve(self.ignore)
        self.addCleanup(self.stop.set)

    def ignore(self, wire: Wire) -> None:
        wire.switch()
        self.stop.wait(SOON)

    def interrupted(self, close: Callable[[], object]) -> bool:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        self.addCleanup(timer.join)
        try:
            close()
        except KeyboardInterrupt:
            return True
        timer.join()
        return False

    def test_it_is_passed_on(self) -> None:
        client = self.ours(self.server.url()).open(SOON)
        self.assertTrue(self.interrupted(lambda: client.close(timeout=SOON)))

    def test_canary_it_is_swallowed(self) -> None:
        peer = self.bare(self.server.url())
        self.assertFalse(self.interrupted(lambda: peer.close(timeout=1)))


class NoAnswerTest(DefectTestCase):
    """A server that accepts and never sends its 101."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(Wire.wait_for_end)

    def test_it_is_told_and_tried_again(self) -> None:
        client = self.ours(self.server.url(), open_timeout=0.1, reconnect=0.01)
        recorder = Recorder(client)
        client.open(0)
        recorder.wait_for("reconnecting", 2)

    def test_canary_nothing_is_ever_told(self) -> None:
        _, events = self.app(self.server.url(), ping_interval=0.2, ping_timeout=0.1)
        wait_until(lambda: self.server.accepted)
        time.sleep(0.4)
        self.assertEqual(events, [])
        self.server.close()


class StallTest(DefectTestCase):
    """A server that falls silent in the middle of a frame."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(staying_open(then=frame(2, bytes(100))[:50]))

    def test_it_is_noticed(self) -> None:
        client = self.ours(self.server.url(), heartbeat=Heartbeat(0.1, 0.1, kind="ping"))
        recorder = Recorder(client, messages=True)
        client.open(SOON)
        self.assertIn("no answer to a heartbeat", str(recorder.wait_for("close").reason))

    def test_canary_it_is_not_noticed(self) -> None:
        _, events = self.app(self.server.url(), ping_interval=0.2, ping_timeout=0.1)
        wait_until(lambda: events)
        time.sleep(0.4)
        self.assertEqual([name for name, _ in events], ["on_open"])
        self.server.close()


class WallClockTest(DefectTestCase):
    """The wall clock is set an hour ahead between a Ping and its Pong."""

    def setUp(self) -> None:
        super().setUp()
        real, self.ahead = time.time, 0.0
        patch = mock.patch("time.time", lambda: real() + self.ahead)
        patch.start()
        self.addCleanup(patch.stop)
        self.server = self.serve(self.answer_pings)

    def answer_pings(self, wire: Wire) -> None:
        wire.switch()
        while True:
            opcode, payload = wire.read_frame()
            if opcode == 8:
                return
            self.ahead += 3600
            wire.send_frame(10, payload)

    def test_nobody_is_declared_dead(self) -> None:
        client = self.ours(self.server.url(), heartbeat=Heartbeat(0.1, 0.3, kind="ping"))
        recorder = Recorder(client, messages=True)
        client.open(SOON)
        recorder.wait_for("heartbeat", 2)
        self.assertEqual(recorder.of("close"), [])

    def test_canary_an_answer_is_taken_for_late(self) -> None:
        _, events = self.app(self.server.url(), ping_interval=0.3, ping_timeout=0.2)
        wait_until(lambda: any(name == "on_error" for name, _ in events))
        self.assertIn("on_pong", [name for name, _ in events])
        self.assertIn("ping/pong timed out", str(events))


class CloseInBackoffTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(self.answer_close)
        self.proxy = FaultProxy("127.0.0.1", self.server.port)
        self.addCleanup(self.proxy.close)
        self.proxy.refuse()

    def answer_close(self, wire: Wire) -> None:
        wire.switch()
        wire.read_close()
        wire.send_frame(8)

    def test_nothing_is_dialled_after_close(self) -> None:
        client = self.ours(self.proxy.url(), reconnect=0.3)
        recorder = Recorder(client)
        client.open(0)
        recorder.wait_for("reconnecting")
        client.close()
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertFalse(client._thread.is_alive())
        self.assertEqual(recorder.names, ["reconnecting", "close"])

    def test_canary_close_is_forgotten(self) -> None:
        app, events = self.app(self.proxy.url(), reconnect=0.3)
        wait_until(lambda: events)
        app.close()
        self.proxy.accept()
        wait_until(lambda: self.server.accepted, message="no connection after close(): it has been mended")


class Counting:
    """A socket that counts how often it is read."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reads = 0

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self.sock.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


class ResponseHeadTest(DefectTestCase):
    def connected(self, size: int) -> Counting:
        server = self.serve(lambda wire: wire.switch(headers=(f"X-Fill: {'a' * size}",)))
        sock = socket.create_connection(("127.0.0.1", server.port), SOON)
        self.addCleanup(sock.close)
        return Counting(sock)

    def test_three_mebibytes_of_it_are_refused(self) -> None:
        server = self.serve(lambda wire: wire.switch(headers=(f"X-Fill: {'a' * (3 << 20)}",)))
        with self.assertRaisesRegex(HandshakeError, "the head of the response"):
            self.ours(server.url()).open(SOON)

    def test_it_is_read_in_large_pieces(self) -> None:
        counting = self.connected(30_000)
        stream = HandshakeStream(counting, mock.Mock())  # type: ignore[arg-type]
        stream.send(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: x\r\n\r\n")
        stream.recv(1)
        self.assertLess(counting.reads, 100)

    def test_canary_it_is_read_byte_by_byte_and_has_no_bound(self) -> None:
        counting = self.connected(60_000)
        peer: Any = websocket.WebSocket()
        peer.connect("ws://127.0.0.1/", socket=counting)
        self.assertGreater(counting.reads, 60_000)


class InjectionTest(DefectTestCase):
    OPTIONS = ("header", ["X-One: 1\r\nX-Evil: 1"]), ("cookie", "a=1\r\nX-Evil: 1"), ("origin", "http://a\r\nX-Evil: 1")

    def test_line_ends_in_arguments_are_errors(self) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"headers": {"X-One": "1\r\nX-Evil: 1"}},
            {"cookie": "a=1\r\nX-Evil: 1"},
            {"origin": "http://a\r\nX-Evil: 1"},
            {"subprotocols": ["a\r\nX-Evil: 1"]},
        )
        for options in wrong:
            with self.subTest(options), self.assertRaises(ValueError):
                Client("ws://127.0.0.1/", **options)

    def test_canary_they_become_headers(self) -> None:
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire.header("X-Evil"))
            wire.wait_for_end()

        server = self.serve(script)
        for name, value in self.OPTIONS:
            self.bare(server.url(), **{name: value})
        wait_until(lambda: len(seen) == 3)
        self.assertEqual(seen, ["1", "1", "1"])


class CookieTest(DefectTestCase):
    """A server at 127.0.0.1 sets a cookie for localhost, which is another host."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[str | None] = []
        self.server = self.serve(self.set_cookie)
        self.first, self.other = self.server.url(), f"ws://localhost:{self.server.port}/"

    def set_cookie(self, wire: Wire) -> None:
        wire.switch(headers=("Set-Cookie: session=s3cret; Domain=localhost",))
        self.seen.append(wire.header("Cookie"))

    def test_no_cookie_goes_to_another_host_or_back(self) -> None:
        for url in (self.first, self.first, self.other):
            self.ours(url).run_forever()
        self.assertEqual(self.seen, [None, None, None])

    def test_a_cookie_of_the_bare_packages_jar_does_not_go_out_with_ours(self) -> None:
        self.bare(self.first)
        self.ours(self.other).run_forever()
        wait_until(lambda: len(self.seen) == 2)
        self.assertEqual(self.seen, [None, None])

    def test_canary_the_jar_is_shared(self) -> None:
        self.bare(self.first)
        self.bare(self.other)
        wait_until(lambda: len(self.seen) == 2)
        self.assertEqual(self.seen, [None, "session=s3cret"])


class RedirectTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seen: list[str | None] = []
        self.second = self.serve(self.note)
        location = f"Location: {self.second.url()}"
        self.first = self.serve(refusing("302 Found", b"", location))

    def note(self, wire: Wire) -> None:
        wire.switch()
        self.seen.append(wire.header("Authorization"))

    def test_a_redirect_is_an_error(self) -> None:
        with self.assertRaisesRegex(HandshakeError, "302"):
            self.ours(self.first.url(), headers={"Authorization": "Bearer s3cret"}).open(SOON)
        self.assertEqual(self.second.accepted, 0)

    def test_canary_credentials_follow_it(self) -> None:
        self.bare(self.first.url(), header={"Authorization": "Bearer s3cret"})
        wait_until(lambda: self.seen)
        self.assertEqual(self.seen, ["Bearer s3cret"])


class LaxFramesTest(DefectTestCase):
    def test_masked_frames_and_long_pongs_are_protocol_errors(self) -> None:
        for wrong in (frame(1, b"masked", masked=True), frame(10, bytes(126))):
            server = self.serve(staying_open(then=wrong))
            with self.assertRaises(ConnectionClosed) as caught:
                self.ours(server.url()).open(SOON).recv(SOON)
            self.assertEqual(caught.exception.reason.code, 1002)

    def test_canary_both_are_accepted(self) -> None:
        data = frame(10, bytes(126)) + frame(1, b"masked", masked=True)
        server = self.serve(staying_open(then=data))
        self.assertEqual(self.bare(server.url()).recv(), "masked")


class BadTextTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sent: list[int] = []
        self.server = self.serve(self.send_bad_text)

    def send_bad_text(self, wire: Wire) -> None:
        wire.switch(then=frame(1, b"\xff"))
        self.sent.append(wire.read_close())

    def test_it_ends_the_connection_with_1007(self) -> None:
        with self.assertRaises(ConnectionClosed):
            self.ours(self.server.url()).open(SOON).recv(SOON)
        wait_until(lambda: self.sent)
        self.assertEqual(self.sent, [1007])

    def test_canary_the_connection_stays_open(self) -> None:
        peer = self.bare(self.server.url())
        with self.assertRaises(websocket.WebSocketPayloadException):
            peer.recv()
        self.assertTrue(peer.connected)
        self.assertEqual(self.sent, [])


class CloseAnswerTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.answers: list[int] = []
        self.server = self.serve(self.close)

    def close(self, wire: Wire) -> None:
        wire.switch(then=frame(8, b"\x03\xf3"))
        self.answers.append(wire.read_close())

    def test_1011_is_answered_with_1011(self) -> None:
        self.ours(self.server.url()).run_forever()
        wait_until(lambda: self.answers)
        self.assertEqual(self.answers, [1011])

    def test_canary_1011_is_answered_with_1000(self) -> None:
        self.bare(self.server.url()).recv()
        wait_until(lambda: self.answers)
        self.assertEqual(self.answers, [1000])


class EmptyTextTest(DefectTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve(staying_open(then=frame(1, b"") + frame(8)))

    def test_an_empty_text_and_the_end_are_not_the_same(self) -> None:
        client = self.ours(self.server.url()).open(SOON)
        self.assertEqual(client.recv(SOON), "")
        with self.assertRaises(ConnectionClosed):
            client.recv(SOON)

    def test_canary_they_are(self) -> None:
        peer = self.bare(self.server.url())
        self.assertEqual((peer.recv(), peer.recv()), ("", ""))


if __name__ == "__main__":
    unittest.main()
