"""The load generator where there is no C compiler: arguments and JSON as in ``load.c``, on picows.

Without TLS and compression. Slower than the C program: with it, figures of the fastest servers are compressed. The
report says which one was used.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import resource
import socket
import sys
import time
from collections import deque
from typing import Any

from tests.benchmark.clients import PATTERN

# Through importlib, as in the contenders: this file has to type-check where picows is not installed.
picows: Any = importlib.import_module("picows")

CLOSE = picows.WSMsgType.CLOSE
KINDS = {False: picows.WSMsgType.TEXT, True: picows.WSMsgType.BINARY}


def small_window(url: object) -> socket.socket:
    """A socket that receives as little as possible, never to be read from (see ``dial`` in load.h)."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    return sock


def cpu_seconds_of(pid: int) -> float:
    """What another process has used so far, as in ``load.h``; 0 for none."""
    return time.clock_gettime(~pid << 3 | 2) if pid else 0.0


class PeerError(Exception):
    """The server does not do what it should."""


class Peer(picows.WSListener):  # type: ignore[misc]
    """One connection: replies are compared, counted and, in echo mode, answered by the next message."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.silent = number >= load.options.connections - load.options.silent
        self.stamps: deque[int] = deque()
        self.transport: Any = None

    def on_ws_connected(self, transport: Any) -> None:
        self.transport = transport
        if self.silent:
            transport.underlying_transport.pause_reading()

    def on_ws_disconnected(self, transport: Any) -> None:
        self.load.lost(self)

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        if frame.msg_type == CLOSE:
            self.transport.disconnect()
        elif frame.get_payload_as_bytes() != self.load.payload:
            self.load.finish("the reply differs from what was sent")
        else:
            self.load.on_reply(self)

    def send(self, now: int) -> None:
        """One message, noted as sent at ``now``."""
        self.stamps.append(now)
        self.transport.send(KINDS[self.load.options.binary], self.load.payload)


class Load:
    """One run; what the modes share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.payload = (PATTERN * (options.size // len(PATTERN) + 1))[: options.size].encode()
        self.peers: list[Peer] = []
        self.done = asyncio.Event()
        self.error: str | None = None
        self.leaving = False
        self.missing = 0  # replies still awaited, in the modes that wait for all
        self.latencies: list[int] = []
        self.server_cpu = 0.0  # what the server had used when the first of them came
        self.start = self.end = self.last = 0

    async def open_all(self) -> None:
        """Connects one after the other."""
        url = f"ws://127.0.0.1:{self.options.port}{self.options.path}"
        for number in range(self.options.connections):
            peer = Peer(self, number)
            await picows.ws_connect(lambda peer=peer: peer, url, socket_factory=small_window if peer.silent else None)
            self.peers.append(peer)

    def open_window(self) -> None:
        """Starts the clock: from ``start`` on, replies count."""
        self.start = self.last = time.monotonic_ns() + int(self.options.warmup * 1e9)
        self.end = self.start + int(self.options.seconds * 1e9)

    def record(self, since: int, now: int) -> None:
        if now >= self.start:
            if not self.latencies:
                self.server_cpu = cpu_seconds_of(self.options.watch)
            self.latencies.append(now - since)
            self.last = now

    def lost(self, peer: Peer) -> None:
        if not self.leaving and not peer.silent and self.options.mode != "handshake":
            self.finish("the server ended the connection")

    def finish(self, error: str | None = None) -> None:
        self.error = self.error or error
        self.leaving = True
        self.done.set()

    def on_reply(self, peer: Peer) -> None:
        """A message came: in echo mode the next one leaves at once."""
        if self.options.mode != "echo":
            self.missing -= 1
            if self.missing <= 0:
                self.done.set()
            return
        now = time.monotonic_ns()
        self.record(peer.stamps.popleft(), now)
        if now < self.end:
            peer.send(now)
        else:
            self.finish()

    async def wait_all(self, count: int, patience: float) -> bool:
        """Until that many replies are there; false when they are not in time."""
        self.missing = count
        self.done.clear()
        await self.wait_done(patience)
        return self.missing <= 0

    async def wait_done(self, patience: float) -> bool:
        """Until ``done`` is set; false when it is not in time."""
        waiting = asyncio.ensure_future(self.done.wait())
        await asyncio.wait({waiting}, timeout=patience)
        waiting.cancel()
        if self.error:
            raise PeerError(self.error)
        return self.done.is_set()

    def report(self, stalled: bool = False) -> None:
        """The line of JSON."""
        seconds = (self.last - self.start) / 1e9
        ordered = sorted(self.latencies)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = cpu_seconds_of(self.options.watch) - self.server_cpu

        def percentile(fraction: float) -> float:
            return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] / 1e3 if ordered else 0.0

        print(
            json.dumps(
                {
                    "mode": self.options.mode,
                    "connections": self.options.connections,
                    "in_flight": self.options.in_flight,
                    "size": self.options.size,
                    "seconds": seconds,
                    "messages": len(ordered),
                    "per_second": len(ordered) / seconds if seconds else 0.0,
                    "p50_us": percentile(0.5),
                    "p99_us": percentile(0.99),
                    "max_us": percentile(1.0),
                    "generator_cpu": (usage.ru_utime + usage.ru_stime) / (self.options.seconds + self.options.warmup),
                    "server_cpu_us": spent / max(1, len(ordered) - 1) * 1e6,
                    "stalled": stalled,
                }
            ),
            flush=True,
        )


async def run_echo(load: Load) -> None:
    await load.open_all()
    load.open_window()
    for peer in load.peers:
        for _ in range(load.options.in_flight):
            peer.send(time.monotonic_ns())
    if not await load.wait_done(load.options.warmup + load.options.seconds + load.options.patience):
        raise PeerError("no reply")
    load.report()


async def run_handshake(load: Load) -> None:
    load.open_window()
    while (began := time.monotonic_ns()) < load.end:
        await load.open_all()
        opened = time.monotonic_ns()
        transport = load.peers.pop().transport
        transport.send_close(picows.WSCloseCode.OK)
        await transport.wait_disconnected()
        now = time.monotonic_ns()
        load.record(now - (opened - began), now)
    load.report()


async def run_broadcast(load: Load) -> None:
    await load.open_all()
    readers = load.options.connections - load.options.silent
    complete = False
    for _ in range(20):  # until the server counts every connection in
        load.peers[0].send(0)
        if complete := await load.wait_all(readers, 0.25):
            break
    load.open_window()
    while complete and (began := time.monotonic_ns()) < load.end:
        load.peers[0].send(began)
        if complete := await load.wait_all(readers, load.options.patience):
            load.record(began, time.monotonic_ns())
    load.report(stalled=not complete)


async def run_idle(load: Load) -> None:
    await load.open_all()
    loop = asyncio.get_running_loop()
    event = "held"
    while True:
        alive = 0
        for first in range(0, len(load.peers), 32):  # a few at a time: a sign of life, not a storm
            some = load.peers[first : first + 32]
            for peer in some:
                peer.send(0)
            await load.wait_all(len(some), load.options.patience)
            alive += len(some) - max(0, load.missing)
        print(json.dumps({"event": event, "connections": len(load.peers), "alive": alive}), flush=True)
        if not await loop.run_in_executor(None, sys.stdin.readline):
            return
        event = "checked"


async def run_serve(load: Load) -> None:
    class Echo(picows.WSListener):  # type: ignore[misc]
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())

    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", load.options.port, reuse_address=True)
    print("READY", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


MODES = {
    "echo": run_echo,
    "handshake": run_handshake,
    "broadcast": run_broadcast,
    "idle": run_idle,
    "serve": run_serve,
}


async def run(options: argparse.Namespace) -> int:
    """One mode; an error is a line of JSON, too."""
    load = Load(options)
    try:
        await MODES[options.mode](load)
    except (PeerError, OSError, picows.WSError) as exc:
        print(json.dumps({"error": str(exc)}), flush=True)
        return 1
    load.leaving = True
    for peer in load.peers:
        if options.abrupt:
            peer.transport.disconnect(graceful=False)
        else:
            peer.transport.send_close(picows.WSCloseCode.OK)
    return 0


def main() -> int:
    """Arguments as in ``load.c``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--path", default="/ws/")
    parser.add_argument("--binary", action="store_true")
    parser.add_argument("--abrupt", action="store_true")
    for name, default in (
        ("port", 0),
        ("connections", 1),
        ("in-flight", 1),
        ("silent", 0),
        ("size", 100),
        ("watch", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, seconds in (("seconds", 1.0), ("warmup", 0.2), ("patience", 5.0)):
        parser.add_argument(f"--{name}", type=float, default=seconds)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        uvloop: Any = importlib.import_module("uvloop")
    except ImportError:
        return asyncio.run(run(options))
    status: int = uvloop.run(run(options))
    return status


if __name__ == "__main__":
    sys.exit(main())
