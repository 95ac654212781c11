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

The import is not for whoever has that payload in hand, with a lock held and an interrupt perhaps on its way:
an import that breaks off leaves a module that nobody can import any more.  So ``mask_in_place`` only says that it is
wanted, and whoever looks after connections calls ``load_numpy`` in a quiet moment, in a thread that no signal comes to.
It is tried once; whatever goes wrong means that we go on without.

Threading: pure functions but for the pool of keys, which relies on ``list.pop`` being atomic, and for ``load_numpy``:
any thread may call it, one at a time is seen to by the import.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

__all__ = ["apply_mask", "load_numpy", "mask_in_place", "new_key"]

log = logging.getLogger("sync_ws")

TRANSLATE_FROM = 1024  # bytes: from here on translate beats the int
IMPORT_NUMPY_FROM = 32 * 1024  # bytes: worth the import
KEYS_AT_ONCE = 256
# what importing numpy takes at most: OpenBLAS ends the whole process when it does not get its address space
ADDRESS_SPACE = 96 << 20  # bytes
ADDRESS_SPACE_A_CORE = 48 << 20
DESCRIPTORS = 4

_keys: list[bytes] = []
_tables: list[bytes] = []  # filled at first use: 64 KB that a server of small messages never needs
_numpy: Any = None
_wanted = False  # there was a payload that it would have been good for
_tried = os.environ.get("SYNC_WS_NO_NUMPY", "") not in ("", "0")


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
    global _wanted
    size, numpy = len(payload), _numpy
    if numpy:
        words = size >> 2
        array = numpy.frombuffer(payload, numpy.uint32, words)
        array ^= numpy.frombuffer(key, numpy.uint32)
        for at in range(words << 2, size):
            payload[at] ^= key[at & 3]
        return
    if size >= IMPORT_NUMPY_FROM or "numpy" in sys.modules:
        _wanted = True
    if len(_tables) < 256:
        # assigned as a whole: another thread must not see a part of it
        _tables[:] = [bytes(a ^ b for a in range(256)) for b in range(256)]
    for lane in range(4):
        payload[lane::4] = payload[lane::4].translate(_tables[key[lane]])


def load_numpy() -> None:
    """Import it, if it is wanted and that has not been tried.  In a thread that no signal comes to, under no lock."""
    global _numpy, _tried
    if _tried or not _wanted or _being_imported():
        return
    _tried = True
    try:
        if "numpy" not in sys.modules:
            _rehearse()
        import numpy

        sample = bytearray(range(8))
        array = numpy.frombuffer(sample, numpy.uint32, 2)
        array ^= numpy.frombuffer(b"abcd", numpy.uint32)
        if sample != apply_mask(bytes(range(8)), b"abcd"):
            raise ValueError("numpy does not calculate as it should")
    except Exception as exc:  # not installed; or no memory, no descriptors, half a module, and whatever comes of that
        if not isinstance(exc, ModuleNotFoundError):
            log.info("going on without numpy for large messages: %s", repr(exc)[:200])
        return
    _numpy = numpy


def _being_imported() -> bool:
    """Whether another thread is in the middle of it."""
    spec = getattr(sys.modules.get("numpy"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _rehearse() -> None:
    """MemoryError or OSError if there is not what the import will take."""
    bytes(ADDRESS_SPACE + ADDRESS_SPACE_A_CORE * (os.cpu_count() or 1))  # not touched, so only its addresses are taken
    opened: list[int] = []
    try:
        while len(opened) < DESCRIPTORS:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
