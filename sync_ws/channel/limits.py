"""The bounds of one connection.

Threading: frozen; one object may serve any number of connections.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """The bounds of one connection; sizes in bytes, times in seconds."""

    max_message: int = 1 << 20  # of a whole message, after inflation
    max_fragments: int = 1024  # of one message
    max_waiting: int = 16  # messages received and not taken, while nobody reads
    max_waiting_bytes: int = 4 << 20
    max_queued: int = 64  # messages to send that the kernel has not taken
    max_queued_bytes: int = 1 << 20
    max_frame: int | None = None  # of one frame of a message that is sent; None: a message is one frame
    send_timeout: float = 10.0
    close_timeout: float = 5.0
