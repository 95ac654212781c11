"""A channel over one end of a socket pair, whose other end is the test's; and threads whose outcome is kept.

Threading: a case belongs to its test's thread; an ``Outcome`` may be read once it has ended.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase, wait_until
from tests.support.wire import End, Owner, fork, join, make_channel

__all__ = ["BEAT", "MIB", "OVER", "ChannelTestCase", "Outcome", "in_child", "tcp_pair"]

OVER = Reason("the test is over")
MIB = 1 << 20
BEAT = b'{"ModeCode":"heart_beat","msg":1}'


class ChannelTestCase(LedgerTestCase):
    """``self.make`` gives a channel; ``self.end`` is then its peer, by hand."""

    channel: Channel
    owner: Owner
    end: End

    def make(
        self, client: bool = False, *, tcp: bool = False, deflate: bool = False, early: bytes = b"", **limits: Any
    ) -> Channel:
        ours, theirs = tcp_pair() if tcp else socket.socketpair()
        limits = {"close_timeout": 5.0, **limits}
        channel, self.owner = make_channel(
            ours, client=client, limits=Limits(**limits), early=early,
            deflate=Deflate(Negotiation()) if deflate else None,
        )  # fmt: skip
        self.channel, self.end = channel, End(theirs, client=client)

        def clean() -> None:
            theirs.close()
            channel.abort(OVER)
            channel.release()

        self.addCleanup(clean)
        return channel

    def start(self, function: Callable[[], Any]) -> Outcome:
        """Run it in a thread, which has to end with the test."""
        outcome = Outcome(function)
        outcome.start()
        self.addCleanup(join, outcome)
        return outcome

    def blocked_reader(self) -> Outcome:
        """A thread that is blocked in ``read``."""
        reader = self.start(self.channel.read)
        wait_until(lambda: self.channel.receiver._busy)
        return reader

    def block_sending(self) -> Outcome:
        """A thread that is blocked in ``send``, because nobody reads."""
        sender = self.start(lambda: self.channel.send(bytes(8 * MIB)))
        wait_until(lambda: self.channel.writer.queued[0])
        return sender

    def assert_closed(self, error: BaseException | None = None) -> ConnectionClosed:
        """The error of a ``read`` now, or the one given."""
        if error is None:
            with self.assertRaises(ConnectionClosed) as caught:
                self.channel.read(timeout=5)
            error = caught.exception
        assert isinstance(error, ConnectionClosed), repr(error)
        return error


class Outcome(threading.Thread):
    """A thread that keeps what its function returned or raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self._function()
        except Exception as exc:
            self.error = exc


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, listener.accept()[0]


def in_child(check: Callable[[], str]) -> str:
    """What a forked child says."""
    read, write = os.pipe()
    child = fork()
    if not child:
        signal.alarm(10)  # ends the child, should it hang
        try:
            os.write(write, check().encode())
        except BaseException as exc:
            os.write(write, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said
