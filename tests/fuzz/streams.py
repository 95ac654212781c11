"""Streams of frames for the differential fuzz: mostly right, then damaged; and a reader of headers alone.

Threading: pure functions, but for the random generator, which is the caller's own.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Header", "damaged", "headers", "pieces", "stream"]

HEART_BEAT = b'{"ModeCode":"heart_beat","msg":"2024-01-01T00:00:00"}'
TEXTS = (b"", b"a", b"hello", "äöü 漢字 \U0001f600".encode(), b'{"ModeCode":"message","msg":1}', HEART_BEAT)
BAD_TEXTS = (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"abc\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\x80")
SIZES = (0, 1, 2, 63, 64, 124, 125, 126, 127, 128, 200, 299, 300, 301, 1000)
CODES = (0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 2999, 3000, 4009, 4999, 5000, 65535)


class Header(NamedTuple):
    """A frame's header as it is on the wire."""

    first: int
    masked: bool
    length: int
    shortest: bool  # the length in its shortest form, and below 2 ** 63
    end: int  # offset behind the payload

    @property
    def opcode(self) -> int:
        return self.first & 0x0F


def headers(data: bytes) -> Iterator[Header]:
    """The headers in `data`, read one after the other with no regard to rules, as far as they are complete."""
    at = 0
    while at + 2 <= len(data):
        first, second = data[at], data[at + 1]
        length, begin, least = second & 0x7F, at + 2, 0
        if length > 125:
            size, least = (2, 126) if length == 126 else (8, 65536)
            begin += size
            if begin > len(data):
                return
            length = int.from_bytes(data[at + 2 : begin], "big")
        masked = bool(second & 0x80)
        at = begin + (4 if masked else 0) + length
        yield Header(first, masked, length, least <= length < 1 << 63, at)


def stream(rng: random.Random, *, masked: bool, deflate: bool) -> bytes:
    """Some frames, most of them in order."""
    out = bytearray()
    compressor = zlib.compressobj(wbits=-15)
    for _ in range(rng.randrange(1, 8)):
        kind = rng.random()
        if kind < 0.2:
            out += _control(rng, masked)
        elif kind < 0.6:
            out += _message(rng, masked, None)
        elif kind < 0.8 and deflate:
            out += _message(rng, masked, compressor)
        elif kind < 0.95:
            out += _fragments(rng, masked, compressor if deflate and rng.random() < 0.5 else None)
        else:  # anything
            first = rng.choice((0x80, 0x81, 0x82, 0x83, 0x89, 0x8B, 0x00, 0x01, 0x08, 0x09, 0xC1, 0xC2, 0xA1, 0x91))
            out += _frame(rng, first, rng.randbytes(rng.choice(SIZES)), masked)
    return bytes(out)


def _frame(rng: random.Random, first: int, payload: bytes, masked: bool) -> bytes:
    if rng.random() < 0.01:
        masked = not masked
    bit, size, form = 0x80 if masked else 0, len(payload), rng.random()
    if size < 126 and form > 0.01:
        head = bytes((first, bit | size))
    elif size < 65536 and form > 0.005:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size | (1 << 63 if rng.random() < 0.1 else 0))
    if not masked:
        return head + payload
    key = rng.choice((b"\0\0\0\0", rng.randbytes(4)))
    longer = key * (size // 4 + 1)
    return head + key + bytes(a ^ b for a, b in zip(payload, longer))


def _payload(rng: random.Random, text: bool) -> bytes:
    kind = rng.random()
    if not text:
        return rng.choice(TEXTS) if kind < 0.1 else rng.randbytes(rng.choice(SIZES))
    if kind < 0.06:
        return rng.choice(TEXTS) + rng.choice(BAD_TEXTS) + rng.choice(TEXTS)
    if kind < 0.6:
        return rng.choice(TEXTS)
    return bytes(rng.choice(b"abc ") for _ in range(rng.choice(SIZES)))


def _deflated(rng: random.Random, payload: bytes, compressor: zlib._Compress | None) -> bytes:
    """A compressed payload; now and then a bomb, or no deflate at all."""
    assert compressor is not None
    kind = rng.random()
    if kind < 0.03:
        return rng.randbytes(20)
    if kind < 0.06:
        payload = b"\0" * rng.choice((299, 300, 301, 100_000))
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _message(rng: random.Random, masked: bool, compressor: zlib._Compress | None) -> bytes:
    opcode = rng.choice((1, 2))
    payload = _payload(rng, opcode == 1)
    if compressor is None:
        return _frame(rng, 0x80 | opcode, payload, masked)
    return _frame(rng, 0xC0 | opcode, _deflated(rng, payload, compressor), masked)


def _fragments(rng: random.Random, masked: bool, compressor: zlib._Compress | None) -> bytes:
    """A message in several frames, with control frames between them; sometimes without its end."""
    opcode = rng.choice((1, 2))
    payload = _payload(rng, opcode == 1)
    if compressor is not None:
        payload = _deflated(rng, payload, compressor)
    cuts = sorted(rng.randrange(len(payload) + 1) for _ in range(rng.randrange(1, 6)))
    out = bytearray()
    for index, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(payload)])):
        first = 0 if index else opcode | (0x40 if compressor is not None else 0)
        if index == len(cuts) and rng.random() < 0.93:
            first |= 0x80
        out += _frame(rng, first, payload[begin:end], masked)
        if rng.random() < 0.2:
            out += _control(rng, masked)
    return bytes(out)


def _control(rng: random.Random, masked: bool) -> bytes:
    if rng.random() < 0.75:
        return _frame(rng, rng.choice((0x89, 0x8A)), rng.randbytes(rng.choice((0, 1, 5, 124, 125))), masked)
    if rng.random() < 0.1:
        return _frame(rng, 0x88, rng.randbytes(rng.choice((1, 126))), masked)
    reason = b"" if rng.random() < 0.3 else rng.choice(TEXTS + BAD_TEXTS)
    payload = b"" if rng.random() < 0.2 else struct.pack("!H", rng.choice(CODES)) + reason
    return _frame(rng, 0x88, payload, masked)


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The same with a few bytes flipped, removed, repeated or put in; or random bytes."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.choice((1, 2, 7))]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        else:
            del out[at:]
    return bytes(out) if rng.random() < 0.95 else rng.randbytes(rng.randrange(1, 60))


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The same cut up: whole, byte by byte, or anyhow."""
    kind = rng.random()
    if kind < 0.25:
        return [data]
    if kind < 0.5:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(1, 10)))
    return [data[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(data)]) if begin < end]
