"""What a client has been asked to send while it was not connected: bounded, in order.

Threading: no lock of its own; the client's guards it.
"""

from __future__ import annotations

from collections import deque

from ..errors import QueueFull
from ..messages import Data, Message, Opcode, as_payload

__all__ = ["Outbox"]


class Outbox:
    """At most ``max_messages`` messages of ``max_bytes`` bytes together; QueueFull beyond, and nothing is queued."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._messages: deque[tuple[Message, int]] = deque()
        self._bytes = 0

    def put(self, data: Data) -> None:
        """Queue a copy of a message; TypeError for what is none."""
        opcode, payload = as_payload(data)
        if len(self._messages) >= self._max_messages or self._bytes + len(payload) > self._max_bytes:
            raise QueueFull(
                f"not connected, and {len(self._messages)} messages of {self._bytes} bytes wait already "
                f"(at most {self._max_messages} and {self._max_bytes})"
            )
        self._messages.append((payload.decode() if opcode == Opcode.TEXT else payload, len(payload)))
        self._bytes += len(payload)

    @property
    def first(self) -> Message:
        """The message to send next."""
        return self._messages[0][0]

    def drop_first(self) -> None:
        """It has been sent."""
        self._bytes -= self._messages.popleft()[1]

    def take_all(self) -> tuple[Message, ...]:
        """Everything that waits, which then waits no more."""
        messages = tuple(message for message, _ in self._messages)
        self._messages.clear()
        self._bytes = 0
        return messages

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def size(self) -> int:
        """Bytes of payload that wait."""
        return self._bytes
