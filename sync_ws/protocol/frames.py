"""Frames (RFC 6455 section 5): their parts, and payloads in, frames out.

Why so: the header of a short frame comes out of a table, and a large payload is neither copied to stand behind its
header nor masked into yet another copy.  ``frame_reader`` is the other direction.

Threading: pure functions.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..endings import Close
from ..messages import Opcode
from .intercepts import Intercept
from .masking import apply_mask, mask_in_place, new_key

__all__ = [
    "FIN",
    "GOODBYE",
    "LARGE_BLOCK",
    "MASKED",
    "RSV1",
    "Control",
    "close_payload",
    "encode_fragments",
    "encode_frame",
    "encode_large_frame",
    "keep_large_blocks",
]


class Control(NamedTuple):
    """What is not a message for the application: a control frame, an intercepted message, or the peer's failure."""

    opcode: int
    payload: bytes
    close: Close | None = None  # with CLOSE and FAIL
    # with INTERCEPTED: the message; then payload is empty, or what came when it came as a binary one.  With FAIL: what
    # it is about, where that matters: a limit of ours ("max_message", "max_fragments"), or GOODBYE
    text: str = ""
    intercept: Intercept | None = None  # with INTERCEPTED: which kind
    at: int = 0  # how many messages stand before it, where its reader put them


GOODBYE = "goodbye"  # a Close frame that is none: the peer broke the protocol, but what it meant is clear
FIN = 0x80
RSV1 = 0x40
MASKED = 0x80
LARGE_BLOCK = 256 * 1024  # bytes: a payload from here on is worth keeping memory for
KEPT_BLOCK = 2 << 20  # bytes: the largest block that is kept; in each arena up to twice as much may then lie unused
_blocks_kept = False
_TWO_BYTES = struct.Struct("!H")
_HEAD_16 = struct.Struct("!BBH")
_HEAD_64 = struct.Struct("!BBQ")
# the two-byte headers of short, whole data frames: [masked][opcode][payload length]
_SHORT_HEADS = {
    masked: {
        opcode: [bytes((FIN | opcode, masked | size)) for size in range(126)] for opcode in (Opcode.TEXT, Opcode.BINARY)
    }
    for masked in (0, MASKED)
}


def encode_frame(opcode: int, payload: bytes, masked: bool, rsv1: bool = False) -> bytes:
    """One whole frame (FIN set).  ``payload``: at most 125 bytes for a control frame; the caller has checked."""
    size = len(payload)
    if size < 126 and opcode < 8 and not rsv1:
        head = _SHORT_HEADS[MASKED if masked else 0][opcode][size]
    else:
        head = _head(opcode, size, masked, rsv1)
    if masked:
        key = new_key()
        return b"".join((head, key, apply_mask(payload, key)))
    return head + payload


def encode_fragments(
    opcode: int, pieces: Sequence[bytes], masked: bool, rsv1: bool = False, max_frame: int | None = None
) -> bytes:
    """One message in a frame for each piece (RFC 6455 section 5.4), of which there is at least one.

    ``max_frame``: bytes; a longer piece goes into several.
    """
    if max_frame is not None:
        pieces = [piece[at : at + max_frame] for piece in pieces for at in range(0, len(piece) or 1, max_frame)]
    last = len(pieces) - 1
    frames = []
    for number, piece in enumerate(pieces):
        head = _head(Opcode.CONTINUATION if number else opcode, len(piece), masked, rsv1 and not number, number == last)
        key = new_key() if masked else b""
        frames += [head, key, apply_mask(piece, key) if masked else piece]
    return b"".join(frames)


def encode_large_frame(opcode: int, payload: bytes, masked: bool) -> tuple[bytes, bytes | bytearray]:
    """The same in two parts, for a payload that is too large to be copied for a header's sake."""
    if len(payload) >= LARGE_BLOCK:
        keep_large_blocks()
    head = _head(opcode, len(payload), masked, False)
    if not masked:
        return head, payload
    key = new_key()
    body = bytearray(payload)
    mask_in_place(body, key)
    return head + key, body


def keep_large_blocks() -> None:
    """Teach the C library to keep large blocks for the next large message, once a process.

    glibc gives a block of 1 MiB back to the system when it is freed, and touching fresh pages then takes ten times as
    long as all else about the message (1.2 ms against 0.1 ms).  Its threshold follows the largest block freed so far,
    as mallopt(3) documents; this frees one that was never touched.  Larger ones raise it again as they come.  When a
    connection has ended, ``net.heap`` gives back what lies unused.  Other C libraries do not mind.
    """
    global _blocks_kept
    if not _blocks_kept:
        _blocks_kept = True
        block = bytearray(KEPT_BLOCK)
        del block


def _head(opcode: int, size: int, masked: bool, rsv1: bool, fin: bool = True) -> bytes:
    first = (FIN if fin else 0) | opcode | (RSV1 if rsv1 else 0)
    mask_bit = MASKED if masked else 0
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 65536:
        return _HEAD_16.pack(first, mask_bit | 126, size)
    return _HEAD_64.pack(first, mask_bit | 127, size)


def close_payload(close: Close | None) -> bytes:
    """The payload of a Close frame, its reason cut to whole characters within 123 bytes (RFC 6455 section 5.5.1)."""
    if close is None:
        return b""
    reason = close.reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode()
    return _TWO_BYTES.pack(close.code) + reason
