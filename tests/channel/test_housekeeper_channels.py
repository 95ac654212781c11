"""The housekeeper at work on several channels: its own thread, slow and leaving peers, and what stopping leaves."""

from __future__ import annotations

import os
import threading
from unittest import mock

from sync_ws.messages import Opcode
from sync_ws.testing import wait_until
from tests.support.housekeeper_case import HousekeeperTestCase
from tests.support.wire import Frame, join

PING, PONG, TEXT, BINARY = Opcode.PING, Opcode.PONG, Opcode.TEXT, Opcode.BINARY


class SignsOfLife(HousekeeperTestCase):
    def test_a_part_of_a_frame_is_one(self) -> None:
        keeper = self.make()
        channel, end, _ = self.watch(keeper)
        for byte in end.frame(BINARY, bytes(20)):
            end.sock.sendall(bytes([byte]))
            self.pass_time(keeper, 15)
        self.assertEqual((end.pending(), channel.ended), ([], False))

    def test_bytes_that_a_busy_reader_has_not_come_round_to_are_one(self) -> None:
        keeper = self.make()
        channel, end, _ = self.watch(keeper)
        channel.receiver._busy = True  # as if its own thread were in the middle of something for ever
        self.pass_time(keeper, 22)
        end.sock.sendall(b"\x81")
        self.pass_time(keeper, 60)
        self.assertFalse(channel.ended)
        channel.receiver._busy = False

    def test_a_peer_that_does_not_read_is_given_up_with_1013(self) -> None:
        keeper = self.make(ping_interval=None)
        channel, _, owner = self.watch(keeper, send_timeout=10.0)
        self.fill(channel)
        self.pass_time(keeper, 8)
        self.assertEqual(owner.ends, [])
        self.pass_time(keeper, 5)
        self.assertEqual(owner.ends[0].code, 1013)


@mock.patch("sync_ws.channel.housekeeper.TICK", 0.02)
class ItsThread(HousekeeperTestCase):
    def test_a_busy_connection_answers_pings_and_keeps_its_messages(self) -> None:
        keeper = self.make(running=True)
        channel, end, _ = self.watch(keeper)
        end.send(PING, b"alive?")
        end.send(TEXT, b"for later")
        self.assertEqual(end.read(), [Frame(PONG, b"alive?")])
        self.assertEqual(channel.read(5), "for later")

    def test_the_end_of_a_busy_connection_is_noticed(self) -> None:
        _, end, owner = self.watch(self.make(running=True))
        end.send_close(1001)
        wait_until(lambda: owner.ends)
        self.assertEqual(owner.ends[0].code, 1001)

    def test_a_peer_that_never_reads_holds_up_no_other(self) -> None:
        keeper = self.make(running=True, ping_interval=None)
        channels = [self.watch(keeper) for _ in range(3)]
        for channel, _, _ in channels:
            self.fill(channel)
        for channel, end, _ in channels[1:]:
            count = channel.writer.messages_sent
            self.assertEqual([len(frame.payload) for frame in end.read(count)], [1024] * count)
        wait_until(lambda: list(keeper._draining) == [channels[0][0]])

    def test_a_peer_that_floods_with_controls_holds_up_no_other(self) -> None:
        keeper = self.make(running=True, ping_interval=None)
        bad, flooder, _ = self.watch(keeper)
        data = flooder.frame(PONG) * 5000

        def flood() -> None:
            try:
                while True:
                    flooder.sock.sendall(data)
            except OSError:
                return

        flooding = threading.Thread(target=flood)
        flooding.start()
        self.addCleanup(join, flooding)
        wait_until(lambda: bad.bytes_received > 50_000)
        _, end, _ = self.watch(keeper)
        end.send(PING, b"alive?")
        self.assertEqual(end.read(), [Frame(PONG, b"alive?")])
        flooder.hang_up()

    def test_a_peer_that_leaves_while_much_is_queued_ends_it(self) -> None:
        keeper = self.make(running=True, ping_interval=None)
        channel, end, owner = self.watch(keeper)
        self.fill(channel)
        end.sock.close()
        wait_until(lambda: owner.ends)
        wait_until(lambda: not keeper._draining)


class Stopping(HousekeeperTestCase):
    def test_what_comes_after_it_touches_no_descriptor_of_others(self) -> None:
        keeper = self.make(running=True)
        keeper.stop(5.0)
        self.assertFalse(keeper.thread.is_alive())
        read, write = os.pipe()  # these may well have the numbers of the pipe that was closed
        channel, _, _ = self.watch(keeper)
        keeper.drain(channel)
        os.set_blocking(read, False)
        with self.assertRaises(BlockingIOError):
            os.read(read, 1)
        os.close(read)
        os.close(write)
