"""The client over one connection: talking, opening, running until it is over, and no secret that shows."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import unittest
from typing import Any
from unittest import mock

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
    MessageError,
    NotConnected,
)
from sync_ws.testing import free_port, serving, wait_until
from tests.support.client_case import SOON, ClientTestCase, echo, obey
from tests.support.proxies import ConnectProxy
from tests.support.recorder import Recorder, sender
from tests.support.scripted import ScriptedServer, Wire, frame, refusing


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
            for wrong in (None, 5, {"a": 1}, [1]):
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
            wait_until(lambda: client._inbox.receiving)
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

    def test_the_client_is_closed_when_open_raises_though_it_is_being_told_so(self) -> None:
        client, told = self.client(f"ws://127.0.0.1:{free_port()}/"), list[ClientState]()

        def dawdle(event: object) -> None:
            threading.Event().wait(0.1)
            told.append(client.state)

        client.on("gave_up", dawdle)
        with self.assertRaises(HandshakeError):
            client.open()
        self.assertEqual((client.state, told), (ClientState.CLOSED, [ClientState.CLOSING]))

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
            url = server.url("/ws/?token=s3cret-query").replace("//", "//user:s3cret-password@", 1)
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

    def test_repr_shows_no_secret(self) -> None:
        text = repr(Client("ws://user:hunter2@a.test/ws/?token=s3cret", headers={"Authorization": "Bearer s3cret"}))
        self.assertEqual(text, "<Client of ws://a.test:80/ws/, idle>")


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
