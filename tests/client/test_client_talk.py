"""What else the client answers for: its defaults, ping, subscriptions, bounds of time, and a close() in odd places."""

from __future__ import annotations

import math
import threading
import time
import unittest
from typing import Any
from unittest import mock

from sync_ws import (
    Backoff,
    Client,
    ClientState,
    Close,
    ConcurrentReceive,
    ConnectionClosed,
    HandshakeError,
    Heartbeat,
    NotConnected,
    Offline,
)  # fmt: skip
from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.checks import FOREVER
from sync_ws.endings import Reason
from sync_ws.testing import ManualClock, free_port, serving, wait_until
from sync_ws.timing import SYSTEM_CLOCK
from tests.support.client_case import SOON, ReconnectTestCase, echo, obey, silent
from tests.support.recorder import Recorder
from tests.support.scripted import ScriptedServer, Wire
from tests.support.wire import join

MUCH = 30.0  # seconds, which no test has


class DefaultsTest(unittest.TestCase):
    def test_the_defaults_are_those_of_the_readme(self) -> None:
        client = Client("ws://a.test/")
        options = client._options
        expected = Limits(1 << 20, 1024, max_frame=None, send_timeout=10.0, close_timeout=5.0)
        self.assertEqual(options.limits, expected)
        self.assertEqual((options.heartbeat, options.backoff, options.offline), (Heartbeat(), Backoff(), Offline()))
        self.assertEqual((options.open_timeout, options.compression, options.ssl_context), (10.0, False, None))
        self.assertIs(options.clock, SYSTEM_CLOCK)
        client.close()

    def test_the_largest_frame_is_an_option_of_its_own(self) -> None:
        self.assertEqual(Client("ws://a.test/", max_frame=7)._options.limits.max_frame, 7)
        for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
            with self.subTest(bad), self.assertRaisesRegex(error, "max_frame"):
                Client("ws://a.test/", max_frame=bad)  # type: ignore[arg-type]


class SendTest(ReconnectTestCase):
    def test_no_pieces_are_no_message(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            client.send([])
            client.send(iter(()))
            client.send(iter(["a", "b"]))
            self.assertEqual(client.recv(SOON), "ab")
            self.assertEqual(client.stats()["messages_sent"], 1)

    def test_not_even_a_greeting_goes_out_once_close_has_begun(self) -> None:
        raised: list[str] = []
        with ScriptedServer(obey) as server:
            client = self.client(server.url())

            def greet(event: object) -> None:
                client._line.close()  # another thread has come so far
                try:
                    client.send("late")
                except ConnectionClosed as exc:
                    raised.append(str(exc))

            client.on("open", greet)
            client.open(0)
            wait_until(lambda: raised)
            client.close()
        self.assertEqual((raised, client.stats()["messages_sent"]), (["closed by us"], 0))


class PingTest(ReconnectTestCase):
    def test_it_takes_some_time(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url).open(SOON)
            self.assertGreater(client.ping(SOON), 0.0)
        with ScriptedServer(silent) as mute:
            client = self.client(mute.url()).open(SOON)
            with self.within(), self.assertRaises(TimeoutError):
                client.ping(0.05)

    def test_it_has_ten_seconds_unless_it_is_told(self) -> None:
        with serving(echo) as server, mock.patch.object(Channel, "ping", return_value=0.5) as ping:
            client = self.client(server.url).open(SOON)
            self.assertEqual((client.ping(), client.ping(2)), (0.5, 0.5))
        self.assertEqual(ping.call_args_list, [mock.call(10.0), mock.call(2)])

    def test_without_a_connection(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)
        with self.assertRaisesRegex(NotConnected, "not been opened"):
            client.ping()
        client.open(0)
        self.wait_for_state(client, ClientState.WAITING)
        with self.assertRaisesRegex(NotConnected, "not connected now: .*refused"):
            client.ping()
        client.close()
        with self.assertRaisesRegex(ConnectionClosed, "closed by us"):
            client.ping()


class SubscriptionTest(ReconnectTestCase):
    def test_it_can_be_taken_back(self) -> None:
        client, told = self.client("ws://a.test/"), list[object]()
        self.assertTrue(client.off("message", client.on("message", told.append)))
        self.assertFalse(client.off("message", told.append))
        with serving(echo) as server, self.client(server.url) as other:
            other.off("message", other.on("message", told.append))
            other.send("x")
            self.assertEqual((other.recv(SOON), told), ("x", []))

    def test_recv_in_an_event_function_takes_what_is_there(self) -> None:
        got: list[Any] = []
        with ScriptedServer(obey) as server:
            client = self.client(server.url())

            def more(message: object) -> None:
                self.assertEqual(got, [])  # called once
                got.append(message)
                while len(got) < 3:
                    got.append(client.recv(SOON))

            client.on("message", more)
            recorder = Recorder(client)
            client.open(SOON).send("burst")
            wait_until(lambda: len(got) == 3)
            with self.assertRaises(ConcurrentReceive):
                client.recv(0)
        self.assertEqual((got, recorder.of("error")), (["m0", "m1", "m2"], []))

    def test_recv_in_an_event_function_does_not_wait_for_a_connection(self) -> None:
        raised: list[str] = []
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60)

        def receive(event: object) -> None:
            try:
                client.recv(MUCH)
            except NotConnected as exc:
                raised.append(str(exc))

        client.on("reconnecting", receive)
        client.open(0)
        wait_until(lambda: raised)
        self.assertIn("in an event function", raised[0])


class TimeTest(ReconnectTestCase):
    def test_a_whole_number_of_seconds_and_what_has_passed(self) -> None:
        with serving(echo) as server, self.client(server.url) as client:
            client.send("x")
            self.assertEqual(client.recv(4), "x")
            for timeout in (-1.0, 0.0, 0):
                with self.within(), self.assertRaises(TimeoutError):
                    client.recv(timeout)
            wrong: tuple[tuple[type[Exception], Any], ...] = (
                (TypeError, "5"),
                (TypeError, True),
                (ValueError, math.nan),
            )
            for error, bad in wrong:
                with self.subTest(bad), self.assertRaisesRegex(error, "timeout"):
                    client.recv(bad)
            for for_ever in (FOREVER, 10**400, math.inf):
                client.send("x")
                self.assertEqual(client.recv(for_ever), "x")

    def test_the_timeout_of_recv_is_one_for_all_that_comes_meanwhile(self) -> None:
        with ScriptedServer(obey) as server:
            client = self.client(server.url(), heartbeat=Heartbeat(0.02, 5, kind="ping")).open(SOON)
            client.stats()
            begun = time.monotonic()
            with self.within(), self.assertRaises(TimeoutError):
                client.recv(0.1)
            self.assertGreaterEqual(time.monotonic() - begun, 0.1)

    def test_close_is_back_within_its_timeout_though_the_server_says_nothing(self) -> None:
        with ScriptedServer(silent) as server:
            for options, timeout in (({"close_timeout": 0.1}, None), ({"close_timeout": MUCH}, 0.1), ({}, 0)):
                with self.subTest(options):
                    client = self.client(server.url(), **options).open(SOON)
                    with self.within(SOON / 2):
                        client.close(timeout=timeout)
                    wait_until(lambda client=client: client.state is ClientState.CLOSED)  # type: ignore[misc]

    def test_close_leaves_the_server_the_time_that_it_is_given(self) -> None:
        answered = threading.Event()

        def script(wire: Wire) -> None:
            wire.switch()
            wire.read_close()
            answered.wait(0.2)
            wire.send_frame(8, b"\x03\xe8late")

        with ScriptedServer(script) as server:
            client = self.client(server.url()).open(SOON)
            with self.within():
                client.close(timeout=SOON)
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(0)
            self.assertEqual(caught.exception.received, Close(1000, "late"))

    def test_while_it_closes_no_heartbeat_is_due_and_a_sender_sees_our_close_frame(self) -> None:
        asked, answer, clock = threading.Event(), threading.Event(), ManualClock()

        def script(wire: Wire) -> None:
            wire.switch()
            wire.read_close()
            asked.set()
            answer.wait(SOON)
            wire.send_frame(8, b"\x03\xe8")

        with ScriptedServer(script) as server:
            client = self.client(server.url(), heartbeat=30, clock=clock, close_timeout=SOON).open(SOON)
            self.wait_for_timers(clock, 30)
            closer = threading.Thread(target=client.close)
            closer.start()
            self.assertTrue(asked.wait(SOON))
            self.assertEqual(clock.pending, [])
            with self.assertRaises(ConnectionClosed) as caught:
                client.send("x")
            self.assertEqual(caught.exception.sent, Close(1000))
            answer.set()
            join(closer)

    def test_close_keeps_a_part_of_its_timeout_for_the_clients_thread(self) -> None:
        spied = mock.patch.object(Channel, "close", autospec=True, side_effect=Channel.close)
        with serving(echo) as server, spied as spy:
            for timeout in (8.0, 0.04, 0.0):
                self.client(server.url).open(SOON).close(timeout=timeout)
        much, little, none = (call.args[3] for call in spy.call_args_list)
        self.assertAlmostEqual(much, 7.75, delta=0.5)
        self.assertTrue(0.0 <= little < 0.04)
        self.assertEqual(none, 0.0)

    def test_close_waits_for_the_clients_thread_to_its_last_instruction(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url).open(SOON)
            pause = threading.Event().wait
            client.on("close", lambda event: pause(0.1))
            gone = client._thread.gone.set

            def slowly() -> None:
                gone()
                pause(0.1)

            with mock.patch.object(client._thread.gone, "set", slowly):
                client.close(timeout=MUCH)
            self.assertFalse(client._thread.is_alive())

    def test_and_not_only_for_a_last_moment(self) -> None:
        with serving(echo) as server, mock.patch("sync_ws.client.client.LAST_MOMENT", 0.01):
            client = self.client(server.url).open(SOON)
            client.on("close", lambda event: threading.Event().wait(0.2))
            client.close(timeout=MUCH)
            self.assertTrue(client._thread.gone.is_set())

    def test_a_close_timeout_longer_than_any_wait_is_no_trap(self) -> None:
        with serving(echo) as server, self.within():
            client = self.client(server.url, close_timeout=1e300).open(SOON)
            client.close()
            self.assertIs(client.state, ClientState.CLOSED)


class NoThreadTest(ReconnectTestCase):
    def test_there_is_nobody_to_wait_for(self) -> None:
        client = self.client("ws://a.test/")
        with self.within():
            client.close(timeout=MUCH)
        self.assertIs(client.state, ClientState.CLOSED)
        with self.within():
            self.assertTrue(client.run_forever().by_us)

    def test_why_it_never_began_is_known(self) -> None:
        client = self.client("ws://a.test/")
        error = RuntimeError("can't start new thread")
        with mock.patch("threading.Thread.start", side_effect=error), self.assertRaises(RuntimeError) as caught:
            client.open()
        self.assertIs(caught.exception, error)
        assert client.reason is not None
        self.assertEqual((client.reason.text, client.reason.error), (str(error), error))
        with self.assertRaisesRegex(ConnectionClosed, "can't start"):
            client.send("x")


class RunForeverTest(ReconnectTestCase):
    def test_an_interrupt_closes_the_client_and_is_passed_on(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url)
            interrupted = mock.patch.object(client._line, "await_closed", side_effect=KeyboardInterrupt)
            with interrupted, self.assertRaises(KeyboardInterrupt):
                client.run_forever()
            self.assertIs(client.state, ClientState.CLOSED)

    def test_it_is_back_when_the_clients_thread_is_gone(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=None)
        gone = client._thread.gone.set

        def slowly() -> None:
            threading.Event().wait(0.1)
            gone()

        with mock.patch.object(client._thread.gone, "set", slowly):
            self.assertIn("refused", str(client.run_forever()))
        self.assertFalse(client._thread.is_alive())

    def test_it_waits_for_a_client_that_another_thread_is_about_to_open(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=None)
        start, reasons = client._thread.start, list[Reason]()
        runner = threading.Thread(target=lambda: reasons.append(client.run_forever()))

        def start_late() -> None:
            runner.start()
            wait_until(lambda: client._line._waiters._waiting)
            start()

        with mock.patch.object(client._thread, "start", start_late):
            client.open(0)
        join(runner)
        self.assertIn("refused", str(reasons[0]))


class InTheMiddleTest(ReconnectTestCase):
    """close() by a signal's handler that interrupted, in its own thread, what others then wait for: back at once."""

    def closed_under(self, lock: Any, client: Client) -> None:
        with lock, self.within():
            client.close(timeout=MUCH)
        with self.within():
            client.close(timeout=MUCH)
        self.assertIs(client.state, ClientState.CLOSED)
        self.assertFalse(client._thread.is_alive())

    def test_in_each_part_of_an_open_client(self) -> None:
        with serving(echo) as server:
            for part in ("line", "monitor", "channel"):
                with self.subTest(part):
                    client = self.client(server.url, heartbeat=30).open(SOON)
                    line = client._line
                    assert line.reading_channel is not None and line.monitor is not None
                    locks: dict[str, Any] = {"line": line, "monitor": line.monitor}
                    lock = locks[part]._lock if part in locks else line.reading_channel._state_lock
                    self.closed_under(lock, client)

    def test_in_a_channel_that_has_ended(self) -> None:
        with serving(echo) as server:
            client = self.client(server.url, reconnect=60).open(SOON)
            channel = client._line.reading_channel
            assert channel is not None
            with channel._state_lock, self.within():
                channel.abort(Reason("cut", 1006))
                self.assertTrue(channel.ended)
                client.close(timeout=MUCH)
            client.close(timeout=MUCH)
            self.assertFalse(client._thread.is_alive())

    def test_in_the_waking_of_a_dial(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            client = self.client(server.url()).open(0)
            wait_until(lambda: server.accepted)
            dial = client._line._dial
            assert dial is not None and dial._waker is not None
            self.closed_under(dial._waker._lock, client)

    def test_while_it_waits_for_the_next_attempt(self) -> None:
        client = self.client(f"ws://127.0.0.1:{free_port()}/", reconnect=60).open(0)
        self.wait_for_state(client, ClientState.WAITING)
        self.closed_under(client._line._lock, client)

    def test_between_the_opening_and_the_start_of_its_thread(self) -> None:
        client = self.client("ws://a.test/")
        recorder, start = Recorder(client), client._thread.start

        def close_and_start() -> None:
            client.close()
            self.assertIs(client.state, ClientState.CLOSED)
            start()

        refused = self.assertRaisesRegex(HandshakeError, "closed by us")
        with mock.patch.object(client._thread, "start", close_and_start), self.within(), refused:
            client.open()
        self.assertEqual((client.state, recorder.names, client._line.url), (ClientState.CLOSED, [], None))


if __name__ == "__main__":
    unittest.main()
