"""Real signals at random instants: what their handlers do to a client that the main thread is at work in.

Why so: a handler runs between any two steps of what the main thread does, and it may call ``close()`` or raise.
Whatever it interrupted: back in time, nothing left held, no thread left, and the next use works or says it is over.

What a handler raises in the middle of a weak reference's callback (``threading`` keeps a WeakSet of all threads) is
printed by Python and goes no further: then the signal comes once more, as it would from an impatient user.

    python -m tests.client.signal_rounds ROUNDS [PLACE ...] [ACT ...]

Threading: a process of its own; its main thread does the work and is interrupted.
"""

from __future__ import annotations

import faulthandler
import logging
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

import sync_ws
from sync_ws import Client, ClientState, Connection, SyncWsError
from sync_ws.testing import free_port, serving

__all__ = ["ACTS", "PLACES", "run"]

CLOSE = 5.0  # seconds that close() is given, by the handler and afterwards
SOON = 2.5  # seconds: with a server that is there it needs next to none of them, even on a machine with much to do
LATEST = 0.004  # seconds after which the signal comes, at the latest
HANG = 60  # seconds of one round, after which the process shows its stacks and ends
ACTS = ("closes", "raises")


class Alarm(Exception):
    """What the handler raises."""


def serve(conn: Connection) -> None:
    """Take everything; at "flood" send much, and "more" at last."""
    for message in conn:
        if message == "flood":
            for _ in range(200):
                conn.send("x" * 100)
            conn.send("more")


class Round:
    """One client and one signal."""

    def __init__(self, url: str, act: str) -> None:
        self.client = Client(url, heartbeat=30, reconnect=0.01, close_timeout=CLOSE)
        self.act = act
        self.fired = False
        self.armed = False
        self.problems: list[str] = []

    def arm(self) -> None:
        self.armed = True
        signal.signal(signal.SIGALRM, self.handle)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, LATEST))

    def handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.armed:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.armed, self.fired = False, True
        if self.act == "raises":
            raise Alarm
        self.close("in the handler")

    def unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is Alarm:
            self.arm()
        else:
            self.problems.append(f"in {lost.object}: {lost.exc_value!r}")

    def close(self, where: str) -> None:
        begun = time.monotonic()
        self.client.close(timeout=CLOSE)
        took = time.monotonic() - begun
        if took > SOON:
            self.problems.append(f"close() {where} took {took:.1f} s")

    def run(self, place: Callable[[Round], object]) -> list[str]:
        faulthandler.dump_traceback_later(HANG, exit=True)
        sys.unraisablehook = self.unraisable
        begun = time.monotonic()
        try:
            place(self)
        except (Alarm, SyncWsError, RuntimeError):  # RuntimeError: it was closed in the moment before it was opened
            pass
        except TimeoutError:
            self.problems.append("waited for its whole timeout")
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = time.monotonic() - begun
        if took > LATEST + SOON:
            self.problems.append(f"took {took:.1f} s")
        self.use()
        self.close("afterwards")
        if self.client.state is not ClientState.CLOSED:
            self.problems.append(f"{self.client.state} after close()")
        return self.problems

    def use(self) -> None:
        """As the next line of the program might."""
        begun = time.monotonic()
        for call in (lambda: self.client.send("next"), lambda: self.client.recv(0.01)):
            try:
                call()
            except (SyncWsError, TimeoutError):
                pass
        took = time.monotonic() - begun
        if took > SOON:
            self.problems.append(f"the next use took {took:.1f} s")


# -- where the main thread is ----------------------------------------------------------------------------------------


def opened(work: Callable[[Round], object]) -> Callable[[Round], object]:
    """In a client that is open; again and again, until the signal has come."""

    def place(this: Round) -> None:
        this.client.open(10)
        this.arm()
        while not this.fired:
            work(this)

    return place


def read_flood(this: Round) -> None:
    this.client.send("flood")
    while this.client.recv(5) != "more":
        pass


def iterate(this: Round) -> None:
    for _ in this.client:
        pass


def send_batch(this: Round) -> None:
    with this.client.batch():
        for _ in range(20):
            this.client.send("x")


def subscribe(this: Round) -> None:
    this.client.off("heartbeat", this.client.on("heartbeat", print))


def look(this: Round) -> None:
    client = this.client
    _ = client.stats(), client.state, client.reason, client.connected, client.subprotocol, repr(client)


def open_it(this: Round) -> None:
    this.arm()
    this.client.open(10)
    while not this.fired:
        time.sleep(0.001)


def close_it(this: Round) -> None:
    this.client.open(10)
    this.arm()
    this.client.close(timeout=CLOSE)
    while not this.fired:
        this.client.close(timeout=CLOSE)


def open_in_vain(this: Round) -> None:
    this.client = Client(f"ws://127.0.0.1:{FREE_PORT}/", reconnect=0.001, close_timeout=CLOSE)
    this.arm()
    this.client.open(10)


def send_offline(this: Round) -> None:
    this.client = Client(f"ws://127.0.0.1:{FREE_PORT}/", reconnect=0.001, close_timeout=CLOSE)
    this.client.open(0)
    this.arm()
    while not this.fired:
        try:
            this.client.send("x")
        except sync_ws.QueueFull:
            pass


def run_forever(this: Round) -> None:
    this.client.on("message", lambda message: this.client.send("flood") if message == "more" else None)
    this.client.on("open", lambda event: this.client.send("flood"))
    this.arm()
    this.client.run_forever()


FREE_PORT = free_port()
PLACES: dict[str, Callable[[Round], object]] = {
    "open": open_it,
    "open in vain": open_in_vain,
    "close": close_it,
    "run_forever": run_forever,
    "send": opened(lambda this: this.client.send("x")),
    "send large": opened(lambda this: this.client.send(bytes(1 << 20))),
    "send offline": send_offline,
    "batch": opened(send_batch),
    "recv": opened(lambda this: this.client.recv(5)),
    "recv flood": opened(read_flood),
    "iteration": opened(iterate),
    "stats": opened(look),
    "on and off": opened(subscribe),
}


def ended(thread: threading.Thread) -> bool:
    """Within a moment.  Thread.join will not tell: one that an interrupt tore takes the thread for stopped."""
    deadline = time.monotonic() + 1
    while thread in threading.enumerate() and time.monotonic() < deadline:
        time.sleep(0.001)
    return thread not in threading.enumerate()


def stack_of(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else "ended just now"


def run(rounds: int, places: list[str], acts: tuple[str, ...] = ACTS) -> list[str]:
    """What went wrong, in so many rounds for each place and act."""
    problems = []
    with serving(serve) as server:
        for name in places:
            for act in acts:
                for _ in range(rounds):
                    problems += [f"{name}, {act}: {text}" for text in Round(server.url, act).run(PLACES[name])]
                for thread in threading.enumerate():
                    if "sync_ws-client" in thread.name and not ended(thread):
                        problems.append(f"{name}, {act}: a thread is left:\n{stack_of(thread)}")
        faulthandler.cancel_dump_traceback_later()
    return problems


if __name__ == "__main__":
    acts = tuple(act for act in ACTS if act in sys.argv) or ACTS
    logging.getLogger("sync_ws").setLevel(logging.CRITICAL)  # functions are interrupted, and say so
    found = run(int(sys.argv[1]), [name for name in PLACES if name in sys.argv] or list(PLACES), acts)
    print("\n".join(found) or "nothing", flush=True)
    sys.exit(bool(found))
