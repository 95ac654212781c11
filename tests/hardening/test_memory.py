"""How much memory others can make a process hold: measured from outside, in a process that does nothing else."""

from __future__ import annotations

import contextlib
import os
import platform
import time
import unittest
import zlib

from sync_ws.channel.limits import Limits
from sync_ws.testing import wait_until
from tests.hardening.measured import resident
from tests.support.program import ProgramTest
from tests.support.raw import BINARY, CLOSE, TEXT, RawClient, frame

MIB = 1 << 20
WAITING = Limits().max_waiting_bytes
LARGEST = 4 * MIB  # a text of max_message bytes, of which one needs four bytes a character
CONNECTIONS = 10
OVERHEAD = MIB  # what a connection has besides: a thread, buffers, compression
ON_THE_WIRE = 120 * 1024  # bytes sent over each connection
EXTENSION = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"
ZEROS = bytes(MIB)
ASCII = b"a" * MIB
EMOJI = "\N{GRINNING FACE}".encode() + b"a" * (MIB - 4)
BATCH = "\N{GRINNING FACE}".encode() + b"a" * 300_000  # 1.2 MiB in memory
WORST = [b"a" * (MIB - 60)] * 3 + [b"a" * (MIB - 9000)] + [EMOJI] * 5  # just below the bound, then the largest


def squeezed(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


@unittest.skipIf(resident() is None, "the system does not tell how much memory a process has")
class MemoryTest(ProgramTest):
    def serve(self, handler: str) -> None:
        self.program = self.start("-m", "tests.hardening.measured", handler, stdin=True)
        self.port = int(self.program.wait_for("port").split()[1])
        self.clients = contextlib.ExitStack()
        self.addCleanup(self.clients.close)

    def measure(self) -> tuple[int, int, int]:
        """Bytes resident, connections, and those who took twenty messages."""
        self.program.type("?")
        _, size, count, taken = self.program.wait_for("resident").split()
        return int(size), int(count), int(taken)

    def settled(self) -> int:
        """Bytes resident once it has done what there is to do."""
        sizes = [self.measure()[0]]

        def still() -> bool:
            time.sleep(0.1)
            sizes.append(self.measure()[0])
            return len(sizes) > 4 and max(sizes[-4:]) - min(sizes[-4:]) < MIB // 4

        wait_until(still, 10)
        return sizes[-1]

    def squeeze(self, opcode: int, messages: list[bytes]) -> None:
        """Over each of some connections as many as fit on the wire, and what is not read stays unsent."""
        frames = [frame(opcode, squeezed(message), rsv=4) for message in messages]
        data = b"".join(frames)
        if len(messages) == 1:
            data *= ON_THE_WIRE // len(data)
        for _ in range(CONNECTIONS):
            client = self.clients.enter_context(RawClient(self.port).upgrade("/ws/", EXTENSION))
            client.sock.settimeout(None)
            client.sock.sendall(data)

    def check(self, handler: str, opcode: int, messages: list[bytes], bound: int) -> None:
        self.serve(handler)
        self.squeeze(opcode, [b"x"])  # whatever the first connections cost a process
        before = self.settled()
        self.squeeze(opcode, messages)
        if handler == "twenty":
            wait_until(lambda: self.measure()[2] == 2 * CONNECTIONS, 20)
        each = (self.settled() - before) / CONNECTIONS
        self.assertLess(each, bound + OVERHEAD, f"{each / MIB:.1f} MiB a connection")
        self.program.end(9)
        self.clients.close()

    def test_what_a_handler_does_not_receive_takes_4_mib_and_a_message_at_most(self) -> None:
        for name, opcode, messages, bound in (
            ("zeros", BINARY, [ZEROS], WAITING),
            ("ascii", TEXT, [ASCII], WAITING),
            ("one emoji in each", TEXT, [EMOJI], WAITING),
            ("many of those", TEXT, [BATCH], WAITING + len(BATCH)),
            ("the worst", TEXT, WORST, WAITING + LARGEST),
        ):
            with self.subTest(name):
                self.check("nothing", opcode, messages, bound)

    def test_nor_does_it_take_more_once_twenty_were_received(self) -> None:
        # what a thread has freed stays for its next message: twice the largest block, where that is above 2 MiB
        for name, opcode, messages, bound in (
            ("zeros", BINARY, [ZEROS], WAITING + 4 * MIB),
            ("one emoji in each", TEXT, [EMOJI], WAITING + 2 * LARGEST),
        ):
            with self.subTest(name):
                self.check("twenty", opcode, messages, bound)

    @unittest.skipUnless(platform.libc_ver()[0] == "glibc", "what stays is the C library's business")
    def test_a_burst_of_large_messages_leaves_little_in_each_arena(self) -> None:
        self.serve("echo")
        data = frame(BINARY, bytes(MIB))

        def burst(connections: int) -> None:
            clients = [self.clients.enter_context(RawClient(self.port).upgrade("/ws/")) for _ in range(connections)]
            for _ in range(3):
                for client in clients:
                    client.sock.sendall(data)
                for client in clients:
                    self.assertEqual(len(client.read_frame().payload), MIB)
            for client in clients:
                client.sock.sendall(frame(CLOSE, b"\x03\xe8"))
            wait_until(lambda: self.measure()[1] == 0)
            self.clients.close()

        burst(1)
        before = self.settled()
        burst(50)
        left = self.settled() - before
        # glibc has eight arenas for each core, and keeps what is free at the end of each
        arenas = min(50, 8 * (os.cpu_count() or 1))
        self.assertLess(left, arenas * 2 * MIB, f"{left / MIB:.1f} MiB")
