"""What has been received and waits to be taken, in order: messages, and notes of what else the application is told of.

Why so: a heartbeat that came between two messages is told between them.  With one queue for both there is nothing to
keep in step, and nobody has to be woken specially: a note is an item like a message.

Threading: filled under the receiver's lock; taken from under it too, while the channel lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from sys import getsizeof
from typing import NamedTuple

from ..messages import Message

__all__ = ["MAX_NOTES", "Inbox", "Note"]

MAX_NOTES = 64  # notes that wait; beyond it the oldest goes, for an application that does not get round to hearing them


class Note(NamedTuple):
    """Something to tell the application in its turn: ``event``'s functions are to be called with ``what``."""

    event: str
    what: object


class Inbox(deque[Message | Note]):
    """Both kinds, oldest first.  Messages are bounded by who fills it (``space``), notes here."""

    __slots__ = ("kept", "receiving")

    def __init__(self, items: Iterable[Message | Note] = ()) -> None:
        super().__init__(items)
        # taken by a reader, and not yet in the application's hands: if an interrupt comes, the next one gets it
        self.kept: Message | Note | None = None
        # somebody is in recv().  Not a lock, which an interrupt between its taking and the ``try`` would leave taken:
        # between the look at this and its setting nothing is called, so no other thread and no signal comes there
        self.receiving = False

    def note(self, note: Note, at: int) -> None:
        """Put a note in front of item number ``at``."""
        notes = [index for index, item in enumerate(self) if isinstance(item, Note)]
        self.insert(at, note)
        if len(notes) >= MAX_NOTES:
            del self[notes[0]]

    def space(self, max_messages: int, max_bytes: int) -> tuple[int, int]:
        """How many more messages may wait, and of how many bytes of memory; (0, 0) when no more may."""
        waiting = [item for item in self if not isinstance(item, Note)]
        space, budget = max_messages - len(waiting), max_bytes - sum(map(getsizeof, waiting))
        return (space, budget) if space > 0 and budget > 0 else (0, 0)

    def forget_in_child(self) -> None:
        """After fork: what came is for the parent to take, and whoever was in recv() is not here."""
        self.clear()
        self.kept, self.receiving = None, False

    def drop_messages(self, start: int) -> None:
        """Drop the messages from item number ``start`` on; notes among them stay."""
        notes = [item for item in islice(self, start, None) if isinstance(item, Note)]
        while len(self) > start:
            self.pop()
        self.extend(notes)

    def take_notes(self) -> list[Note]:
        """The notes that no message stands before; they wait no more."""
        taken: list[Note] = []
        while self and isinstance(self[0], Note):
            taken.append(self.popleft())  # type: ignore[arg-type]
        return taken
