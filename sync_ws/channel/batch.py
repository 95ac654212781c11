"""A batch: what one thread sends inside ``with conn.batch():``, to be written at once.

Why so: many small messages cost a system call each; gathered, they cost one for all.  A batch belongs to the thread
that opened it, so no other thread's messages are held back by it.  The writer knows it by a weak reference only: an
interrupt that comes as the block is left would otherwise leave a batch behind that nobody ends.

A client's batch outlives its connections: what a writer could not write stays in it, for the client to write over the
next one or to queue, as a whole and in order.

Threading: everything belongs to the thread that opened it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

__all__ = ["Batch", "Batches"]

MAX_HEADER = 14  # bytes; counted for each message, so that empty ones count too


class Batches:
    """The batches of one writer, or of all writers that a client has one after the other, by thread."""

    def __init__(self) -> None:
        self.open: dict[int, weakref.ref[Batch]] = {}  # empty nearly always, which is what ``send`` looks at

    def mine(self) -> Batch | None:
        """The calling thread's, None if it has none."""
        ident = threading.get_ident()
        reference = self.open.get(ident)
        if reference is None:
            return None
        batch = reference()
        if batch is None:  # an interrupt came as its block was left
            self.open.pop(ident, None)
        return batch


class Batch:
    """The context manager.  ``write``: writes what the calling thread has gathered.  ``outlives``: whether what a
    closed connection did not take stays here.  Inside another one of the same thread it does nothing: the outer one
    writes."""

    def __init__(self, batches: Batches, write: Callable[[], None], outlives: bool = False) -> None:
        self._batches = batches
        self.write = write
        self.outlives = outlives
        self._ident = 0  # of its thread, while it is the outer one
        self.items: list[tuple[int, bytes]] = []
        self.size = 0  # bytes

    def __enter__(self) -> None:
        if self._batches.mine() is not None:
            return
        ident, reference = threading.get_ident(), weakref.ref(self)
        self._ident = ident
        self._batches.open[ident] = reference  # nothing is called from here to the block

    def __exit__(self, *exc_info: object) -> None:
        if not self._ident:
            return
        try:
            self.write()
        finally:
            self._batches.open.pop(self._ident, None)

    def add(self, opcode: int, payload: bytes) -> None:
        """Gather one message."""
        size = len(payload) + MAX_HEADER
        self.items += ((opcode, payload),)
        self.size += size

    def take(self) -> list[tuple[int, bytes]]:
        """What was gathered, which is not gathered any more."""
        items, self.items, self.size = self.items, [], 0
        return items

    def put_back(self, items: list[tuple[int, bytes]]) -> None:
        """These were not written after all: they come before whatever was gathered since."""
        self.items = items + self.items
        self.size = sum(len(payload) + MAX_HEADER for _, payload in self.items)
