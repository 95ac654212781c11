"""The client's thread with a connection: what it sends, tells and looks after while it is open, and how it parts."""

from __future__ import annotations

import json
import threading
import unittest
from typing import Any
from unittest import mock

from sync_ws import Backoff, CloseCode, HandshakeError, Heartbeat
from sync_ws.channel.channel import Channel
from sync_ws.channel.inbox import Note
from sync_ws.channel.limits import Limits
from sync_ws.channel.writer import Writer
from sync_ws.client.dial import Dial
from sync_ws.client.events import Error
from sync_ws.client.line import Line
from sync_ws.client.outbox import Offline
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed
from sync_ws.testing import ManualClock, wait_until
from tests.support.client_case import SOON, obey, silent
from tests.support.scripted import ScriptedServer, Wire, frame, staying_open
from tests.support.thread_case import ThreadTestCase
from tests.support.wire import deflated, join


def echoing(wire: Wire) -> None:
    """Send text back as it came, answer Pings not at all, and end at a Close frame."""
    wire.switch()
    while True:
        opcode, payload = wire.read_frame()
        if opcode == 8:
            wire.send_frame(8, payload)
            return
        if opcode == 1:
            wire.send_frame(1, payload)


def ponging(wire: Wire) -> None:
    """Answer each text with the same one, and end at a Close frame."""
    wire.switch()
    while True:
        opcode, payload = wire.read_frame()
        wire.send_frame(*((8, payload) if opcode == 8 else (1, b"pong")))
        if opcode == 8:
            return


class RowTest(ThreadTestCase):
    """One connection after the other."""

    def test_a_connection_that_was_stable_begins_a_new_row_of_attempts(self) -> None:
        clock = ManualClock()
        policy = Backoff(1, 8, jitter=False, attempts=2, stable=60)
        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "INFO") as logs:
            self.begin(server.url(), backoff=policy, clock=clock)
            for count, lived in enumerate((59, 60, 59, 59), 1):
                self.wait_for("open", count)
                clock.advance(lived)
                self.sending_channel().send("drop")
                if count < 4:
                    self.wait_for("reconnecting", count)
                    clock.advance(clock.wait_for_timer())
            join(self.thread)
        self.assertEqual([event.attempt for event in self.events("reconnecting")], [1, 1, 2])
        self.assertEqual([event.reconnecting for event in self.events("close")], [True, True, True, False])
        self.assertEqual([event.count for event in self.events("reconnected")], [1, 2, 3])
        self.assertEqual(self.names[:3], ["open", "close", "reconnecting"])
        self.assertEqual(self.names[-2:], ["close", "gave_up"])
        self.assertTrue(any("ended after 60.0 s" in line for line in logs.output))
        self.assertIn("its 2 attempts are used up", logs.output[-1])

    def test_one_that_we_replace_says_that_this_was_asked_for(self) -> None:
        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "INFO") as logs:
            self.begin(server.url())
            channel = self.sending_channel()
            self.line.reconnect()
            channel.close(timeout=SOON)
            self.wait_for("reconnected")
            self.sending_channel()
            self.end()
        (event,) = self.events("reconnecting")
        self.assertEqual((event.attempt, event.delay), (1, 0.0))
        self.assertRegex(str(event.reason), r"^reconnect\(\) was called: .+")
        self.assertFalse([line for line in logs.output if "WARNING" in line])

    def test_one_that_is_replaced_before_its_first_use_was_none(self) -> None:
        def made(*args: Any, **options: Any) -> Channel:
            if not self.told:
                self.line.reconnect()
            return Channel(*args, **options)

        with ScriptedServer(obey) as server, mock.patch("sync_ws.client.thread.Channel", made):
            self.begin(server.url(), backoff=Backoff.fixed(60))
            self.sending_channel()
            self.end()
        self.assertEqual(self.names, ["reconnecting", "open", "close"])
        self.assertEqual(str(self.events("reconnecting")[0].reason), "reconnect() was called")

    def test_one_that_was_lost_while_it_was_being_closed_says_how(self) -> None:
        with ScriptedServer(obey) as server:
            self.begin(server.url())
            channel = self.sending_channel()
            self.line.close()
            channel.abort(Reason("lost on purpose"))
            join(self.thread)
        self.assertEqual([str(event.reason) for event in self.events("close")], ["lost on purpose"])
        self.assertEqual(self.names, ["open", "close"])

    def test_what_the_server_and_both_agreed_on_is_told(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(headers=("Sec-WebSocket-Protocol: chat", "X-Node: n1"))
            wire.wait_for_end()

        with ScriptedServer(script) as server, self.assertLogs("sync_ws.client", "INFO") as logs:
            self.begin(server.url(), subprotocols=("chat",), limits=Limits(close_timeout=0.05))
            self.sending_channel()
            self.assertEqual(self.line.subprotocol, "chat")
            self.line.close()[1].start_close(1000, "")  # type: ignore[union-attr]
            join(self.thread)
        (event,) = self.events("open")
        self.assertEqual((event.subprotocol, event.headers["X-Node"]), ("chat", "n1"))
        self.assertIn("subprotocol chat", logs.output[0])
        self.assertEqual(self.names, ["open", "close"])

    def test_compression_that_was_agreed_on_is_used(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(headers=("Sec-WebSocket-Extensions: permessage-deflate",))
            wire.send(frame(1, deflated(b"packed"), rsv=4))
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            self.begin(server.url(), compression=True, messages=True)
            self.wait_for("message")
            self.assertEqual(self.events("message"), ["packed"])
            self.line.close()[1].abort(Reason("enough"))  # type: ignore[union-attr]

    def test_a_function_that_would_end_the_program_ends_it_with_the_code_that_the_server_was_told(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.make(server.url(), backoff=Backoff.fixed(0.001))
            thread._bus.on("open", mock.Mock(side_effect=SystemExit(3)))
            with self.assertLogs("sync_ws.client", "WARNING") as logs:
                self.line.begin()
                thread.start()
                join(thread)
        self.assertEqual(self.names, ["open", "close", "gave_up"])
        self.assertEqual(self.events("gave_up")[0].reason.code, CloseCode.GOING_AWAY)
        self.assertEqual(self.events("close")[0].reason, self.events("gave_up")[0].reason)
        self.assertFalse(self.events("close")[0].reconnecting)
        self.assertIsNone(thread._greeting_channel)
        self.assertIn("a function ended it", logs.output[-1])

    def test_where_the_function_that_is_told_of_the_end_would_end_the_program_no_delay_is_announced(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.make(server.url(), backoff=Backoff.fixed(60))
            thread._bus.on("close", mock.Mock(side_effect=SystemExit(3)))
            with self.assertLogs("sync_ws.client", "INFO") as logs:
                self.line.begin()
                thread.start()
                self.sending_channel().send("drop")
                join(thread)
        self.assertEqual(self.names, ["open", "close", "gave_up"])
        self.assertIn("SystemExit(3)", str(self.events("gave_up")[0].reason))
        self.assertFalse([line for line in logs.output if "reconnecting in" in line])
        self.assertIn("a function ended it", logs.output[-1])


class QueueTest(ThreadTestCase):
    def begin_with(self, url: str, *queued: str, **options: Any) -> None:
        self.make(url, **options)
        self.line.begin()
        for message in queued:
            self.line.put_offline(message, None)
        self.thread.start()
        self.addCleanup(self.end)

    def test_what_was_queued_goes_out_first_and_in_order_and_what_was_dropped_is_told_of(self) -> None:
        with ScriptedServer(echoing) as server, self.assertLogs("sync_ws.client", "WARNING") as logs:
            policy = Offline(max_messages=2, when_full="drop_oldest")
            self.begin_with(server.url(), *"abcd", offline=policy, messages=True)
            self.sending_channel().send("e")
            self.wait_for("message", 3)
            self.assertEqual(self.events("message"), ["c", "d", "e"])
            self.assertIn("2 messages were dropped while there was no connection", logs.output[-1])
            self.end()
        self.assertEqual(self.events("close")[-1].undelivered, ())

    def test_dropped_messages_are_told_of_at_an_end_too(self) -> None:
        for closing in (True, False):
            policy = Offline(max_messages=1, when_full="drop_oldest")
            with self.subTest(closing=closing), self.assertLogs("sync_ws.client", "WARNING") as logs:
                self.make("ws://127.0.0.1:1/", offline=policy, backoff=Backoff.fixed(60) if closing else None)
                self.line.begin()
                for message in "ab":
                    self.line.put_offline(message, None)
                with mock.patch.object(Dial, "run", side_effect=HandshakeError(Reason("refused on purpose"))):
                    self.thread.start()
                    if closing:
                        self.wait_for("reconnecting")
                        self.end()
                    join(self.thread)
                self.assertIn("1 messages were dropped", "\n".join(logs.output))
                self.assertEqual(self.told[-1][1].undelivered, ("b",))

    def test_what_could_not_be_sent_stays_queued(self) -> None:
        broken = ConnectionClosed(Reason("broken on purpose"))
        with ScriptedServer(obey) as server, mock.patch.object(Writer, "send", side_effect=broken) as send:
            self.begin_with(server.url(), "a", "b")
            wait_until(lambda: send.call_count)
            self.end()
        self.assertEqual(send.call_args_list, [mock.call("a")])
        self.assertEqual(self.events("close")[-1].undelivered, ("a", "b"))


class AttendTest(ThreadTestCase):
    def test_messages_that_came_with_the_end_are_still_told_of(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch(then=frame(1, b"a") + frame(1, b"b") + frame(8, b"\x03\xe8"))

        with ScriptedServer(script) as server:
            join(self.begin(server.url(), messages=True))
        self.assertEqual(self.names, ["open", "message", "message", "close", "gave_up"])

    def test_what_came_with_the_response_is_there_before_anybody_waits(self) -> None:
        seen, wait_readable = list[int](), Channel.wait_readable

        def wait(channel: Channel, timeout: float) -> bool:
            seen.append(len(self.line.inbox))
            return wait_readable(channel, timeout)

        with ScriptedServer(staying_open(then=frame(1, b"a"))) as server:
            with mock.patch.object(Channel, "wait_readable", wait):
                self.begin(server.url())
                wait_until(lambda: seen)
            self.line.close()[1].abort(Reason("enough"))  # type: ignore[union-attr]
        self.assertEqual(seen[0], 1)

    def test_a_function_for_messages_that_comes_later_gets_those_that_wait(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.begin(server.url())
            self.sending_channel().send("burst")
            wait_until(lambda: len(self.line.inbox) == 3)
            got: list[str] = []
            thread._bus.on("message", got.append)
            wait_until(lambda: len(got) == 3)
            self.end()
        self.assertEqual(got, ["m0", "m1", "m2"])

    def test_a_connection_is_looked_after_before_the_first_message_is_told_of(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.make(server.url())
            for name in ("open", "close"):
                thread._bus._handlers.pop(name)
            thread._bus.on("message", self.fail)
            self.line.begin()
            thread.start()
            self.addCleanup(self.end)
            channel = self.sending_channel()
            wait_until(lambda: thread._teller.kept_channel is channel)
            self.end()
            self.assertIsNone(thread._teller.kept_channel)

    def test_with_a_full_inbox_it_waits_and_closes_at_once(self) -> None:
        with ScriptedServer(obey) as server, mock.patch.object(Line, "await_end", autospec=True) as waited:
            self.begin(server.url(), limits=Limits(max_waiting=1))
            channel = self.sending_channel()
            channel.send("burst")
            wait_until(lambda: self.line.inbox)
            channel.send("burst")  # which stays in the socket
            wait_until(lambda: waited.called)
            self.assertIs(waited.call_args.args[1], channel)
            self.assertGreater(waited.call_args.args[2].remaining(), 0.01)
            self.end()

    def test_a_silent_connection_is_not_waited_for_twice_and_numpy_is_loaded_meanwhile(self) -> None:
        with (
            ScriptedServer(obey) as server,
            mock.patch.object(Line, "await_end") as waited,
            mock.patch("sync_ws.client.thread.load_numpy") as load,
        ):
            self.begin(server.url())
            wait_until(lambda: load.call_count > 2)
            waited.assert_not_called()
            self.end()

    def test_a_closing_handshake_that_nobody_answers_ends_in_time(self) -> None:
        with ScriptedServer(silent) as server, mock.patch("sync_ws.client.teller.Teller.keep"):  # no housekeeper
            self.begin(server.url(), limits=Limits(close_timeout=0.05))
            self.sending_channel().start_close(1000, "")
            join(self.thread)
        self.assertEqual(self.names, ["open", "close", "gave_up"])


class HeartbeatTest(ThreadTestCase):
    def test_answers_of_all_kinds_are_measured_and_told_and_are_no_messages(self) -> None:
        policies = [
            (obey, Heartbeat(30, 3, "ping")),
            (echoing, Heartbeat(30, 3, "message")),
            (ponging, Heartbeat(30, 3, "message", message="ping", answer="pong")),
        ]
        for messages in (True, False):
            for script, policy in policies:
                clock = ManualClock()
                with self.subTest(policy, messages=messages), ScriptedServer(script) as server:
                    self.begin(server.url(), heartbeat=policy, clock=clock, messages=messages)
                    clock.wait_for_timer()
                    clock.advance(30)
                    self.wait_for("heartbeat")
                    self.assertEqual(self.events("heartbeat")[0].rtt, 0.0)
                    self.assertEqual(self.line.stats()["rtt"], 0.0)
                    self.end()
                    self.assertEqual((self.events("message"), clock.pending, len(self.line.inbox)), ([], [], 0))

    def test_what_answers_another_question_is_told_to_nobody(self) -> None:
        def script(wire: Wire) -> None:
            stale = json.dumps({"ModeCode": "heart_beat", "msg": "old"}).encode()
            wire.switch(then=frame(10, b"old") + frame(1, stale) + frame(1, b"m"))
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            self.begin(server.url(), heartbeat=Heartbeat(kind="message"), messages=True, clock=ManualClock())
            self.wait_for("message")
            self.assertEqual((self.names, self.thread._answered(None)), (["open", "message"], None))
            self.line.close()[1].abort(Reason("enough"))  # type: ignore[union-attr]
            join(self.thread)
        self.assertIsNone(self.thread._answered(b""))

    def test_without_a_test_for_the_answer_all_is_the_applications(self) -> None:
        clock = ManualClock()
        with ScriptedServer(echoing) as server:
            self.begin(server.url(), heartbeat=Heartbeat(30, 3, message="ping"), clock=clock, messages=True)
            clock.wait_for_timer()
            clock.advance(30)
            self.wait_for("message")
            clock.advance(3)
            self.end()
        self.assertEqual(self.events("message"), ["ping"])

    def test_no_answer_is_the_end_and_says_so(self) -> None:
        clock = ManualClock()
        with ScriptedServer(silent) as server:
            self.begin(server.url(), heartbeat=Heartbeat(30, 3, "ping"), clock=clock)
            clock.wait_for_timer()
            clock.advance(34)
            join(self.thread)
        reason = self.events("gave_up")[0].reason
        self.assertIn("no answer to a heartbeat", str(reason))
        self.assertEqual(reason.code, CloseCode.ABNORMAL)

    def test_an_answer_that_came_with_the_end_is_told_before_it(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            _, payload = wire.read_frame()
            wire.send(frame(10, payload) + frame(8, b"\x03\xe8"))

        clock = ManualClock()
        with ScriptedServer(script) as server:
            self.begin(server.url(), heartbeat=Heartbeat(30, 3, "ping"), clock=clock)
            clock.wait_for_timer()
            clock.advance(30)
            join(self.thread)
        self.assertEqual(self.names, ["open", "heartbeat", "close", "gave_up"])
        self.assertEqual(clock.pending, [])

    def test_a_timer_that_could_not_be_had_is_armed_again_whoever_reads(self) -> None:
        for messages in (True, False):
            clock = ManualClock()
            clock.fail_timers(2)
            with self.subTest(messages=messages), ScriptedServer(obey) as server:
                self.begin(server.url(), heartbeat=Heartbeat(30, 3), clock=clock, messages=messages)
                self.assertEqual(clock.wait_for_timer(), 30)
                self.end()

    def test_a_function_that_raises_is_told_of_and_one_that_would_end_the_program_ends_the_client(self) -> None:
        error = ValueError("on purpose")
        clock = ManualClock()
        function = mock.Mock(side_effect=[error, SystemExit(3)])
        with ScriptedServer(obey) as server, self.assertLogs("sync_ws.client", "ERROR") as logs:
            self.begin(server.url(), heartbeat=Heartbeat(30, 3, message=function), clock=clock)
            clock.wait_for_timer()
            clock.advance(30)
            self.wait_for("error")
            self.wait_for("heartbeat")  # a Ping went out in its place
            clock.advance(30)
            join(self.thread)
        self.assertIs(self.events("error")[0].exception, error)
        self.assertIn("a function of the heartbeat raised", logs.output[0])
        self.assertEqual(self.names[-2:], ["close", "gave_up"])
        self.assertEqual(str(self.events("gave_up")[0].reason), "a function of the heartbeat raised SystemExit(3)")

    def test_an_answer_that_would_end_the_program_does_so_once_where_the_application_reads(self) -> None:
        thread = self.make("ws://a.test/")
        with self.assertLogs("sync_ws.client", "ERROR"):
            thread._answer_function_raised(ValueError("told of, and no more"))
            with self.assertRaises(SystemExit):
                thread._answer_function_raised(SystemExit(3))
            thread._answer_function_raised(SystemExit(4))
        self.assertEqual([note.event for note in self.line.take_aside()], ["error"])
        self.assertEqual(str(thread._teller.ended_by), "a function of the heartbeat raised SystemExit(3)")

    def test_an_answer_that_would_end_the_program_only_ends_the_client_where_the_library_reads(self) -> None:
        for messages in (True, False):
            policy = Heartbeat(30, 3, message="x", answer=mock.Mock(side_effect=SystemExit(3)))
            with (
                self.subTest(messages=messages),
                ScriptedServer(obey) as server,
                self.assertLogs("sync_ws.client", "ERROR"),
            ):
                self.begin(server.url(), heartbeat=policy, messages=messages)
                self.sending_channel().send("burst")
                join(self.thread)
            self.assertEqual(self.names[-1], "gave_up")
            reason = str(self.events("gave_up")[0].reason)
            self.assertEqual(reason, "a function of the heartbeat raised SystemExit(3)")


class HandOverTest(ThreadTestCase):
    def test_what_it_met_at_the_very_end_is_told_before_the_end(self) -> None:
        release = Channel.release

        def met(channel: Channel) -> None:
            self.line.put_aside(Note("error", Error(ValueError("on purpose"))))
            release(channel)

        with ScriptedServer(obey) as server, mock.patch.object(Channel, "release", met):
            self.begin(server.url())
            self.sending_channel().send("drop")
            join(self.thread)
        self.assertEqual(self.names, ["open", "error", "close", "gave_up"])

    def test_what_another_thread_met_in_recv_is_told_by_this_one(self) -> None:
        tellers: list[threading.Thread] = []
        with ScriptedServer(obey) as server:
            thread = self.make(server.url())
            thread._bus.on("error", lambda event: tellers.append(threading.current_thread()))
            self.line.begin()
            thread.start()
            self.addCleanup(self.end)
            self.sending_channel()
            with self.assertLogs("sync_ws.client", "ERROR"):
                thread._heartbeat_function_raised(ValueError("on purpose"))
            wait_until(lambda: tellers)
            self.end()
        self.assertEqual(tellers, [thread])


if __name__ == "__main__":
    unittest.main()
