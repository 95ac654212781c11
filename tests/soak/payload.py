"""The messages of a soak: each says which stream it belongs to, its number in it, and a hash of all of it.

What for: a receiver can tell from a message alone whether it is the one that was sent. A stream is what one thread
sends to one receiver, numbered from 1, over however many connections that takes.

Threading: pure functions, but for the random generator, which is the caller's own.
"""

from __future__ import annotations

import hashlib
import random
from typing import NamedTuple

__all__ = ["Altered", "Message", "Parsed", "make", "parse"]

Message = str | bytes
LARGEST = 200_000  # characters or bytes of a body
_ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789 äöüß éèç 漢字 \U0001f600 {}\"':,\\"
_SOURCE = random.Random(1)  # fixed: what differs between messages is which part of these they carry
_TEXT = "".join(_SOURCE.choices(_ALPHABET, k=LARGEST + 50_000))
_BYTES = _SOURCE.randbytes(LARGEST + 50_000)


class Altered(Exception):
    """A message that is not what anybody sent."""


class Parsed(NamedTuple):
    """What a message says about itself; `attempt` is 0 where the sender could not know the connection."""

    stream: str
    seq: int
    attempt: int
    size: int


def make(stream: str, seq: int, rng: random.Random, attempt: int = 0) -> Message:
    """A message of random kind and size. `stream` contains no space."""
    size = _size(rng)
    start = rng.randrange(50_000)
    head = f"{stream} {seq} {attempt} "
    if rng.random() < 0.5:
        text = _TEXT[start : start + size]
        return f"{head}{_digest('text', head, text.encode())} {text}"
    data = _BYTES[start : start + size]
    return f"{head}{_digest('binary', head, data)} ".encode() + data


def parse(message: Message) -> Parsed:
    """What the message says; Altered when its hash says otherwise."""
    kind, raw = ("text", message.encode()) if isinstance(message, str) else ("binary", message)
    try:
        stream, seq, attempt, digest, body = raw.split(b" ", 4)
        head = b" ".join((stream, seq, attempt, b"")).decode()
        parsed = Parsed(stream.decode(), int(seq), int(attempt), len(raw))
    except ValueError:
        raise Altered(f"no message of ours: {message[:80]!r}... of {len(message)}") from None
    if digest.decode("latin-1") != _digest(kind, head, body):
        raise Altered(f"the hash is wrong: {kind} {message[:80]!r}... of {len(message)}")
    return parsed


def _digest(kind: str, head: str, body: bytes) -> str:
    return hashlib.blake2b(kind.encode() + head.encode() + body, digest_size=8).hexdigest()


def _size(rng: random.Random) -> int:
    """Mostly small, as messages are; often at the edges of the frame's length forms; now and then large."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice((0, 1, 50, 65, 80, 65_400, 65_480))
    if kind < 0.75:
        return rng.randrange(300)
    if kind < 0.97:
        return rng.randrange(8_000)
    return rng.randrange(LARGEST + 1)
