"""Each system call fails in its turn, in each way that it can: nobody hangs, nothing is left behind, and who is told of
an end is told why.

A conversation is held once without a fault, which tells the calls that there are; and then once for each fault of the
first, the second, the middle and the last call of each name by each side.  ``SYNC_WS_ALL_LIES=1`` is all of them, else
it is every so many.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sync_ws import Client, Connection, ConnectionClosed, HandshakeError, Reason, Server, SyncWsError
from sync_ws.testing import Certificates, LedgerTestCase, ResourceLedger, make_certificates
from tests.support.lies import AGAIN, FAULTS, SHORT, Call, Fault, Lies, lying

ALL = os.environ.get("SYNC_WS_ALL_LIES") == "1"
EVERY = 3  # lies, one is told
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


UNNEEDED = {"poll", "select", "ioctl", "shutdown"}  # asked again, or not needed
UNNEEDED_OF = {("client", "setsockopt"), ("server", "setsockopt"), ("waker", "send"), ("waker", "recv")}
UNNEEDED_OF |= {("listener", "accept")}  # asked again


def _borne(call: Call, fault: Fault) -> bool:
    """Whether the conversation is to go on as if nothing had been."""
    harmless = fault in (SHORT, AGAIN, errno.EINTR)
    return harmless or call.name in UNNEEDED or (call.side, call.name) in UNNEEDED_OF


def _named(fault: Fault, *about: object) -> bool:
    """Whether one of the errors or reasons names the fault."""
    seen = list(about)
    for thing in seen:  # grows
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
        return
    if isinstance(outcome.raised, TimeoutError):
        yield "the client waited in vain"
    told = outcome.server_reasons if call.side == "server" and outcome.server_reasons else [outcome.raised]
    if call.side == "server" and not outcome.server_reasons:
        return  # in its opening handshake
    if not _named(fault, outcome.reason, *told):
        yield "the fault is not named"


@unittest.skipIf(os.name == "nt", "calls as POSIX has them")
class LiesTest(LedgerTestCase):
    certificates: ClassVar[Certificates]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = make_certificates(folder.name)

    def tell_all(self, conversation: Conversation) -> None:
        for _ in range(2):  # the first one imports
            conversation.hold(truth := Lies())
        plan = [
            (Call(side, name, number), fault)
            for (side, name), count in sorted(truth.calls.items())
            for number in sorted({1, 2, (count + 1) // 2, count})
            if number <= count
            for fault in FAULTS[name]
            if (side, name, fault) != ("waker", "send", AGAIN)  # then it is full of such bytes, which is well
        ]
        for call, fault in plan if ALL else plan[:: EVERY]:
            ledger = ResourceLedger()
            lies = Lies(call, fault)
            outcome = conversation.hold(lies)
            wrongs = [*_wrongs(call, fault, outcome), *ledger.leftovers()]
            if wrongs:
                with self.subTest(call=call, fault=fault):
                    self.fail("\n".join([*wrongs, f"{lies.told=}, {outcome}"]))

    def test_plain(self) -> None:
        self.tell_all(Conversation(None, portable=False, by_recv=True))

    def test_tls(self) -> None:
        self.tell_all(Conversation(self.certificates, portable=False, by_recv=False))

    def test_plain_where_nothing_blocks(self) -> None:
        self.tell_all(Conversation(None, portable=True, by_recv=False))

    def test_tls_where_nothing_blocks(self) -> None:
        self.tell_all(Conversation(self.certificates, portable=True, by_recv=True))
