"""Decides whether what arrived may be what became of what was sent.

Every connection is known by its client's key and the number of the attempt that opened it. For each stream:

1. Numbers arrive strictly increasing: so nothing twice, nothing out of order. Every hash is right. But a server may
   still be reading a client's old connection, held up on the way, when it has a new one: there, each connection's
   numbers increase, and still nothing comes twice.
2. Of a message that is missing, the connections that may have carried it are known: from the first one it can have
   gone out on, to the one that brought the next message of its stream. When it is that very connection: a gap, which
   no way of ending excuses.
3. When each of them ended by a clean closing handshake, begun by the other side than the receiver's (who closes
   discards what still comes): it should have been delivered.
4. Otherwise it was accepted by the kernel of a connection that died: lost, and counted.
5. What is reported as undelivered never arrives, and counts as delivered to the sender's knowledge.

Threading: every method from any thread, under one lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.soak.payload import Altered, Message, parse

__all__ = ["Oracle"]

LAST = 1 << 60  # an attempt after all others
MOST_VIOLATIONS = 50  # kept; one cause often has many


class _Missing(NamedTuple):
    """The attempts that a message which did not arrive may have gone out on: from `first` to before `end`."""

    first: int
    end: int


@dataclass
class _Stream:
    client: str  # the key of the client at one of its ends
    exact: bool  # the sender knows which connection it uses: a server does
    pending: dict[int, int] = field(default_factory=dict)  # seq -> first attempt, not received yet, in order
    last: int = 0  # the highest number received
    newest: int = 0  # the attempt that brought it
    older: dict[int, int] = field(default_factory=dict)  # the highest number of each attempt overtaken by it
    missing: dict[int, _Missing] = field(default_factory=dict)  # seq -> what is known of it


class Oracle:
    """See the module. Directions are "up" (to the server) and "down" (to the client)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._streams: dict[str, _Stream] = {}
        self._opened: dict[str, list[int]] = {}  # client -> attempts, in order
        self._clean: set[tuple[str, str, int]] = set()  # direction, client, attempt
        self._excused: set[tuple[str, str, int]] = set()
        self._reported: set[tuple[str, int]] = set()
        self._unknown: set[tuple[str, int]] = set()
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()

    # what the senders say

    def sent(self, stream: str, seq: int, client: str, attempt: int) -> None:
        """About to be sent, over the connection of this attempt; upwards: of this one or a later one."""
        with self._lock:
            entry = self._streams.setdefault(stream, _Stream(client, exact=not stream.startswith("up/")))
            entry.pending[seq] = attempt
            self.counts["sent"] += 1

    def unsent(self, stream: str, seq: int) -> None:
        """The send raised: it must not arrive, unless it is sent again."""
        with self._lock:
            self.counts["sent"] -= 1
            entry = self._streams[stream]
            # missing already: its thread was still in send() when a newer connection's message arrived
            if entry.pending.pop(seq, None) is None and entry.missing.pop(seq, None) is None:
                self._violated(f"{stream} {seq} was delivered although its send raised")

    def unknown(self, stream: str, seq: int) -> None:
        """It was in a batch that raised: in the kernel of a connection that died, or nowhere, so it may arrive or not.

        A batch that did not raise is as good as its messages sent one by one: it was in the kernel as a whole, or
        queued in order, less what was in the kernel already.
        """
        with self._lock:
            entry = self._streams[stream]
            if entry.pending.pop(seq, None) is not None or entry.missing.pop(seq, None) is not None:
                self.counts["in a batch that raised"] += 1
                self._unknown.add((stream, seq))

    def reported(self, message: Message) -> None:
        """The client's last event says that it was never sent."""
        try:
            stream, seq, _, _ = parse(message)
        except Altered as exc:
            self.violated(f"reported as undelivered: {exc}")
            return
        with self._lock:
            self.counts["reported as undelivered"] += 1
            self._reported.add((stream, seq))
            if (stream, seq) in self._unknown:  # the batch was large, and a part of it queued before it raised
                return
            entry = self._streams.get(stream)
            if entry is None or entry.pending.pop(seq, None) is None:
                self._violated(f"{stream} {seq} was reported as undelivered, but it was delivered or never sent")

    # what the receivers say

    def received(self, message: Message, client: str, attempt: int = 0) -> None:
        """By this client, or from it; over the connection of this attempt, if the receiver knows."""
        try:
            stream, seq, marked, size = parse(message)
        except Altered as exc:
            self.violated(str(exc))
            return
        if stream == "cast":
            stream = f"cast/{client}"
        with self._lock:
            self.counts["received"] += 1
            self.counts["bytes"] += size
            entry = self._streams.get(stream)
            if entry is None or entry.client != client:
                self._violated(f"{stream} {seq} arrived at or from {client}, who has no part in it")
                return
            if (stream, seq) in self._reported:
                self._violated(f"{stream} {seq} arrived although it was reported as undelivered")
            if seq <= entry.last:
                self._arrived_late(stream, entry, seq, attempt)
                return
            if seq not in entry.pending and (stream, seq) not in self._unknown:
                self._violated(f"{stream} {seq} arrived although its send raised, or before it")
            self._settle(stream, entry, seq, attempt or marked)

    def _arrived_late(self, stream: str, entry: _Stream, seq: int, attempt: int) -> None:
        """With the lock held: a number below the highest, which only an overtaken connection may bring."""
        if (stream, seq) not in self._unknown and entry.missing.pop(seq, None) is None:
            self._violated(f"{stream} {seq} arrived twice, the second time behind {entry.last}")
        elif not 0 < attempt < entry.newest or seq < entry.older.get(attempt, 0):
            self._violated(f"{stream} {seq} arrived behind {entry.last} of the same or an older connection")
        else:
            self.counts["overtaken by a newer connection's"] += 1
            entry.older[attempt] = seq

    def _settle(self, stream: str, entry: _Stream, seq: int, attempt: int) -> None:
        """With the lock held: what was sent before `seq` and has not arrived never will."""
        if attempt > entry.newest and entry.newest:
            entry.older[entry.newest] = entry.last
        entry.last, entry.newest = seq, attempt
        attempt = attempt or entry.pending.get(seq, 0)  # a broadcast's message does not say it
        for earlier in [number for number in entry.pending if number <= seq]:
            first = entry.pending.pop(earlier)
            if earlier == seq:
                continue
            if first == attempt:
                self._violated(f"{stream} {earlier} is missing before {seq}, both of connection {attempt}")
            else:
                entry.missing[earlier] = _Missing(first, first + 1 if entry.exact else attempt)

    def acknowledged(self, stream: str) -> int:
        """The highest number of this stream that has arrived."""
        with self._lock:
            entry = self._streams.get(stream)
            return entry.last if entry else 0

    # what is known of the connections

    def opened(self, client: str, attempt: int) -> None:
        """The client has an open connection."""
        with self._lock:
            self.counts["connections"] += 1
            self._opened.setdefault(client, []).append(attempt)

    def ended(self, direction: str, client: str, attempt: int, *, clean: bool) -> None:
        """`clean`: the receiver of this direction got the other side's Close frame, and did not ask for it."""
        with self._lock:
            if clean:
                self._clean.add((direction, client, attempt))
                self.counts[f"clean ends, {direction}"] += 1
            else:
                self.counts[f"other ends, {direction}"] += 1

    def excuse(self, direction: str, client: str, attempt: int) -> None:
        """The receiver of this direction is about to close this connection itself."""
        with self._lock:
            self._excused.add((direction, client, attempt))

    # judgement

    def violated(self, text: str) -> None:
        """Note a violation found elsewhere."""
        with self._lock:
            self._violated(text)

    def _violated(self, text: str) -> None:
        self.counts["violations"] += 1
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(text)

    def judge(self) -> None:
        """Once everything has ended: whether what is missing may be."""
        with self._lock:
            for name, entry in self._streams.items():
                for seq, first in entry.pending.items():
                    entry.missing[seq] = _Missing(first, first + 1 if entry.exact else LAST)
                entry.pending.clear()
                for seq, missing in entry.missing.items():
                    self._judge(name, entry, seq, missing)
                entry.missing.clear()

    def _judge(self, stream: str, entry: _Stream, seq: int, missing: _Missing) -> None:
        direction = "up" if stream.startswith("up/") else "down"
        carriers = [a for a in self._opened.get(entry.client, []) if missing.first <= a < missing.end]
        died = [a for a in carriers if not self._was_clean(direction, entry.client, a)]
        never_opened = not carriers and entry.exact  # the client never saw the answer to its handshake
        if died or never_opened:
            self.counts["lost with a connection that died"] += 1
        elif carriers:
            self._violated(f"{stream} {seq} was not delivered: connection {carriers} ended by a closing handshake")
        else:
            self._violated(f"{stream} {seq} was neither sent nor reported as undelivered")

    def _was_clean(self, direction: str, client: str, attempt: int) -> bool:
        key = (direction, client, attempt)
        return key in self._clean and key not in self._excused
