"""The client over one connection: talking, its two styles, its events and states, and closing wherever it is."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import sync_ws
from sync_ws import (
    Backoff,
    Client,
    ClientState,
    Close,
    ConcurrentReceive,
    Connection,
    ConnectionClosed,
    HandshakeError,
    HandshakeRejected,
    HandshakeTimeout,
    Heartbeat,
    MessageError,
    NotConnected,
    QueueFull,
    SendTimeout,
)
from sync_ws.client.events import EVENTS, Closed
from sync_ws.client.state import TRANSITIONS, check_transition
from sync_ws.testing import LedgerTestCase, ManualClock, free_port, serving, wait_until
from tests.support.proxies import ConnectProxy
from tests.support.recorder import Recorder, sender
from tests.support.scripted import ScriptedServer, Wire, frame, refusing, staying_open

SOON = 4.0  # seconds: an upper bound for "at once", on a machine with other things to do
ROOT = Path(__file__).resolve().parents[2]


def echo(conn: Connection) -> None:
    for message in conn:
        conn.send(message)


def obey(wire: Wire) -> None:
    """Answer pings and Close frames; "drop": end the stream, "close CODE": close, "burst": three messages at once."""
    wire.switch()
    while True:
        opcode, payload = wire.read_frame()
        if opcode == 9:
            wire.send_frame(10, payload)
        elif opcode == 8:
            wire.send_frame(8, payload)
            return
        elif payload == b"drop":
            return
        elif payload == b"burst":
            wire.send(b"".join(frame(1, f"m{number}".encode()) for number in range(3)))
        elif payload.startswith(b"close "):
            wire.send_frame(8, int(payload[6:]).to_bytes(2, "big") + b"as told")
            wire.wait_for_end()
            return


class ClientTestCase(LedgerTestCase):
    def client(self, url: str, **options: Any) -> Client:
        """A client that is closed at the end of the test."""
        client = Client(url, **{"heartbeat": None, "reconnect": None, **options})
        self.addCleanup(client.close, timeout=1.0)
        return client

    @contextlib.contextmanager
    def within(self, seconds: float = SOON) -> Any:
        started = time.monotonic()
        yield
        self.assertLess(time.monotonic() - started, seconds)


class ConversationTest(ClientTestCase):
    def test_text_and_binary_come_back_as_they_were(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            for message in ("hello", "", "ü€𝄞", b"bytes", b"", "x" * 200_000, bytes(range(256)) * 500):
                client.send(message)
                self.assertEqual(client.recv(SOON), message)
            client.send(bytearray(b"ab"))
            client.send(memoryview(b"cd"))
            self.assertEqual((client.recv(SOON), client.recv(SOON)), (b"ab", b"cd"))

    def test_json(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            client.send_json({"a": [1, None, "ü"]})
            self.assertEqual(client.recv_json(SOON), {"a": [1, None, "ü"]})
            client.send("no json")
            with self.assertRaises(MessageError):
                client.recv_json(SOON)
            with self.assertRaises(MessageError):
                client.send_json({1, 2})
            client.send("still there")
            self.assertEqual(client.recv(SOON), "still there")

    def test_what_is_no_message_is_a_type_error_and_does_no_harm(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            for wrong in (None, 5, {"a": 1}, ["x"]):
                with self.assertRaises(TypeError):
                    client.send(wrong)  # type: ignore[arg-type]
            client.send("fine")
            self.assertEqual(client.recv(SOON), "fine")

    def test_recv_times_out_and_loses_nothing(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            for timeout in (0, 0.05):
                with self.assertRaises(TimeoutError):
                    client.recv(timeout)
            client.send("late")
            self.assertEqual(client.recv(SOON), "late")

    def test_iteration_ends_with_the_conversation(self) -> None:
        def count(conn: Connection) -> None:
            for number in range(300):
                conn.send(str(number))

        with serving(count) as server, self.client(server.url) as client:
            self.assertEqual(list(client), [str(number) for number in range(300)])
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv()
        self.assertEqual(caught.exception.received, Close(1000))
        self.assertEqual(caught.exception.code, 1000)

    def test_the_end_carries_both_close_frames(self) -> None:
        with ScriptedServer(obey) as server, self.client(server.url()) as client:
            client.send("close 4321")
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(SOON)
            self.assertEqual(caught.exception.received, Close(4321, "as told"))
            self.assertEqual(caught.exception.sent, Close(4321, "as told"))
            with self.assertRaises(ConnectionClosed) as again:
                client.recv(SOON)
            self.assertIsNot(caught.exception, again.exception)
            with self.assertRaises(ConnectionClosed):
                client.send("too late")

    def test_what_comes_in_one_segment_with_the_response_is_noticed_though_nobody_reads(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(then=frame(1, b"early") + frame(8, b"\x03\xe8"))
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            client = self.client(server.url()).open(SOON)
            wait_until(lambda: client.state is ClientState.CLOSED)
            self.assertEqual(list(client), ["early"])

    def test_a_second_reader_is_told_at_once(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            got: list[Any] = []
            reader = threading.Thread(target=lambda: got.append(client.recv()))
            reader.start()
            wait_until(lambda: client._receive_lock.locked())
            with self.within(), self.assertRaises(ConcurrentReceive):
                client.recv()
            client.send("x")
            reader.join(SOON)
            self.assertEqual(got, ["x"])

    def test_recv_beside_a_message_function_is_an_error(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            client.on("message", lambda message: None)
            client.open(SOON)
            with self.assertRaises(ConcurrentReceive):
                client.recv(0)

    def test_subprotocols(self) -> None:
        with serving(echo, subprotocols=("b", "c")) as server:
            with self.client(server.url, subprotocols=["a", "c"]) as client:
                self.assertEqual(client.subprotocol, "c")
            with self.client(server.url, subprotocols=["x"]) as client:
                self.assertIsNone(client.subprotocol)

    def test_compression(self) -> None:
        with serving(echo, compression=True) as server, self.client(server.url, compression=True) as client:
            text = "compressible " * 20_000
            for _ in range(3):
                client.send(text)
                self.assertEqual(client.recv(SOON), text)
            self.assertLess(client.stats()["bytes_sent"], len(text) / 4)

    def test_a_batch_goes_out_together_at_its_end(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            with client.batch():
                for number in range(50):
                    client.send(str(number))
            self.assertEqual([client.recv(SOON) for _ in range(50)], [str(number) for number in range(50)])

    def test_stats_count(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            client.send("four")
            client.recv(SOON)
            stats = client.stats()
        self.assertEqual((stats["messages_sent"], stats["messages_received"], stats["opened"]), (1, 1, 1))
        self.assertEqual((stats["bytes_sent"], stats["bytes_received"]), (10, 6))
        self.assertEqual((stats["state"], stats["queued_messages"], stats["reconnects"]), ("open", 0, 0))

    def test_eight_threads_send_and_each_ones_order_is_kept(self) -> None:
        got: list[str] = []
        done = threading.Event()

        def collect(conn: Connection) -> None:
            for message in itertools.islice(conn, 8 * 200):
                got.append(str(message))
            done.set()
            conn.recv()

        with serving(collect) as server, self.client(server.url) as client:
            threads = [sender(client, [f"{own} {n} {'x' * n}" for n in range(200)]) for own in range(8)]
            for thread in threads:
                thread.start()
            self.assertTrue(done.wait(20))
            for thread in threads:
                thread.join(SOON)
        for own in range(8):
            mine = [message.split()[1] for message in got if message.startswith(f"{own} ")]
            self.assertEqual(mine, [str(number) for number in range(200)])

    def test_through_an_http_proxy(self) -> None:
        with serving(echo) as server, ConnectProxy(target=("127.0.0.1", server.port)) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            with self.client("ws://inside.test:1024/ws/", proxy=url) as client:
                client.send("hello")
                self.assertEqual(client.recv(SOON), "hello")
        self.assertEqual(proxy.asked, ["inside.test:1024"])

    def test_proxy_variables_are_read_only_when_asked_for(self) -> None:
        with serving(echo) as server, ConnectProxy() as proxy:
            variables = {"http_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": ""}
            with mock.patch.dict(os.environ, variables):
                self.client(server.url).open(SOON)
                self.assertEqual(proxy.asked, [])
                self.client(server.url, proxy="environment").open(SOON)
                self.assertEqual(proxy.asked, [f"127.0.0.1:{server.port}"])


class OptionTest(unittest.TestCase):
    def test_line_ends_in_arguments_are_value_errors(self) -> None:
        for text in ("a\r\nX: y", "a\nb", "a\rb", "a\x00"):
            wrong: tuple[dict[str, Any], ...] = (
                {"headers": {"X-Y": text}}, {"headers": {text: "x"}}, {"cookie": text}, {"origin": text},
                {"subprotocols": [text]},
            )  # fmt: skip
            for options in wrong:
                with self.subTest(options), self.assertRaises(ValueError):
                    Client("ws://a.test/", **options)
            with self.subTest(text), self.assertRaises(ValueError):
                Client(f"ws://a.test/{text}")

    def test_wrong_options_are_errors_at_once(self) -> None:
        wrong: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
            ({"offline": "drop"}, ValueError), ({"subprotocols": "chat"}, TypeError),
            ({"ssl_context": True}, TypeError), ({"open_timeout": 0}, ValueError),
            ({"send_timeout": -1}, ValueError), ({"close_timeout": "5"}, TypeError),
            ({"max_message": 0}, ValueError), ({"max_fragments": 1.5}, TypeError), ({"reconnect": 0}, ValueError),
            ({"proxy": "nonsense"}, ValueError), ({"headers": {"Cookie": "a=1"}}, ValueError),
        )  # fmt: skip
        for options, error in wrong:
            with self.subTest(options), self.assertRaises(error):
                Client("ws://a.test/", **options)
        for url in ("http://a.test/", "nonsense", ""):
            with self.subTest(url), self.assertRaises(ValueError):
                Client(url)

    def test_an_unknown_event_lists_those_there_are(self) -> None:
        with self.assertRaisesRegex(ValueError, "reconnecting"):
            Client("ws://a.test/").on("conect", print)

    def test_repr_shows_no_secret(self) -> None:
        text = repr(Client("ws://user:hunter2@a.test/ws/?token=s3cret", headers={"Authorization": "Bearer s3cret"}))
        self.assertEqual(text, "<Client of ws://a.test:80/ws/, idle>")


class SecretsTest(ClientTestCase):
    def test_a_token_shows_in_no_log_event_or_exception(self) -> None:
        shown: list[str] = []
        handler = logging.Handler(0)
        handler.emit = lambda record: shown.append(logging.Formatter().format(record))  # type: ignore[method-assign]
        logger = logging.getLogger()
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(1)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(logger.removeHandler, handler)

        def script(wire: Wire) -> None:
            if wire.number == 1:
                wire.answer("503 X", wire.read_request())  # an unkind server: it sends back all it was sent
            elif wire.number == 2:
                wire.reset()
            else:
                wire.switch(accept="wrong")

        with ScriptedServer(script) as server:
            url = server.url("/ws/?token=s3cret-query").replace("127", "user:s3cret-password@127")
            client = self.client(
                url, headers={"Authorization": "Bearer s3cret-header"}, cookie="s3cret-cookie", reconnect=0.01
            )
            recorder = Recorder(client)
            with self.assertRaises(HandshakeError) as caught:
                client.open(SOON)
        shown += [repr(recorder.log), str(caught.exception), repr(caught.exception), repr(client), repr(client.stats())]
        shown += [str(event.reason) for event in recorder.of("reconnecting")]
        self.assertEqual(recorder.names, ["reconnecting", "reconnecting", "gave_up"])
        for text in shown:
            self.assertNotIn("s3cret", text.replace("GET /ws/?token=s3cret-query", ""))


class OpenTest(ClientTestCase):
    def test_open_waits_for_the_connection_and_returns_the_client(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            self.assertIs(client.state, ClientState.IDLE)
            self.assertIs(client.open(), client)
            self.assertIs(client.state, ClientState.OPEN)

    def test_open_raises_what_failed_when_there_is_no_other_attempt(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/")
        with self.assertRaisesRegex(HandshakeError, "refused"):
            client.open()
        self.assertIs(client.state, ClientState.CLOSED)
        refuse = refusing("404 Not Found", b"no such path")
        with ScriptedServer(refuse) as server, self.assertRaises(HandshakeRejected) as caught:
            self.client(server.url(), reconnect=0.01).open()
        self.assertEqual((caught.exception.status, caught.exception.body), (404, b"no such path"))

    def test_open_gives_up_after_its_timeout_and_says_what_the_trouble_was(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=0.02)
        with self.within(), self.assertRaisesRegex(HandshakeTimeout, r"within 0\.2 s; last: .*refused"):
            client.open(0.2)
        self.assertIs(client.state, ClientState.CLOSED)

    def test_open_of_a_server_that_never_answers(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            with self.within(), self.assertRaisesRegex(HandshakeTimeout, "first attempt is under way"):
                self.client(server.url()).open(0.2)
            with self.within(), self.assertRaises(HandshakeTimeout):
                self.client(server.url(), open_timeout=0.2).open()

    def test_open_without_waiting(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            client.open(0)
            client.send("queued meanwhile")
            self.assertEqual(client.recv(SOON), "queued meanwhile")

    def test_a_client_is_opened_once(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url).open(SOON)
            with self.assertRaisesRegex(RuntimeError, "opened once"):
                client.open()
            with client as same:  # entering an open one is no second opening
                self.assertIs(same, client)
            with self.assertRaisesRegex(RuntimeError, "closed"):
                client.open()

    def test_before_it_is_opened(self) -> None:
        client = self.client("ws://a.test/")
        for call in (lambda: client.send("x"), lambda: client.recv(1)):
            with self.assertRaisesRegex(NotConnected, "not been opened"):
                call()

    def test_open_that_is_closed_by_another_thread(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            client = self.client(server.url())

            def close() -> None:
                wait_until(lambda: server.accepted)
                client.close()

            closer = threading.Thread(target=close)
            closer.start()
            with self.within(), self.assertRaisesRegex(HandshakeError, "closed by us"):
                client.open()
            closer.join(SOON)

    def test_open_without_a_thread_to_be_had(self) -> None:
        client = self.client("ws://127.0.0.1:9/")
        no_thread = mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread"))
        with no_thread, self.assertRaisesRegex(RuntimeError, "can't start"):
            client.open()
        self.assertIs(client.state, ClientState.CLOSED)
        with self.assertRaises(ConnectionClosed):
            client.recv()


class StateTest(ClientTestCase):
    def test_every_transition_is_in_the_table_or_an_error(self) -> None:
        for old, new in itertools.product(ClientState, ClientState):
            with self.subTest(old=old, new=new):
                if new in TRANSITIONS[old]:
                    check_transition(old, new)
                else:
                    with self.assertRaises(RuntimeError):
                        check_transition(old, new)

    def test_closed_is_final_and_every_state_but_it_leads_to_it(self) -> None:
        self.assertEqual(TRANSITIONS[ClientState.CLOSED], frozenset())
        for state in set(ClientState) - {ClientState.CLOSED}:
            self.assertIn(ClientState.CLOSED, TRANSITIONS[state])

    def test_the_states_of_a_life(self) -> None:
        seen: list[ClientState] = []
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)
            become = client._line._become

            def note(state: ClientState) -> None:
                become(state)
                seen.append(state)

            client._line._become = note  # type: ignore[method-assign]
            recorder = Recorder(client)
            client.open(SOON)
            client.send("drop")
            recorder.wait_for("reconnected")
            client.close()
        names = [state.value for state in seen]
        self.assertEqual(names, ["connecting", "open", "waiting", "connecting", "open", "closing", "closed"])


class EventTest(ClientTestCase):
    def test_events_come_in_order_from_one_thread_with_their_reasons(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01, heartbeat=Heartbeat(0.05, 1, kind="ping"))
            recorder = Recorder(client, messages=True)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("message", 3)
            recorder.wait_for("heartbeat")
            client.send("drop")
            recorder.wait_for("reconnected")
            client.close(reason="enough")
        names = [name for name in recorder.names if name != "heartbeat"]
        self.assertEqual(names, ["open", *["message"] * 3, "close", "reconnecting", "open", "reconnected", "close"])
        self.assertEqual(len(recorder.threads), 1)
        lost, ours = recorder.of("close")
        self.assertEqual((lost.reason.code, lost.reconnecting), (1006, True))
        self.assertIn("without a Close frame", lost.reason.text)
        self.assertEqual((ours.reason.by_us, ours.reconnecting), (True, False))
        self.assertIn("enough", ours.reason.text)
        (again,) = recorder.of("reconnecting")
        self.assertEqual((again.attempt, again.delay, again.reason), (1, 0.01, lost.reason))
        self.assertEqual(recorder.of("reconnected")[0].count, 1)
        self.assertGreater(recorder.of("heartbeat")[0].rtt, 0)

    def test_open_event_has_the_subprotocol_and_headers_of_the_response(self) -> None:
        with ScriptedServer(staying_open(headers=("X-One: 1", "Sec-WebSocket-Protocol: a"))) as server:
            client = self.client(server.url(), subprotocols=["a"], close_timeout=0.1)
            event = Recorder(client)
            client.open(SOON)
            opened = event.wait_for("open")
        self.assertEqual((opened.subprotocol, opened.headers["x-one"]), ("a", "1"))

    def test_a_function_that_raises_is_reported_once_with_its_traceback_and_does_no_harm(self) -> None:
        def fail(message: Any) -> None:
            raise ZeroDivisionError(f"on {message}")

        with serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR") as logs:
            client = self.client(server.url)
            recorder = Recorder(client)
            got: list[Any] = []
            client.on("message", fail)
            client.on("message", got.append)
            client.open(SOON)
            client.send("one")
            client.send("two")
            wait_until(lambda: len(got) == 2)
            self.assertIs(client.state, ClientState.OPEN)
        self.assertEqual(got, ["one", "two"])
        self.assertEqual([str(error.exception) for error in recorder.of("error")], ["on one", "on two"])
        self.assertEqual(len(logs.records), 2)
        self.assertIn("ZeroDivisionError: on one", logs.output[0])
        self.assertIn("in fail", logs.output[0])

    def test_every_function_may_raise_and_the_client_lives_on(self) -> None:
        def fail(event: Any) -> None:
            raise ValueError("on purpose")

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url(), reconnect=0.01, heartbeat=Heartbeat(0.02, 1, kind="ping"))
            recorder = Recorder(client, messages=True)
            for name in EVENTS:
                client.on(name, fail)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("message", 3)
            client.send("drop")
            recorder.wait_for("reconnected")
            recorder.wait_for("heartbeat")
            client.close()
        self.assertEqual(recorder.names[-2:], ["close", "error"])
        failed = [name for name in recorder.names if name != "error"]
        self.assertEqual(len(recorder.of("error")), len(failed))

    def test_functions_may_be_taken_back(self) -> None:
        client = Client("ws://a.test/")
        self.assertTrue(client.off("open", client.on("open", print)))
        self.assertFalse(client.off("open", print))

    def test_a_message_function_may_send_and_receive(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            got: list[Any] = []

            def converse(message: Any) -> None:
                if message == "begin":
                    client.send("question")
                    got.append(client.recv(SOON))
                else:
                    got.append(("event", message))

            client.on("message", converse)
            client.open(SOON)
            client.send("begin")
            wait_until(lambda: got)
            client.send("after")
            wait_until(lambda: len(got) == 2)
        self.assertEqual(got, ["question", ("event", "after")])

    def test_recv_in_a_function_called_without_a_connection_does_not_wait_for_itself(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)
            raised: list[Exception] = []

            def receive(event: Any) -> None:
                try:
                    client.recv()
                except NotConnected as exc:
                    raised.append(exc)

            client.on("reconnecting", receive)
            recorder = Recorder(client)
            client.open(SOON)
            client.send("drop")
            recorder.wait_for("reconnected")
            client.close()
        self.assertEqual(len(raised), 1)

    def test_what_an_open_function_sends_goes_out_before_what_was_queued(self) -> None:
        got: list[Any] = []
        with serving(lambda conn: got.extend(itertools.islice(conn, 2))) as server:
            client = self.client(server.url)
            client.on("open", lambda event: client.send("hello"))
            client.open(0)
            client.send("queued")
            wait_until(lambda: len(got) == 2)
        self.assertEqual(got, ["hello", "queued"])

    def test_a_slow_function_does_not_look_like_a_dead_client(self) -> None:
        with serving(None, ping_interval=0.3, ping_timeout=0.5) as server:
            ended: list[Any] = []
            server.on("close", lambda conn, reason: ended.append(reason))
            server.on("open", lambda conn: conn.send("work"))
            client = self.client(server.url, heartbeat=Heartbeat(0.2, 0.3))
            done = threading.Event()

            def work(message: Any) -> None:
                time.sleep(1.5)
                done.set()

            client.on("message", work)
            recorder = Recorder(client)
            client.open(SOON)
            self.assertTrue(done.wait(SOON))
            self.assertIs(client.state, ClientState.OPEN)
            recorder.wait_for("heartbeat")
            self.assertEqual((ended, recorder.of("close")), ([], []))


class RunForeverTest(ClientTestCase):
    def test_it_opens_and_returns_after_close(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            client.on("open", lambda event: client.send("x"))
            client.on("message", lambda message: client.close())
            with self.within():
                client.run_forever()
            self.assertIs(client.state, ClientState.CLOSED)

    def test_it_returns_after_giving_up(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=Backoff.fixed(0.01, attempts=2))
        recorder = Recorder(client)
        with self.within():
            client.run_forever()
        self.assertEqual(recorder.names, ["reconnecting", "reconnecting", "gave_up"])

    def test_it_returns_when_another_thread_closes(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url).open(SOON)
            closer = threading.Timer(0.05, client.close)
            closer.start()
            with self.within():
                client.run_forever()
            closer.join()


class CloseTest(ClientTestCase):
    """close() wherever the client is: back in time, and nothing afterwards. Threads left are the ledger's business."""

    def assert_over(self, client: Client, recorder: Recorder, before: list[str]) -> None:
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertFalse(client._thread.is_alive())
        self.assertEqual(recorder.names, [*before, "close"])
        self.assertTrue(recorder.of("close")[-1].reason.by_us)
        self.assertFalse(recorder.of("close")[-1].reconnecting)
        for call in (lambda: client.send("x"), lambda: client.recv(1)):
            with self.assertRaises(ConnectionClosed):
                call()
        client.close()
        self.assertEqual(recorder.names, [*before, "close"])

    def test_idle(self) -> None:
        client = self.client("ws://a.test/")
        recorder = Recorder(client)
        client.close()
        self.assertIs(client.state, ClientState.CLOSED)
        with self.assertRaises(RuntimeError):
            client.open()
        self.assertEqual(recorder.names, [])

    def test_open(self) -> None:
        closes: list[Any] = []
        with serving(lambda conn: list(conn)) as server:
            server.on("close", lambda conn, reason: closes.append(reason))
            client = self.client(server.url, reconnect=0.01)
            recorder = Recorder(client)
            client.open(SOON)
            client.close(4000, "bye")
            wait_until(lambda: not server.connections)
        self.assert_over(client, recorder, ["open"])
        self.assertIn("4000", str(recorder.of("close")[0].reason))

    def test_a_code_that_must_not_be_sent_or_a_reason_too_long_is_an_error(self) -> None:
        with serving(echo) as server:
            wrong: tuple[tuple[Any, ...], ...] = ((1005,), (1006,), (999,), (5000,), (1000, "x" * 124))
            for arguments in wrong:
                client = self.client(server.url).open(SOON)
                with self.assertRaises(ValueError):
                    client.close(*arguments)

    def test_dialling(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            client.open(0)
            wait_until(lambda: server.accepted)
            with self.within():
                client.close(timeout=30)
            self.assert_over(client, recorder, [])
            self.assertEqual(server.accepted, 1)

    def test_in_name_resolution(self) -> None:
        asked, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def resolve(*args: Any) -> list[Any]:
            asked.set()
            release.wait(SOON * 2)
            return []

        with mock.patch("socket.getaddrinfo", resolve):
            client = self.client("ws://slow.test/", reconnect=0.01)
            recorder = Recorder(client)
            client.open(0)
            self.assertTrue(asked.wait(SOON))
            with self.within():
                client.close(timeout=30)
            self.assert_over(client, recorder, [])
            release.set()

    def test_in_backoff(self) -> None:
        clock = ManualClock()
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=10, clock=clock)
        recorder = Recorder(client)
        client.open(0)
        clock.wait_for_timer()
        with self.within():
            client.close(timeout=30)
        self.assertEqual(clock.pending, [])
        clock.advance(3600)
        self.assert_over(client, recorder, ["reconnecting"])

    def test_blocked_in_recv(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url, reconnect=0.01).open(SOON)
            outcome: list[Any] = []

            def receive() -> None:
                try:
                    client.recv()
                except ConnectionClosed as exc:
                    outcome.append(exc)

            reader = threading.Thread(target=receive)
            reader.start()
            wait_until(client._receive_lock.locked)
            with self.within():
                client.close()
            reader.join(SOON)
            self.assertEqual(len(outcome), 1)

    def test_blocked_in_send(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            release.wait(SOON * 2)

        release = threading.Event()
        with ScriptedServer(script, receive_buffer=4096) as server:
            client = self.client(server.url(), reconnect=0.01, send_timeout=60).open(SOON)
            outcome: list[Any] = []

            def send() -> None:
                try:
                    for _ in range(100):
                        client.send(bytes(1 << 20))
                except ConnectionClosed as exc:
                    outcome.append(exc)

            sender = threading.Thread(target=send)
            sender.start()
            wait_until(
                lambda: client._line.reading_channel and client._line.reading_channel.writer.queued[1],
                message="send never blocked",
            )
            with self.within():
                client.close(timeout=0.3)
            sender.join(SOON)
            self.assertEqual(len(outcome), 1)
            release.set()

    def test_a_server_that_never_answers_our_close(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            release.wait(SOON * 2)

        release = threading.Event()
        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            client.open(SOON)
            with self.within():
                client.close(timeout=1.0)
            self.assert_over(client, recorder, ["open"])
            release.set()

    def test_a_server_that_floods_and_never_answers_our_close(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            while True:
                wire.send(frame(2, bytes(1000)) * 100)

        with ScriptedServer(script) as server:
            client = self.client(server.url()).open(SOON)
            with self.within():
                client.close(timeout=0.3)

    def test_in_a_slow_function(self) -> None:
        release = threading.Event()
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=0.01)
            recorder = Recorder(client)
            got: list[Any] = []

            def work(message: Any) -> None:
                got.append(message)
                release.wait(SOON * 2)

            client.on("message", work)
            client.open(SOON)
            client.send("burst")
            wait_until(lambda: got)
            with self.within():
                client.close(timeout=0.2)
            release.set()
            wait_until(lambda: client.state is ClientState.CLOSED)
            wait_until(lambda: not client._thread.is_alive())
        self.assertEqual((got, recorder.names), (["m0"], ["open", "close"]))

    def test_by_many_threads_at_once(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            recorder = Recorder(client)
            client.open(SOON)
            threads = [threading.Thread(target=client.close) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
            self.assert_over(client, recorder, ["open"])

    def close_in(self, event: str, begin: Callable[[Client], object], **options: Any) -> list[str]:
        """The names of the events from the one on whose function calls close()."""
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), **{"reconnect": 0.01, **options})
            recorder = Recorder(client, messages=True)
            took: list[float] = []

            def close(what: Any) -> None:
                started = time.monotonic()
                client.close()
                took.append(time.monotonic() - started)

            client.on(event, close)
            client.open(0)
            begin(client)
            wait_until(lambda: client.state is ClientState.CLOSED, SOON * 2, f"closed in {event}")
            client._thread.join(SOON)
            self.assertLess(max(took), SOON)
            accepted = server.accepted
            names = recorder.names[recorder.names.index(event) :]
        self.assertEqual(server.accepted, accepted)
        return names

    def test_in_every_function(self) -> None:
        def fail(client: Client) -> None:
            client.on("message", lambda message: 1 / 0)
            client.send("burst")

        for event, begin, expected in (
            ("open", lambda client: None, ["open", "close"]),
            ("message", lambda client: client.send("burst"), ["message", "close"]),
            ("heartbeat", lambda client: None, ["heartbeat", "close"]),
            ("close", lambda client: client.send("drop"), ["close", "close"]),
            ("close", lambda client: client.send("close 1000"), ["close"]),
            ("reconnecting", lambda client: client.send("drop"), ["reconnecting", "close"]),
            ("reconnected", lambda client: client.send("drop"), ["reconnected", "close"]),
        ):
            with self.subTest(event):
                beat = Heartbeat(0.02, 1, kind="ping") if event == "heartbeat" else None
                self.assertEqual(self.close_in(event, begin, heartbeat=beat), expected)
        with self.subTest("error"), self.assertLogs("sync_ws.client", "ERROR"):
            self.assertEqual(self.close_in("error", fail), ["error", "close"])
        with self.subTest("gave_up"):
            client = self.client(f"ws://127.0.0.1:{free_port()}/")
            recorder = Recorder(client)
            client.on("gave_up", lambda event: client.close())
            with self.within():
                client.run_forever()
            self.assertEqual(recorder.names, ["gave_up"])

    def test_a_function_that_closes_and_then_raises_is_still_reported(self) -> None:
        def close(message: Any) -> None:
            client.close()
            raise ZeroDivisionError

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            recorder = Recorder(client)
            client.on("message", close)
            client.open(SOON)
            client.send("burst")
            with self.within():
                client.run_forever()
        self.assertEqual(recorder.names, ["open", "error", "close"])


class OfflineTest(ClientTestCase):
    def test_what_is_queued_goes_out_in_order_before_anything_else(self) -> None:
        got: list[Any] = []
        port = free_port()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=0.05)
        client.open(0)
        queued = [f"text {number}" if number % 2 else f"bytes {number}".encode() for number in range(64)]
        for message in queued:
            client.send(message)
        self.assertEqual(client.stats()["queued_messages"], 64)
        with sync_ws.Server("127.0.0.1", port, lambda conn: got.extend(itertools.islice(conn, 65))) as server:
            server.start()
            wait_until(lambda: client._line.sending_channel)
            client.send("last")
            wait_until(lambda: len(got) == 65)
            client.close()
        self.assertEqual(got, [*queued, "last"])

    def test_the_queue_is_bounded_in_messages_and_bytes_and_says_so(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
        recorder = Recorder(client)
        client.open(0)
        client.send(bytes(1 << 20))
        with self.assertRaises(QueueFull):
            client.send(b"x")
        self.assertEqual(client.stats()["queued_bytes"], 1 << 20)
        client.close()
        self.assertEqual(recorder.of("close")[0].undelivered, (bytes(1 << 20),))
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60).open(0)
        for _ in range(64):
            client.send("x")
        with self.assertRaisesRegex(QueueFull, "64 messages"):
            client.send("x")
        with self.assertRaises(TypeError):
            client.send(None)  # type: ignore[arg-type]

    def test_a_queued_message_is_a_copy(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
        recorder = Recorder(client)
        client.open(0)
        data = bytearray(b"abc")
        client.send(data)
        data[:] = b"xyz"
        client.close()
        self.assertEqual(recorder.of("close")[0].undelivered, (b"abc",))

    def test_raise_mode(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60, offline="raise")
        recorder = Recorder(client)
        client.open(0)
        with self.assertRaises(NotConnected):
            client.send("x")
        recorder.wait_for("reconnecting")
        with self.assertRaisesRegex(NotConnected, "refused"):
            client.send("x")

    def test_undelivered_messages_are_reported_when_it_gives_up(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=Backoff.fixed(0.05, attempts=1))
        recorder = Recorder(client)
        client.open(0)
        client.send("one")
        client.send(b"two")
        gave_up = recorder.wait_for("gave_up")
        self.assertEqual(gave_up.undelivered, ("one", b"two"))
        self.assertIn("refused", gave_up.reason.text)
        with self.assertRaises(ConnectionClosed):
            client.send("three")

    def test_nothing_is_taken_into_the_queue_once_the_last_event_is_on_its_way(self) -> None:
        with ScriptedServer(obey) as server:
            for code, last in ((1000, "close"), (1001, "gave_up")):
                with self.subTest(code):
                    client = self.client(server.url(), reconnect=Backoff(0.01, 0.01, attempts=1, stable=60))
                    raised: list[Exception] = []

                    def send(event: Closed, client: Client = client, raised: list[Exception] = raised) -> None:
                        if not event.reconnecting:
                            try:
                                client.send("lost?")
                            except ConnectionClosed as exc:
                                raised.append(exc)

                    client.on("close", send)
                    recorder = Recorder(client)
                    client.open(SOON)
                    if code == 1001:
                        client.send("close 1001")
                        recorder.wait_for("reconnected")
                        wait_until(partial(getattr, client._line, "sending_channel"))
                    client.send(f"close {code}")
                    recorder.wait_for(last)
                    self.assertEqual(len(raised), 1)

    def test_send_times_out_when_the_server_does_not_read_and_the_client_reconnects(self) -> None:
        release = threading.Event()

        def script(wire: Wire) -> None:
            wire.switch()
            if wire.number == 1:
                release.wait(SOON * 2)
            else:
                wire.wait_for_end()

        with ScriptedServer(script, receive_buffer=4096) as server:
            client = self.client(server.url(), reconnect=0.01, send_timeout=0.2, close_timeout=0.2)
            recorder = Recorder(client)
            client.open(SOON)
            with self.within(), self.assertRaises(SendTimeout):
                for _ in range(100):
                    client.send(bytes(1 << 20))
            self.assertEqual(recorder.wait_for("close").reason.code, 1013)
            recorder.wait_for("reconnected")
            release.set()


class HostileServerTest(ClientTestCase):
    """Frames that no server may send: closed with the right code, the right reason told, and no second attempt."""

    def test_violations_and_the_code_each_is_answered_with(self) -> None:
        close = b"\x88\x02\x03\xe8"
        for what, data, code in (
            ("masked frame", frame(1, b"hi", masked=True), 1002),
            ("masked control frame", frame(9, b"hi", masked=True), 1002),
            ("RSV1", frame(1, b"hi", rsv=0x40), 1002),
            ("RSV2", frame(1, b"hi", rsv=0x20), 1002),
            ("RSV3", frame(9, b"", rsv=0x10), 1002),
            ("opcode 3", frame(3, b""), 1002),
            ("opcode 11", frame(11, b""), 1002),
            ("long ping", frame(9, bytes(126)), 1002),
            ("long pong", frame(10, bytes(126)), 1002),
            ("long close", frame(8, bytes(126)), 1002),
            ("fragmented ping", frame(9, b"x", fin=False), 1002),
            ("continuation of nothing", frame(0, b"x"), 1002),
            ("message in a message", frame(1, b"x", fin=False) + frame(1, b"y"), 1002),
            ("length of 5 in 16 bits", frame(2, b"xxxxx", length=b"\x7e\x00\x05"), 1002),
            ("length of 5 in 64 bits", frame(2, b"xxxxx", length=b"\x7f" + bytes(7) + b"\x05"), 1002),
            ("length of 2**63", frame(2, length=b"\x7f\x80" + bytes(7)), 1002),
            ("length of 2**63 - 1", frame(2, length=b"\x7f\x7f" + b"\xff" * 7), 1009),
            ("length of 1 TiB", frame(2, length=b"\x7f\x00\x00\x01" + bytes(5)), 1009),
            ("fragments over the limit", frame(2, bytes(600), fin=False) + frame(0, bytes(600)), 1009),
            ("bad UTF-8", frame(1, b"\xff"), 1007),
            ("bad UTF-8 over two frames", frame(1, b"\xe2\x82", fin=False) + frame(0, b"\x28"), 1007),
            ("surrogate", frame(1, b"\xed\xa0\x80"), 1007),
            ("close of one byte", frame(8, b"\x03"), 1002),
            ("close code 1005", frame(8, b"\x03\xed"), 1002),
            ("close code 999", frame(8, b"\x03\xe7"), 1002),
            ("close reason not UTF-8", frame(8, b"\x03\xe8\xff"), 1007),
        ):
            answered: list[int] = []

            def script(wire: Wire, data: bytes = data, answered: list[int] = answered) -> None:
                wire.switch(then=frame(2, b"fine") + data + close)
                answered.append(wire.read_close())

            with self.subTest(what), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=0.01, max_message=1000)
                recorder = Recorder(client)
                client.open(SOON)
                self.assertEqual(client.recv(SOON), b"fine")
                with self.assertRaises(ConnectionClosed) as caught:
                    client.recv(SOON)
                event = recorder.wait_for("close")
                self.assertEqual((event.reason.code, event.reconnecting), (code, False), event.reason)
                self.assertEqual((caught.exception.sent or Close(0)).code, code)
                wait_until(partial(list, answered))
                self.assertEqual((answered, server.accepted), ([code], 1))

    def test_too_many_fragments(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(then=frame(1, b"", fin=False) + frame(0, b"", fin=False) * 5000)
            answered.append(wire.read_close())

        answered: list[int] = []
        with ScriptedServer(script) as server, self.client(server.url(), max_fragments=100) as client:
            self.assertEqual(list(client), [])
        self.assertEqual(answered, [1009])

    def test_a_bomb_of_deflate(self) -> None:
        import zlib

        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        bomb = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)[:-4]

        def script(wire: Wire) -> None:
            wire.switch(headers=("Sec-WebSocket-Extensions: permessage-deflate",))
            wire.send(frame(2, bomb, rsv=0x40))
            answered.append(wire.read_close())

        answered: list[int] = []
        with ScriptedServer(script) as server, self.client(server.url(), compression=True) as client, self.within():
            self.assertEqual(list(client), [])
        self.assertEqual(answered, [1009])

    def test_three_mebibytes_of_response_headers(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 101 X\r\nX: " + b"a" * (3 << 20) + b"\r\n\r\n")

        say = self.assertRaisesRegex(HandshakeError, "head of the response")
        with ScriptedServer(script) as server, self.within(), say:
            self.client(server.url()).open()


SCRIPT = """
import json, os, sys, threading, time
import sync_ws
url = sys.argv[1]
def say(text):
    print(text, flush=True)
"""


class ProcessTest(ClientTestCase):
    """What a signal, an exit or a fork does, in a process of its own."""

    def run_script(self, text: str, url: str, *, interrupt: bool = False) -> tuple[int, str]:
        """Exit code and output; interrupted by SIGINT once it has printed "ready". It has 2 s after that."""
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", SCRIPT + text, url],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        with process, contextlib.ExitStack() as undo:
            undo.callback(process.kill)
            self.assertEqual(process.stdout.readline(), "ready\n", "the script did not get so far")
            time.sleep(0.1 if interrupt else 0)  # not "and hope": at whatever point it is, the promise is the same
            started = time.monotonic()
            if interrupt:
                process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
            self.assertLess(time.monotonic() - started, 2.0 + 1.0)  # the promise, and a slow machine
        return process.returncode, output

    def interrupt(self, text: str, url: str) -> None:
        body = "".join(f"    {line}\n" for line in text.splitlines())
        script = f"try:\n{body}except KeyboardInterrupt:\n    say('interrupted ' + client.state.value)\n"
        script += "left = lambda: sorted(t.name for t in threading.enumerate() if 'sync_ws' in t.name)\n"
        script += "end = time.monotonic() + 1\nwhile left() and time.monotonic() < end: time.sleep(0.01)\nsay(left())"
        code, output = self.run_script(script, url, interrupt=True)
        self.assertEqual((code, output), (0, "interrupted closed\n[]\n"))

    def test_ctrl_c_in_recv(self) -> None:
        with serving(echo) as server:
            self.interrupt("with sync_ws.Client(url) as client:\n    say('ready')\n    client.recv()", server.url)

    def test_ctrl_c_in_open_and_in_backoff(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            self.interrupt("client = sync_ws.Client(url)\nsay('ready')\nclient.open()", server.url())
        url = f"ws://127.0.0.1:{free_port()}/"
        self.interrupt("client = sync_ws.Client(url, reconnect=60)\nsay('ready')\nclient.open()", url)

    def test_ctrl_c_in_run_forever(self) -> None:
        text = "client = sync_ws.Client(url)\nclient.on('open', lambda event: say('ready'))\nclient.run_forever()"
        with serving(echo) as server:
            self.interrupt(text, server.url)

    def test_exit_and_plain_return_with_timers_armed(self) -> None:
        with serving(echo) as server:
            for how, code in (("", 0), ("sys.exit(3)", 3), ("1 / 0", 1)):
                with self.subTest(how):
                    text = (
                        "client = sync_ws.Client(url).open()\n"
                        "other = sync_ws.Client('ws://127.0.0.1:9/', reconnect=60).open(0)\n"
                        "while other.state.value != 'waiting': time.sleep(0.01)\n"
                        f"say('ready')\n{how}"
                    )
                    got, output = self.run_script(text, server.url)
                    self.assertEqual((got, "Fatal" in output), (code, False), output)

    def test_after_fork_the_child_has_no_part_in_the_connection(self) -> None:
        text = """
client = sync_ws.Client(url, heartbeat=sync_ws.Heartbeat(0.05, 5)).open()
reader = threading.Thread(target=client.recv, daemon=True)
reader.start()
while not client._receive_lock.locked(): time.sleep(0.01)
say('ready')
sys.stdout.flush()
child = os.fork()
if child == 0:
    outcome = [client.state.value]
    for call in (lambda: client.recv(), lambda: client.send('from the child')):
        try:
            call()
        except sync_ws.ConnectionClosed as exc:
            outcome.append('parent' in str(exc))
    client.close()
    with sync_ws.Client(url) as own:  # and may have one of its own
        own.send('own')
        outcome.append(own.recv(5))
    say(json.dumps(outcome))
    os._exit(0)
say(os.waitpid(child, 0)[1])
client.send('from the parent')
reader.join(5)
say(client.state.value + ' ' + str(client.stats()['reconnects']))
client.close()
"""
        got: list[Any] = []

        def note(conn: Connection) -> None:
            for message in conn:
                got.append(message)
                conn.send(message)

        with serving(note) as server:
            code, output = self.run_script(text, server.url)
        self.assertEqual(code, 0, output)
        child, status, parent = output.splitlines()
        self.assertEqual(json.loads(child), ["closed", True, True, "own"])
        self.assertEqual((status, parent, got), ("0", "open 0", ["own", "from the parent"]))


class SocketTest(ClientTestCase):
    def test_a_socket_in_nonblocking_mode_by_default_timeout_changes_nothing(self) -> None:
        default = socket.getdefaulttimeout()
        self.addCleanup(socket.setdefaulttimeout, default)
        with serving(echo) as server:
            socket.setdefaulttimeout(0.05)
            client = self.client(server.url).open(SOON)
            socket.setdefaulttimeout(default)
            with self.assertRaises(TimeoutError):
                client.recv(0.15)
            client.send("x")
            self.assertEqual(client.recv(SOON), "x")


if __name__ == "__main__":
    unittest.main()
