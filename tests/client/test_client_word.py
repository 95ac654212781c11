"""``reconnect()``: the application's own word for another connection, in every state and from every place."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any

from sync_ws import Backoff, Client, ClientState, ConnectionClosed, Heartbeat, NotConnected, Server
from sync_ws.client.events import Closed
from sync_ws.testing import ManualClock, free_port, serving, wait_until
from tests.support.client_case import SOON, ReconnectTestCase, echo, obey
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire, refusing
from tests.support.wire import join


class WordTest(ReconnectTestCase):
    def opened(self, url: Any, *, messages: bool = False, **options: Any) -> tuple[Client, Recorder]:
        client = self.client(url, **{"reconnect": 60, **options})
        recorder = Recorder(client, messages=messages)
        return client.open(SOON), recorder

    # -- in each state --------------------------------------------------------------------------------------------

    def test_before_open_and_after_the_end(self) -> None:
        client = self.client("ws://a.test/")
        with self.assertRaisesRegex(NotConnected, "not been opened"):
            client.reconnect()
        client.close()
        with self.assertRaises(ConnectionClosed):
            client.reconnect()
        with ScriptedServer(obey) as server:
            client, recorder = self.opened(server.url())
            client.send("close 1000")
            recorder.wait_for("close")
            with self.assertRaisesRegex(ConnectionClosed, "as told"):
                client.reconnect()

    def test_what_must_not_be_sent_is_refused_and_drops_nothing(self) -> None:
        with ScriptedServer(obey) as server:
            client, recorder = self.opened(server.url())
            for code, reason in ((1005, ""), (999, ""), (1000, "x" * 124)):
                with self.subTest(code), self.assertRaises(ValueError):
                    client.reconnect(code, reason)
            self.assertEqual((client.state, recorder.names), (ClientState.OPEN, ["open"]))

    def test_without_a_connection_it_is_refused_too(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60).open(0)
        self.wait_for_state(client, ClientState.WAITING)
        wrong: tuple[tuple[type[Exception], Any], ...] = ((ValueError, 1005), (TypeError, "1000"), (TypeError, True))
        for error, code in wrong:
            with self.subTest(code), self.assertRaises(error):
                client.reconnect(code)
        self.assertEqual((client.state, client.stats()["attempts_failed"]), (ClientState.WAITING, 1))

    def test_while_open_it_says_goodbye_and_is_back_without_a_delay(self) -> None:
        for messages in (False, True):
            closes: list[tuple[int, bytes]] = []

            def script(wire: Wire, closes: list[tuple[int, bytes]] = closes) -> None:
                wire.switch()
                _, payload = wire.read_frame()
                closes.append((int.from_bytes(payload[:2], "big"), payload[2:]))
                wire.send_frame(8, payload)

            with self.subTest(messages=messages), ScriptedServer(script) as server, self.within():
                client, recorder = self.opened(server.url(), messages=messages)
                client.reconnect(4001, "a new token")
                recorder.wait_for("reconnected")
                self.assertEqual(recorder.names, ["open", "close", "reconnecting", "open", "reconnected"])
                closed, coming = recorder.of("close")[0], recorder.of("reconnecting")[0]
                self.assertTrue(closed.reconnecting)
                self.assertEqual(str(closed.reason), "reconnect() was called: closed by us: 4001 a new token")
                self.assertTrue(closed.reason.by_us)
                self.assertEqual((coming.attempt, coming.delay, coming.reason), (1, 0.0, closed.reason))
                self.assertEqual(client.stats()["attempts_failed"], 0)
                client.close()
                wait_until(partial(lambda closes: len(closes) == 2, closes))
                self.assertEqual(closes[0], (4001, b"a new token"))

    def test_nobody_is_asked_and_no_policy_is_needed(self) -> None:
        cases: tuple[dict[str, Any], ...] = (
            {"reconnect": None}, {"should_reconnect": lambda reason: False}, {"reconnect": Backoff(60, 60)},
        )  # fmt: skip
        for options in cases:
            with self.subTest(options), serving(echo) as server:
                client, recorder = self.opened(server.url, **options)
                client.reconnect()
                recorder.wait_for("reconnected")
                client.send("still there")
                self.assertEqual(client.recv(SOON), "still there")

    def test_a_server_that_does_not_answer_holds_it_up_for_its_timeout(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            wire.wait_for_end()

        for messages in (False, True):
            with self.subTest(messages=messages), ScriptedServer(script) as server:
                client, recorder = self.opened(server.url(), messages=messages)
                with self.within(2.0):
                    client.reconnect(timeout=0.1)
                recorder.wait_for("reconnected")
                self.assertIn("reconnect() was called", str(recorder.of("close")[0].reason))

    def test_while_waiting_it_waits_no_longer(self) -> None:
        clock = ManualClock()
        port = free_port()
        client = self.client(f"ws://127.0.0.1:{port}/ws/", reconnect=3600, clock=clock)
        recorder = Recorder(client)
        client.open(0)
        self.wait_for_timers(clock, 3600)
        with Server("127.0.0.1", port, echo).start():
            client.reconnect()
            recorder.wait_for("open")
            self.assertEqual((recorder.names, clock.pending), (["reconnecting", "open"], []))
            client.close()

    def test_an_attempt_that_is_under_way_is_given_up_for_a_new_one(self) -> None:
        came, tokens = threading.Event(), itertools.count(1)
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.read_request()
            seen.append(wire.header("X-Token"))
            came.set()
            if wire.number > 1:
                wire.switch()
            wire.wait_for_end()

        with ScriptedServer(script) as server, self.within():
            headers = lambda: {"X-Token": str(next(tokens))}  # noqa: E731
            client = self.client(server.url(), reconnect=60, headers=headers)
            recorder = Recorder(client)
            client.open(0)
            self.assertTrue(came.wait(SOON))
            client.reconnect()
            recorder.wait_for("open")
            self.assertEqual((seen, recorder.names), (["1", "2"], ["reconnecting", "open"]))
            self.assertEqual(str(recorder.of("reconnecting")[0].reason), "reconnect() was called")
            self.assertEqual(client.stats()["attempts_failed"], 0)

    def test_an_attempt_that_fails_afterwards_is_the_first_of_a_row(self) -> None:
        clock = ManualClock()
        with ScriptedServer(lambda wire: obey(wire) if wire.number == 1 else refusing("503 Busy")(wire)) as server:
            client, recorder = self.opened(server.url(), reconnect=Backoff(10, 60, jitter=False), clock=clock)
            client.reconnect()
            self.wait_for_timers(clock, 20)
            events = [(event.attempt, event.delay) for event in recorder.of("reconnecting")]
            self.assertEqual(events, [(1, 0.0), (2, 20.0)])

    def test_without_a_policy_an_attempt_that_fails_afterwards_is_the_last(self) -> None:
        with ScriptedServer(lambda wire: obey(wire) if wire.number == 1 else refusing("503 Busy")(wire)) as server:
            client, recorder = self.opened(server.url(), reconnect=None)
            client.reconnect()
            self.assertEqual(recorder.wait_for("gave_up").reason.status, 503)

    # -- from each place ------------------------------------------------------------------------------------------

    def test_from_the_functions_of_each_event(self) -> None:
        for event in ("message", "open", "reconnected", "heartbeat", "close", "reconnecting"):
            once, clients = itertools.count(), list[Client]()

            def again(what: Any, once: Any = once, clients: list[Client] = clients) -> None:
                if next(once) == 0:
                    clients[0].reconnect(4000, "from a function")

            with self.subTest(event), ScriptedServer(obey) as server, self.within():
                beat = Heartbeat(0.02, 2, kind="ping") if event == "heartbeat" else None
                client = self.client(server.url(), reconnect=0.01, heartbeat=beat)
                clients.append(client)
                client.on(event, again)
                recorder = Recorder(client)
                client.open(SOON)
                if event == "message":
                    client.send("burst")
                elif event in ("close", "reconnecting", "reconnected"):
                    client.send("drop")
                recorder.wait_for("reconnected", 2 if event == "reconnected" else 1)
                self.assertGreater(next(once), 0)
                client.close()

    def test_messages_that_came_before_it_are_told(self) -> None:
        got: list[Any] = []
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), reconnect=60)
            recorder = Recorder(client)

            def message(text: Any) -> None:
                got.append(text)
                if text == "m0":
                    client.reconnect()

            client.on("message", message)
            client.open(SOON)
            client.send("burst")
            recorder.wait_for("reconnected")
        self.assertEqual(got, ["m0", "m1", "m2"])

    def test_from_another_thread_while_one_is_in_recv(self) -> None:
        got: list[Any] = []
        with serving(echo) as server, self.within():
            client, recorder = self.opened(server.url)
            thread = threading.Thread(target=lambda: got.append(client.recv(SOON)))
            thread.start()
            wait_until(lambda: client._inbox.receiving)
            client.reconnect()
            recorder.wait_for("reconnected")
            client.send("over the next one")
            join(thread)
        self.assertEqual(got, ["over the next one"])

    def test_from_many_threads_at_once_it_comes_to_rest_open(self) -> None:
        with serving(echo) as server:
            client, recorder = self.opened(server.url)

            def insist() -> None:
                for _ in range(5):
                    client.reconnect()

            threads = [threading.Thread(target=insist) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                join(thread)
            client.send("after all")
            self.assertEqual(client.recv(SOON), "after all")
            self.assertEqual(recorder.of("gave_up"), [])

    def test_from_a_signal_handler(self) -> None:
        with serving(echo) as server:
            client, recorder = self.opened(server.url)
            before = signal.signal(signal.SIGUSR1, lambda number, frame: client.reconnect())
            self.addCleanup(signal.signal, signal.SIGUSR1, before)
            places: tuple[Callable[[], object], ...] = (lambda: time.sleep(0.1), client.stats, lambda: client.send("x"))
            for number, place in enumerate(places, 1):
                os.kill(os.getpid(), signal.SIGUSR1)
                place()
                recorder.wait_for("reconnected", number)
            self.assertIs(client.state, ClientState.OPEN)

    def test_from_a_signal_handler_that_interrupted_recv(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            if wire.number == 1:
                wire.wait_for_end()  # no answer to the Close frame either
            else:
                wire.send_frame(1, b"over the next one")
                wire.wait_for_end()

        for timeout in (None, SOON):
            with self.subTest(timeout), ScriptedServer(script) as server, self.within():
                client, recorder = self.opened(server.url(), close_timeout=0.1)

                def handler(number: int, frame: Any, client: Client = client) -> None:
                    client.reconnect()

                before = signal.signal(signal.SIGALRM, handler)
                self.addCleanup(signal.signal, signal.SIGALRM, before)
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                self.assertEqual(client.recv(timeout), "over the next one")
                self.assertTrue(recorder.of("close")[0].reconnecting)
                client.close()

    # -- what stays -----------------------------------------------------------------------------------------------

    def test_what_is_queued_stays_queued_and_what_is_sent_meanwhile_goes_out_in_order(self) -> None:
        got: list[str] = []
        there = threading.Event()

        def script(wire: Wire) -> None:
            wire.switch()
            if wire.number == 1:
                wire.read_close()
                there.wait(SOON)  # the closing handshake takes its time
                return
            while (frame := wire.read_frame())[0] == 1:
                got.append(frame[1].decode())

        with ScriptedServer(script) as server:
            client, recorder = self.opened(server.url())
            thread = threading.Thread(target=client.reconnect)
            thread.start()
            # until its Close frame is out: what is sent before that goes out before it
            wait_until(lambda: (channel := client._line.sending_channel) is None or not channel.writer.open)
            for number in range(5):
                client.send(str(number))
            there.set()
            join(thread)
            recorder.wait_for("reconnected")
            client.send("5")
            wait_until(lambda: len(got) == 6)
        self.assertEqual(got, list("012345"))

    def test_close_afterwards_ends_it(self) -> None:
        closes: list[Closed] = []
        with ScriptedServer(obey) as server:
            client, recorder = self.opened(server.url())
            client.reconnect()
            client.close()
            wait_until(lambda: client.state is ClientState.CLOSED)
            closes = recorder.of("close")
        self.assertFalse(closes[-1].reconnecting)
        self.assertEqual([event.reconnecting for event in closes].count(False), 1)


if __name__ == "__main__":
    unittest.main()
