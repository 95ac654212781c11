"""A channel whose thread is interrupted: at every instant at which a signal's handler may raise, and at every
instruction for a handler that calls ``close`` or ``send`` itself.  No luck is needed: each instant has its turn."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

from sync_ws.channel import batch, channel, conversation, frame_queue, receiver, writer
from sync_ws.channel.channel import Channel
from sync_ws.channel.conversation import Conversation
from sync_ws.channel.inbox import Inbox, Note
from sync_ws.channel.limits import Limits
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Data, Message, Opcode, Pieces
from sync_ws.net import transport, waiting
from sync_ws.protocol import assembly, closing, frame_reader, frames
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase
from tests.support.interrupt import Interrupt
from tests.support.wire import End, Owner, make_channel

__all__ = ["BINARY", "CLOSE", "OURS", "PING", "PONG", "TEXT", "Alarm", "InterruptedTestCase", "alarm"]

OURS = (
    assembly, batch, channel, closing, conversation, frame_queue, frame_reader, frames, receiver, transport, waiting,
    writer,
)  # fmt: skip
TEXT, BINARY, CLOSE, PING, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CLOSE, Opcode.PING, Opcode.PONG
ENOUGH = 20_000  # instants: more than any of these has


class Alarm(BaseException):
    """What a handler raises; no ``except Exception`` may swallow it."""


def alarm() -> None:
    raise Alarm


class Face(Conversation):
    """As a server's connection takes its messages."""

    def __init__(self, channel: Channel, inbox: Inbox) -> None:
        super().__init__(inbox)
        self.channel = channel

    def send(self, data: Data | Pieces) -> None:
        self.channel.send(data)

    def ping(self, timeout: float = 10.0) -> float:
        return self.channel.ping(timeout)

    def _next_message(self, timeout: float | None) -> Message:
        item = self.channel.read_kept(timeout)
        assert not isinstance(item, Note)
        return item


class InterruptedTestCase(LedgerTestCase):
    timeout = 120.0
    channel: Channel
    owner: Owner
    end: End
    face: Face

    def make(self, *, client: bool = False, deflate: bool = False, **limits: Any) -> None:
        ours, theirs = socket.socketpair()
        self.channel, self.owner = make_channel(
            ours, client=client, limits=Limits(**limits), deflate=Deflate(Negotiation()) if deflate else None
        )
        self.end = End(theirs, client=client)
        self.face = Face(self.channel, self.owner.inbox)

    def done(self) -> None:
        self.end.sock.close()
        self.channel.abort()
        self.channel.release()

    def each_instant(
        self, work: Callable[[], object], act: Callable[[], object], **options: Any
    ) -> Iterator[BaseException | None]:
        """``work`` on a new channel, interrupted once more each time and one instant later: what it raised."""
        for number in range(1, ENOUGH):
            self.make(**options)
            raised: BaseException | None = None
            interrupt = Interrupt(OURS, number, act, signals_only=True)
            try:
                with interrupt:
                    work()
            except (Alarm, ConnectionClosed) as exc:
                raised = exc.with_traceback(None)  # which would keep what was at work alive
            if not interrupt.came:
                self.done()
                return
            yield raised
            self.done()
        self.fail("there was no end of instants")
