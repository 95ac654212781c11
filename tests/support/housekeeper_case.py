"""A housekeeper and channels for it to look after, whose peers are the test's; and channels that nothing happens to.

Threading: everything belongs to its test's thread.
"""

from __future__ import annotations

import socket
import time
from typing import Any
from unittest import mock

from sync_ws.channel.channel import Channel
from sync_ws.channel.housekeeper import Housekeeper
from sync_ws.channel.limits import Limits
from sync_ws.messages import Opcode
from sync_ws.testing import LedgerTestCase
from tests.support.channel_case import OVER
from tests.support.wire import End, Owner, make_channel

__all__ = ["HousekeeperTestCase", "quiet_channel"]


def quiet_channel(**what: Any) -> mock.Mock:
    """One that nothing happens to."""
    quiet = mock.Mock(ended=False, bytes_received=0, closing_since=None, **what)
    quiet.writer.stuck.return_value, quiet.writer.queued = None, (0, 0)
    quiet.receiver.behind, quiet.unread_bytes.return_value = False, 0
    return quiet


class HousekeeperTestCase(LedgerTestCase):
    now: float  # monotonic seconds, of the last round

    def make(self, *, running: bool = False, **options: Any) -> Housekeeper:
        """One whose rounds the test calls itself, unless it is ``running``."""
        keeper = Housekeeper("test", **{"ping_interval": 20.0, "ping_timeout": 10.0, "close_timeout": 5.0, **options})
        if running:
            keeper.start()
            self.addCleanup(keeper.stop, 5.0)
        else:
            self.addCleanup(keeper._close)
        self.now = time.monotonic()
        return keeper

    def watch(self, keeper: Housekeeper, **limits: Any) -> tuple[Channel, End, Owner]:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        channel, owner = make_channel(ours, client=False, limits=Limits(**limits))
        keeper.add(channel)

        def clean() -> None:
            theirs.close()
            keeper.discard(channel)
            channel.abort(OVER)
            channel.release()

        self.addCleanup(clean)
        return channel, End(theirs, client=False), owner

    def pass_time(self, keeper: Housekeeper, seconds: int) -> None:
        """Rounds as they would come, one every second."""
        for _ in range(seconds):
            self.now += 1.0
            keeper.round(self.now)

    def fill(self, channel: Channel) -> None:
        """Post until no more is taken."""
        while channel.writer.post(Opcode.BINARY, bytes(1024)):
            pass
        self.assertGreater(channel.writer.queued[0], 5)
