"""A writer on one end of a socket pair, whose other end is the test's; and one without a socket.

Threading: a case belongs to its test's thread.
"""

from __future__ import annotations

import socket
import threading
import unittest
from collections.abc import Callable
from typing import Any

from sync_ws.channel.batch import Batches
from sync_ws.channel.writer import Writer
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Opcode
from sync_ws.net.transport import PlainTransport
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import LedgerTestCase
from tests.support.fake_transport import FakeTransport
from tests.support.wire import End, Frame, join, read_frames

__all__ = ["KB", "LoneWriterTestCase", "WriterTestCase"]

KB = 1024


class WriterTestCase(LedgerTestCase):
    """A writer on one end of a socket pair with small buffers; ``self.end`` is the other one."""

    writer_class: type[Writer] = Writer

    def setUp(self) -> None:
        super().setUp()
        self.broken: list[tuple[str, BaseException | None]] = []

    def make(
        self,
        *,
        client: bool = False,
        deflate: bool = False,
        send_timeout: float = 10.0,
        max_queued: int = 64,
        max_queued_bytes: int = KB * KB,
        batches: Batches | None = None,
    ) -> Writer:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KB)
            self.addCleanup(sock.close)
        self.end = End(theirs, client=client)
        self.transport = PlainTransport(ours)
        return self.writer_class(
            self.transport,
            masked=client,
            deflate=Deflate(Negotiation()) if deflate else None,
            send_timeout=send_timeout,
            max_queued=max_queued,
            max_queued_bytes=max_queued_bytes,
            batches=batches,
            closed_error=lambda: ConnectionClosed(Reason("not open")),
            on_broken=lambda text, error: self.broken.append((text, error)),
        )

    def start(self, function: Callable[[], Any]) -> threading.Thread:
        """Run it in a thread, which has to end with the test."""
        thread = threading.Thread(target=function)
        thread.start()
        self.addCleanup(join, thread)
        return thread

    def fill(self, writer: Writer) -> None:
        """Send until the kernel takes no more."""
        while writer.post(Opcode.BINARY, bytes(KB)) and not writer.queued[0]:
            pass
        self.assertEqual(writer.queued[0], 1)


class LoneWriterTestCase(unittest.TestCase):
    """A writer over a transport without a socket, whose every write can be interrupted."""

    def make(self, *takes: int | Exception | None, deflate: bool = False, **options: Any) -> Writer:
        self.transport = FakeTransport(takes=takes)
        self.broken: list[tuple[str, BaseException | None]] = []
        limits: dict[str, Any] = {"send_timeout": 10.0, "max_queued": 64, "max_queued_bytes": KB * KB, **options}
        return Writer(
            self.transport,
            masked=False,
            deflate=Deflate(Negotiation()) if deflate else None,
            closed_error=lambda: ConnectionClosed(Reason("not open")),
            on_broken=lambda text, error: self.broken.append((text, error)),
            **limits,
        )

    def sent(self) -> list[Frame]:
        """What is in the kernel, which has to be whole frames."""
        frames, rest = read_frames(bytes(self.transport.sent), masked=False)
        self.assertEqual(rest, b"")
        return frames

    def interrupt(self, act: Callable[[], object]) -> None:
        """Do it in the middle of the next write, once, as a signal's handler would."""

        def once() -> None:
            self.transport.on_write = None
            act()

        self.transport.on_write = once
