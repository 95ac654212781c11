"""The clients of a soak: one name each, its proxy, and one client after the other that has the name.

Threading: a slot's methods by any thread; what a client's event functions do runs in that client's own thread.
"""

from __future__ import annotations

import contextlib
import random
import ssl
import threading
import time

import sync_ws
from sync_ws import Backoff, Client, ClientState, ConnectionClosed, Heartbeat, NotConnected, QueueFull, SendTimeout
from sync_ws.client.events import Closed, Error, GaveUp, Opened
from sync_ws.testing import FaultProxy
from tests.soak.oracle import Oracle
from tests.soak.payload import Message, make

__all__ = ["Slot", "SoakClient"]

PAUSE = 0.03  # seconds between two messages of a sender, on the average
BUSY = 0.002  # share of messages after which a function of the application works for a while
CLOSE = 3.0  # seconds that close() may take
ALLOWED_ENDS = {1000, sync_ws.CloseCode.REPLACED}


class SoakClient:
    """One Client with its senders. Its key is never used again."""

    def __init__(
        self, key: str, name: str, base: str, oracle: Oracle, *, seed: str, context: ssl.SSLContext | None,
        compression: bool,
    ) -> None:  # fmt: skip
        self.key = key
        self._oracle = oracle
        self._rng = random.Random(f"{seed} {key}")
        self._base = f"{base}?name={name}&id={key}"
        self._dialled = 0  # by the client's thread, as the one below
        self._attempt = 0  # the last that opened
        self._first = 1  # the first attempt that what is sent now can go out on
        self._stopping = threading.Event()
        self._settling = threading.Event()
        self.ended = threading.Event()
        self._reported = False  # a last event told of messages that were never sent
        number = self._rng.random()
        self.client = Client(
            self._url,
            heartbeat=Heartbeat(0.7, 0.7, "ping" if number < 0.5 else "message"),
            reconnect=Backoff(first=0.05, maximum=0.4),
            offline="raise" if number < 0.25 else "queue",
            ssl_context=context,
            compression=compression,
            open_timeout=3.0,
            send_timeout=2.0,
            close_timeout=1.5,
        )
        self.client.on("open", self._opened)
        self.client.on("close", self._closed)
        self.client.on("gave_up", self._gave_up)
        self.client.on("error", self._error)
        self.client.open(timeout=0)
        streams = [f"up/{key}/{index}" for index in range(2)]
        self._threads = [
            threading.Thread(target=self._send, args=(stream,), name=f"soak-{stream}", daemon=True)
            for stream in streams
        ]
        if self._rng.random() < 0.5:
            self.client.on("message", self._message)
        else:
            self._threads.append(threading.Thread(target=self._receive, name=f"soak-recv-{key}", daemon=True))
        for thread in self._threads:
            thread.start()

    def _url(self) -> str:
        self._dialled += 1
        return f"{self._base}&attempt={self._dialled}"

    # events

    def _opened(self, event: Opened) -> None:
        self._attempt = self._first = self._dialled
        self._oracle.opened(self.key, self._attempt)
        with contextlib.suppress(ConnectionClosed):  # close() was called meanwhile
            # a stream of its own: when this connection is over already it is queued, and what the next one's "open"
            # function sends goes out before the queue
            self._send_one(f"up/{self.key}/hello{self._attempt}", 1, self._rng)

    def _closed(self, event: Closed) -> None:
        reason = event.reason
        if self._first == self._attempt:  # there was a connection: after a close() between two there is none
            clean = not reason.by_us and reason.code not in (None, 1006)
            self._oracle.ended("down", self.key, self._attempt, clean=clean)
        self._first = self._attempt + 1
        if not event.reconnecting:
            self._report(event.undelivered)
            if self.client.state is ClientState.CLOSING:  # else gave_up follows
                self.ended.set()
        elif reason.code in (1002, 1003, 1007, 1008, 1009, 1010):
            self._oracle.violated(f"{self.key}: {reason}")

    def _gave_up(self, event: GaveUp) -> None:
        if event.reason.code not in ALLOWED_ENDS:
            self._oracle.violated(f"{self.key} gave up because of {event.reason}")
        self._report(event.undelivered)
        self.ended.set()

    def _report(self, undelivered: tuple[Message, ...]) -> None:
        for message in undelivered:
            self._oracle.reported(message)
        if undelivered and self._reported:
            self._oracle.violated(f"{self.key} had two last events")
        self._reported = self._reported or bool(undelivered)

    def _error(self, event: Error) -> None:
        self._oracle.violated(f"{self.key}: error event {event.exception!r}")

    def _message(self, message: Message) -> None:
        self._oracle.received(message, self.key)
        if self._rng.random() < BUSY:
            self._stopping.wait(self._rng.uniform(0.1, 0.6))

    # threads

    def _receive(self) -> None:
        rng = random.Random(self._rng.random())
        with contextlib.suppress(ConnectionClosed):
            while True:
                with contextlib.suppress(TimeoutError):
                    self._oracle.received(self.client.recv(timeout=0.5), self.key)
                if rng.random() < BUSY:
                    self._stopping.wait(rng.uniform(0.1, 0.6))

    def _send(self, stream: str) -> None:
        rng = random.Random(f"{self._rng.random()} {stream}")
        seq = 0
        with contextlib.suppress(ConnectionClosed):
            while not self._stopping.wait(0.3 if self._settling.is_set() else rng.expovariate(1 / PAUSE)):
                if rng.random() < 0.05:
                    seq = self._send_batch(stream, seq + 1, rng)
                else:
                    seq += self._send_one(stream, seq + 1, rng)

    def _send_one(self, stream: str, seq: int, rng: random.Random) -> bool:
        """Whether it was accepted; ConnectionClosed when the conversation is over."""
        self._oracle.sent(stream, seq, self.key, self._first)
        try:
            self.client.send(make(stream, seq, rng))
        except BaseException as exc:
            self._oracle.unsent(stream, seq)
            if isinstance(exc, (NotConnected, QueueFull, SendTimeout)):
                return False
            raise
        return True

    def _send_batch(self, stream: str, first: int, rng: random.Random) -> int:
        numbers = range(first, first + rng.randrange(2, 9))
        for seq in numbers:
            self._oracle.sent(stream, seq, self.key, self._first)
        try:
            with self.client.batch():
                for seq in numbers:
                    self.client.send(make(stream, seq, rng))
        except (ConnectionClosed, NotConnected, QueueFull, SendTimeout):
            for seq in numbers:
                self._oracle.unknown(stream, seq)
        return numbers[-1]

    # life

    def settle(self) -> None:
        """From now on send rarely."""
        self._settling.set()

    def up_to_date(self, marks: dict[str, int]) -> bool:
        """Whether something newer than `marks` has arrived of each stream; those not marked yet are marked."""
        streams = [f"up/{self.key}/0", f"up/{self.key}/1", f"down/{self.key}", f"cast/{self.key}"]
        now = {name: self._oracle.acknowledged(name) for name in streams}
        for name in streams:
            marks.setdefault(name, now[name])
        return all(now[name] > marks[name] for name in streams)

    def close(self) -> None:
        """Close the client and join the threads; what takes too long is a violation."""
        self._stopping.set()
        begun = time.monotonic()
        self.client.close(timeout=CLOSE)
        took = time.monotonic() - begun
        if took > CLOSE + 2.0:
            self._oracle.violated(f"close() of {self.key} took {took:.1f} s")
        for thread in self._threads:
            thread.join(10.0)
            if thread.is_alive():
                self._oracle.violated(f"{thread.name} did not end with its client")
        if self.client.state is not ClientState.CLOSED or not self.ended.wait(5.0):
            self._oracle.violated(f"{self.key} is {self.client.state.value} after close(), or had no last event")


class Slot:
    """A name, its proxy, and the clients that have or had it; at most one of them is to stay."""

    def __init__(
        self, name: str, port: int, oracle: Oracle, *, seed: int, context: ssl.SSLContext | None, compression: bool
    ) -> None:
        self.name = name
        self.proxy = FaultProxy("127.0.0.1", port)
        self._oracle = oracle
        self._options = {"seed": f"{seed}", "context": context, "compression": compression}
        self._base = self.proxy.url("/ws/", scheme="wss" if context else "ws")
        self._lock = threading.Lock()  # guards the two below; not held while a client closes
        self._generation = 0
        self.clients: list[SoakClient] = []

    def add(self) -> None:
        """Another client of this name; one that is there is replaced."""
        with self._lock:
            self._generation += 1
            key = f"{self.name}.{self._generation}"
            self.clients.append(SoakClient(key, self.name, self._base, self._oracle, **self._options))  # type: ignore[arg-type]

    def tidy(self) -> None:
        """Put away the clients that have stopped; see to it that there is one."""
        with self._lock:
            over = [client for client in self.clients if client.ended.is_set()]
            self.clients = [client for client in self.clients if client not in over]
            alone = not self.clients
        for client in over:
            client.close()
        if alone:
            self.add()

    def close_clients(self) -> None:
        """Close them all, with a closing handshake where there is a connection."""
        with self._lock:
            clients, self.clients = self.clients, []
        for client in clients:
            client.close()
