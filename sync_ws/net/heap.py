"""The C library's free memory, given back to the system.

Why so: a thread's blocks come from an arena that it shares with few others, and what is freed in the middle of one
stays with the process: 70 MiB after a burst of 1 MiB messages on 50 connections, nothing of it in use.  glibc's
``malloc_trim`` gives the pages back, of all arenas, in some tenths of a millisecond.  It helps most before the thread
that freed the blocks has ended, so whoever closes a connection that had large messages calls it.  No setting of the
process is changed.  Other C libraries have no such function, and other habits.

Threading: from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["give_back"]

# held by whoever is at it, and never waited for: one is enough
_lock = threading.RLock()
_again = False  # somebody came meanwhile, who has freed something, too
_trim: Callable[[int], object] | None = None
_looked_for = False


def give_back() -> None:
    """Give back what is free, unless another thread is about to."""
    global _again
    _again = True
    while _again:
        for taken in map(_lock.acquire, (False,)):
            if not taken:
                return
            try:
                _again = False
                trim = _malloc_trim()
                if trim is not None:
                    trim(0)
            finally:
                _lock.release()


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
