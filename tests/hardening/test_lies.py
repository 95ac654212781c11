"""Each system call fails in its turn, in each way that it can: nobody hangs, nothing is left behind, and who is told of
an end is told why.

A conversation is held once without a fault, which tells the calls that there are; and then once for each fault of each
of them.  This is a sample, unless ``SYNC_WS_ALL_LIES=1`` asks for all: every so many of the faults of the first, the
second, the middle and the last call of a name by a side.
"""

from __future__ import annotations

import _socket
import ast
import contextlib
import errno
import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import sync_ws.net
from sync_ws import Backoff, Client, Connection, ConnectionClosed, Reason, Server, SyncWsError
from sync_ws.net.transport import transport_for
from sync_ws.testing import Certificates, LedgerTestCase, ResourceLedger, make_certificates
from tests.support.lies import AGAIN, FAULTS, SHORT, Call, Fault, Lies, lying

ALL = os.environ.get("SYNC_WS_ALL_LIES") == "1"
EVERY = 5  # of so many lies one is told
SOON = 4.0  # seconds, for a conversation that takes some milliseconds, on a machine with other things to do
PATIENCE = 3.0  # seconds for a message: that it passes is a failure
# small ones, and one that is read to where it belongs and is more than the kernel takes at once
MESSAGES: tuple[str | bytes, ...] = ("one", bytes(400_000), "three")


@dataclass
class Outcome:
    """What the two applications were told."""

    complete: bool = False  # all messages came back
    refused: OSError | None = None  # there was no server to be had
    raised: BaseException | None = None  # in the client's application
    reason: Reason | None = None  # why the client is over
    server_reasons: list[Reason] = field(default_factory=list)
    logged: list[logging.LogRecord] = field(default_factory=list)
    seconds: float = 0.0


class _Records(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _echo(connection: Connection) -> None:
    for message in connection:
        connection.send(message)


@contextlib.contextmanager
def _logged(records: list[logging.LogRecord]) -> Iterator[None]:
    logger, handler = logging.getLogger("sync_ws"), _Records(records)
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


class Conversation:
    """One server, one client, an echo of all messages, and a second client that finds the server in order."""

    def __init__(self, certificates: Certificates | None, *, portable: bool, by_recv: bool) -> None:
        self._client_options: dict[str, Any] = {}
        self._server_options: dict[str, Any] = {}
        if certificates is not None:
            self._client_options["ssl_context"] = certificates.client_context()
            self._server_options["ssl_context"] = certificates.server_context()
        self._portable = portable
        self._talk = self._by_recv if by_recv else self._by_function

    def hold(self, lies: Lies) -> Outcome:
        """What came of it with such ``lies``."""
        outcome = Outcome()
        opened: list[Connection] = []
        opened_first: list[Connection] = []  # by the first client
        ended: dict[Connection, Reason] = {}
        began = time.monotonic()
        with _logged(outcome.logged), lying(lies, portable=self._portable):
            try:
                with Server("127.0.0.1", 0, _echo, **self._server_options) as server:
                    server.start()
                    server.on("open", opened.append)
                    server.on("close", lambda connection, reason: ended.update({connection: reason}))
                    self._one_client(server.url, outcome)
                    outcome.seconds = time.monotonic() - began
                    opened_first = opened[:]
                    if not outcome.complete:
                        lies.at = None
                        self._one_client(server.url, second := Outcome())
                        assert second.complete, f"the server is of no use afterwards: {second}"
            except OSError as exc:
                outcome.refused = exc
        outcome.server_reasons = [ended[connection] for connection in opened_first]
        return outcome

    def _one_client(self, url: str, outcome: Outcome) -> None:
        client = Client(url, reconnect=None, heartbeat=None, offline="raise", **self._client_options)
        try:
            self._talk(client)
            outcome.complete = True
        except (SyncWsError, TimeoutError) as exc:
            outcome.raised = exc
        finally:
            client.close()
            outcome.reason = client.reason

    def _by_recv(self, client: Client) -> None:
        client.open(PATIENCE)
        client.ping(PATIENCE)
        for message in MESSAGES:
            client.send(message)
            got = client.recv(PATIENCE)
            assert got == message, (got[:20], message[:20])

    def _by_function(self, client: Client) -> None:
        arrived: list[Any] = []
        over = threading.Event()

        def take(message: Any) -> None:
            arrived.append(message)
            if len(arrived) == len(MESSAGES):
                over.set()

        client.on("message", take)
        client.on("close", lambda closed: over.set())
        client.open(PATIENCE)
        for message in MESSAGES:
            client.send(message)
        if not over.wait(PATIENCE):
            raise TimeoutError("no message, and no end")
        if arrived != list(MESSAGES):
            assert client.reason is not None
            raise ConnectionClosed(client.reason)


UNNEEDED = {"poll", "select", "ioctl", "shutdown"}  # asked again, or not needed, whoever calls
UNNEEDED_OF = {
    ("client", "setsockopt"),
    ("server", "setsockopt"),
    ("listener", "accept"),
    ("waker", "recv"),
    ("waker", "send"),
}


def _borne(call: Call, fault: Fault) -> bool:
    """Whether the conversation is to go on as if nothing had been."""
    harmless = fault in (SHORT, AGAIN, errno.EINTR)
    return harmless or call.name in UNNEEDED or (call.side, call.name) in UNNEEDED_OF


def _named(fault: Fault, *about: object) -> bool:
    """Whether one of the errors or reasons names the fault."""
    seen = list(about)
    for thing in seen:  # it grows meanwhile
        if isinstance(thing, OSError) and thing.errno == fault:
            return True
        if isinstance(fault, int) and os.strerror(fault) in str(thing):
            return True
        seen += [more for name in ("reason", "error") if (more := getattr(thing, name, None)) is not None]
    return False


def _wrongs(call: Call, fault: Fault, outcome: Outcome) -> Iterator[str]:
    """What is not as it must be."""
    if outcome.seconds > SOON:
        yield f"it took {outcome.seconds:.1f} s"
    for record in outcome.logged:
        if record.levelno > logging.WARNING or record.exc_info:
            yield f"logged: {record.getMessage()}"
    if outcome.complete:
        return
    if _borne(call, fault):
        yield "it is to be borne"
    if outcome.refused is not None:
        if call.side not in ("application", "nobody") or not _named(fault, outcome.refused):
            yield "the server was not to be had"
    elif isinstance(outcome.raised, TimeoutError):
        yield "the client waited in vain"
    elif call.side == "server":  # it tells nobody of who left in the opening handshake
        if outcome.server_reasons and not _named(fault, *outcome.server_reasons):
            yield "the server's application is not told of the fault"
    elif not _named(fault, outcome.raised, outcome.reason):
        yield "the client's application is not told of the fault"


class LiesTest(LedgerTestCase):
    certificates: ClassVar[Certificates]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = make_certificates(folder.name)

    def tell_all(self, conversation: Conversation) -> None:
        for _ in range(2):  # the first one imports
            outcome = conversation.hold(truth := Lies())
            self.assertTrue(outcome.complete, outcome)
        plan = list(_plan(truth))
        plan = plan if ALL else plan[::EVERY]
        told = 0
        for call, fault in plan:
            ledger = ResourceLedger()
            outcome = conversation.hold(lies := Lies(call, fault))
            told += lies.told
            wrongs = [*_wrongs(call, fault, outcome), *ledger.leftovers()]
            if wrongs:
                with self.subTest(call=call, fault=fault):
                    self.fail("\n".join([*wrongs, str(outcome)]))
        self.assertGreater(told, len(plan) // 2)  # how a stream is cut differs, and so do the last of its calls

    def test_plain(self) -> None:
        self.tell_all(Conversation(None, portable=False, by_recv=True))

    def test_tls(self) -> None:
        self.tell_all(Conversation(self.certificates, portable=False, by_recv=False))

    def test_plain_where_nothing_blocks(self) -> None:
        self.tell_all(Conversation(None, portable=True, by_recv=False))

    def test_tls_where_nothing_blocks(self) -> None:
        self.tell_all(Conversation(self.certificates, portable=True, by_recv=True))

    def test_a_client_that_reconnects_gets_there(self) -> None:
        with Server("127.0.0.1", 0, _echo) as server:
            server.start()
            for name in ("socketpair", "socket", "connect_ex", "getsockopt", "send", "recv"):
                for fault in FAULTS[name]:
                    lies = Lies(Call("client", name, 1), fault)
                    with self.subTest(name, fault=fault), lying(lies):
                        client = Client(server.url, reconnect=Backoff(0.01), heartbeat=None)
                        with client.open(PATIENCE):
                            client.send("there")
                            self.assertEqual(client.recv(PATIENCE), "there")
                        self.assertTrue(lies.told)

    def test_what_waits_in_a_socket_is_nothing_where_the_system_does_not_tell(self) -> None:
        for name, fault in (("ioctl", errno.ENOMEM), ("getsockopt", errno.ENOBUFS)):
            lies = Lies(Call("application" if name == "ioctl" else "waker", name, 1), fault)
            with self.subTest(name), lying(lies):
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    theirs.send(b"x")
                    transport = transport_for(ours)
                    self.assertEqual(transport.unread() if name == "ioctl" else transport.crowded(), 0)
                    self.assertTrue(lies.told)
                    self.assertEqual((transport.unread(), transport.crowded()), (1, True))

    def test_every_call_of_the_net_has_its_turn(self) -> None:
        ours_alone = {"close", "detach", "fileno", "gettimeout", "setblocking", "settimeout", "family", "proto", "type"}
        system = {name for name in dir(_socket.socket) if name[0] != "_"} | {"socketpair", "select", "poll", "ioctl"}
        used = set()
        for path in Path(sync_ws.net.__file__).parent.glob("*.py"):
            used |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        used &= system
        self.assertGreater(len(used & set(FAULTS)), 8)
        self.assertEqual(used - set(FAULTS), used & ours_alone)


def _plan(truth: Lies) -> Iterator[tuple[Call, Fault]]:
    """Which lies are to be told, one after the other."""
    for (side, name), count in sorted(truth.calls.items()):
        some = {1, 2, (count + 1) // 2, count}
        for number in range(1, count + 1) if ALL else sorted(some & {*range(1, count + 1)}):
            for fault in FAULTS[name]:
                if (side, name, fault) != ("waker", "send", AGAIN):  # then it is full of such bytes, and has woken
                    yield Call(side, name, number), fault
