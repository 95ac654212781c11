"""The server of a soak: one after the other on the same port, and the threads that send to the clients.

Threading: `restart` and `stop` by one thread; everything else runs in threads of its own or of the connections.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator

from sync_ws import Connection, ConnectionClosed, SendTimeout, Server
from tests.soak.oracle import Oracle
from tests.soak.payload import make

__all__ = ["Host", "identity"]

BUSY = 0.002  # share of messages after which a handler works for a while
PAUSE = 0.03  # seconds between two messages of a sender, on the average
SHUTDOWN = 5.0  # seconds


def identity(connection: Connection) -> tuple[str, int]:
    """The client's key and its attempt, from its URL."""
    query = connection.request.query
    return query["id"], int(query["attempt"])


class Host:
    """Runs a Server; `names` are those that its senders write to."""

    def __init__(
        self, oracle: Oracle, names: list[str], *, seed: int, context: ssl.SSLContext | None, compression: bool
    ) -> None:
        self._oracle = oracle
        self._names = names
        self._seed = seed
        self._context = context
        self._compression = compression
        self._seqs: dict[str, int] = {}  # each stream's last number; a stream is its one sender's
        self._stopping = threading.Event()
        self._settling = threading.Event()
        self.port = _quiet_port()
        self.server = self._make()
        self._senders = [
            threading.Thread(target=self._send, args=(name,), name=f"soak-down-{name}", daemon=True) for name in names
        ]
        self._senders.append(threading.Thread(target=self._broadcast, name="soak-cast", daemon=True))
        for thread in self._senders:
            thread.start()

    def _make(self) -> Server:
        server = _patient(
            lambda: Server(
                "127.0.0.1", self.port, self._handle, handshake_timeout=3.0, send_timeout=2.0, close_timeout=1.5,
                ping_interval=0.8, ping_timeout=0.8, ssl_context=self._context, compression=self._compression,
            )
        )  # fmt: skip
        server.on("error", lambda conn, exc: self._oracle.violated(f"error event of {conn!r}: {exc!r}"))
        return server.start()

    def restart(self) -> None:
        """Shut the server down and start another one on its port."""
        self._shut_down()
        self.server = self._make()

    def settle(self) -> None:
        """From now on send rarely: the senders' last messages have to arrive."""
        self._settling.set()

    def stop(self) -> None:
        """End the senders and the server."""
        self._stopping.set()
        for thread in self._senders:
            thread.join(10.0)
        self._shut_down()

    def _shut_down(self) -> None:
        begun = time.monotonic()
        left = self.server.shutdown(SHUTDOWN)
        if left:
            names = ", ".join(thread.name for thread in left)
            self._oracle.violated(f"alive after the server's shutdown: {names}")
        if (took := time.monotonic() - begun) > SHUTDOWN + 3.0:
            self._oracle.violated(f"the server's shutdown took {took:.1f} s")

    # one connection, in its own thread

    def _handle(self, connection: Connection) -> None:
        client, attempt = identity(connection)
        rng = random.Random(f"{self._seed} {client} {attempt}")
        seqs = {f"echo/{client}": attempt * 1_000_000}  # increasing over the handlers of one client
        while True:
            try:
                self._oracle.received(connection.recv(), client, attempt)
            except ConnectionClosed as exc:
                self._oracle.ended("up", client, attempt, clean=exc.received is not None)
                if exc.code in (1002, 1003, 1007, 1008, 1009, 1010):
                    self._oracle.violated(f"{connection!r} ended with {exc.code}: {exc}")
                return
            if rng.random() < BUSY:
                self._stopping.wait(rng.uniform(0.1, 0.6))
            if rng.random() < 0.1:
                with contextlib.suppress(ConnectionClosed, SendTimeout):
                    self._send_one(connection, f"echo/{client}", rng, seqs)

    # senders

    def _send_one(self, connection: Connection, stream: str, rng: random.Random, seqs: dict[str, int]) -> None:
        client, attempt = identity(connection)
        seq = seqs.get(stream, 0) + 1
        self._oracle.sent(stream, seq, client, attempt)
        try:
            connection.send(make(stream, seq, rng, attempt))
        except BaseException:
            self._oracle.unsent(stream, seq)
            raise
        seqs[stream] = seq

    def _rounds(self, rng: random.Random) -> Iterator[None]:
        while not self._stopping.wait(0.3 if self._settling.is_set() else rng.expovariate(1 / PAUSE)):
            yield

    def _send(self, name: str) -> None:
        rng = random.Random(f"{self._seed} down {name}")
        for _ in self._rounds(rng):
            connection = self.server.clients.get(name)
            if connection is None:
                continue
            with contextlib.suppress(ConnectionClosed, SendTimeout):
                if rng.random() < 0.05:
                    self._send_batch(connection, rng)
                else:
                    self._send_one(connection, f"down/{identity(connection)[0]}", rng, self._seqs)

    def _send_batch(self, connection: Connection, rng: random.Random) -> None:
        client, attempt = identity(connection)
        stream = f"down/{client}"
        first = self._seqs.get(stream, 0) + 1
        numbers = range(first, first + rng.randrange(2, 9))
        self._seqs[stream] = numbers[-1]
        for seq in numbers:
            self._oracle.sent(stream, seq, client, attempt)
        try:
            with connection.batch():
                for seq in numbers:
                    connection.send(make(stream, seq, rng, attempt))
        except BaseException:
            for seq in numbers:
                self._oracle.unknown(stream, seq)
            raise

    def _broadcast(self) -> None:
        rng = random.Random(f"{self._seed} cast")
        for seq, _ in enumerate(self._rounds(rng), 1):
            server = self.server
            receivers = list(server.clients.values())  # one of each client: it may have an older connection yet
            for connection in receivers:
                client, attempt = identity(connection)
                self._oracle.sent(f"cast/{client}", seq, client, attempt)
            delivery = server.broadcast(make("cast", seq, rng), to=receivers)
            for connection in delivery.refused:
                self._oracle.unsent(f"cast/{identity(connection)[0]}", seq)


def _patient(make: object) -> Server:
    """The port was in use a moment ago: allow for its last traces."""
    assert callable(make)
    deadline = time.monotonic() + 5.0
    while True:
        try:
            server = make()
            assert isinstance(server, Server)
            return server
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _quiet_port() -> int:
    """A free port that the kernel gives to no outgoing connection.

    Whoever dials a port of that range on which nobody listens can, rarely, be connected to itself.  The port does not
    follow from the seed: of two runs at once with one seed, each would take the other's while its server restarts.
    """
    rng = random.SystemRandom()
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
            lowest = int(file.read().split()[0])
    except (OSError, ValueError):
        lowest = 32768
    for _ in range(100):
        port = rng.randrange(max(1024, lowest // 2), max(1025, lowest))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
