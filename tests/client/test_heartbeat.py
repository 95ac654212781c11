"""The heartbeat monitor, on a clock advanced by hand: when it asks, when it gives up, and what never stops it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws.client import heartbeat
from sync_ws.client.heartbeat import Heartbeat, HeartbeatMonitor
from sync_ws.headers import Headers
from sync_ws.messages import Message, Opcode
from sync_ws.protocol.intercepts import HEART_BEAT
from sync_ws.testing import LedgerTestCase, ManualClock, wait_until
from sync_ws.timing import SYSTEM_CLOCK
from tests.support.interrupt import Interrupt
from tests.support.wire import join

MESSAGE = Heartbeat(30, 3, "message")


class Policy(LedgerTestCase):
    def test_the_times_are_those_of_the_article_and_the_kind_is_the_servers(self) -> None:
        self.assertEqual(Heartbeat(), Heartbeat(interval=30, timeout=3, kind="auto"))

    def test_what_cannot_be_meant_is_refused(self) -> None:
        bad: list[dict[str, Any]] = [
            {"interval": 0}, {"interval": -1}, {"interval": math.inf}, {"timeout": 0}, {"timeout": math.nan},
            {"kind": "pong"}, {"kind": ""}, {"answer": "pong"}, {"message": "ping", "kind": "ping"},
            {"message": "\ud800"}, {"message": "ping", "answer": "x" * 1024}, {"message": "ping", "answer": "\ud800"},
        ]  # fmt: skip
        for arguments in bad:
            with self.subTest(arguments), self.assertRaises(ValueError):
                Heartbeat(**arguments)
        wrong: list[dict[str, Any]] = [
            {"interval": "30"}, {"timeout": None}, {"message": 5}, {"message": {"op": "ping"}},
            {"message": "ping", "answer": 5}, {"message": "ping", "answer": True},
        ]  # fmt: skip
        for arguments in wrong:
            with self.subTest(arguments), self.assertRaises(TypeError):
                Heartbeat(**arguments)

    def test_a_policy_is_frozen(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            Heartbeat().interval = 1  # type: ignore[misc]


class Meaning(LedgerTestCase):
    """What a policy means for one server."""

    def test_what_a_heartbeat_argument_means(self) -> None:
        own = Heartbeat(5, 1, "ping")
        self.assertEqual((Heartbeat.of(None), Heartbeat.of(own), Heartbeat.of(20)), (None, own, Heartbeat(20)))
        self.assertEqual(Heartbeat.of(0.5), Heartbeat(interval=0.5))
        for value in (0, -1, math.inf, math.nan):
            with self.subTest(value), self.assertRaisesRegex(ValueError, "heartbeat .* above zero"):
                Heartbeat.of(value)
        for wrong in ("30", True, [30]):
            with self.subTest(wrong), self.assertRaisesRegex(TypeError, "sync_ws.Heartbeat, a number of seconds"):
                Heartbeat.of(wrong)  # type: ignore[arg-type]

    def test_our_message_is_for_those_who_say_that_they_answer_it(self) -> None:
        for value, kind in (("heart_beat", "message"), ("acks, heart_beat", "message"), ("heart_beats", "ping")):
            headers = Headers([("sync-ws", value)])
            with self.subTest(value):
                self.assertEqual(Heartbeat(9, 2).towards(headers), Heartbeat(9, 2, kind))
                for told in ("message", "ping"):
                    self.assertEqual(Heartbeat(kind=told).towards(headers).kind, told)
        self.assertEqual(Heartbeat().towards(Headers([("Server", "sync_ws")])).kind, "ping")
        self.assertEqual(Heartbeat(kind="message").towards(Headers()).kind, "message")
        self.assertEqual(Heartbeat(message="ping").towards(Headers()).kind, "message")

    def test_nothing_is_taken_out_that_was_not_asked_for(self) -> None:
        for policy in (Heartbeat(kind="ping"), Heartbeat(message="ping"), Heartbeat(message=lambda: "ping")):
            self.assertIsNone(policy.intercept(self.fail))
        self.assertIs(Heartbeat(kind="message").intercept(self.fail), HEART_BEAT)

    def recognised(self, answer: Any, *messages: Message) -> list[bool]:
        intercept = Heartbeat(message="ping", answer=answer).intercept(self.fail)
        assert intercept is not None
        texts = [message if isinstance(message, str) else message.decode("utf-8", "replace") for message in messages]
        given = messages if intercept.verbatim else texts
        return [intercept.mark in text and intercept.recognise(message) for text, message in zip(texts, given)]

    def test_an_answer_is_the_whole_message(self) -> None:
        self.assertEqual(self.recognised("pong", "pong", b"pong", "pong ", "", "ping pong"), [True, True, *[False] * 3])
        self.assertEqual(self.recognised("", "", b"", "x"), [True, True, False])
        self.assertEqual(self.recognised(b"pong", b"pong", "pong", b"xpong"), [True, False, False])
        self.assertEqual(self.recognised(b"\xff\x00", b"\xff\x00", b"\xfe\x00", "\ufffd\0"), [True, False, False])

    def test_a_function_is_given_the_message_as_it_came(self) -> None:
        answers: list[Message] = ["pong", b"\xff"]
        self.assertEqual(self.recognised(lambda message: message in answers, *answers, b"pong"), [True, True, False])
        self.assertEqual(self.recognised(lambda message: "truth", "x"), [True])

    def test_what_it_raises_is_told_and_the_message_is_the_applications(self) -> None:
        raised: list[BaseException] = []
        intercept = Heartbeat(message="ping", answer=lambda message: json.loads(message)).intercept(raised.append)
        assert intercept is not None
        self.assertEqual([intercept.recognise("no JSON"), intercept.recognise("1"), len(raised)], [False, True, 1])
        intercept = Heartbeat(message="ping", answer=lambda message: sys.exit(3)).intercept(raised.append)
        assert intercept is not None
        self.assertEqual([intercept.recognise("x"), str(raised[1:])], [False, "[SystemExit(3)]"])


class MonitorTestCase(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock = ManualClock()
        self.sent: list[tuple[float, bytes]] = []
        self.opcodes: list[int] = []
        self.raised: list[BaseException] = []
        self.dead: list[tuple[float, str]] = []
        self.bytes = 0
        self.unread = 0
        self.crowded = False
        self.on_send: Callable[[bytes], None] = lambda payload: None
        self.on_dead: Callable[[], None] = lambda: None

    def make(self, policy: Heartbeat = MESSAGE) -> HeartbeatMonitor:
        begin = self.clock.monotonic()

        def send(opcode: int, payload: bytes) -> None:
            self.opcodes.append(opcode)
            self.sent.append((self.clock.monotonic() - begin, payload))
            self.on_send(payload)

        def dead(text: str) -> None:
            self.dead.append((self.clock.monotonic() - begin, text))
            self.on_dead()

        self.monitor = HeartbeatMonitor(
            policy,
            self.clock,
            send=send,
            received=lambda: self.bytes,
            unread=lambda: self.unread,
            crowded=lambda: self.crowded,
            on_dead=dead,
            raised=self.raised.append,
        )
        self.addCleanup(self.monitor.stop)
        return self.monitor

    def started(self, policy: Heartbeat = MESSAGE) -> HeartbeatMonitor:
        monitor = self.make(policy)
        monitor.start()
        return monitor

    def answer(self, payload: bytes) -> None:
        """As if the peer sent it back at once."""
        self.bytes += 10
        self.monitor.answered(payload)

    def arrive(self, payload: bytes) -> None:
        """As if it did, and nobody read it."""
        self.unread += 10

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.sent]


class Beating(MonitorTestCase):
    def test_one_that_was_stopped_before_it_was_started_stays_so(self) -> None:
        monitor = self.make()
        monitor.stop()
        monitor.start()
        self.assertEqual(self.clock.pending, [])

    def test_it_can_be_stopped_by_a_signal_handler_that_interrupted_it_at_any_instruction(self) -> None:
        for number in itertools.count(1):
            monitor = self.started()
            self.clock.advance(30)
            (_, payload) = self.sent[-1]
            with Interrupt(heartbeat, number, monitor.stop) as interrupt:
                monitor.answered(payload)
            if not interrupt.came:
                break
            self.assertEqual(self.clock.pending, [])
        self.assertGreater(number, 10)

    def test_it_asks_at_every_interval_while_answers_come(self) -> None:
        self.on_send = self.answer
        self.started()
        self.clock.advance(29.9)
        self.assertEqual(self.sent, [])
        self.clock.advance(90.2)
        self.assertEqual((self.times, self.dead), ([30, 60, 90, 120], []))

    def test_one_timer_is_armed_at_a_time(self) -> None:
        self.on_send = self.answer
        self.started()
        for _ in range(40):
            self.assertEqual(len(self.clock.pending), 1)
            self.clock.advance(7)

    def test_six_hours_without_a_gap_or_a_leak(self) -> None:
        self.on_send = self.answer
        self.started()
        self.clock.advance(6 * 3600)
        self.assertEqual((self.times, len(self.clock.pending)), ([30 * n for n in range(1, 721)], 1))

    def test_no_answer_within_the_timeout_is_death_told_once(self) -> None:
        monitor = self.started()
        self.clock.advance(32.9)
        self.assertEqual(self.dead, [])
        self.clock.advance(1000)
        [(at, text)] = self.dead
        self.assertEqual((at, self.times), (33, [30]))
        self.assertEqual(text, "no answer to a heartbeat within 3 s (a message)")
        self.assertEqual(self.clock.pending, [])
        monitor.revive()
        self.assertEqual((self.clock.pending, monitor.lost), ([], False))

    def test_of_a_ping_it_says_so(self) -> None:
        self.started(Heartbeat(30, 3, "ping"))
        self.clock.advance(33)
        self.assertEqual(self.dead, [(33, "no answer to a heartbeat within 3 s (a Ping)")])

    def test_the_first_interval_begins_with_the_start(self) -> None:
        self.on_send = self.answer
        monitor = self.make()
        self.clock.advance(20)
        monitor.start()
        self.clock.advance(60)
        self.assertEqual((self.times, self.dead), ([50, 80], []))

    def test_any_byte_is_an_answer(self) -> None:
        self.started()
        self.clock.advance(31)
        self.bytes += 1
        self.clock.advance(60)
        self.assertEqual((self.times, [at for at, _ in self.dead]), ([30, 60], [63]))

    def test_bytes_before_the_question_are_none(self) -> None:
        self.started()
        self.clock.advance(29)
        self.bytes += 1
        self.clock.advance(5)
        self.assertEqual(len(self.dead), 1)

    def test_unread_bytes_are_proof_of_life_when_they_arrive(self) -> None:
        self.on_send = self.arrive
        self.started()
        self.clock.advance(600)
        self.assertEqual((len(self.sent), self.dead), (20, []))
        self.on_send = lambda payload: None
        self.clock.advance(33)
        self.assertEqual(len(self.dead), 1)

    def test_where_there_is_no_room_for_an_answer_it_takes_ten_times_as_long(self) -> None:
        self.crowded = True
        self.started()
        self.clock.advance(30 + 329)
        self.assertEqual(self.dead, [])
        self.clock.advance(2)
        self.assertEqual([at for at, _ in self.dead], [360])

    def test_a_timeout_longer_than_the_interval(self) -> None:
        self.on_send = self.answer
        self.started(Heartbeat(interval=2, timeout=5))
        self.clock.advance(20)
        self.assertEqual((self.times, self.dead), ([2, 7, 12, 17], []))

    def test_a_second_start_does_not_leave_two_timers_beating(self) -> None:
        self.on_send = self.answer
        monitor = self.started()
        self.clock.advance(10)
        monitor.start()
        self.clock.advance(60)
        self.assertEqual(self.times, [40, 70])


class Payloads(MonitorTestCase):
    def test_a_message_is_the_envelope_of_the_article_with_the_time(self) -> None:
        self.on_send = self.answer
        self.started()
        self.clock.advance(60)
        for _, payload in self.sent:
            value = json.loads(payload)
            self.assertEqual(value["ModeCode"], "heart_beat")
            self.assertRegex(value["msg"], r"^\d{4}-\d\d-\d\dT")

    def test_one_of_the_applications_own_goes_out_as_it_is(self) -> None:
        numbers = itertools.count(1)
        expected: list[tuple[Any, int, list[bytes]]] = [
            ("ping", Opcode.TEXT, [b"ping", b"ping"]), (b"\xff", Opcode.BINARY, [b"\xff", b"\xff"]),
            (lambda: f"ping {next(numbers)}", Opcode.TEXT, [b"ping 1", b"ping 2"]),
        ]  # fmt: skip
        for message, opcode, payloads in expected:
            with self.subTest(payloads):
                self.sent.clear()
                self.opcodes.clear()
                self.on_send = self.answer
                monitor = self.started(Heartbeat(30, 3, "message", message=message))
                self.clock.advance(60)
                self.assertEqual([payload for _, payload in self.sent], payloads)
                self.assertEqual(self.opcodes, [opcode, opcode])
                monitor.stop()

    def test_an_answer_that_does_not_say_to_what_is_that_to_the_last_one(self) -> None:
        monitor = self.started(Heartbeat(30, 3, "message", message="ping", answer="pong"))
        self.assertIsNone(monitor.answered(None))
        self.clock.advance(30.5)
        self.assertAlmostEqual(monitor.answered(None) or 0, 0.5)
        self.assertIsNone(monitor.answered(None))

    def test_where_the_function_fails_a_ping_goes_out(self) -> None:
        wrong: list[Any] = [lambda: 1 / 0, lambda: None, lambda: 5, lambda: "\ud800"]
        for function in wrong:
            self.sent.clear()
            self.opcodes.clear()
            self.raised.clear()
            monitor = self.started(Heartbeat(30, 3, "message", message=function))
            self.clock.advance(30)
            self.assertEqual((self.opcodes, len(self.raised)), ([Opcode.PING], 1))
            self.assertIsNotNone(monitor.answered(self.sent[0][1]))
            monitor.stop()

    def test_the_time_that_the_function_takes_is_not_the_peers(self) -> None:
        def message() -> str:
            self.clock._now += 10  # as if it had taken so long
            return "ping"

        monitor = self.started(Heartbeat(30, 3, "message", message=message))
        self.clock.advance(41)
        self.assertEqual(self.clock.pending, [2])
        self.assertEqual((monitor.answered(None), self.dead), (1.0, []))
        self.clock.advance(2)
        self.assertEqual([at for at, _ in self.dead], [43])

    def test_nor_is_it_where_an_answer_has_no_room(self) -> None:
        def message() -> str:
            self.clock._now += 10
            return "ping"

        self.crowded = True
        self.started(Heartbeat(30, 3, "message", message=message))
        self.clock.advance(40 + 329)
        self.assertEqual(self.dead, [])
        self.clock.advance(2)
        self.assertEqual([at for at, _ in self.dead], [370])

    def test_one_that_was_stopped_while_the_function_took_its_time_sends_nothing(self) -> None:
        def message() -> str:
            self.monitor.stop()
            return "ping"

        self.started(Heartbeat(30, 3, "message", message=message))
        self.clock.advance(100)
        self.assertEqual((self.sent, self.clock.pending, self.dead), ([], [], []))

    def test_the_function_is_called_once_for_each_and_under_no_lock(self) -> None:
        held: list[bool] = []

        def message() -> str:
            held.append(self.monitor._lock._is_owned())  # type: ignore[attr-defined]
            return "ping"

        self.on_send = self.answer
        self.started(Heartbeat(30, 3, "message", message=message))
        self.clock.advance(95)
        self.assertEqual((held, len(self.sent)), ([False] * 3, 3))

    def test_each_ping_has_a_payload_of_its_own_that_fits_a_control_frame(self) -> None:
        self.on_send = self.answer
        self.started(Heartbeat(30, 3, kind="ping"))
        self.clock.advance(90)
        payloads = [payload for _, payload in self.sent]
        self.assertEqual((self.opcodes, len(set(payloads))), ([Opcode.PING] * 3, 3))
        self.assertTrue(all(len(payload) <= 125 for payload in payloads))

    def test_the_round_trip_time_is_that_of_the_answer_to_the_last_one(self) -> None:
        monitor = self.started(Heartbeat(30, 3, kind="ping"))
        self.clock.advance(30)
        self.assertIsNone(monitor.rtt)
        self.clock.advance(0.25)
        self.assertIsNone(monitor.answered(b"something else"))
        self.assertAlmostEqual(monitor.answered(self.sent[-1][1]) or 0, 0.25)
        self.assertIsNone(monitor.answered(self.sent[-1][1]))  # the same again
        self.assertAlmostEqual(monitor.rtt or 0, 0.25)

    def test_an_answer_to_an_older_one_has_no_round_trip_time(self) -> None:
        self.on_send = self.arrive
        monitor = self.started(Heartbeat(30, 3, kind="ping"))
        self.clock.advance(60)
        (_, old), (_, new) = self.sent
        self.assertIsNone(monitor.answered(old))
        self.assertIsNotNone(monitor.answered(new))

    def test_before_anything_was_sent_nothing_can_be_answered(self) -> None:
        self.assertIsNone(self.started().answered(b""))


class Late(MonitorTestCase):
    def test_after_the_process_was_stopped_the_peer_gets_a_fresh_timeout(self) -> None:
        self.started()
        self.clock.advance(31)
        self.clock.suspend(60)  # SIGSTOP, a closed lid: the answer may be on its way still
        self.assertEqual(self.dead, [])
        self.clock.advance(2.9)
        self.assertEqual(self.dead, [])
        self.clock.advance(0.2)
        self.assertEqual(len(self.dead), 1)

    def test_what_the_process_computed_before_makes_no_difference(self) -> None:
        with mock.patch.object(time, "process_time", return_value=1000.0):
            self.started()
            self.clock.advance(31)
            self.clock.suspend(60)
            self.assertEqual(self.dead, [])

    def test_time_that_the_process_computed_is_none_that_it_was_stopped(self) -> None:
        with mock.patch.object(time, "process_time", return_value=1000.0) as computed:
            self.started()
            self.clock.advance(31)
            computed.return_value += 60
            self.clock.suspend(60)
            self.assertEqual(len(self.dead), 1)

    def test_an_answer_that_came_meanwhile_counts(self) -> None:
        self.started()
        self.clock.advance(31)
        self.bytes += 1
        self.clock.suspend(3600)
        self.clock.advance(29)
        self.assertEqual((len(self.sent), self.dead), (2, []))

    def test_a_late_question_is_asked_once(self) -> None:
        self.on_send = self.answer
        self.started()
        self.clock.suspend(3600)
        self.assertEqual(len(self.sent), 1)
        self.clock.advance(30)
        self.assertEqual(len(self.sent), 2)


class Lost(MonitorTestCase):
    def test_what_was_not_started_is_not_lost(self) -> None:
        monitor = self.make()
        monitor.revive()
        self.assertEqual((monitor.lost, self.clock.pending), (False, []))

    def test_it_is_lost_too_on_a_machine_that_was_switched_on_just_now(self) -> None:
        self.clock = ManualClock(0.0)
        self.clock.fail_timers(1)
        self.assertTrue(self.started(Heartbeat(0.5, 0.1, "ping")).lost)

    def test_a_start_without_a_thread_is_made_good_by_revive(self) -> None:
        self.on_send = self.answer
        monitor = self.make()
        self.clock.fail_timers(1)
        monitor.start()
        self.assertTrue(monitor.lost)
        self.clock.advance(10)
        monitor.revive()
        self.assertEqual((monitor.lost, self.clock.pending), (False, [20.0]))
        self.clock.advance(50)
        self.assertEqual(self.times, [30, 60])

    def test_revive_of_what_is_overdue_asks_at_once(self) -> None:
        self.on_send = self.answer
        monitor = self.make()
        self.clock.fail_timers(1)
        monitor.start()
        self.clock.advance(100)
        monitor.revive()
        self.clock.advance(0)
        self.assertEqual(self.times, [100])

    def test_revive_does_nothing_while_a_timer_is_armed(self) -> None:
        monitor = self.started()
        for _ in range(3):
            monitor.revive()
        self.assertEqual(self.clock.pending, [30.0])

    @mock.patch("sync_ws.client.heartbeat.RETRY", 0.02)
    def test_a_timer_lost_while_asking_is_armed_again_from_the_thread_that_is_there(self) -> None:
        for failures in (1, 2):
            with self.subTest(failures):
                self.sent.clear()
                self.started()
                self.clock.advance(29)
                self.clock.fail_timers(failures)
                waited = mock.patch.object(self.monitor._stopped, "wait", wraps=self.monitor._stopped.wait)
                with self.assertLogs("sync_ws.client", "WARNING") as logs, waited as wait:
                    self.clock.advance(2)
                self.assertEqual(wait.call_args_list, [mock.call(0.02)] * failures, "between two attempts it rests")
                self.assertEqual((len(self.sent), len(logs.records), len(self.clock.pending)), (1, 1, 1))
                self.clock.advance(3)
                self.assertEqual(len(self.dead), 1)
                self.dead.clear()

    def test_stop_ends_the_wait_for_a_thread(self) -> None:
        monitor = self.started()
        self.clock.fail_timers(10**9)
        advancing = threading.Thread(target=lambda: self.clock.advance(30))
        with self.assertLogs("sync_ws.client", "WARNING"):
            advancing.start()
            wait_until(lambda: monitor.lost)
            monitor.stop()
            join(advancing)
        self.assertFalse(monitor.lost)
        self.clock.fail_timers(0)
        monitor.revive()
        self.assertEqual(self.clock.pending, [])


class Stopping(MonitorTestCase):
    def test_nothing_is_sent_or_reported_afterwards(self) -> None:
        for before in (0, 29, 30, 31):
            self.sent.clear()
            monitor = self.started()
            self.clock.advance(before)
            count = len(self.sent)
            monitor.stop()
            monitor.stop()
            monitor.revive()
            self.assertEqual(self.clock.pending, [])
            self.clock.advance(1000)
            self.assertEqual((len(self.sent), self.dead), (count, []))

    def test_before_the_start_it_is_harmless(self) -> None:
        self.make().stop()

    def test_whoever_interrupted_it_in_its_own_thread_can_tell(self) -> None:
        monitor, seen = self.make(), list[bool]()

        def look() -> None:
            seen.append(monitor.held_here)

        look()
        with monitor._lock:
            look()
            other = threading.Thread(target=look)
            other.start()
            join(other)
        self.assertEqual(seen, [False, True, False])

    def test_during_a_send_it_returns_at_once_and_nothing_follows(self) -> None:
        sending, go_on = threading.Event(), threading.Event()

        def block(payload: bytes) -> None:
            sending.set()
            go_on.wait(5)

        self.on_send = block
        monitor = self.started()
        advancing = threading.Thread(target=lambda: self.clock.advance(30))
        advancing.start()
        self.assertTrue(sending.wait(5))
        stopping = threading.Thread(target=monitor.stop)
        stopping.start()
        join(stopping)
        self.assertTrue(advancing.is_alive())
        go_on.set()
        join(advancing)
        self.assertEqual(self.clock.pending, [])
        self.clock.advance(1000)
        self.assertEqual((len(self.sent), self.dead), (1, []))

    def test_a_timer_that_runs_already_does_nothing_any_more(self) -> None:
        monitor = self.started()
        with monitor._lock:  # the timer's function waits for it, and stop() comes first
            running = threading.Thread(target=lambda: monitor._fire(monitor._generation - 1))
            running.start()
        join(running)
        stale = monitor._generation
        monitor.stop()
        monitor._fire(stale)
        self.assertEqual((self.sent, self.dead, self.clock.pending), ([], [], []))

    def test_from_within_the_report_of_death_or_a_send(self) -> None:
        monitor = self.started()
        self.on_dead = monitor.stop
        self.clock.advance(100)
        self.assertEqual(len(self.dead), 1)
        monitor = self.started()
        self.on_send = lambda payload: monitor.stop()
        self.clock.advance(100)
        self.assertEqual((len(self.dead), self.clock.pending), (1, []))

    def test_from_a_handler_that_interrupted_it_the_timer_is_not_cancelled_twice_at_once(self) -> None:
        monitor = self.make()
        monitor.start()
        timer = monitor._timer
        assert timer is not None
        under_way: list[bool] = []

        def cancel() -> None:
            self.assertEqual(under_way, [], "threading.Timer would wait for itself")
            under_way.append(True)
            monitor.stop()  # as a signal's handler may

        with mock.patch.object(timer, "cancel", cancel):
            monitor.stop()
        self.assertEqual(under_way, [True])
        timer.cancel()

    def test_on_the_system_clock_it_leaves_no_thread(self) -> None:
        sent: list[bytes] = []
        monitor = HeartbeatMonitor(
            Heartbeat(0.01, 30, "ping"), SYSTEM_CLOCK, send=lambda opcode, payload: sent.append(payload),
            received=lambda: 0, unread=lambda: 0, on_dead=self.fail, raised=lambda exc: None,
        )  # fmt: skip
        monitor.start()
        wait_until(lambda: sent)
        monitor.stop()  # and the ledger looks for its timer
