"""The settings of one direction of a FaultProxy, and what they say about the bytes; pure.

Threading: `Faults` is immutable and replaced as a whole; `Totals` is written by the proxy's thread alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

__all__ = ["DIRECTIONS", "DirectionName", "Ending", "Faults", "Totals"]

DirectionName = Literal["to_server", "to_client"]
DIRECTIONS: tuple[DirectionName, DirectionName] = ("to_server", "to_client")

THROTTLE_STEP = 0.05  # seconds of its rate that a throttled direction sends in one piece


class Ending(enum.Enum):
    """How a stream of bytes ends."""

    FIN = "fin"
    RESET = "reset"


@dataclass(frozen=True)
class Faults:
    """The settings of one direction. Offsets count the bytes forwarded in it, per connection, from 0."""

    mode: Literal["forward", "stall", "blackhole"] = "forward"
    cut_at: int | None = None
    reset_at: int | None = None
    flips: tuple[tuple[int, int], ...] = ()  # (offset, xor)
    rate: float | None = None  # bytes per second
    piece: int | None = None  # bytes per send

    def reached(self, forwarded: int) -> Ending | None:
        """The ending that is due once so many bytes have been forwarded."""
        if self.reset_at is not None and forwarded >= self.reset_at:
            return Ending.RESET
        if self.cut_at is not None and forwarded >= self.cut_at:
            return Ending.FIN
        return None

    def piece_size(self, available: int, forwarded: int) -> int:
        """How many of the available bytes may go in one send."""
        size = available if self.piece is None else min(available, self.piece)
        if self.rate is not None:
            size = min(size, max(1, int(self.rate * THROTTLE_STEP)))
        for limit in (self.cut_at, self.reset_at):
            if limit is not None:
                size = min(size, limit - forwarded)
        return size

    def corrupted(self, piece: bytearray, forwarded: int) -> bytearray:
        """The piece, which starts at offset `forwarded`, with the flips that fall into it applied."""
        for offset, xor in self.flips:
            if 0 <= offset - forwarded < len(piece):
                piece[offset - forwarded] ^= xor
        return piece


@dataclass
class Totals:
    """Bytes of one direction over all connections."""

    received: int = 0
    forwarded: int = 0
    discarded: int = 0
