"""Frames in the log: one line for each, whatever it contains, and none where nobody asked."""

from __future__ import annotations

import logging
import socket
import struct

from sync_ws.channel.frame_log import FrameLog
from sync_ws.messages import Opcode
from sync_ws.testing import LedgerTestCase
from tests.support.wire import End, make_channel


class FrameLogTest(LedgerTestCase):
    def lines(self, *frames: tuple[int, bytes]) -> list[str]:
        logger = logging.getLogger("sync_ws.server")
        with self.assertLogs(logger, logging.DEBUG) as caught:
            log = FrameLog.wanted(logger, "7")
            assert log is not None
            for opcode, payload in frames:
                log.sent(opcode, payload)
        return [record.getMessage() for record in caught.records]

    def test_each_kind_is_readable_and_one_line(self) -> None:
        self.assertEqual(
            self.lines(
                (Opcode.TEXT, b"hello"), (Opcode.TEXT, "grüße\n\x1b[2J".encode()), (Opcode.BINARY, b"\x00\xff"),
                (Opcode.PING, b""), (Opcode.CLOSE, struct.pack("!H", 1001) + b"bye"), (Opcode.CLOSE, b""), (3, b"x"),
            ),
            [
                "7 > TEXT 'hello' [5]", "7 > TEXT 'gr\\xfc\\xdfe\\n\\x1b[2J' [12]", "7 > BINARY 00 ff [2]",
                "7 > PING '' [0]", "7 > CLOSE 1001 'bye' [5]", "7 > CLOSE '' [0]", "7 > 0x3 78 [1]",
            ],
        )  # fmt: skip

    def test_a_long_payload_is_cut(self) -> None:
        for opcode in (Opcode.TEXT, Opcode.BINARY):
            [line] = self.lines((opcode, b"x" * 1_000_000))
            self.assertLess(len(line), 300)
            self.assertTrue(line.endswith("[1000000]"))

    def test_it_is_not_there_unless_the_logger_is_at_debug(self) -> None:
        logger = logging.getLogger("sync_ws.client")
        before = logger.level
        self.addCleanup(logger.setLevel, before)
        logger.setLevel(logging.INFO)
        self.assertIsNone(FrameLog.wanted(logger, "7"))

    def test_a_channel_tells_all_that_comes_and_goes(self) -> None:
        with self.assertLogs("sync_ws.server", logging.DEBUG) as caught:
            ours, theirs = socket.socketpair()
            channel, _ = make_channel(ours, client=False)
            end = End(theirs, client=False)
            end.send(Opcode.TEXT, b"one ", fin=False)
            end.send(Opcode.CONTINUATION, b"two")
            end.send(Opcode.TEXT, b"short")
            end.send(Opcode.PING, b"p")
            end.send(Opcode.BINARY, bytes(200))
            for _ in range(3):
                channel.read(5)
            channel.send("out")
            channel.writer.post(Opcode.TEXT, b"to many", b"encoded")
            with channel.writer.batch():
                channel.send(["a", "b"])
                channel.send("gathered")
            channel.start_close(1000, "")
            channel.abort()
            channel.release()
            theirs.close()
        told = [record.getMessage().partition(" ")[2] for record in caught.records]
        zeros = "00 " * 75 + "..."
        self.assertEqual(
            told,
            [
                "< TEXT 'one ' [4] and more to come", "< CONT 74 77 6f [3]", "< TEXT 'short' [5]", "< PING 70 [1]",
                f"< BINARY {zeros} [200]", "> PONG 70 [1]", "> TEXT 'out' [3]", "> TEXT 'to many' [7]",
                "> TEXT 'ab' [2]", "> TEXT 'gathered' [8]", "> CLOSE 1000 '' [2]",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    import unittest

    unittest.main()
