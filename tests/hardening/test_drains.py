"""What a broadcast leaves in a queue goes out as soon as its reader reads, whatever comes between two steps."""

from __future__ import annotations

import socket
from unittest import mock

from sync_ws.channel.channel import Channel
from sync_ws.channel.housekeeper import Housekeeper
from sync_ws.channel.limits import Limits
from sync_ws.messages import Opcode
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.wire import make_channel


class DrainTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        ours, self.peer = socket.socketpair()
        self.addCleanup(self.peer.close)
        self.peer.settimeout(5)
        self.channel, _ = make_channel(ours, client=False, limits=Limits(max_queued_bytes=1 << 30, max_queued=1 << 30))
        self.keeper = Housekeeper("test", ping_interval=None, ping_timeout=10, close_timeout=5)
        self.addCleanup(self.part)

    def part(self) -> None:
        self.keeper.discard(self.channel)
        self.keeper.stop(5)
        self.channel.abort()
        self.channel.release()

    def queue_some(self) -> None:
        """A burst that the kernel does not take whole."""
        before = self.channel.writer.queued[0]
        while self.channel.writer.queued[0] < before + 3:
            self.assertTrue(self.channel.writer.post(Opcode.BINARY, bytes(50_000)))

    def read_all(self) -> None:
        def all_sent() -> bool:
            self.peer.setblocking(False)
            try:
                while self.peer.recv(1 << 20):
                    pass
            except BlockingIOError:
                return self.channel.writer.queued == (0, 0)
            raise AssertionError("the stream ended")

        wait_until(all_sent, message="what was queued has been forgotten")

    def test_a_burst_that_comes_when_the_queue_has_just_been_written_is_not_forgotten(self) -> None:
        bursts: list[bool] = []
        flushed = self.keeper._flushed

        def and_then_a_burst(channel: Channel) -> bool:
            done = flushed(channel)
            if done and len(bursts) < 5:
                bursts.append(done)
                self.queue_some()  # as another thread's broadcast would
            return done

        with mock.patch.object(self.keeper, "_flushed", and_then_a_burst):
            self.keeper.start()
            self.keeper.add(self.channel)
            self.queue_some()
            while len(bursts) < 5:
                self.read_all()
        self.read_all()

    def test_what_was_queued_before_somebody_looked_after_it_is_not_forgotten(self) -> None:
        self.queue_some()
        self.keeper.start()
        self.keeper.add(self.channel)
        self.read_all()
