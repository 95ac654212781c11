"""The housekeeper: what it does in a round, by a clock of the test's own. That it runs is seen in test_server_alive."""

from __future__ import annotations

import socket
import struct
import threading
import time
import weakref
from unittest import mock

from sync_ws.channel.channel import Channel
from sync_ws.channel.housekeeper import TICK, Housekeeper
from sync_ws.channel.inbox import Inbox, Note
from sync_ws.channel.limits import Limits
from sync_ws.endings import Reason
from sync_ws.net.transport import transport_for
from sync_ws.protocol.frames import encode_frame
from sync_ws.protocol.intercepts import HEART_BEAT
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.raw import CLOSE, PING, TEXT, frame
from tests.support.server_case import LogLines


class Owner:
    """Takes a channel's notes."""

    def __init__(self) -> None:
        self.ends: list[Reason] = []


class RoundTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        self.peer.settimeout(5)
        self.owner = Owner()
        self.inbox = Inbox()
        self.channel = Channel(
            transport_for(ours),
            self.inbox,
            client=False,
            limits=Limits(send_timeout=5.0),
            on_end=self.owner.ends.append,
            intercepts={HEART_BEAT: lambda channel, beat: Note("heartbeat", beat.text)},
        )
        self.keeper = Housekeeper("test", ping_interval=20, ping_timeout=10, close_timeout=5)
        self.addCleanup(self.keeper._close)
        self.keeper.add(self.channel)
        self.now = time.monotonic()  # what the keeper saw at add() must not lie in the future
        self.rounds(1)

    def rounds(self, seconds: float) -> None:
        """Rounds at their usual pace for so long."""
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            self.keeper.round(self.now)

    def pings(self) -> int:
        """How many Pings wait at the peer."""
        self.peer.setblocking(False)
        try:
            data = self.peer.recv(65536)
        except BlockingIOError:
            data = b""
        finally:
            self.peer.settimeout(5)
        self.assertEqual(data.replace(encode_frame(PING, b"", False), b""), b"")
        return len(data) // 2

    def start_now(self) -> None:
        """The channel was seen at a real time; go on from there, as the thread does."""
        liveness = self.keeper._watched[self.channel].liveness
        assert liveness is not None
        liveness.due = self.now + 20

    def test_silence_is_pinged_once_and_then_given_up(self) -> None:
        self.start_now()
        self.rounds(19)
        self.assertEqual(self.pings(), 0)
        self.rounds(2)
        self.assertEqual(self.pings(), 1)
        self.rounds(8)
        self.assertEqual((self.pings(), self.owner.ends), (0, []))
        self.rounds(3)
        self.assertEqual([end.code for end in self.owner.ends], [1006])
        self.assertTrue(self.channel.ended)

    def test_any_byte_after_the_ping_begins_it_anew(self) -> None:
        self.start_now()
        self.rounds(25)
        self.assertEqual(self.pings(), 1)
        self.peer.sendall(b"\x81")
        self.rounds(19)
        self.assertEqual((self.pings(), self.owner.ends), (0, []))
        self.rounds(3)
        self.assertEqual(self.pings(), 1)

    def test_a_process_stopped_for_a_minute_takes_nobody_for_dead(self) -> None:
        self.start_now()
        self.rounds(25)
        self.now += 60
        self.rounds(4)  # it was asked 5 s before that minute
        self.assertEqual((self.pings(), self.owner.ends), (1, []))
        self.rounds(2)
        self.assertEqual([end.code for end in self.owner.ends], [1006])

    def test_a_process_that_was_busy_itself_forgives_nothing(self) -> None:
        self.start_now()
        self.rounds(25)
        busy = time.process_time()
        with mock.patch("time.process_time", lambda: busy + 60):
            self.now += 60
            self.rounds(TICK)
        self.assertEqual([end.code for end in self.owner.ends], [1006])

    def test_a_minute_of_being_stopped_is_no_part_of_any_deadline(self) -> None:
        for deadline in ("close", "send"):
            with self.subTest(deadline):
                self.tearDown()
                self.doCleanups()
                self.setUp()
                if deadline == "close":
                    self.channel.start_close(1000, "")
                    self.channel.closing_since = self.now
                else:
                    while self.channel.writer.post(2, bytes(50_000)):
                        pass
                self.rounds(3)
                self.now += 60
                self.rounds(0.5)
                self.assertEqual(self.owner.ends, [])
                self.rounds(2)
                self.assertEqual(len(self.owner.ends), 1)

    def test_without_an_interval_there_are_no_pings(self) -> None:
        self.keeper.discard(self.channel)
        self.keeper._ping_interval = None
        self.keeper.add(self.channel)
        self.rounds(200)
        self.assertEqual((self.pings(), self.owner.ends), (0, []))

    def test_what_arrives_unread_is_a_sign_of_life(self) -> None:
        self.start_now()
        self.channel.receiver._busy = True  # as if its own thread were in the middle of something for ever
        with mock.patch.object(self.channel, "crowded", return_value=False):
            for _ in range(4):
                self.rounds(21)
                self.peer.sendall(frame(TEXT, b"x") * 40)
                self.rounds(9.5)
            self.assertEqual(self.owner.ends, [])
            self.rounds(32)
        self.channel.receiver._busy = False
        self.assertEqual([end.code for end in self.owner.ends], [1006])

    def test_it_reads_for_a_busy_handler_and_finds_the_end(self) -> None:
        self.peer.sendall(frame(TEXT, b'{"ModeCode":"heart_beat"}') + frame(TEXT, b"later"))
        self.rounds(TICK)
        self.assertEqual(list(self.inbox), [Note("heartbeat", '{"ModeCode":"heart_beat"}'), "later"])
        self.peer.sendall(frame(CLOSE, struct.pack("!H", 4000)))
        self.rounds(TICK)
        self.assertEqual(self.owner.ends, [])  # not at once: the handler may be about to answer what came before

        def found() -> list[Reason]:
            self.rounds(TICK)
            return self.owner.ends

        wait_until(found)
        self.assertEqual([end.code for end in self.owner.ends], [4000])

    def test_trouble_in_writing_ends_that_connection_only(self) -> None:
        broken = mock.patch.object(self.channel.writer, "flush", side_effect=ValueError("planted"))
        with broken, self.assertLogs("sync_ws", "ERROR"):
            self.assertTrue(self.keeper._flushed(self.channel))
        self.assertEqual([end.text for end in self.owner.ends], ["internal error"])

    def test_a_closing_handshake_without_an_answer_is_given_up(self) -> None:
        self.channel.start_close(1000, "")
        self.channel.closing_since = self.now
        self.rounds(4)
        self.assertEqual(self.owner.ends, [])
        self.rounds(2)
        self.assertEqual([(end.code, end.by_us) for end in self.owner.ends], [(1006, True)])

    def test_a_round_that_fails_costs_its_channel_alone(self) -> None:
        with LogLines() as log, mock.patch.object(self.channel, "unread_bytes", side_effect=RuntimeError("broken")):
            self.start_now()
            self.rounds(40)
        self.assertEqual(len(log.tracebacks), 1)
        self.assertEqual(len(self.owner.ends), 1)

    def test_a_peer_that_never_reads_is_given_up(self) -> None:
        with mock.patch.object(self.channel.writer, "stuck", return_value=None) as stuck:
            self.rounds(TICK)
            self.assertEqual(stuck.call_args.args, (self.now - TICK,))  # its own sender is to find out first
            with mock.patch.object(self.channel.writer, "excuse") as excuse:
                self.now += 60
                self.rounds(TICK)
            [(now, lost)] = [call.args for call in excuse.call_args_list]
            self.assertEqual(now, self.now)
            self.assertGreater(lost, 59)  # the process was stopped: so were its peers, perhaps
            stuck.return_value = "the peer did not read"
            self.rounds(TICK)
        [end] = self.owner.ends
        self.assertEqual((end.text, end.code, end.by_us), ("the peer did not read", 1013, True))
        self.rounds(TICK)
        self.assertEqual(len(self.owner.ends), 1)

    def test_a_discarded_channel_is_left_alone(self) -> None:
        self.keeper.discard(self.channel)
        self.peer.sendall(frame(TEXT, b"x"))
        self.rounds(100)
        self.assertEqual((self.pings(), list(self.inbox)), (0, []))


class ThreadTest(LedgerTestCase):
    def test_what_was_queued_is_written_as_soon_as_the_peer_reads(self) -> None:
        ours, peer = socket.socketpair()
        with ours, peer:
            peer.settimeout(5)
            channel = Channel(transport_for(ours), Inbox(), client=False, limits=Limits(), on_end=Owner().ends.append)
            keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
            keeper.start()
            keeper.add(channel)
            sent = 0
            while not channel.writer.queued[0]:
                self.assertTrue(channel.writer.post(2, bytes(50_000)))
                sent += 1
            received = 0
            while received < sent * 50_004:
                received += len(peer.recv(1 << 20))
            wait_until(lambda: channel.writer.queued == (0, 0))
            keeper.discard(channel)
            keeper.stop(5)
            self.assertFalse(keeper.thread.is_alive())

    def test_stop_is_idempotent_and_may_come_before_start(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.assertRaises(RuntimeError, keeper.start)
        keeper.stop(5)
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
        keeper.start()
        keeper.stop(5)
        keeper.stop(5)

    def test_its_thread_holds_on_to_it_from_the_start(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=1, close_timeout=1)
        thread, left = keeper.thread, weakref.ref(keeper)
        with mock.patch.object(thread, "start"):
            keeper.start()
        del keeper
        thread.start()  # the system got round to it only now
        there = left()
        assert there is not None
        there.stop(5)
        self.assertFalse(thread.is_alive())

    def test_its_thread_runs_the_rounds_and_may_stop_itself(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
        stopped = mock.Mock(side_effect=lambda now: keeper.stop(5))
        with mock.patch.object(keeper, "round", stopped), mock.patch("sync_ws.channel.housekeeper.TICK", 0.01):
            keeper.start()
            keeper.thread.join(5)
        self.assertFalse(keeper.thread.is_alive())
        stopped.assert_called_once()

    def test_it_does_not_end_for_what_is_meant_to_end_a_program(self) -> None:
        for method in ("tend", "send_owed", "flush"):
            ours, peer = socket.socketpair()
            with self.subTest(method), ours, peer, mock.patch("sync_ws.channel.housekeeper.TICK", 0.01):
                bad, ended = mock.Mock(ended=False, bytes_received=-1, closing_since=None), threading.Event()
                bad.writer.stuck.return_value, bad.writer.queued = None, (1, 1)
                (bad.writer.flush if method == "flush" else getattr(bad, method)).side_effect = SystemExit(3)
                bad.fileno.return_value = ours.fileno()
                bad.abort.side_effect = lambda reason, ended=ended: ended.set()
                keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
                with self.assertLogs("sync_ws", "ERROR") as logs:
                    keeper.start()
                    keeper.add(bad)
                    self.assertTrue(ended.wait(5))
                    ended.clear()
                    keeper.drain(bad)
                    self.assertTrue(ended.wait(5), "there is no other round")
                    keeper.stop(5)
                self.assertIn("SystemExit", logs.output[-1])

    def test_trouble_of_its_own_is_logged_and_leaves_nothing_open(self) -> None:
        keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
        trouble = mock.patch.object(keeper, "_wait", side_effect=RuntimeError("planted"))
        with trouble, self.assertLogs("sync_ws", "ERROR") as logs:
            keeper.start()
            keeper.thread.join(5)
        self.assertIn("the housekeeper ended", logs.output[0])
        keeper.stop(5)
