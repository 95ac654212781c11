"""Masking of payloads (RFC 6455 section 5.3): XOR with a repeated four-byte key, as fast as Python can.

Why so: there is no XOR over bytes in Python, and each way round that is best at another size.  Measured, in MB/s:

    payload    one big int   translate   numpy
      100 B        230          120         70
        1 KB       550          590        690
       16 KB       520          920       5700
        1 MB       400         1200      25000

So: an int XOR for small payloads, ``bytes.translate`` over every fourth byte from 1 KB, and numpy where it is
importable.  Importing numpy takes some tenths of a second and some 20 MB, so it waits for the first payload of
32 KB, unless the program has imported it anyway.  ``SYNC_WS_NO_NUMPY=1`` in the environment does without.

Threading: pure functions but for the pool of keys, which relies on ``list.pop`` being atomic.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["apply_mask", "new_key"]

TRANSLATE_FROM = 1024  # bytes: from here on translate beats the int
IMPORT_NUMPY_FROM = 32 * 1024  # bytes: worth the import
KEYS_AT_ONCE = 256

_keys: list[bytes] = []
_tables: list[bytes] = []  # filled at first use: 64 KB that a server of small messages never needs
_numpy: Any = None
_numpy_wanted = os.environ.get("SYNC_WS_NO_NUMPY", "") in ("", "0")


def new_key() -> bytes:
    """Four unpredictable bytes: a key is used for one frame only (RFC 6455 section 5.3)."""
    try:
        return _keys.pop()
    except IndexError:  # one system call for many keys
        drawn = os.urandom(4 * KEYS_AT_ONCE)
        _keys.extend(drawn[at : at + 4] for at in range(4, len(drawn), 4))
        return drawn[:4]


if hasattr(os, "register_at_fork"):  # a child must not use the keys its parent is going to use
    os.register_at_fork(after_in_child=_keys.clear)


def apply_mask(payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """``payload`` XOR the repeated ``key``; masking and unmasking are the same."""
    size = len(payload)
    if size < TRANSLATE_FROM:
        words = (size + 3) >> 2
        masked = int.from_bytes(payload, "little") ^ int.from_bytes(key * words, "little")
        return masked.to_bytes(words << 2, "little")[:size]
    numpy = _numpy or _load_numpy(size)
    if numpy:
        return _with_numpy(numpy, payload, key)
    if len(_tables) < 256:
        # assigned as a whole: another thread must not see a part of it
        _tables[:] = [bytes(a ^ b for a in range(256)) for b in range(256)]
    lanes = bytearray(payload)
    for lane in range(4):
        lanes[lane::4] = lanes[lane::4].translate(_tables[key[lane]])
    return bytes(lanes)


def _with_numpy(numpy: Any, payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    words = len(payload) >> 2
    masked: bytes = (
        numpy.frombuffer(payload, numpy.uint32, words) ^ numpy.frombuffer(key, numpy.uint32)
    ).tobytes()
    tail = payload[words << 2 :]
    return masked + bytes(a ^ b for a, b in zip(tail, key)) if tail else masked


def _load_numpy(size: int) -> Any:
    """numpy, if it is wanted now and to be had; None otherwise."""
    global _numpy, _numpy_wanted
    if not _numpy_wanted or (size < IMPORT_NUMPY_FROM and "numpy" not in sys.modules):
        return None
    try:
        import numpy
    except ImportError:
        _numpy_wanted = False
        return None
    _numpy = numpy
    return numpy
