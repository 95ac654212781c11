"""A thread that is interrupted while it closes, at each instant: what is owed is sent, and nothing waits in vain."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from functools import partial
from typing import Any

from sync_ws.protocol.closing import Phase
from tests.support.interrupted_case import BINARY, CLOSE, Alarm, InterruptedTestCase, alarm
from tests.support.wire import join


class ClosingTest(InterruptedTestCase):
    took: float  # seconds, of the longest close()

    def make(self, **options: Any) -> None:
        """With a peer that answers our Close frame, and only that."""
        super().make(**options)
        self.got: list[int] = []
        self.peer = threading.Thread(target=self.answer)
        self.peer.start()

    def answer(self) -> None:
        with contextlib.suppress(OSError):
            while arrived := self.end.read(1):
                self.got.append(arrived[0].opcode)
                if self.got == [*self.got[:-1], CLOSE] and self.got.count(CLOSE) == 1:
                    self.end.send_close(1000)
                    self.end.sock.shutdown(socket.SHUT_WR)

    def done(self) -> None:
        self.end.hang_up()
        join(self.peer)
        super().done()

    def close(self, code: int = 1000) -> None:
        began = time.monotonic()
        self.channel.close(code, "", 5.0)
        self.took = max(self.took, time.monotonic() - began)

    def close_and_part(self) -> None:
        """As a handler: and whoever owns the connection then needs the reading side, and waits for nobody."""
        self.close(1001)
        if self.channel.ended and not self.channel.interrupted:
            owner = threading.Thread(target=self.channel.release)
            owner.start()
            join(owner)

    def assert_closed(self, before: list[int]) -> None:
        self.assertTrue(self.channel.ended)
        self.assertIsNotNone(self.channel._closing.received, self.channel.reason)
        self.assertIn(self.channel._closing.phase, (Phase.ENDED, Phase.RELEASED))
        self.channel.release()  # and with it the end of the stream
        join(self.peer)
        self.assertEqual(self.got, [*before, CLOSE])

    def test_a_close_in_the_middle_of_a_close_waits_for_nothing_that_cannot_come(self) -> None:
        for client in (False, True):
            self.took = 0.0
            for _ in self.each_instant(self.close, self.close_and_part, client=client):
                self.assert_closed([])
            self.assertLess(self.took, 2.0)

    def test_a_close_after_one_that_was_interrupted_sends_what_that_one_owed(self) -> None:
        for client in (False, True):
            self.took = 0.0
            for raised in self.each_instant(self.close, alarm, client=client):
                self.assertIsInstance(raised, Alarm)
                self.close(1001)
                self.assert_closed([])
            self.assertLess(self.took, 2.0)

    def test_what_was_gathered_goes_before_the_close_frame_or_not_at_all(self) -> None:
        def work() -> None:
            with self.channel.writer.batch():
                self.channel.send(b"gathered")
                self.close()

        for act in (partial(self.close, 1001), alarm):
            self.took = 0.0
            for _ in self.each_instant(work, act):
                self.close()
                self.assert_closed([BINARY] if BINARY in self.got else [])
            self.assertLess(self.took, 2.0)

    def test_who_looks_after_it_sends_the_frame_that_nobody_came_back_for(self) -> None:
        owed = 0
        for _ in self.each_instant(lambda: self.channel.start_close(1000, ""), alarm):
            if self.channel.open:  # it had not begun
                continue
            owed += self.channel.writer.open
            self.channel.end_overdue()
            self.assertIsNotNone(self.channel.closing_since)
            self.channel.close()
            self.assert_closed([])
        self.assertGreater(owed, 0)


if __name__ == "__main__":
    import unittest

    unittest.main()
