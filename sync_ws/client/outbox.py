"""What a client has been asked to send while it was not connected: bounded, in order; and what happens when it is full.

Why so: a message is checked and copied by ``entry_of``, before the line's lock is taken; what is done under it, putting
and taking, is a handful of instructions however large the messages are.  The message that is on its way stays at the
head until it has been sent, and is never dropped to make room: it may have arrived already.

Threading: policies are frozen; an outbox has no lock of its own, the line's guards it.  ``entry_of`` needs none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from ..checks import check_count
from ..errors import QueueFull
from ..messages import Data, Message, Opcode, Pieces, as_whole

__all__ = ["Entry", "Offline", "Outbox", "entry_from", "entry_of"]

WHEN_FULL = ("raise", "drop_oldest", "block")


@dataclass(frozen=True)
class Offline:
    """What ``Client.send`` does while there is no connection: it queues, within these bounds.

    ``max_messages``, ``max_bytes`` (of payload): what may wait, each at least 1.  ``when_full``: ``"raise"`` QueueFull;
    ``"drop_oldest"`` makes room, for what is only of use while it is new; ``"block"`` waits for room, for
    ``send_timeout`` seconds at most.  A message that is larger than ``max_bytes`` is QueueFull whatever it says.

    ValueError or TypeError for anything outside these bounds.
    """

    max_messages: int = 64
    max_bytes: int = 1 << 20
    when_full: str = "raise"

    def __post_init__(self) -> None:
        check_count("Offline.max_messages", self.max_messages)
        check_count("Offline.max_bytes", self.max_bytes)
        if self.when_full not in WHEN_FULL:
            raise ValueError(f'Offline.when_full is "raise", "drop_oldest" or "block", not {self.when_full!r}')

    @classmethod
    def of(cls, value: Offline | str) -> Offline | None:
        """What an ``offline=`` argument means: a policy, or None for raising at once."""
        if isinstance(value, Offline):
            return value
        expected = 'offline is "queue", "raise" or a sync_ws.Offline'
        if not isinstance(value, str):
            raise TypeError(f"{expected}, not {value!r}")
        if value not in ("queue", "raise"):
            raise ValueError(f"{expected}, not {value!r}")
        return cls() if value == "queue" else None


class Entry(NamedTuple):
    """A message that nobody changes any more, and how many bytes of payload it has."""

    message: Message
    size: int


def entry_of(data: Data | Pieces) -> Entry:
    """A copy of a message, ready to be queued; TypeError or ValueError for what is none."""
    return entry_from(*as_whole(data))


def entry_from(opcode: int, payload: bytes) -> Entry:
    """The same of what was to go over a connection."""
    return Entry(payload.decode() if opcode == Opcode.TEXT else payload, len(payload))


class Outbox:
    """See the module.  ``policy``: its bounds.  ``dropped``: how many messages made room for others so far."""

    def __init__(self, policy: Offline) -> None:
        self._policy = policy
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._going = False  # the first one is on its way
        self.dropped = 0

    def has_room(self, size: int, count: int = 1) -> bool:
        """Whether ``count`` messages of ``size`` bytes in all may be queued."""
        return len(self._entries) + count <= self._policy.max_messages and self._bytes + size <= self._policy.max_bytes

    def may_block(self, size: int, count: int = 1) -> bool:
        """Whether to wait for room, rather than to ``put`` so much now."""
        policy = self._policy
        ever = count <= policy.max_messages and size <= policy.max_bytes
        return policy.when_full == "block" and ever and not self.has_room(size, count)

    def put(self, *entries: Entry) -> None:
        """Queue messages behind the others, by the policy; QueueFull when there is no room, and none is queued."""
        policy, sizes = self._policy, [entry.size for entry in entries]
        dropping = policy.when_full == "drop_oldest"
        size = max(sizes) if dropping else sum(sizes)
        if size > policy.max_bytes:
            raise QueueFull(f"not connected, and {size} bytes are more than may wait ({policy.max_bytes})")
        if not dropping and not self.has_room(size, len(entries)):
            raise self.full()
        for entry in entries:
            if dropping and not self.has_room(entry.size):
                self._make_room(entry.size)
            self._entries.append(entry)
            self._bytes += entry.size

    def full(self, detail: str = "") -> QueueFull:
        """What to raise where there is no room."""
        return QueueFull(
            f"not connected, and {len(self._entries)} messages of {self._bytes} bytes wait already "
            f"(at most {self._policy.max_messages} and {self._policy.max_bytes}){detail}"
        )

    def _make_room(self, size: int) -> None:
        """Drop the oldest messages, but not one that is on its way: the bounds may be exceeded by that one."""
        kept = int(self._going)
        while len(self._entries) > kept and not self.has_room(size):
            self._bytes -= self._entries[kept].size
            del self._entries[kept]
            self.dropped += 1

    def take_first(self) -> Message | None:
        """The message to send next, None when there is none.  It stays until it ``went``, or ``stayed`` after all."""
        self._going = bool(self._entries)
        return self._entries[0].message if self._entries else None

    def went(self) -> None:
        """What ``take_first`` gave has been sent."""
        self._going = False
        self._bytes -= self._entries.popleft().size

    def stayed(self) -> None:
        """Nothing is on its way any more."""
        self._going = False

    def take_all(self) -> tuple[Message, ...]:
        """Everything that waits, which then waits no more."""
        messages = tuple(entry.message for entry in self._entries)
        self._entries.clear()
        self._bytes, self._going = 0, False
        return messages

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> int:
        """Bytes of payload that wait."""
        return self._bytes
