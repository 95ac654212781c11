"""A write that fails: nothing follows it on the wire, whoever comes in the moment before its owner knows."""

from __future__ import annotations

import errno
import threading
import unittest
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sync_ws.channel.writer import LARGE, Writer
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed
from sync_ws.messages import Opcode
from tests.support.fake_transport import FakeTransport

NO_MEMORY = OSError(errno.ENOMEM, "no memory")


class Gap:
    """A lock after whose first release ``then`` is done at once, as by a thread that had waited for it."""

    def __init__(self, then: Callable[[], object]) -> None:
        self._lock: Any = threading.RLock()
        self._then: Callable[[], object] | None = then

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.release()
        then, self._then = self._then, None
        if then is not None:
            then()

    def _is_owned(self) -> bool:
        return bool(self._lock._is_owned())


class FailingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.told: list[BaseException | None] = []
        self.refused: list[int] = []  # how many had been told when others found it closed

    def make(self, *takes: int | Exception | None) -> Writer:
        self.transport = FakeTransport(takes=takes)
        return Writer(
            self.transport, masked=False, deflate=None, send_timeout=10.0, max_queued=64, max_queued_bytes=1 << 20,
            closed_error=lambda: ConnectionClosed(Reason("not open")),
            on_broken=lambda text, error: self.told.append(error),
        )  # fmt: skip

    def others(self, writer: Writer) -> None:
        """What another thread may do in that moment."""
        writer.flush()
        self.assertFalse(writer.post(Opcode.PONG, b""))
        self.assertFalse(writer.finish(b""))
        for message in ("late", ["la", "te"]):
            with self.assertRaises(ConnectionClosed):
                writer.send(message)
            self.refused.append(len(self.told))
        self.assertEqual((writer.open, writer.queued), (False, (0, 0)))

    def test_nothing_is_written_behind_a_part_of_a_frame_in_the_moment_before_it_is_told(self) -> None:
        works: tuple[Callable[[Writer], object], ...] = (
            lambda writer: self.assertRaises(ConnectionClosed, writer.send, bytes(LARGE)),
            lambda writer: self.assertRaises(ConnectionClosed, writer.send, [bytes(LARGE)]),
            lambda writer: self.assertFalse(writer.post(Opcode.BINARY, bytes(LARGE))),
        )
        for work in works:
            self.setUp()
            writer = self.make(4, NO_MEMORY)
            writer.post(Opcode.TEXT, b"first")  # of which the kernel takes four bytes
            writer._lock = Gap(lambda writer=writer: self.others(writer))  # type: ignore[assignment,misc]
            work(writer)
            writer.flush()
            self.assertEqual(bytes(self.transport.sent), b"\x81\x05fi")

    def test_who_comes_in_that_moment_tells_of_it_before_he_is_refused(self) -> None:
        writer = self.make(NO_MEMORY)
        writer._lock = Gap(lambda: self.others(writer))  # type: ignore[assignment]
        with self.assertRaises(ConnectionClosed) as caught:
            writer.send("x")
        self.assertIs(caught.exception.__cause__, NO_MEMORY)
        self.assertEqual((self.told, self.refused), ([NO_MEMORY], [1, 1]))


if __name__ == "__main__":
    unittest.main()
