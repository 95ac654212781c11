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
from tests.support.program import Program, ProgramTest
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
Case = tuple[str, int, list[bytes], int]  # its name, the opcode, the messages, and how many bytes a connection may take


def squeezed(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Measured:
    """A server in a process of its own, and connections to it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = int(program.wait_for("port").split()[1])
        self.clients = contextlib.ExitStack()

    def measure(self) -> tuple[int, int, int]:
        """Bytes resident, connections, and those who took twenty messages."""
        self.program.type("?")
        _, size, count, taken = self.program.wait_for("resident").split()
        return int(size), int(count), int(taken)

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


def settled(servers: list[Measured]) -> list[int]:
    """Bytes resident of each, once all have done what there is to do."""
    looks = [[server.measure()[0] for server in servers]]

    def still() -> bool:
        time.sleep(0.1)
        looks.append([server.measure()[0] for server in servers])
        return len(looks) > 4 and all(max(sizes) - min(sizes) < MIB // 4 for sizes in zip(*looks[-4:], strict=True))

    wait_until(still, 10)
    return looks[-1]


@unittest.skipIf(resident() is None, "the system does not tell how much memory a process has")
class MemoryTest(ProgramTest):
    def serve(self, handler: str, count: int = 1) -> list[Measured]:
        programs = [self.start("-m", "tests.hardening.measured", handler, stdin=True) for _ in range(count)]
        servers = [Measured(program) for program in programs]
        for server in servers:
            self.addCleanup(server.clients.close)
        return servers

    def check(self, handler: str, *cases: Case) -> None:
        """One process each, all at the same time: what takes long is to see that no more comes."""
        servers = self.serve(handler, len(cases))
        for server, (_, opcode, _, _) in zip(servers, cases, strict=True):
            server.squeeze(opcode, [b"x"])  # whatever the first connections cost a process
        before = settled(servers)
        for server, (_, opcode, messages, _) in zip(servers, cases, strict=True):
            server.squeeze(opcode, messages)
        if handler == "twenty":
            wait_until(lambda: all(server.measure()[2] == 2 * CONNECTIONS for server in servers), 20)
        after = settled(servers)
        for was, now, (name, _, _, bound) in zip(before, after, cases, strict=True):
            each = (now - was) / CONNECTIONS
            with self.subTest(name):
                self.assertLess(each, bound + OVERHEAD, f"{each / MIB:.1f} MiB a connection")

    def test_what_a_handler_does_not_receive_takes_4_mib_and_a_message_at_most(self) -> None:
        self.check(
            "nothing",
            ("zeros", BINARY, [ZEROS], WAITING),
            ("ascii", TEXT, [ASCII], WAITING),
            ("one emoji in each", TEXT, [EMOJI], WAITING),
            ("many of those", TEXT, [BATCH], WAITING + len(BATCH)),
            ("the worst", TEXT, WORST, WAITING + LARGEST),
        )

    def test_nor_does_it_take_more_once_twenty_were_received(self) -> None:
        # what a thread has freed stays for its next message: twice the largest block, where that is above 2 MiB
        self.check(
            "twenty",
            ("zeros", BINARY, [ZEROS], WAITING + 4 * MIB),
            ("one emoji in each", TEXT, [EMOJI], WAITING + 2 * LARGEST),
        )

    @unittest.skipUnless(platform.libc_ver()[0] == "glibc", "what stays is the C library's business")
    def test_a_burst_of_large_messages_leaves_little_in_each_arena(self) -> None:
        (server,) = self.serve("echo")
        data = frame(BINARY, bytes(MIB))

        def burst(connections: int) -> None:
            clients = [server.clients.enter_context(RawClient(server.port).upgrade("/ws/")) for _ in range(connections)]
            for _ in range(3):
                for client in clients:
                    client.sock.sendall(data)
                for client in clients:
                    self.assertEqual(len(client.read_frame().payload), MIB)
            for client in clients:
                client.sock.sendall(frame(CLOSE, b"\x03\xe8"))
            wait_until(lambda: server.measure()[1] == 0)
            server.clients.close()

        burst(1)
        (before,) = settled([server])
        burst(50)
        left = settled([server])[0] - before
        # glibc has eight arenas for each core, and keeps what is free at the end of each
        arenas = min(50, 8 * (os.cpu_count() or 1))
        self.assertLess(left, arenas * 2 * MIB, f"{left / MIB:.1f} MiB")
