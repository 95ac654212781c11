"""What the differential fuzz compares, and where its two parsers may come to different results.

Threading: values and pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sync_ws.envelope import is_heart_beat
from sync_ws.messages import Message
from tests.fuzz.streams import headers

__all__ = ["DIFFERENCES", "LIMIT", "Case", "Difference", "Outcome"]

LIMIT = 300  # bytes of a message: small, so that what is random goes beyond it


@dataclass
class Outcome:
    """What a parser made of some bytes."""

    messages: list[Message] = field(default_factory=list)
    heart_beats: list[str] = field(default_factory=list)
    controls: list[tuple[int, bytes]] = field(default_factory=list)  # Ping and Pong
    closed: tuple[int, str] | None = None  # by a Close frame that keeps the rules
    code: int | None = None  # of the failure
    text: str = ""  # of our failure; whatever else tells the differences apart, of theirs
    good: int = 1 << 60  # so many messages count: behind them `websockets` is known to be wrong

    def take(self, message: Message) -> None:
        """A whole message; heartbeats go aside."""
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        if len(text) < 1024 and is_heart_beat(text):
            self.heart_beats.append(text)
        else:
            self.messages.append(message)

    def same(self, other: Outcome) -> bool:
        """Whether the two agree in everything that both should find."""
        return (self.messages, self.heart_beats, self.controls, self.closed, self.code) == (
            other.messages, other.heart_beats, other.controls, other.closed, other.code
        )  # fmt: skip


class Case(NamedTuple):
    """Some bytes from a peer; `masked`: it is a client. `deflate`: None, or whether the context is kept."""

    data: bytes
    masked: bool
    deflate: bool | None


class Difference(NamedTuple):
    """Where the two may come to different verdicts, and why ours is right."""

    name: str
    why: str
    applies: Callable[[Case, Outcome, Outcome], bool]


def _size(message: Message) -> int:
    return len(message.encode() if isinstance(message, str) else message)


DIFFERENCES = (
    Difference(
        "a size beyond the limit, refused when its header is complete",
        "RFC 6455 section 7.1.7 does not say at which byte; theirs does not wait for the masking key",
        lambda case, we, they: we.code is None and they.code == 1009 and case.masked
        and any(header.end - header.length > len(case.data) for header in headers(case.data)),
    ),
    Difference(
        "length not in its shortest form, or of 64 bits",
        "RFC 6455 section 5.2: the minimal number of bytes MUST be used, the most significant bit MUST be 0",
        lambda case, we, they: we.code == 1002 and not all(header.shortest for header in headers(case.data))
        and ("shortest form" in we.text or "at most 125 bytes" in we.text),
    ),
    Difference(
        "the first of two faults of one frame",
        "RFC 6455 section 7.1.7 says that it fails, not by which of its faults: a size, a Close frame's reason",
        lambda case, we, they: we.code == 1002 and they.code in (1007, 1009),
    ),
    Difference(
        "a control frame inside a message that is nearly at the limit",
        "RFC 6455 section 5.5: its up to 125 bytes are no part of the message; theirs counts them",
        lambda case, we, they: they.code == 1009 and "after reading" in they.text
        and any(header.opcode & 8 and header.length < 126 for header in headers(case.data)),
    ),
    Difference(
        "a compressed message that is no deflate data",
        "RFC 7692 names no code; RFC 6455 section 7.4.1: 1007 is for data not consistent with the type of the message",
        lambda case, we, they: we.code == 1007 and they.code == 1002 and "not deflate data" in we.text,
    ),
    Difference(
        "a Close frame inside a fragmented message",
        "RFC 6455 section 5.4: control frames may be injected in the middle of a fragmented message",
        lambda case, we, they: we.closed is not None and they.code == 1002 and "incomplete fragmented" in they.text,
    ),
    Difference(
        "what follows a deflate block with BFINAL set",
        "RFC 7692 section 7.2.3.4: such a block may be sent; their inflater has finished and yields nothing more",
        lambda case, we, they: they.good < 1 << 60,
    ),
    Difference(
        "a compressed message of just the limit",
        "it is not beyond it; their inflater stops at the limit, before it has seen the end of the block",
        lambda case, we, they: case.deflate is not None and they.code == 1009
        and LIMIT in [_size(message) for message in we.messages[len(they.messages) :][:1]],
    ),
    Difference(
        "a message at the limit, and a compressed frame that adds to it",
        "it is beyond it; a limit of 0 further bytes means none at all to their inflater",
        lambda case, we, they: case.deflate is not None and we.code == 1009 and "after inflation" in we.text,
    ),
    Difference(
        "a compressed frame of more bytes than it inflates to",
        "the limit is one on messages; deflate adds a few bytes to what it cannot compress",
        lambda case, we, they: case.deflate is not None and they.code == 1009
        and LIMIT < sum(map(int, re.findall(r"(\d+) bytes (?:after|exceeds)", they.text))) < LIMIT + 80,
    ),
)  # fmt: skip
