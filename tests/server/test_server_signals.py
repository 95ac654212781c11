"""A server and signals: SIGTERM ends it as Ctrl-C does; and a signal's handler may shut it down whatever it interrupts.

Two ways to that: each instruction of our own functions has its turn (``Interrupt``), and real signals come at random
instants into a process of its own.  ``SYNC_WS_SIGNALS=5000 python -m unittest tests.server.test_server_signals`` makes
so many of them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from sync_ws import Connection, Hub, Server, SyncWsError
from sync_ws.server import admission, hub, joining, listener, registry, server, state
from sync_ws.server.state import ServerState
from sync_ws.testing import LedgerTestCase
from tests.support.interrupt import Interrupt
from tests.support.raw import CLOSE, RawClient
from tests.support.server_case import ServerTestCase, echo, wait_until
from tests.support.uncovered import uncovered

ROOT = Path(__file__).parents[2]
OURS = (admission, hub, joining, listener, registry, server, state)
SIGNALS = int(os.environ.get("SYNC_WS_SIGNALS", "66"))
TIMEOUT = 0.1  # seconds, of what the handler calls
SHORT = 0.02  # seconds, where it may wait in vain for a thread that needs a lock of the interrupted function
MORE = 1.0 + 2.0  # seconds that it may take beyond its timeout: what is promised, and what a loaded machine may add
GRACE = 0.05  # seconds that shutdown() waits for threads it has cut off: in vain, if what was interrupted holds a lock
SPAN = 0.004  # seconds until the signal comes, at most
ENOUGH = 5000  # instructions: more than any of these has

README = """
import signal, sys, threading, time
import sync_ws

def echo(conn):
    for message in conn:
        conn.send(message)

def announce():
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.001)
    print(server.port, flush=True)

with sync_ws.Server("127.0.0.1", 0, echo) as server:
    {before}
    threading.Thread(target=announce).start()
    server.serve_forever()
    print("returned", flush=True)
"""


class SigtermTest(LedgerTestCase):
    timeout = 60.0

    def run_server(self, before: str = "pass") -> tuple[subprocess.Popen[str], RawClient]:
        process = subprocess.Popen(
            [sys.executable, "-c", README.format(before=before)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(process.__exit__, None, None, None)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        client = RawClient(int(process.stdout.readline())).upgrade()
        self.addCleanup(client.close)
        client.send_text("hello")
        self.assertEqual(client.read_text(), "hello")
        return process, client

    def test_it_says_goodbye_returns_and_the_program_ends_as_it_would(self) -> None:
        process, client = self.run_server()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(client.read_close(), (1001, "the server is shutting down"))
        client.send_close(1001)
        self.assertEqual(client.read_to_end(), b"")
        self.assertEqual(process.communicate(timeout=20), ("returned\n", ""))
        self.assertEqual(process.returncode, 0)

    def test_further_ones_change_nothing(self) -> None:
        process, client = self.run_server()
        process.send_signal(signal.SIGTERM)
        self.assertEqual(client.read_close()[0], 1001)
        process.send_signal(signal.SIGTERM)
        client.send_close(1001)
        self.assertEqual(process.communicate(timeout=20), ("returned\n", ""))
        self.assertEqual(process.returncode, 0)

    def test_whoever_has_a_handler_keeps_it(self) -> None:
        process, client = self.run_server("signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        self.assertEqual(process.communicate(timeout=20)[0], "")
        self.assertEqual(process.returncode, 7)

    def test_a_handler_of_ones_own_may_shut_it_down(self) -> None:
        process, client = self.run_server("signal.signal(signal.SIGTERM, lambda number, frame: server.shutdown(1.0))")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(client.read_close()[0], 1001)
        client.send_close(1001)
        self.assertEqual(process.communicate(timeout=20), ("returned\n", ""))
        self.assertEqual(process.returncode, 0)


class ForeverTest(ServerTestCase):
    def test_sigterm_is_as_it_was_when_it_returns(self) -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        with Server("127.0.0.1", 0, echo) as serving:

            def stop() -> None:
                wait_until(lambda: serving._state is ServerState.RUNNING)
                wait_until(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
                serving.shutdown()

            stopper = threading.Thread(target=stop)
            stopper.start()
            serving.serve_forever()
            stopper.join()
        self.assertIs(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_another_thread_leaves_sigterm_alone(self) -> None:
        before = signal.getsignal(signal.SIGTERM)
        with Server("127.0.0.1", 0, echo) as serving:
            thread = threading.Thread(target=serving.serve_forever)
            thread.start()
            wait_until(lambda: serving._state is ServerState.RUNNING)
            self.assertIs(signal.getsignal(signal.SIGTERM), before)
            serving.shutdown()
            thread.join()


class EachInstructionTest(LedgerTestCase):
    """A handler that calls ``shutdown`` in the midst of these: it is back, and so are they, and nothing is left."""

    timeout = 180.0

    def each(self, make: Callable[[], Any], act: Callable[[Any], object], step: int = 1) -> None:
        for number in range(1, ENOUGH, step):
            thing = make()
            left: list[Any] = []

            def shut_down(thing: Any = thing, left: list[Any] = left) -> None:
                left.append(thing.shutdown(SHORT))

            interrupt = Interrupt(OURS, number, shut_down)
            begun = time.monotonic()
            with interrupt, contextlib.suppress(RuntimeError):  # started or admitted too late
                act(thing)
            self.assertLess(time.monotonic() - begun, TIMEOUT + MORE)
            self.assertEqual(thing.shutdown(), ())
            self.assertIs(thing._state, ServerState.STOPPED)
            if isinstance(thing, Server):
                with socket.create_server(("127.0.0.1", thing.port)):
                    pass
            if not interrupt.came:
                return
            self.assertEqual(left, [()])
        self.fail("there is no end of its instructions")

    def test_in_start(self) -> None:
        self.each(Server, Server.start)
        self.each(Hub, Hub.start)

    def test_in_serve_forever_and_shutdown(self) -> None:
        def serve(serving: Server) -> None:
            serving.start()
            serving.shutdown(TIMEOUT)
            serving.serve_forever()

        self.each(Server, serve, step=3)
        self.each(Hub, Hub.shutdown)

    def test_in_what_an_application_asks_for(self) -> None:
        def ask(thing: Server | Hub) -> None:
            thing.start()
            thing.stats()
            thing.broadcast("to nobody")
            self.assertEqual((dict(thing.clients), thing.connections), ({}, frozenset()))
            thing.off("open", thing.on("open", print))
            with contextlib.suppress(KeyError):
                thing.send_to("nobody", "x")

        self.each(Server, ask, step=5)
        self.each(Hub, ask, step=3)

    def test_in_the_admission_of_a_guest(self) -> None:
        def admit(thing: Hub) -> None:
            with contextlib.suppress(SyncWsError):
                thing.withdraw(thing.admit("ann"))

        self.each(Hub, admit)


class StressTest(LedgerTestCase):
    timeout = 3600.0

    def test_real_signals_at_random_instants(self) -> None:
        seed = random.randrange(1 << 30)
        with subprocess.Popen(
            [sys.executable, "-c", f"from tests.server.test_server_signals import stress; stress({SIGNALS}, {seed})"],
            cwd=ROOT, env=uncovered(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            output, errors = process.communicate()
        self.assertEqual((process.returncode, errors), (0, ""), f"seed {seed}: {output}")
        result = json.loads(output)
        self.assertEqual(result["wrong"], [], f"seed {seed}")
        self.assertEqual(result["rounds"], SIGNALS)


# -- the process of its own ----------------------------------------------------------------------------------------


class Round:
    """A server with clients that answer, what the main thread does again and again, and a signal in it."""

    def __init__(self) -> None:
        self.server = Server("127.0.0.1", 0, echo, close_timeout=1.0)
        self.clients: list[RawClient] = []
        self.threads: list[threading.Thread] = []
        self.came = False
        self.took = 0.0
        self.error = ""

    def start(self) -> None:
        self.server.start()
        for name in ("ann", "bob", "eve"):
            client = RawClient(self.server.port).upgrade(f"/ws/?name={name}")
            thread = threading.Thread(target=answer, args=(client,), daemon=True)
            thread.start()
            self.clients.append(client)
            self.threads.append(thread)
        wait_until(lambda: len(self.server.connections) == 3)

    def end(self) -> None:
        begun = time.monotonic()
        left = self.server.shutdown(TIMEOUT)
        if left or time.monotonic() - begun > TIMEOUT + MORE:
            self.error += f"the last shutdown left {left}, after {time.monotonic() - begun:.1f} s; "
        for thread, client in zip(self.threads, self.clients, strict=True):
            thread.join(5)
            self.error += "a client hears nothing; " if thread.is_alive() else ""
            client.close()

    @contextlib.contextmanager
    def signalled(self, act: Callable[[], object]) -> Iterator[None]:
        """Inside, a signal comes at a random instant, and its handler calls ``act``."""

        def handle(number: int, frame: FrameType | None) -> None:
            begun = time.monotonic()
            try:
                act()
            except Exception:
                self.error += traceback.format_exc()
            self.took = time.monotonic() - begun
            self.came = True

        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, SPAN))
        yield
        while not self.came:
            time.sleep(0.001)


def answer(client: RawClient) -> None:
    """A client that reads everything, and answers a Close frame."""
    with contextlib.suppress(OSError, AssertionError):
        while client.read_frame().opcode != CLOSE:
            continue
        client.send_close(1000)
        client.read_to_end()


def again_and_again(act: Callable[[Server], object]) -> Callable[[Round], None]:
    def run(this: Round) -> None:
        this.start()
        with this.signalled(lambda: this.server.shutdown(TIMEOUT)):
            while not this.came:
                with contextlib.suppress(SyncWsError, KeyError):
                    act(this.server)

    return run


def in_start(this: Round) -> None:
    with this.signalled(lambda: this.server.shutdown(TIMEOUT)), contextlib.suppress(RuntimeError):
        this.server.start()


def in_serve_forever(this: Round) -> None:
    this.start()
    with this.signalled(lambda: this.server.shutdown(TIMEOUT)):
        this.server.serve_forever()


def in_shutdown(this: Round) -> None:
    this.start()
    with this.signalled(lambda: this.server.shutdown(TIMEOUT)):
        this.server.shutdown(TIMEOUT)


def in_close(this: Round) -> None:
    this.start()
    connection = this.server.clients["ann"]

    def act() -> None:
        connection.close(timeout=TIMEOUT)
        this.server.shutdown(TIMEOUT)

    with this.signalled(act):
        connection.close(timeout=TIMEOUT)


def closing_while_sending(this: Round) -> None:
    this.start()
    connection = this.server.clients["ann"]
    with this.signalled(lambda: connection.close(timeout=TIMEOUT)), contextlib.suppress(SyncWsError):
        while not this.came:
            connection.send(b"x" * 1000)


def in_a_guest(this: Round) -> None:
    """The main thread converses itself, and is told by its own handler to stop."""

    def chat(connection: Connection) -> None:
        while connection.connected:
            with contextlib.suppress(SyncWsError, TimeoutError):
                connection.send("hello")
                connection.recv(0.0005)

    ours, theirs = socket.socketpair()
    client = RawClient.over(theirs)
    thread = threading.Thread(target=answer, args=(client,), daemon=True)
    thread.start()
    with Hub(chat, close_timeout=1.0) as house:
        connection = house.connect(house.admit("ann"), ours, sample_request())
        with this.signalled(lambda: house.shutdown(TIMEOUT)):
            house.run(connection)
    thread.join(5)
    this.error += "the guest hears nothing; " if thread.is_alive() else ""
    client.close()


def sample_request() -> Any:
    from sync_ws import Headers, Request

    return Request("GET", "/ws/", {}, Headers(), ("a door", 0))


SCENES: dict[str, Callable[[Round], None]] = {
    "start": in_start,
    "serve_forever": in_serve_forever,
    "shutdown": in_shutdown,
    "close": in_close,
    "closing while sending": closing_while_sending,
    "a guest": in_a_guest,
    "broadcast": again_and_again(lambda serving: serving.broadcast("x" * 100)),
    "send_to": again_and_again(lambda serving: serving.send_to("bob", b"y" * 1000)),
    "stats": again_and_again(lambda serving: serving.stats()),
    "clients": again_and_again(lambda serving: (dict(serving.clients), serving.connections, len(serving.clients))),
    "on and off": again_and_again(lambda serving: serving.off("open", serving.on("open", print))),
}


def stress(rounds: int, seed: int) -> None:
    """Run so many rounds, and print what went wrong."""
    random.seed(seed)
    logging.basicConfig(level=logging.DEBUG, stream=io.StringIO())  # it speaks meanwhile
    wrong: list[str] = []
    slowest: dict[str, float] = {}
    hub.GRACE = GRACE
    for number in range(rounds):
        name = list(SCENES)[number % len(SCENES)]
        faulthandler.dump_traceback_later(30.0, exit=True)  # it hangs: every thread's traceback, and the end
        this = Round()
        SCENES[name](this)
        this.end()
        slowest[name] = max(slowest.get(name, 0.0), this.took)
        if this.error or this.took > 2 * TIMEOUT + MORE:
            wrong.append(f"{name}: {this.error} the handler took {this.took:.1f} s")
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps({"rounds": rounds, "wrong": wrong, "slowest": slowest}))
