"""A writer on one end of a socket pair, whose other end is the test's.

Threading: a case belongs to its test's thread.
"""

from __future__ import annotations

import socket
import threading
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
from tests.support.wire import End, join

__all__ = ["KB", "WriterTestCase"]

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
