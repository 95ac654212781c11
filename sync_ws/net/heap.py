"""The C library's free memory, given back to the system.

Why so: a thread's blocks come from an arena that it shares with few others, and what is freed in the middle of one
stays with the process: 70 MiB after a burst of 1 MiB messages on 50 connections, nothing of it in use.  glibc's
``malloc_trim`` gives the pages back, of all arenas, in some tenths of a millisecond.  It helps most before the thread
that freed the blocks has ended, so whoever closes a connection that had large messages calls it; a program with a large
heap, or many such connections, is not to pay for that each time, so it has a share of the time and the housekeeper does
what was put off.  No setting of the process is changed.  Other C libraries have no such function, and other habits.

Threading: from any thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

__all__ = ["give_back", "give_back_rest"]

SHARE = 0.05  # of the time goes into this at most: it takes longer where the process has a large heap of its own

_lock = threading.RLock()
_wanted = False  # somebody has freed something since it was last done
_not_before = 0.0  # monotonic
_trim: Callable[[int], object] | None = None
_looked_for = False


def _renew_in_child() -> None:
    """After fork: a thread that is not here may have been at it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)


def give_back() -> None:
    """Give back what is free, if that is due; and in any case let ``give_back_rest`` do so: more will be free soon."""
    global _wanted
    if time.monotonic() >= _not_before:
        _give_back()
    _wanted = True


def give_back_rest() -> None:
    """Give back what is free, if ``give_back`` was called and it is due; to be called now and then."""
    global _wanted
    if _wanted and time.monotonic() >= _not_before:
        _wanted = False
        _give_back()


def _give_back() -> None:
    global _not_before
    lock = _lock
    for taken in map(lock.acquire, (False,)):
        if not taken:  # another thread is at it
            return
        try:
            trim = _malloc_trim()
            if trim is not None:
                began = time.monotonic()
                trim(0)
                ended = time.monotonic()
                _not_before = ended + (ended - began) / SHARE
        finally:
            lock.release()


def _malloc_trim() -> Callable[[int], object] | None:
    """With ``_lock`` held: the function, None where there is none."""
    global _trim, _looked_for
    if not _looked_for:
        _looked_for = True
        try:
            import ctypes

            _trim = ctypes.CDLL(None).malloc_trim
        except (ImportError, AttributeError, OSError, TypeError, MemoryError):
            _trim = None
    return _trim
