"""What a client has been asked to send while it was not connected: bounded, in order.

Why so: a message is checked and copied by ``entry_of``, before the line's lock is taken; what is done under it, putting
and taking, is a handful of instructions however large the messages are.

Threading: no lock of its own; the line's guards it.  ``entry_of`` needs none.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from ..errors import QueueFull
from ..messages import Data, Message, Opcode, Pieces, as_whole

__all__ = ["Entry", "Outbox", "entry_of"]


class Entry(NamedTuple):
    """A message that nobody changes any more, and how many bytes of payload it has."""

    message: Message
    size: int


def entry_of(data: Data | Pieces) -> Entry:
    """A copy of a message, ready to be queued; TypeError or ValueError for what is none."""
    opcode, payload = as_whole(data)
    return Entry(payload.decode() if opcode == Opcode.TEXT else payload, len(payload))


class Outbox:
    """At most ``max_messages`` messages of ``max_bytes`` bytes together; QueueFull beyond, and nothing is queued."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def put(self, entry: Entry) -> None:
        """Queue a message behind the others."""
        if len(self._entries) >= self._max_messages or self._bytes + entry.size > self._max_bytes:
            raise QueueFull(
                f"not connected, and {len(self._entries)} messages of {self._bytes} bytes wait already "
                f"(at most {self._max_messages} and {self._max_bytes})"
            )
        self._entries.append(entry)
        self._bytes += entry.size

    @property
    def first(self) -> Message | None:
        """The message to send next, None when there is none."""
        return self._entries[0].message if self._entries else None

    def drop_first(self) -> None:
        """It has been sent."""
        self._bytes -= self._entries.popleft().size

    def take_all(self) -> tuple[Message, ...]:
        """Everything that waits, which then waits no more."""
        messages = tuple(entry.message for entry in self._entries)
        self._entries.clear()
        self._bytes = 0
        return messages

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of payload that wait."""
        return self._bytes
