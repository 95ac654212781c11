"""The client's heartbeat over a connection: answered, unanswered, and on a machine that runs out of threads."""

from __future__ import annotations

import itertools
import time
import unittest
from typing import Any
from unittest import mock

from sync_ws import ClientState, Heartbeat, ModeCode, encode
from sync_ws.client.heartbeat import HeartbeatMonitor
from sync_ws.client.state import ClientState as State
from sync_ws.testing import ManualClock, serving, wait_until
from tests.support.client_case import SOON, ReconnectTestCase, echo, silent
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire


class HeartbeatTest(ReconnectTestCase):
    def test_both_kinds_are_answered_and_the_round_trip_is_measured(self) -> None:
        for kind in ("message", "ping"):
            for style in ("recv", "callback"):
                with self.subTest(kind=kind, style=style), serving(echo) as server:
                    clock = ManualClock()
                    client = self.client(server.url, heartbeat=Heartbeat(30, 3, kind=kind), reconnect=None, clock=clock)
                    recorder = Recorder(client, messages=style == "callback")
                    client.open(SOON)
                    self.assertEqual(clock.pending, [30])
                    for beat in (1, 2, 3):
                        clock.advance(30 if beat == 1 else 27)
                        recorder.wait_for("heartbeat", beat)
                        clock.advance(3)
                        self.assertEqual(clock.pending, [27])
                    self.assertEqual(client.stats()["rtt"], 0.0)  # the clock stood still meanwhile
                    self.assertEqual(recorder.names, ["open", *["heartbeat"] * 3])
                    client.close()
                    self.assertEqual(clock.pending, [])

    def test_the_application_sees_no_heartbeat_among_its_messages(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url, heartbeat=Heartbeat(0.02, 2)).open(SOON)
            wait_until(lambda: client.stats()["rtt"])
            client.send("mine")
            self.assertEqual(client.recv(SOON), "mine")

    def test_to_a_server_of_ours_it_is_a_message_and_to_others_a_ping(self) -> None:
        heard: list[Any] = []
        with serving(echo) as server:
            server.on("heartbeat", lambda conn, text: heard.append(text))
            clock = ManualClock()
            recorder = Recorder(self.client(server.url, heartbeat=Heartbeat(30, 3), clock=clock).open(SOON))
            for beat in (1, 2):
                clock.advance(30)
                recorder.wait_for("heartbeat", beat)
        self.assertGreaterEqual(len(heard), 2)

        def script(wire: Wire) -> None:
            wire.switch()
            while True:
                opcode, payload = wire.read_frame()
                heard.append(opcode)
                wire.send_frame(8 if opcode == 8 else 10, payload)

        heard.clear()
        with ScriptedServer(script) as foreign:
            client = self.client(foreign.url(), heartbeat=0.1)  # a number of seconds
            recorder = Recorder(client)
            client.open(SOON)
            recorder.wait_for("heartbeat")
            client.close()
        self.assertEqual(set(heard), {9, 8})

    def test_what_was_not_asked_for_is_the_applications(self) -> None:
        for beat in (None, Heartbeat(kind="ping"), Heartbeat(message="ping", answer="pong")):
            with self.subTest(beat), serving(echo) as server:
                client = self.client(server.url, heartbeat=beat).open(SOON)
                text = encode(ModeCode.HEART_BEAT, 1)
                client.send(text)
                self.assertEqual(client.recv(SOON), text)
                client.close()

    def test_an_answer_of_the_applications_own_is_measured_and_not_delivered(self) -> None:
        answers: tuple[Any, ...] = ("pong", lambda message: message == "pong")
        for answer, style in itertools.product(answers, ("recv", "callback", "nobody")):

            def script(wire: Wire) -> None:
                wire.switch()
                while (frame := wire.read_frame())[0] == 1:
                    wire.send_frame(1, b"pong" if frame[1] == b"ping" else frame[1])

            with self.subTest(answer=answer, style=style), ScriptedServer(script) as server:
                beat, clock = Heartbeat(30, 3, message="ping", answer=answer), ManualClock()
                client = self.client(server.url(), heartbeat=beat, reconnect=None, clock=clock)
                recorder = Recorder(client, messages=style == "callback")
                client.open(SOON)
                for number in range(1, 21 if style == "nobody" else 3):  # more than may wait unread
                    clock.advance(30)
                    recorder.wait_for("heartbeat", number)
                self.assertIsNotNone(client.stats()["rtt"])
                client.send("mine")
                if style == "callback":
                    self.assertEqual(recorder.wait_for("message"), "mine")
                else:
                    self.assertEqual(client.recv(SOON), "mine")
                client.close()

    def test_without_a_test_for_the_answer_any_byte_will_do_and_all_is_the_applications(self) -> None:
        with serving(echo) as server:
            clock = ManualClock()
            client = self.client(server.url, heartbeat=Heartbeat(30, 3, message="tick"), reconnect=None, clock=clock)
            client.open(SOON)
            for _ in range(2):
                clock.advance(30)
                self.assertEqual(client.recv(SOON), "tick")
            self.assertIsNone(client.stats()["rtt"])

    def test_functions_that_raise_are_told_of_and_end_nothing(self) -> None:
        def fail(*args: Any) -> Any:
            raise ValueError("on purpose")

        cases: tuple[dict[str, Any], ...] = ({"message": fail}, {"message": "tick", "answer": fail})
        for functions, style in itertools.product(cases, ("recv", "callback")):
            with self.subTest(functions, style=style), serving(echo) as server:
                beat, clock = Heartbeat(30, 3, **functions), ManualClock()
                client = self.client(server.url, heartbeat=beat, reconnect=None, clock=clock)
                recorder = Recorder(client, messages=style == "callback")
                with self.assertLogs("sync_ws.client", "ERROR"):
                    client.open(SOON)
                    clock.advance(30)
                    recorder.wait_for("error")
                    if "answer" not in functions:  # its answer raised, so there was one
                        recorder.wait_for("heartbeat")
                    clock.advance(30)
                    self.assertIn("on purpose", str(recorder.wait_for("error", 2).exception))
                    client.send("mine")
                    got = recorder.of("message") if style == "callback" else []
                    while "mine" not in got:
                        got = recorder.of("message") if style == "callback" else [client.recv(SOON)]
                self.assertIs(client.state, ClientState.OPEN)
                client.close()

    def test_no_answer_gives_the_connection_up_at_once_and_reconnects(self) -> None:
        for kind, style in itertools.product(("message", "ping"), ("recv", "callback")):
            with self.subTest(kind=kind, style=style), ScriptedServer(silent) as server:
                clock = ManualClock()
                client = self.client(server.url(), heartbeat=Heartbeat(30, 3, kind=kind), reconnect=10, clock=clock)
                recorder = Recorder(client, messages=style == "callback")
                client.open(SOON)
                clock.advance(30)
                self.assertEqual(recorder.of("close"), [])
                clock.advance(3)
                closed = recorder.wait_for("close")
                self.assertEqual((closed.reason.code, closed.reconnecting), (1006, True))
                self.assertIn("no answer to a heartbeat within 3 s", str(closed.reason))
                recorder.wait_for("reconnecting")
                self.wait_for_timers(clock, 10)
                clock.advance(10)
                recorder.wait_for("reconnected")
                self.assertEqual(clock.pending, [30])

    def test_any_byte_counts_as_an_answer_and_so_do_unread_ones(self) -> None:
        answered: list[int] = []

        def script(wire: Wire) -> None:
            wire.switch()
            while wire.read_frame()[0] != 8:
                for _ in range(40):  # more than are taken while nobody reads
                    wire.send_frame(1, b"news")
                answered.append(1)

        with ScriptedServer(script) as server:
            clock = ManualClock()
            client = self.client(server.url(), heartbeat=Heartbeat(30, 3), reconnect=None, clock=clock).open(SOON)
            clock.advance(30)
            for _ in range(3):
                wait_until(lambda: answered)
                answered.clear()
                clock.advance(3)
                self.assertIs(client.state, ClientState.OPEN)
                clock.advance(27)

    def test_a_wall_clock_that_jumps_changes_nothing(self) -> None:
        real = time.time
        with serving(echo) as server:
            client = self.client(server.url, heartbeat=Heartbeat(0.1, 0.3), reconnect=None)
            recorder = Recorder(client)
            client.open(SOON)
            for step in (3600.0, -3600.0, 0.0):
                with mock.patch("time.time", lambda step=step: real() + step):
                    recorder.wait_for("heartbeat", len(recorder.of("heartbeat")) + 1)
            self.assertEqual(recorder.of("close"), [])

    def test_a_process_that_was_stopped_for_a_minute_declares_nobody_dead(self) -> None:
        with ScriptedServer(silent) as server:
            clock = ManualClock()
            client = self.client(server.url(), heartbeat=Heartbeat(30, 3), reconnect=None, clock=clock)
            recorder = Recorder(client)
            client.open(SOON)
            clock.advance(30)
            clock.suspend(60)  # the answer cannot have been waited for
            self.assertEqual((client.state, clock.pending), (State.OPEN, [3]))
            clock.advance(3)  # now it has been
            recorder.wait_for("close")

    @mock.patch("sync_ws.client.heartbeat.RETRY", 0.02)
    @mock.patch("sync_ws.client.thread.TICK", 0.02)
    def test_a_timer_that_cannot_be_had_ends_no_heartbeats(self) -> None:
        for style, when in itertools.product(("recv", "callback"), ("start", "waiting", "interval")):
            with self.subTest(style=style, when=when), serving(echo) as server:
                clock = ManualClock()
                client = self.client(server.url, heartbeat=Heartbeat(30, 3), reconnect=None, clock=clock)
                recorder = Recorder(client, messages=style == "callback")
                if when == "start":
                    clock.fail_timers(2)
                with self.assertLogs("sync_ws.client", "WARNING"):
                    client.open(SOON)
                    self.wait_for_timers(clock, 30)
                    if when == "waiting":
                        clock.fail_timers(2)
                    clock.advance(30)
                    recorder.wait_for("heartbeat")
                    if when == "interval":
                        clock.fail_timers(2)
                    self.wait_for_timers(clock, 3)
                    clock.advance(3)
                    self.wait_for_timers(clock, 27)
                clock.advance(27)
                recorder.wait_for("heartbeat", 2)

    @mock.patch("sync_ws.client.heartbeat.RETRY", 0.02)
    def test_a_dead_server_is_noticed_although_a_timer_was_lost(self) -> None:
        with ScriptedServer(silent) as server:
            clock = ManualClock()
            client = self.client(server.url(), heartbeat=Heartbeat(30, 3), reconnect=None, clock=clock)
            recorder = Recorder(client, messages=True)
            client.open(SOON)
            clock.fail_timers(2)
            with self.assertLogs("sync_ws.client", "WARNING") as logs:
                clock.advance(30)
            self.assertEqual(len(logs.records), 1)
            self.wait_for_timers(clock, 3)
            clock.advance(3)
            recorder.wait_for("close")

    def test_a_timer_of_an_earlier_generation_does_nothing(self) -> None:
        clock = ManualClock()
        calls: list[str] = []
        monitor = HeartbeatMonitor(
            Heartbeat(30, 3, "ping"), clock, send=lambda opcode, payload: calls.append("send"), received=lambda: 0,
            unread=lambda: 0, on_dead=lambda text: calls.append("dead"), raised=lambda exc: calls.append("raised"),
        )  # fmt: skip
        monitor.start()
        stale = clock._timers[0].function
        monitor.stop()
        stale()
        monitor.revive()
        clock.advance(100)
        self.assertEqual((calls, clock.pending), ([], []))

    def test_options_out_of_bounds(self) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"interval": 0}, {"timeout": -1}, {"interval": float("inf")}, {"kind": "carrier pigeon"},
        )  # fmt: skip
        for options in wrong:
            with self.subTest(options), self.assertRaises(ValueError):
                Heartbeat(**options)
        with self.assertRaises(TypeError):
            Heartbeat(interval="30")  # type: ignore[arg-type]


if __name__ == "__main__":
    unittest.main()
