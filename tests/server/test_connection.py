"""One connection on the server: its face, how it is made, and its end."""

from __future__ import annotations

import json
import pydoc
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import simple_websocket
import wsproto.events

from sync_ws import (
    Close,
    ConcurrentReceive,
    Connection,
    ConnectionClosed,
    Headers,
    MessageError,
    Reason,
    Request,
)
from sync_ws.protocol.deflate import Negotiation
from sync_ws.protocol.handshake import Agreed
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline
from tests.support.raw import BINARY, CLOSE, PING, PONG, TEXT, RawClient, frame
from tests.support.server_case import ServerTestCase, wait_until
from tests.support.wire import deflated
from tests.support.wire import frame as server_frame

HEART_BEAT = '{"ModeCode":"heart_beat","msg":"1700000000000"}'


def heart_beat(number: int) -> bytes:
    return HEART_BEAT.replace("1700000000000", str(number)).encode()


class HandlerTestCase(ServerTestCase):
    """`inside` runs a function in a handler and gives back what it returned or raised."""

    def inside(
        self,
        function: Callable[[Connection], Any],
        client: Callable[[RawClient], Any] = lambda client: None,
        **options: Any,
    ) -> Any:
        results: list[Any] = []
        done = threading.Event()

        def handler(connection: Connection) -> None:
            try:
                results.append(function(connection))
            except Exception as exc:
                results.append(exc)
            finally:
                done.set()

        server = self.serve(handler, **options)
        peer = self.client(server)
        client(peer)
        self.assertTrue(done.wait(20), "the handler did not return")
        peer.close()
        return results[0]


class FaceTest(HandlerTestCase):
    def test_text_is_str_and_binary_is_bytes(self) -> None:
        def client(peer: RawClient) -> None:
            peer.send_text("grüße")
            peer.send_frame(BINARY, b"\x00\xff")
            peer.send_text("")

        got = self.inside(lambda conn: [conn.recv(5), conn.recv(5), conn.recv(5)], client)
        self.assertEqual(got, ["grüße", b"\x00\xff", ""])

    def test_recv_with_a_timeout_raises_and_the_connection_goes_on(self) -> None:
        def handler(connection: Connection) -> Any:
            for timeout in (0, 0.01):
                try:
                    connection.recv(timeout)
                except TimeoutError:
                    continue
                return "a message came from nowhere"
            connection.send("ask")
            return connection.recv(5)

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_text(), "ask")
            peer.send_text("answer")

        self.assertEqual(self.inside(handler, client), "answer")

    def test_a_second_reader_is_told_at_once(self) -> None:
        def handler(connection: Connection) -> Any:
            caught: list[BaseException] = []

            def second() -> None:
                try:
                    wait_until(lambda: connection._inbox.receiving)
                    connection.recv(5)
                except ConcurrentReceive as exc:
                    caught.append(exc)
                finally:
                    connection.send("go")

            thread = threading.Thread(target=second)
            thread.start()
            first = connection.recv(5)
            thread.join()
            return first, [type(exc) for exc in caught]

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_text(), "go")
            peer.send_text("mine")

        self.assertEqual(self.inside(handler, client), ("mine", [ConcurrentReceive]))

    def test_json_both_ways_and_bad_json_does_not_end_the_connection(self) -> None:
        def handler(connection: Connection) -> Any:
            first = connection.recv_json(5)
            connection.send_json({"got": first})
            problems = []
            for _ in range(2):
                try:
                    connection.recv_json(5)
                except MessageError as exc:
                    problems.append(str(exc))
            return first, problems, connection.recv_json(5)

        def client(peer: RawClient) -> None:
            peer.send_text('{"a": [1, null]}')
            self.assertEqual(json.loads(peer.read_text()), {"got": {"a": [1, None]}})
            peer.send_text("{nonsense")
            peer.send_frame(BINARY, b"{}")
            peer.send_text("3")

        first, problems, last = self.inside(handler, client)
        self.assertEqual((first, last), ({"a": [1, None]}, 3))
        self.assertIn("expected JSON", problems[0])
        self.assertIn("binary", problems[1])

    def test_send_takes_text_and_bytes_and_nothing_else(self) -> None:
        def handler(connection: Connection) -> Any:
            for data in ("t", b"b", bytearray(b"ba"), memoryview(b"mv")):
                connection.send(data)
            wrong: list[Any] = [None, 1, [1], {"a": "b"}, ["x", b"y"], object()]
            for bad in wrong:
                try:
                    connection.send(bad)
                except TypeError:
                    continue
                return f"{bad!r} was sent"
            return connection.connected

        def client(peer: RawClient) -> None:
            got = [peer.read_frame() for _ in range(4)]
            self.assertEqual(
                [(item.opcode, item.payload) for item in got],
                [(TEXT, b"t"), (BINARY, b"b"), (BINARY, b"ba"), (BINARY, b"mv")],
            )

        self.assertIs(self.inside(handler, client), True)

    def test_iteration_ends_with_the_connection(self) -> None:
        def client(peer: RawClient) -> None:
            peer.send_text("a")
            peer.send_text("b")
            peer.finish()

        self.assertEqual(self.inside(list, client), ["a", "b"])

    def test_after_the_end_send_and_recv_say_how_it_ended(self) -> None:
        def handler(connection: Connection) -> Any:
            list(connection)
            ends = []
            for use in (lambda: connection.send("x"), lambda: connection.recv(), lambda: connection.send_json(1)):
                try:
                    use()
                except ConnectionClosed as exc:
                    ends.append((exc.code, exc.received, exc.sent, exc.reason.by_us))
            return ends, connection.connected

        ends, connected = self.inside(handler, lambda peer: peer.send_close(4321, "enough"))
        close = Close(4321, "enough")
        self.assertEqual(ends, [(4321, close, close, False)] * 3)
        self.assertFalse(connected)

    def test_the_face_of_simple_websocket(self) -> None:
        def handler(connection: Connection) -> Any:
            self.assertIsInstance(connection, simple_websocket.Server)
            nothing = connection.receive(timeout=0)
            connection.send("go")
            first = connection.receive(5)
            try:
                connection.receive(5)
            except simple_websocket.ConnectionClosed as exc:
                return nothing, first, int(exc.reason)
            return "no end"

        def client(peer: RawClient) -> None:
            peer.read_text()
            peer.send_text("one")
            peer.send_close(1000)

        self.assertEqual(self.inside(handler, client), (None, "one", 1000))

    def test_what_simple_websocket_has_and_cannot_work_here_is_not_there(self) -> None:
        def handler(connection: Connection) -> Any:
            for name in ("accept", "handshake", "ws", "thread", "event", "input_buffer"):
                self.assertFalse(hasattr(connection, name), name)
            return "none of it"

        self.assertEqual(self.inside(handler), "none of it")
        for name in ("accept", "handshake"):
            with self.assertRaisesRegex(AttributeError, f"no attribute '{name}': a connection is made by its server"):
                getattr(Connection, name)
        self.assertIn("recv_json", pydoc.plain(pydoc.render_doc(Connection)))

    def test_the_choice_of_a_subprotocol_can_be_asked_for(self) -> None:
        def handler(connection: Connection) -> Any:
            offer = wsproto.events.Request("", "", subprotocols=["x", "b", "a"])
            return connection.choose_subprotocol(offer), connection.subprotocol, connection.subprotocols

        self.assertEqual(self.inside(handler, subprotocols=["a", "b"]), ("b", None, ["a", "b"]))

    def test_a_batch_is_written_together_when_it_ends(self) -> None:
        def handler(connection: Connection) -> Any:
            with connection.batch():
                connection.send("one")
                connection.send("two")
                during = connection.stats()["bytes_sent"]
            return during, connection.stats()["bytes_sent"]

        def client(peer: RawClient) -> None:
            self.assertEqual([peer.read_text(), peer.read_text()], ["one", "two"])

        during, after = self.inside(handler, client)
        self.assertEqual(during - after, -10)

    def test_a_batch_is_written_before_its_thread_waits(self) -> None:
        def handler(connection: Connection) -> Any:
            with connection.batch():
                connection.send("question")
                return connection.recv(5)

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_text(), "question")
            peer.send_text("answer")

        self.assertEqual(self.inside(handler, client), "answer")

    def test_a_ping_gives_its_round_trip_time(self) -> None:
        def client(peer: RawClient) -> None:
            peer.send_frame(PONG, peer.read_frame().payload)

        seconds = self.inside(lambda conn: conn.ping(5), client)
        self.assertGreater(seconds, 0)
        self.assertLess(seconds, 5)

    def test_stats_and_repr(self) -> None:
        def handler(connection: Connection) -> Any:
            connection.recv(5)
            connection.send("four")
            return connection.stats(), repr(connection), connection.request.path

        stats, text, path = self.inside(handler, lambda peer: peer.send_text("hello"))
        self.assertEqual((stats["messages_received"], stats["messages_sent"], stats["name"]), (1, 1, None))
        self.assertEqual((stats["bytes_received"], stats["bytes_sent"]), (11, 6))
        self.assertEqual((stats["queued_messages"], stats["queued_bytes"]), (0, 0))
        self.assertRegex(text, r"^<Connection None from 127\.0\.0\.1:\d+, open>$")
        self.assertEqual(path, "/ws/")


class MakingTest(LedgerTestCase):
    """A connection is made of a socket whose opening handshake is over."""

    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.theirs.setblocking(False)

    def make(self, **options: Any) -> Connection:
        request = Request("GET", "/ws/", {}, Headers(), ("127.0.0.1", 4242))
        connection = Connection(self.ours, request, **options)
        self.addCleanup(connection.channel.release)
        self.addCleanup(connection.channel.abort, Reason("the test is over"))
        return connection

    def test_making_one_neither_reads_nor_writes(self) -> None:
        self.theirs.send(frame(TEXT, b"hello"))
        connection = self.make()
        self.assertEqual(self.ours.recv(100, socket.MSG_PEEK), frame(TEXT, b"hello"))
        with self.assertRaises(BlockingIOError):
            self.theirs.recv(1)
        self.assertTrue(connection.connected)
        self.assertEqual(connection.recv(5), "hello")

    def test_making_one_makes_no_object_of_wsproto(self) -> None:
        with mock.patch.object(simple_websocket.ws, "WSConnection", side_effect=AssertionError("made")):
            connection = self.make()
        self.assertIsInstance(connection, simple_websocket.Server)

    def test_what_was_agreed_on_and_what_came_early_is_used(self) -> None:
        packed = deflated(b"hello" * 100)
        early = frame(TEXT, packed, rsv=4)
        connection = self.make(agreed=Agreed("chat", Negotiation()), subprotocols=["chat"], early=early)
        self.assertEqual((connection.subprotocol, connection.subprotocols), ("chat", ["chat"]))
        self.assertEqual(connection.recv(5), "hello" * 100)

    def test_what_the_server_knew_of_the_client_goes_with_it(self) -> None:
        connection = self.make(name="ann", identity={"user": 7})
        self.assertEqual((connection.name, connection.identity), ("ann", {"user": 7}))

    def test_heartbeats_are_told_between_the_messages_they_came_between(self) -> None:
        told: list[Any] = []
        texts = [b"one", heart_beat(1), heart_beat(2), b"two", heart_beat(3)]
        early = b"".join(frame(TEXT, text) for text in texts)
        connection = self.make(early=early, on_heart_beat=lambda *args: told.append(args))
        self.assertEqual((connection.recv(5), told), ("one", []))
        beats = [(connection, heart_beat(number).decode()) for number in (1, 2, 3)]
        self.assertEqual((connection.recv(5), told), ("two", beats[:2]))
        self.assertRaises(TimeoutError, connection.recv, 0)
        self.assertEqual(told, beats)
        answers = b"".join(server_frame(TEXT, heart_beat(number), masked=False) for number in (1, 2, 3))
        self.assertEqual(self.theirs.recv(1000), answers)

    def test_a_heartbeat_that_could_not_be_told_for_an_interrupt_is_told_by_the_next_recv(self) -> None:
        tell = mock.Mock(side_effect=[KeyboardInterrupt, None])
        connection = self.make(early=frame(TEXT, heart_beat(1)) + frame(TEXT, b"one"), on_heart_beat=tell)
        self.assertRaises(KeyboardInterrupt, connection.recv, 5)
        self.assertEqual((connection.recv(5), tell.call_count), ("one", 2))

    def test_heartbeats_that_nobody_received_up_to_are_told_at_the_end_and_messages_are_not(self) -> None:
        told: list[str] = []
        early = frame(TEXT, heart_beat(1)) + frame(TEXT, b"untaken") + frame(TEXT, heart_beat(2))
        connection = self.make(early=early, on_heart_beat=lambda conn, text: told.append(text))
        connection.channel.tend()
        self.assertEqual(told, [])
        connection.tell_notes()
        self.assertEqual(told, [heart_beat(1).decode(), heart_beat(2).decode()])

    def test_a_ping_that_is_not_told_how_long_waits_for_ten_seconds(self) -> None:
        connection = self.make()
        over = mock.patch("sync_ws.channel.channel.Deadline", lambda timeout: Deadline(0))
        with over, self.assertRaisesRegex(TimeoutError, "within 10 s"):
            connection.ping()

    def test_once_it_is_over_it_says_so(self) -> None:
        connection = self.make()
        connection.channel.abort(Reason("the test is over"))
        self.assertEqual(repr(connection), "<Connection None from 127.0.0.1:4242, closed>")


class CloseTest(HandlerTestCase):
    def test_a_handler_that_returns_closes_with_1000(self) -> None:
        server = self.serve(lambda connection: None)
        client = self.raw(server).upgrade()
        self.assertEqual(client.read_close(), (1000, ""))
        client.send_close(1000)
        self.assertEqual(client.read_to_end(), b"")

    def test_close_sends_its_code_and_reason_and_is_idempotent(self) -> None:
        def handler(connection: Connection) -> Any:
            connection.close(4000, "grüße")
            connection.close(4001, "again")
            try:
                connection.send("after")
            except ConnectionClosed as exc:
                return exc.sent, exc.received
            return "a message went out after Close"

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_close(), (4000, "grüße"))
            peer.send_close(4000)
            self.assertEqual(peer.read_to_end(), b"")

        self.assertEqual(self.inside(handler, client), (Close(4000, "grüße"), Close(4000, "")))

    def test_codes_that_must_not_be_sent_are_a_mistake(self) -> None:
        def handler(connection: Connection) -> Any:
            for code, reason in (
                (999, ""),
                (1004, ""),
                (1005, ""),
                (1006, ""),
                (1015, ""),
                (2999, ""),
                (5000, ""),
                (1000, "ü" * 62),
            ):
                try:
                    connection.close(code, reason)
                except ValueError:
                    continue
                return f"{code} was sent"
            return connection.connected

        self.assertIs(self.inside(handler), True)

    def test_close_gives_up_on_a_peer_that_does_not_answer(self) -> None:
        def handler(connection: Connection) -> Any:
            started = time.monotonic()
            connection.close(timeout=0.05)
            return time.monotonic() - started, connection.close_reason.code

        seconds, code = self.inside(handler)
        self.assertLess(seconds, 5)
        self.assertEqual(code, 1006)

    def test_close_from_another_thread_wakes_recv(self) -> None:
        def handler(connection: Connection) -> Any:
            closer = threading.Thread(target=connection.close, args=(4000,))
            closer.start()
            try:
                connection.recv(10)
            except ConnectionClosed as exc:
                return exc.sent
            finally:
                closer.join()

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_close()[0], 4000)
            peer.send_close(4000)

        self.assertEqual(self.inside(handler, client), Close(4000, ""))

    def test_messages_that_cross_our_close_are_not_mistaken_for_the_answer(self) -> None:
        def handler(connection: Connection) -> Any:
            connection.close(4000)
            return connection.close_reason.code

        def client(peer: RawClient) -> None:
            self.assertEqual(peer.read_close()[0], 4000)
            for _ in range(40):
                peer.send_text("crossing")
            peer.send_close(4000)

        self.assertEqual(self.inside(handler, client), 4000)

    def test_the_peers_close_is_answered_with_its_own_code(self) -> None:
        server = self.serve()
        for code in (1000, 1001, 1011, 3000, 4999):
            self.assertEqual(self.client(server).finish(code)[0], code)

    def test_an_empty_close_is_answered_with_an_empty_one(self) -> None:
        client = self.client(self.serve())
        client.send_frame(CLOSE)
        self.assertEqual(client.read_frame().payload, b"")
        self.assertEqual(client.read_to_end(), b"")

    def test_a_stream_that_ends_without_a_close_is_1006(self) -> None:
        for end in (RawClient.close, RawClient.vanish):
            server, events = self.serve_events()
            end(self.client(server))
            ((_, reason),) = events.wait("close")
            self.assertEqual((reason.code, reason.by_us), (1006, False))

    def test_a_stream_that_ends_in_mid_frame_delivers_nothing_of_it(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        client.send(frame(TEXT, b"complete") + frame(TEXT, b"cut short")[:-3])
        client.close()
        ((_, reason),) = events.wait("close")
        self.assertEqual(reason.code, 1006)
        self.assertEqual([args[1] for args in events.of("message")], ["complete"])

    def test_no_message_is_taken_after_the_peers_close(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        client.send(frame(TEXT, b"a") + frame(CLOSE, struct.pack("!H", 1000)) + frame(TEXT, b"revived"))
        events.wait("close")
        self.assertEqual([args[1] for args in events.of("message")], ["a"])


class HeartBeatTest(ServerTestCase):
    def test_heart_beats_are_sent_back_unchanged_before_any_handler(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        for text in (HEART_BEAT, '{ "msg": {"deep": [1, 2]}, "ModeCode" : "heart_beat" }'):
            client.send_text(text)
            self.assertEqual(client.read_text(), text)
        events.wait("heartbeat", 2)
        self.assertEqual(events.of("heartbeat")[0][1], HEART_BEAT)
        self.assertEqual(events.of("message"), [])

    def test_a_binary_heart_beat_comes_back_as_binary(self) -> None:
        client = self.client(self.serve())
        client.send_frame(BINARY, HEART_BEAT.encode())
        got = client.read_frame()
        self.assertEqual((got.opcode, got.payload), (BINARY, HEART_BEAT.encode()))

    def test_what_only_mentions_a_heart_beat_is_a_message(self) -> None:
        server, events = self.serve_events()
        client = self.client(server)
        texts = ['{"ModeCode":"message","msg":"heart_beat"}', '["heart_beat"]', '"heart_beat"', '{"heart_beat"', "beat"]
        for text in texts:
            client.send_text(text)
        events.wait("message", len(texts))
        self.assertEqual([args[1] for args in events.of("message")], texts)

    def test_heart_beats_and_pings_are_answered_while_the_handler_is_busy(self) -> None:
        released = self.gate()
        server = self.serve(lambda connection: released.wait(20))
        client = self.client(server)
        for number in range(3):
            client.send_text(HEART_BEAT)
            client.send_frame(PING, b"%d" % number)
            got = {client.read_frame().payload, client.read_frame().payload}
            self.assertEqual(got, {HEART_BEAT.encode(), b"%d" % number})
        self.assertFalse(released.is_set())

    def test_messages_for_a_busy_handler_wait_within_a_bound_and_come_in_order(self) -> None:
        released, got = self.gate(), list[Any]()

        def handler(connection: Connection) -> None:
            released.wait(20)
            got.extend(connection)

        server = self.serve(handler)
        client = self.client(server)
        (connection,) = wait_until(lambda: server.connections)
        for number in range(60):
            client.send_text(str(number))
        wait_until(lambda: len(connection.channel.receiver._inbox) >= 16)
        client.send_text(HEART_BEAT)
        self.assertLessEqual(len(connection.channel.receiver._inbox), 17)
        released.set()
        self.assertEqual(client.read_text(), HEART_BEAT)
        client.finish()
        wait_until(lambda: len(got) == 60)
        self.assertEqual(got, [str(number) for number in range(60)])
