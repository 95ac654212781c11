"""The client's thread with a line of its own and no face: what it does to the line, and what it tells."""

from __future__ import annotations

import threading
import unittest
from typing import Any
from unittest import mock

from sync_ws import Backoff, ClientState, Heartbeat
from sync_ws.channel.channel import Channel
from sync_ws.client.dial import Dial
from sync_ws.client.events import Closed, GaveUp, Reconnecting
from sync_ws.client.heartbeat import HeartbeatMonitor
from sync_ws.client.line import Line
from sync_ws.client.teller import Teller
from sync_ws.client.thread import ClientThread
from sync_ws.messages import Opcode
from sync_ws.testing import ManualClock, free_port, wait_until
from sync_ws.timing import Deadline
from tests.support.client_case import SOON, obey
from tests.support.scripted import ScriptedServer, refusing
from tests.support.thread_case import ThreadTestCase
from tests.support.wire import join


class LifeTest(ThreadTestCase):
    def test_the_states_of_a_life_each_set_under_the_lock(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.make(server.url(), backoff=Backoff.fixed(0.01), heartbeat=Heartbeat(0.02, SOON, kind="ping"))
            become, seen = self.line._become, list[str]()

            def note(state: ClientState) -> None:
                become(state)
                seen.append(state.value)

            with mock.patch.object(Line, "_become", lambda line, state: note(state)):
                self.line.begin()
                thread.start()
                self.addCleanup(self.end)
                self.wait_for("heartbeat")
                self.sending_channel().send("drop")
                self.wait_for("reconnected")
                self.end()
        self.assertEqual(seen, ["connecting", "open", "waiting", "connecting", "open", "closing", "closed"])
        self.assertEqual(self.names[-1], "close")

    def test_a_line_that_was_closed_before_the_start_is_left_alone(self) -> None:
        thread = self.make("ws://a.test/")
        self.line.close()
        with mock.patch.object(Dial, "run", side_effect=AssertionError("dialled")):
            thread.start()
            join(thread)
        self.assertEqual(self.names, [])

    def test_trouble_in_the_loop_ends_it_and_says_so(self) -> None:
        thread = self.make("ws://a.test/")
        self.line.begin()
        self.line.put_offline("kept", None)
        broken = mock.patch.object(ClientThread, "_attempt", side_effect=ZeroDivisionError("on purpose"))
        with broken, self.assertLogs("sync_ws.client", "ERROR"):
            thread.start()
            join(thread)
        ((name, event),) = self.told
        self.assertIsInstance(event, GaveUp)
        self.assertIn("internal error: ZeroDivisionError", str(event.reason))
        self.assertEqual((name, event.undelivered), ("gave_up", ("kept",)))
        self.assertIs(self.line.state, ClientState.CLOSED)

    def test_a_failed_attempt_is_the_last_trouble(self) -> None:
        with ScriptedServer(refusing("503 Busy")) as server:
            self.begin(server.url(), backoff=Backoff.fixed(60))
            self.wait_for("reconnecting")
            self.assertEqual(self.line.last_trouble, "the server answered 503 Busy")
            self.assertEqual(self.line.stats()["attempts_failed"], 1)

    def test_a_delay_ends_with_close_and_leaves_no_timer(self) -> None:
        clock = ManualClock()
        self.begin(f"ws://127.0.0.1:{free_port()}/", backoff=Backoff.fixed(60), clock=clock)
        self.assertEqual(clock.wait_for_timer(), 60)
        self.end()
        self.assertEqual((clock.pending, self.names), ([], ["reconnecting", "close"]))
        self.assertIsInstance(self.told[0][1], Reconnecting)


class ConnectionTest(ThreadTestCase):
    def test_messages_go_to_the_function_or_wait_in_the_inbox(self) -> None:
        with ScriptedServer(obey) as server:
            self.begin(server.url(), messages=True)
            self.sending_channel().send("burst")
            self.wait_for("message", 3)
            self.end()
            self.assertEqual(self.names, ["open", *["message"] * 3, "close"])
            self.begin(server.url())
            self.sending_channel().send("burst")
            wait_until(lambda: len(self.line.inbox) == 3)
            self.end()
            self.assertEqual(list(self.line.inbox), ["m0", "m1", "m2"])

    def test_an_answer_that_the_kernel_had_no_room_for_goes_out_while_nobody_sends(self) -> None:
        with ScriptedServer(obey) as server, mock.patch.object(Teller, "keep"):  # no housekeeper
            self.begin(server.url())
            channel = self.sending_channel()
            with mock.patch.object(channel.writer._queue, "_sending", side_effect=BlockingIOError):
                channel.writer.post(Opcode.PONG, b"")
            self.assertEqual(channel.writer.queued, (1, 6))
            wait_until(lambda: channel.writer.queued == (0, 0))
            self.end()

    def test_a_channel_that_comes_with_close_is_given_up_outside_the_lock_and_told_of_once(self) -> None:
        held: list[tuple[str, bool]] = []
        real_abort, real_start = Channel.abort, HeartbeatMonitor.start

        def abort(channel: Channel, reason: Any) -> None:
            held.append(("abort", self.line.held_here))
            real_abort(channel, reason)

        def made(*args: Any, **options: Any) -> Channel:
            self.line.close()  # between the opening handshake and the first use
            return Channel(*args, **options)

        def start(monitor: HeartbeatMonitor) -> None:
            held.append(("start", self.line.held_here))
            real_start(monitor)

        with (
            ScriptedServer(obey) as server,
            mock.patch.object(Channel, "abort", abort),
            mock.patch.object(HeartbeatMonitor, "start", start),
        ):
            with mock.patch("sync_ws.client.thread.Channel", made):
                join(self.begin(server.url(), heartbeat=Heartbeat(), backoff=Backoff.fixed(60)))
            self.assertEqual((held, self.names), ([("abort", False)], ["close"]))
            self.assertEqual(self.line.times_opened, 0)
            held.clear()
            self.begin(server.url(), heartbeat=Heartbeat())
            self.wait_for("open")
            self.assertEqual(held, [("start", False)])
            self.end()

    def test_the_greeting_is_for_functions_that_are_told_of_the_opening(self) -> None:
        seen: list[Any] = []
        with ScriptedServer(obey) as server:
            thread = self.make(server.url())
            thread._bus.on("open", lambda event: seen.append(thread.greeting_channel))
            thread._bus.on("close", lambda event: seen.append(thread.greeting_channel))
            thread._bus.on("open", lambda event: seen.append(in_another_thread()))

            def in_another_thread() -> object:
                got: list[object] = []
                other = threading.Thread(target=lambda: got.append(thread.greeting_channel))
                other.start()
                join(other)
                return got[0]

            self.line.begin()
            thread.start()
            self.addCleanup(self.end)
            used = self.sending_channel()
            self.end()
        self.assertEqual(seen, [used, None, None])

    def test_what_an_ended_connection_leaves_can_be_taken(self) -> None:
        with ScriptedServer(obey) as server:
            thread = self.begin(server.url())
            channel = self.sending_channel()
            channel.send("burst")
            wait_until(lambda: len(self.line.inbox) == 3)
            self.end()
            join(thread)
        left = []
        for _ in range(3):
            left.append(self.line.take_left(channel, Deadline(0), True))
            self.line.inbox.kept = None
        self.assertEqual(left, ["m0", "m1", "m2"])
        self.assertIsInstance(self.told[-1][1], Closed)


if __name__ == "__main__":
    unittest.main()
