"""Strangers who read a large page slowly: they get it, and hold next to no memory of ours."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
import unittest
from pathlib import Path

from tests.hardening.measured import resident
from tests.support.program import ProgramTest

KIB, MIB = 1 << 10, 1 << 20
PAGE = 20 * MIB
READERS = 60
EACH = 300 * KIB  # of our memory: a thread and its buffers
REQUEST = b"GET /page HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n"


class PageTest(ProgramTest):
    def setUp(self) -> None:
        super().setUp()
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        (Path(holder.name) / "page").write_bytes(os.urandom(MIB) * (PAGE // MIB))
        self.program = self.start("-m", "tests.hardening.measured", "nothing", holder.name, stdin=True)
        self.addCleanup(self.program.end, 9)
        self.port = int(self.program.wait_for("port").split()[1])
        self.readers = contextlib.ExitStack()
        self.addCleanup(self.readers.close)

    def ask(self) -> socket.socket:
        """A reader that has asked, and got the first bytes."""
        sock = self.readers.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        sock.sendall(REQUEST % self.port)
        self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 200 "))
        return sock

    def measure(self) -> int:
        self.program.type("?")
        return int(self.program.wait_for("resident").split()[1])

    @unittest.skipIf(resident() is None, "the system does not tell how much memory a process has")
    def test_sixty_readers_of_a_page_of_20_mib_hold_a_few_hundred_kib_each(self) -> None:
        self.ask()
        before = self.measure()
        for _ in range(READERS):
            self.ask()
        each = (self.measure() - before) / READERS
        self.assertLess(each, EACH, f"{each / KIB:.0f} KiB a reader")

    def test_a_reader_of_some_mib_a_second_gets_all_of_it(self) -> None:
        sock, got, began = self.ask(), 0, time.monotonic()
        while data := sock.recv(64 * KIB):
            got += len(data)
            time.sleep(max(0.0, began + got / (5 * MIB) - time.monotonic()))
        self.assertGreater(got, PAGE)
        self.assertGreater(time.monotonic() - began, 3)  # longer than any single deadline for an answer


if __name__ == "__main__":
    unittest.main()
