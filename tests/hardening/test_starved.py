"""A process that runs out of something when its first large message comes goes on, without what it cannot have."""

from __future__ import annotations

import sys
import unittest

from tests.support.program import ProgramTest
from tests.support.raw import BINARY, RawClient, frame

SERVER = """
import os, resource, sys, time
import sync_ws
from sync_ws.protocol import masking

def echo(conn):
    for message in conn:
        if message == "starve":
            if sys.argv[1] == "memory":
                with open("/proc/self/statm") as file:
                    space = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
                resource.setrlimit(resource.RLIMIT_AS, (space + int(sys.argv[2]),) * 2)
            else:
                used = max(map(int, os.listdir("/proc/self/fd")))
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(sys.argv[2]),) * 2)
        conn.send(message)

server = sync_ws.Server("127.0.0.1", 0, echo).start()
print("port", server.port, flush=True)
while not masking._tried:
    time.sleep(0.01)
print("tried", masking._numpy, flush=True)
sys.stdin.read()
"""


@unittest.skipUnless(sys.platform.startswith("linux"), "limits as Linux has them")
class StarvedTest(ProgramTest):
    def test_large_messages_go_on_without_memory_or_descriptors_for_numpy(self) -> None:
        large = bytes(1 << 20)
        cases = (("memory", 24 << 20), ("memory", 64 << 20), ("descriptors", 0), ("descriptors", 2))
        programs = [self.start("-c", SERVER, *case, stdin=True) for case in cases]  # all at once: they take a while
        for (kind, left), program in zip(cases, programs, strict=True):
            with self.subTest(kind, left=left):
                port = int(program.wait_for("port").split()[1])
                with RawClient(port).upgrade("/ws/") as client:
                    client.send(frame(1, b"starve"))
                    self.assertEqual(client.read_frame().payload, b"starve")
                    for turn in range(3):
                        client.sock.sendall(frame(BINARY, large))
                        self.assertEqual(client.read_frame().payload, large, turn)
                        if not turn:
                            self.assertIn("None", program.wait_for("tried"))
                program.end(9)
