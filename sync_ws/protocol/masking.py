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

__all__ = ["apply_mask", "mask_in_place", "new_key"]

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
        number = int.from_bytes(payload, "little") ^ int.from_bytes(key * words, "little")
        return number.to_bytes(words << 2, "little")[:size]
    masked = bytearray(payload)
    mask_in_place(masked, key)
    return bytes(masked)


def mask_in_place(payload: bytearray, key: bytes) -> None:
    """The same, without another copy of a large ``payload``: memory not touched before is what takes the time."""
    size = len(payload)
    numpy = _numpy or _load_numpy(size)
    if numpy:
        words = size >> 2
        array = numpy.frombuffer(payload, numpy.uint32, words)
        array ^= numpy.frombuffer(key, numpy.uint32)
        for at in range(words << 2, size):
            payload[at] ^= key[at & 3]
        return
    if len(_tables) < 256:
        # assigned as a whole: another thread must not see a part of it
        _tables[:] = [bytes(a ^ b for a in range(256)) for b in range(256)]
    for lane in range(4):
        payload[lane::4] = payload[lane::4].translate(_tables[key[lane]])


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
