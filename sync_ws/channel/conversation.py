"""What a server's ``Connection`` and a ``Client`` share: the face that an application talks to.

Why so: both are a conversation of messages over a channel that they outlive, so whoever has learnt one knows the
other, and code may be written for either.

Threading: ``send`` and ``send_json`` from any number of threads; ``recv``, ``recv_json`` and iteration by one thread
at a time, which ``Inbox.receiving`` enforces.  An interrupt in ``recv`` loses nothing: the next returns the message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from .. import envelope as messages
from ..errors import ConcurrentReceive, ConnectionClosed
from ..messages import Data, Message, Pieces
from .inbox import Inbox

__all__ = ["Conversation"]


class Conversation(ABC):
    """The application's face of one conversation."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox  # where messages wait to be taken

    @abstractmethod
    def send(self, data: Data | Pieces) -> None:
        """Send one message: str as text, bytes as binary, pieces of either in as many fragments."""

    @abstractmethod
    def ping(self, timeout: float = 10.0) -> float:
        """The round-trip time of a Ping, in seconds."""

    @abstractmethod
    def _next_message(self, timeout: float | None) -> Message:
        """The next message, which stays in the inbox's ``kept``; by the one thread that is in ``recv``."""

    def send_json(self, value: Any) -> None:
        """Send ``value`` as JSON text; MessageError if it has no JSON form."""
        self.send(messages.dumps(value))

    def recv(self, timeout: float | None = None) -> Message:
        """The next message: str for text, bytes for binary.

        ``timeout``: seconds to wait, None for as long as it takes, 0 for what is there now; TimeoutError after it.
        ConnectionClosed when the conversation is over and everything received has been taken.  ConcurrentReceive
        when another thread is in ``recv`` already.
        """
        inbox = self._inbox
        if inbox.receiving:
            raise ConcurrentReceive("another thread is receiving on this connection; one at a time")
        inbox.receiving = True
        try:
            message = self._next_message(timeout)
        finally:
            inbox.receiving = False
        inbox.kept = None  # it is in the caller's hands now
        return message

    def recv_json(self, timeout: float | None = None) -> Any:
        """The next message, decoded from JSON; MessageError if it is none (it is taken, the connection goes on)."""
        return messages.loads(self.recv(timeout))

    def __iter__(self) -> Iterator[Message]:
        """The messages, one after the other, until the conversation is over; then the loop simply ends."""
        try:
            while True:
                yield self.recv()
        except ConnectionClosed:
            return
