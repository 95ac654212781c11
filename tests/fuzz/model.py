"""A stateful model of server, registry and clients, run by hypothesis against the real ones over real sockets.

The model knows which slot has which name, which clients wait to reconnect until when, and what has been sent. After
each step the real ones have to come to the same: registry, states, messages, timers. Sequences that break it are
shrunk by hypothesis and printed as a program.

Threading: the machine is driven by one thread; what the server's functions record is read when it has arrived.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections import Counter, defaultdict

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sync_ws import ClientState, Connection, ConnectionClosed, Server
from sync_ws.testing import ResourceLedger, UncaughtThreadErrors, wait_until
from tests.fuzz.logs import LoggedErrors
from tests.fuzz.players import CLOSE_YOURSELF, DELAY, Player, Slot

__all__ = ["Machine", "run", "run_model"]

NAMES = ("ann", "bob")
SLOTS = 3
MOST_QUEUED = 50
ROUND, STEPS = 25, 40  # sequences of a round of the long run, steps of a sequence
CLOSE_TIMEOUT = 0.5  # of the server, seconds


slots = st.integers(0, SLOTS - 1)
texts = st.one_of(st.sampled_from(["", "hello", "äöü", "large"]), st.binary(max_size=4))


class Machine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = ResourceLedger()
        self.uncaught = UncaughtThreadErrors()
        self.uncaught.install()
        self.errors = LoggedErrors()
        self.errors.install()
        self.keys = itertools.count(1)
        self.arrived: defaultdict[str, list[str | bytes]] = defaultdict(list)
        self.model = [Slot() for _ in range(SLOTS)]
        self.server: Server | None = None
        self.port = 0
        self.start_server()
        self.players = [Player(number, self.port) for number in range(SLOTS)]

    # the server

    def start_server(self) -> None:
        self.server = Server("127.0.0.1", self.port, close_timeout=CLOSE_TIMEOUT)
        self.server.on("message", self.message)
        self.server.start()
        self.port = self.server.port

    def message(self, connection: Connection, message: str | bytes) -> None:
        self.arrived[connection.request.query["id"]].append(message)
        if message == CLOSE_YOURSELF:
            connection.close(1000, "as told")

    def has(self, name: str) -> Slot | None:
        """The slot that has the name."""
        return next((s for s in self.model if s.state is ClientState.OPEN and s.name == name), None)

    def becomes_open(self, slot: Slot) -> None:
        holder = self.has(slot.name)
        if holder is not None:
            holder.state = ClientState.CLOSED  # replaced
        slot.state = ClientState.OPEN
        slot.to_server += slot.queued
        slot.queued.clear()

    # rules

    @rule(number=slots, name=st.sampled_from(NAMES), by_function=st.booleans())
    def connect(self, number: int, name: str, by_function: bool) -> None:
        slot, player = self.model[number], self.players[number]
        if slot.state not in (None, ClientState.CLOSED):
            return
        client = player.make(f"k{next(self.keys)}", name, by_function)
        slot = self.model[number] = Slot(name=name)
        if self.server is None:
            client.open(timeout=0)
            slot.state = ClientState.WAITING
        else:
            client.open(timeout=10.0)
            self.becomes_open(slot)

    @rule(number=slots, message=texts)
    def client_sends(self, number: int, message: str | bytes) -> None:
        message = _full(message)
        slot, client = self.model[number], self.players[number].client
        if client is None or len(slot.queued) >= MOST_QUEUED:
            return
        if slot.state is ClientState.CLOSED:
            try:
                client.send(message)
            except ConnectionClosed:
                return
            raise AssertionError("send() on a closed client did not raise")
        client.send(message)
        (slot.to_server if slot.state is ClientState.OPEN else slot.queued).append(message)

    @precondition(lambda self: self.server is not None)
    @rule(name=st.sampled_from(NAMES), message=texts)
    def server_sends(self, name: str, message: str | bytes) -> None:
        assert self.server is not None
        message = _full(message)
        slot = self.has(name)
        if slot is None:
            try:
                self.server.send_to(name, message)
            except KeyError:
                return
            raise AssertionError(f"send_to({name!r}) found a client that nobody knows")
        self.server.send_to(name, message)
        slot.to_client.append(message)

    @precondition(lambda self: self.server is not None)
    @rule(message=texts)
    def broadcast(self, message: str | bytes) -> None:
        assert self.server is not None
        message = _full(message)
        holders = [slot for slot in self.model if slot.state is ClientState.OPEN]
        delivery = self.server.broadcast(message)
        assert (delivery.taken, delivery.refused) == (len(holders), ())
        for slot in holders:
            slot.to_client.append(message)

    @rule(number=slots)
    def drop(self, number: int) -> None:
        if self.model[number].state is ClientState.OPEN:
            self.players[number].proxy.reset_all()
            self.model[number].state = ClientState.WAITING

    @rule(number=slots, returns=st.booleans())
    def vanish(self, number: int, returns: bool) -> None:
        """The path swallows everything: the client notices by its heartbeat; the server does not, so soon."""
        slot, player = self.model[number], self.players[number]
        if slot.state is not ClientState.OPEN:
            return
        assert self.server is not None
        player.proxy.both.blackhole()
        player.starve()
        assert slot.name in self.server.clients
        slot.state = ClientState.WAITING
        player.proxy.both.clear(scope="new")
        if returns:  # and takes its own name over; the end of the old connection comes later
            player.step(DELAY)
            self.becomes_open(slot)
        else:
            player.proxy.reset_all()

    @rule(number=slots, seconds=st.sampled_from([1.0, 4.0, 7.0, 12.0]))
    def step_clock(self, number: int, seconds: float) -> None:
        slot, player = self.model[number], self.players[number]
        if slot.state not in (ClientState.OPEN, ClientState.WAITING):
            return
        if player.step(seconds) and slot.state is ClientState.WAITING and self.server is not None:
            self.becomes_open(slot)

    @rule(number=slots)
    def client_closes(self, number: int) -> None:
        slot, client = self.model[number], self.players[number].client
        if client is not None:
            client.close()
            slot.state = ClientState.CLOSED

    @rule(number=slots, code=st.sampled_from([1000, 1001, 1011, 4000]))
    def server_closes(self, number: int, code: int) -> None:
        slot = self.model[number]
        if slot.state is ClientState.OPEN:
            assert self.server is not None
            self.server.clients[slot.name].close(code)
            slot.state = ClientState.CLOSED if code == 1000 else ClientState.WAITING

    @rule(number=slots)
    def client_closes_in_its_function(self, number: int) -> None:
        slot = self.model[number]
        if slot.state is ClientState.OPEN and self.players[number].by_function:
            assert self.server is not None
            self.server.send_to(slot.name, CLOSE_YOURSELF)
            slot.to_client.append(CLOSE_YOURSELF)
            slot.state = ClientState.CLOSED

    @rule(number=slots)
    def server_closes_in_its_function(self, number: int) -> None:
        slot, client = self.model[number], self.players[number].client
        if slot.state is ClientState.OPEN and client is not None:
            client.send(CLOSE_YOURSELF)
            slot.to_server.append(CLOSE_YOURSELF)
            slot.state = ClientState.CLOSED

    @rule()
    def shut_down_or_start(self) -> None:
        if self.server is None:
            self.start_server()
            return
        assert self.server.shutdown() == ()
        self.server = None
        for slot in self.model:
            if slot.state is ClientState.OPEN:
                slot.state = ClientState.WAITING

    # what has to hold after each

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        for slot, player in zip(self.model, self.players):
            if slot.state is None:
                continue
            player.wait_for(slot.state)
            player.expect(slot.to_client)
            arrived = self.arrived[player.key]
            wait_until(lambda: len(arrived) >= len(slot.to_server), message=f"messages of {player.key}")  # noqa: B023
            assert arrived == slot.to_server, f"{player.key}: {arrived} arrived, not {slot.to_server}"
            if slot.state is ClientState.CLOSED:
                wait_until(lambda: player.undelivered is not None, message="the last event")  # noqa: B023
                assert player.undelivered == tuple(slot.queued)
            assert not player.problems, player.problems
        if self.server is not None:
            server = self.server
            expected = {
                slot.name: (player.key, str(player.dialled))
                for slot, player in zip(self.model, self.players) if slot.state is ClientState.OPEN
            }  # fmt: skip
            wait_until(lambda: registered(server) == expected, message=f"the registry to be {expected}")
            wait_until(lambda: len(server.connections) == len(expected), message="connections that nobody knows")
        assert not self.errors.lines, self.errors.lines

    def teardown(self) -> None:
        try:
            for player in self.players:
                if player.client is not None:
                    player.client.close()
            left = self.server.shutdown() if self.server is not None else ()
            for player in self.players:
                player.proxy.close()
                assert not player.clock.pending
            assert left == ()
            self.ledger.check()
            self.uncaught.check()
        finally:
            self.uncaught.uninstall()
            self.errors.uninstall()


def _full(message: str | bytes) -> str | bytes:
    """What is sent for it: the large one is spelt out here, for the sake of the printed program."""
    return "x" * 70_000 if message == "large" else message


def registered(server: Server) -> dict[str, tuple[str, str]]:
    """Each name, whose client has it, and the number of that client's connection."""
    queries = {name: connection.request.query for name, connection in server.clients.items()}
    return {name: (query["id"], query["number"]) for name, query in queries.items()}


def run_model(examples: int, steps: int, seed: int | None = None, *, shrink: bool = False) -> None:
    """Run so many sequences of so many steps; without a seed always the same ones. Raises what was found.

    `shrink`: look for a shorter sequence with the same result, for up to five minutes.
    """
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, derandomize=seed is None, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )  # fmt: skip

    class Seeded(Machine):
        """hypothesis keeps its seed on the class."""

    run_state_machine_as_test(Seeded if seed is None else hypothesis.seed(seed)(Seeded), settings=chosen)


def run(seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Run sequences for so long: how many, and what was found."""
    counts: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            run_model(ROUND, STEPS, seed=seed * 1000 + counts["rounds"])
        except Exception as exc:
            return counts, ["".join(traceback.format_exception(exc))]
        counts["rounds"] += 1
        counts["sequences"] += ROUND
    return counts, []
