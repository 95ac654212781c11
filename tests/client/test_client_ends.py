"""Which ends of a connection or an attempt lead to another attempt."""

from __future__ import annotations

import itertools
import socket
import threading
import unittest
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from sync_ws import Backoff, Client, ClientState, CloseCode, HandshakeError, Heartbeat, Reason
from sync_ws.testing import free_port, serving, wait_until
from tests.support.client_case import FINAL_CODES, SOON, ReconnectTestCase, echo, obey
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, refusing
from tests.support.wire import join


class WhichEndsTest(ReconnectTestCase):
    """Every end there is, as it comes over the wire."""

    def test_every_close_code_on_the_wire(self) -> None:
        codes = [code for code in (*range(1000, 1015), 3000, 4000, 4009, 4999) if CloseCode.may_be_sent(code)]
        for code in codes:

            def script(wire: Wire, code: int = code) -> None:
                wire.switch()
                wire.send_frame(8, code.to_bytes(2, "big"))
                wire.wait_for_end()

            with self.subTest(code), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                closed = recorder.wait_for("close")
                self.assertEqual(closed.reconnecting, code not in FINAL_CODES)
                self.assertEqual(closed.reason.code, code)
                self.assertFalse(closed.reason.by_us)
                if closed.reconnecting:
                    recorder.wait_for("reconnecting")
                else:
                    self.wait_for_state(client, ClientState.CLOSED)

    def test_ends_without_a_code(self) -> None:
        def empty_close(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8)
            wire.wait_for_end()

        def fin(wire: Wire) -> None:
            wire.switch()

        def reset(wire: Wire) -> None:
            wire.switch()
            wire.reset()

        for script, code in ((empty_close, 1005), (fin, 1006), (reset, 1006)):
            with self.subTest(script.__name__), ScriptedServer(script) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                self.assertEqual(recorder.wait_for("reconnecting").reason.code, code)

    def test_refusals(self) -> None:
        for status, again in (
            (404, False),
            (401, False),
            (302, False),
            (408, True),
            (425, True),
            (429, True),
            (500, True),
            (503, True),
        ):
            with self.subTest(status), ScriptedServer(refusing(f"{status} X")) as server:
                client = self.client(server.url(), reconnect=60)
                recorder = Recorder(client)
                client.open(0)
                event = recorder.wait_for("reconnecting" if again else "gave_up")
                self.assertEqual(event.reason.status, status)

    def test_the_decision_can_be_overridden_both_ways(self) -> None:
        asked: list[Reason] = []

        def twice(reason: Reason) -> bool:
            asked.append(reason)
            return len(asked) < 3

        def script(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8, b"\x03\xe8")
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=0.01, should_reconnect=twice)
            recorder = Recorder(client)
            client.run_forever()
        self.assertEqual([reason.code for reason in asked], [1000, 1000, 1000])
        self.assertEqual(recorder.names.count("open"), 3)

    def test_a_decision_that_raises_is_reported_and_the_default_decides(self) -> None:
        def fail(reason: Reason) -> bool:
            raise ZeroDivisionError

        with ScriptedServer(lambda wire: wire.answer("404 X")) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url(), reconnect=0.01, should_reconnect=fail)
            recorder = Recorder(client)
            client.run_forever()
        self.assertEqual(recorder.names, ["error", "gave_up"])

    def test_reconnect_none_means_never(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            client = self.client(server.url(), reconnect=None)
            recorder = Recorder(client)
            client.run_forever()
            self.assertEqual((recorder.names, server.accepted), (["open", "close", "gave_up"], 1))
            self.assertFalse(recorder.of("close")[0].reconnecting)

    def test_two_reconnecting_clients_of_one_name_do_not_fight(self) -> None:
        with serving(echo) as server:
            url = server.url + "?name=test"
            first = self.client(url, reconnect=0.01)
            loser = Recorder(first)
            first.open(SOON)
            second = self.client(url, reconnect=0.01)
            winner = Recorder(second)
            second.open(SOON)
            closed = loser.wait_for("close")
            self.assertEqual((closed.reason.code, closed.reconnecting), (4009, False))
            wait_until(lambda: first.state is ClientState.CLOSED)
            second.send("mine")
            self.assertEqual(second.recv(SOON), "mine")
            self.assertEqual(list(server.clients), ["test"])
            server.send_to("test", "yours")
            self.assertEqual(second.recv(SOON), "yours")
            self.assertEqual((loser.names, winner.names), (["open", "close", "gave_up"], ["open"]))


class ToldTest(ReconnectTestCase):
    """Every end for good: by an event, by what run_forever() returns, and by what the client says of itself."""

    def ended(self, url: str, **options: Any) -> tuple[Client, Recorder]:
        client = self.client(url, **options)
        recorder = Recorder(client)
        with self.within():
            self.assertIs(client.run_forever(), client.reason)
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertFalse(client.connected)
        return client, recorder

    def test_each_final_code_is_told_by_close_and_then_gave_up(self) -> None:
        for code in FINAL_CODES:

            def script(wire: Wire, code: int = code) -> None:
                wire.switch()
                wire.send_frame(8, code.to_bytes(2, "big") + b"as it is")
                wire.wait_for_end()

            with self.subTest(code), ScriptedServer(script) as server:
                client, recorder = self.ended(server.url(), reconnect=60)
                self.assertEqual(recorder.names, ["open", "close", "gave_up"])
                (closed,), (gave_up,) = recorder.of("close"), recorder.of("gave_up")
                self.assertFalse(closed.reconnecting)
                self.assertIs(closed.reason, gave_up.reason)
                self.assertIs(client.reason, gave_up.reason)
                assert client.reason is not None
                self.assertEqual((client.reason.code, client.reason.by_us), (code, False))
                self.assertIn("as it is", str(client.reason))

    def test_a_lost_connection_that_is_not_to_be_replaced(self) -> None:
        for options in ({"reconnect": None}, {"reconnect": 60, "should_reconnect": lambda reason: False}):
            with self.subTest(options), ScriptedServer(Wire.switch) as server:
                _, recorder = self.ended(server.url(), **options)
                self.assertEqual(recorder.names, ["open", "close", "gave_up"])
                self.assertEqual(recorder.of("gave_up")[0].reason.code, 1006)

    def test_attempts_that_are_used_up_after_a_connection(self) -> None:
        def script(wire: Wire) -> None:
            if wire.number > 1:
                wire.answer("503 X")
            else:
                wire.switch()

        with ScriptedServer(script) as server:
            client, recorder = self.ended(server.url(), reconnect=Backoff.fixed(0.01, attempts=2))
        expected = ["open", "close", "reconnecting", "reconnecting", "gave_up"]
        self.assertEqual(recorder.names, expected)
        assert client.reason is not None
        self.assertEqual(client.reason.status, 503)

    def test_what_was_queued_is_in_the_last_event(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            wire.read_frame()
            wire.send_frame(8, b"\x03\xe8")
            wire.wait_for_end()

        def queue(event: Any) -> None:
            client.send("go")

        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=60)
            recorder = Recorder(client)
            client.on("open", queue)
            client._line.begin()
            client.send("one")
            client.send("two")
            client._thread.start()
            client.run_forever()
        self.assertEqual(recorder.of("close")[0].undelivered, ())
        left = recorder.of("gave_up")[0].undelivered
        self.assertEqual(left, ("one", "two")[2 - len(left) :])  # the kernel may have taken them

    def test_our_own_end_has_close_as_its_last_event(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=60)
            recorder = Recorder(client)
            client.open(SOON)
            results: list[Reason] = []
            waiting = threading.Thread(target=lambda: results.append(client.run_forever()))
            waiting.start()
            client.close(4000, "done")
            waiting.join(SOON)
        self.assertEqual(recorder.names, ["open", "close"])
        self.assertEqual(results, [client.reason])
        self.assertTrue(results[0].by_us)
        self.assertTrue(results[0])
        self.assertIn("4000 done", str(results[0]))

    def test_close_in_the_function_that_is_told_of_a_final_end_changes_nothing(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=60)
            recorder = Recorder(client)
            client.on("open", lambda event: client.send("close 1008"))
            client.on("close", lambda event: client.close())
            reason = client.run_forever()
        self.assertEqual((recorder.names, reason.code), (["open", "close", "gave_up"], 1008))

    def test_run_forever_of_a_client_that_is_over_or_never_was(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=None)
        self.assertIn("Connection refused", str(client.run_forever()))
        self.assertIs(client.run_forever(), client.reason)
        client = self.client("ws://a.test/")
        client.close()
        self.assertTrue(client.run_forever().by_us)

    def test_run_forever_in_an_event_function_would_wait_for_itself(self) -> None:
        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            recorder = Recorder(client)
            client.on("open", lambda event: client.run_forever())
            client.open(0)
            self.assertIsInstance(recorder.wait_for("error").exception, RuntimeError)
            client.close()


class SaysTest(ReconnectTestCase):
    """What a client says of itself, at any time and from any thread."""

    def test_the_reason_is_the_last_trouble_while_it_goes_on(self) -> None:
        def script(wire: Wire) -> None:
            if wire.number == 1:
                wire.answer("503 X")
            else:
                obey(wire)

        with ScriptedServer(script) as server:
            client = self.client(server.url(), reconnect=0.01)
            seen: list[tuple[Any, bool]] = []
            client.on("open", lambda event: seen.append((client.reason, client.connected)))
            client.on("close", lambda event: seen.append((client.reason, client.connected)))
            self.assertEqual((client.reason, client.connected), (None, False))
            client.open(SOON)
            self.assertTrue(client.connected)
            client.send("close 1001")
            wait_until(lambda: len(seen) == 3)
            client.close()
        (refused, first), (gone, second), *_ = seen
        self.assertEqual((refused.status, first), (503, True))
        self.assertEqual((gone.code, second), (1001, False))
        self.assertFalse(client.connected)

    def test_the_address_is_the_one_that_was_given(self) -> None:
        url = "ws://user:hunter2@a.test/ws/?token=s3cret"
        self.assertEqual(Client(url).url, url)
        self.assertNotIn("s3cret", repr(Client(url)))

    def test_with_a_function_it_is_the_one_of_the_last_attempt(self) -> None:
        numbers = itertools.count(1)
        with ScriptedServer(refusing("503 X")) as server:
            client = self.client(lambda: server.url(f"/{next(numbers)}"), reconnect=Backoff.fixed(0.01, attempts=2))
            self.assertIsNone(client.url)
            client.run_forever()
            self.assertEqual(client.url, server.url("/3"))


class FirstConnectionTest(ReconnectTestCase):
    """What cannot be right is not waited for: open() raises it."""

    def resolving(self, *errors: int) -> mock._patch[Any]:
        """Name resolution fails so, one after the other, the last for ever."""
        numbers = itertools.chain(errors, itertools.repeat(errors[-1]))
        return mock.patch("socket.getaddrinfo", side_effect=lambda *args: self.gai(next(numbers)))

    def gai(self, number: int) -> None:
        raise socket.gaierror(number, "Name or service not known")

    def test_a_name_that_does_not_exist(self) -> None:
        for number in {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}:
            with self.subTest(number), self.resolving(number), self.within():
                client = self.client("ws://misspelt.test/", reconnect=60)
                recorder = Recorder(client)
                with self.assertRaisesRegex(HandshakeError, "misspelt.test"):
                    client.open()
                self.assertEqual((recorder.names, client.state), (["gave_up"], ClientState.CLOSED))
                self.assertIn("misspelt.test", str(client.reason))

    def test_in_a_with_statement_too(self) -> None:
        client = self.client("ws://misspelt.test/")
        with self.resolving(socket.EAI_NONAME), self.within(), self.assertRaises(HandshakeError), client:
            self.fail("opened")

    def goes_on(self, begin: Callable[[Client], object], *errors: int, **options: Any) -> None:
        with self.resolving(*errors):
            client = self.client("ws://a.test/", **{"reconnect": 0.01, **options})
            thread = threading.Thread(target=begin, args=(client,))
            thread.start()
            wait_until(lambda: client.stats()["attempts_failed"] > 2)
            client.close()
            join(thread)

    def test_who_does_not_wait_or_has_a_bound_goes_on_trying(self) -> None:
        self.goes_on(lambda client: client.open(0), socket.EAI_NONAME)
        self.goes_on(Client.run_forever, socket.EAI_NONAME)
        self.goes_on(lambda client: self.assertRaises(HandshakeError, client.open, 60), socket.EAI_NONAME)

    def test_a_machine_that_starts_before_its_network(self) -> None:
        self.goes_on(lambda client: self.assertRaises(HandshakeError, client.open), socket.EAI_AGAIN)
        self.goes_on(lambda client: self.assertRaises(HandshakeError, client.open), socket.EAI_AGAIN, socket.EAI_NONAME)

    def test_a_decision_of_the_applications_own_counts_for_more(self) -> None:
        self.goes_on(
            lambda client: self.assertRaises(HandshakeError, client.open),
            socket.EAI_NONAME,
            should_reconnect=lambda reason: True,
        )

    def test_a_name_that_existed_before_is_waited_for(self) -> None:
        with serving(echo) as server:
            port = server.port
            found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]
            answers: Iterator[Any] = itertools.chain([found], itertools.repeat(socket.EAI_NONAME))

            def resolve(*args: Any) -> Any:
                answer = next(answers)
                return answer if isinstance(answer, list) else self.gai(answer)

            with mock.patch("socket.getaddrinfo", resolve):
                client = self.client(f"ws://a.test:{port}/ws/", reconnect=0.01)
                client.open()
                client.send("x")
                client.recv(SOON)
                for connection in server.connections:
                    connection.close(1012)
                wait_until(lambda: client.stats()["attempts_failed"] > 2)
                client.close()


class Bye(BaseException):
    """What is no Exception."""


class EndedByAFunctionTest(ReconnectTestCase):
    """SystemExit, KeyboardInterrupt and the like, raised by a function: the client ends, and says so."""

    def assert_ended(self, client: Client, recorder: Recorder, error: type[BaseException]) -> None:
        with self.within():
            reason = client.run_forever()
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertIs(reason, client.reason)
        self.assertIsInstance(reason.error, error)
        self.assertIn(error.__name__, str(reason))
        self.assertTrue(reason.by_us)
        self.assertEqual(recorder.names[-1], "gave_up")
        self.assertIs(recorder.of("gave_up")[0].reason, reason)

    def run_into(self, event: str, error: type[BaseException], **options: Any) -> tuple[Client, Recorder]:
        def fail(what: Any) -> None:
            raise error("on purpose")

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR") as logs:
            client = self.client(server.url(), **{"reconnect": 0.01, **options})
            recorder = Recorder(client, messages=event == "message")
            client.on(event, fail)
            if event in ("close", "reconnecting", "reconnected"):
                client.on("open", lambda what: client.send("drop"))
            elif event == "message":
                client.on("open", lambda what: client.send("burst"))
            elif event == "error":
                client.on("open", lambda what: 1 / 0)
            client.open(0)
            self.assert_ended(client, recorder, error)
        self.assertTrue(any("in fail" in line and error.__name__ in line for line in logs.output), logs.output)
        return client, recorder

    def test_in_every_function(self) -> None:
        for event, error in itertools.product(
            ("open", "message", "close", "reconnecting", "reconnected", "heartbeat", "error"),
            (SystemExit, KeyboardInterrupt, Bye),
        ):
            with self.subTest(event, error=error):
                beat = Heartbeat(0.02, SOON, kind="ping") if event == "heartbeat" else None
                client, recorder = self.run_into(event, error, heartbeat=beat)
                if event in ("open", "message", "reconnected", "heartbeat", "error"):
                    self.assertEqual(recorder.names[-2:], ["close", "gave_up"])
                    closed = recorder.of("close")[-1]
                    self.assertIs(closed.reason, client.reason)
                    self.assertFalse(closed.reconnecting)
                    if event != "reconnected":  # there the server may be gone already
                        self.assertEqual(closed.reason.code, 1001)
                self.assertLessEqual(recorder.names.count("message"), 1)

    def test_in_the_last_function(self) -> None:
        def fail(event: Any) -> None:
            raise SystemExit

        with ScriptedServer(refusing("404 X")) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            client.on("gave_up", fail)
            self.assertEqual(client.run_forever().status, 404)

    def test_in_the_functions_among_the_options(self) -> None:
        def fail(*args: Any) -> Any:
            raise SystemExit(3)

        with ScriptedServer(refusing("503 X")) as server:
            for options in ({"url": fail}, {"headers": fail}, {"should_reconnect": fail}):
                with self.subTest(list(options)), self.assertLogs("sync_ws.client", "ERROR"):
                    client = self.client(**{"url": server.url(), **options})
                    recorder = Recorder(client)
                    client.open(0)
                    self.assert_ended(client, recorder, SystemExit)
                    self.assertEqual(recorder.names, ["gave_up"])

    def test_in_the_heartbeats_function(self) -> None:
        def fail() -> Any:
            raise SystemExit(3)

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url(), heartbeat=Heartbeat(0.02, SOON, message=fail))
            recorder = Recorder(client)
            client.open(SOON)
            self.assert_ended(client, recorder, SystemExit)
        self.assertEqual(recorder.names, ["open", "close", "gave_up"])

    def test_in_the_heartbeats_answer_whoever_of_the_library_reads(self) -> None:
        """The client's own thread, or the housekeeper while a function is at work."""
        release, threads = threading.Event(), list[str]()
        self.addCleanup(release.set)

        def fail(message: Any) -> Any:
            if message != "again":
                return False
            threads.append(threading.current_thread().name)
            raise SystemExit(3)

        def work(message: Any) -> None:
            if message == "work":
                client.send("again")
                release.wait(SOON)

        for at_work, reader in ((False, "sync_ws-client"), (True, "sync_ws-client-housekeeper")):
            with self.subTest(reader), serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR"):
                release.clear()
                beat = Heartbeat(60, SOON, message="tick", answer=fail)
                client = self.client(server.url, heartbeat=beat)
                recorder = Recorder(client)
                client.on("message", work)
                client.open(SOON)
                client.send("work" if at_work else "again")
                teller = client._thread._teller
                wait_until(lambda: teller.ended_by is not None)  # noqa: B023
                housekeeper = teller._housekeeper
                self.assertTrue(not at_work or (housekeeper is not None and housekeeper.thread.is_alive()))
                release.set()
                self.assert_ended(client, recorder, SystemExit)
                self.assertEqual((recorder.names, threads.pop()), (["open", "close", "gave_up"], reader))

    def test_in_the_heartbeats_answer_it_reaches_an_application_that_reads(self) -> None:
        def fail(message: Any) -> Any:
            raise KeyboardInterrupt

        with serving(echo) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url, heartbeat=Heartbeat(60, SOON, message="tick", answer=fail)).open(SOON)
            recorder = Recorder(client)
            channel = client._line.reading_channel
            assert channel is not None
            with channel.receiver.lock:  # it is this thread that reads
                client.send("x")
                with self.assertRaises(KeyboardInterrupt):
                    client.recv(SOON)
            self.assert_ended(client, recorder, KeyboardInterrupt)

    def test_the_server_is_told_that_we_go_away(self) -> None:
        codes: list[int] = []

        def script(wire: Wire) -> None:
            wire.switch()
            codes.append(wire.read_close())
            wire.send_frame(8, b"\x03\xe9")

        def fail(event: Any) -> None:
            raise SystemExit

        with ScriptedServer(script) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            client.on("open", fail)
            client.run_forever()
        self.assertEqual(codes, [1001])

    def test_after_close_it_is_still_our_own_end(self) -> None:
        def close(event: Any) -> None:
            client.close()
            raise SystemExit

        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR"):
            client = self.client(server.url())
            recorder = Recorder(client)
            client.on("open", close)
            client.open(0)
            reason = client.run_forever()
        self.assertEqual((recorder.names, reason.by_us), (["open", "close"], True))


if __name__ == "__main__":
    unittest.main()
