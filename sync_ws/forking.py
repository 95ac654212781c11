"""After a fork: objects whose threads and sockets are the parent's are told so in the child.

Why so: a child has copies of the sockets but none of the threads, and a byte it sent would be a byte too many.  A copy
that stays open is one too: the peer does not see the end of the stream before the last of them is closed.  So a socket
is known here from its very beginning to its very end: it is made and closed with a lock of ``no_fork()`` held, and a
child is made with all of them held.

Threading: registration by any thread; the telling happens in the child's only thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["ToldOfForks", "close_fully", "close_in_child", "no_fork"]

PAUSE = 0.0005  # seconds, before the thread that forks asks for the locks again
PATIENCE = 1.0  # seconds, for all of them; they are held for microseconds

# Held, all of them, by the thread that forks, while it does, so that it finds every descriptor in an object that is
# known here; and one of them by any thread from before it makes one until it is known, and while it closes one, which
# both take no waiting.  The innermost of all locks.  Several of them, for the system takes some ten microseconds to
# close a socket, and with a single one threads that close and the one that accepts stood in each other's way: a fifth
# of all that an opening handshake cost.
_locks = tuple(threading.RLock() for _ in range(16))
_forker = 0  # the thread that holds them all
T = TypeVar("T", bound=Any)  # has a method _forget_in_child


class ToldOfForks(Generic[T]):
    """Weak references; in a forked child ``_forget_in_child`` of everything in it is called."""

    def __init__(self) -> None:
        # a WeakSet is Python code, which every connection would run several times
        self._objects: set[weakref.ref[T]] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._tell)

    def add(self, thing: T) -> None:
        """Tell ``thing``, for as long as it lives."""
        self._objects.add(weakref.ref(thing, self._objects.discard))

    def _tell(self) -> None:
        for thing in self._living():
            thing._forget_in_child()

    def _living(self) -> list[T]:
        return [thing for reference in self._objects.copy() if (thing := reference()) is not None]


class _Closable(Protocol):
    def close(self) -> object: ...


class _Copies(ToldOfForks[_Closable]):
    """Descriptors, which are closed."""

    def _tell(self) -> None:
        for descriptor in self._living():
            descriptor.close()


def no_fork() -> contextlib.AbstractContextManager[object]:
    """``with no_fork():``: no child is made meanwhile, unless by this thread."""
    return _locks[(threading.get_ident() >> 12) % len(_locks)]  # an address, in pages


def _lock_all() -> None:
    """One after the other, but waiting for none with another one held: a signal's handler may fork in a thread that
    has its lock already, while another thread forks.  Nor for ever: that one may hold a lock of somebody else's hook,
    for which this one waits next, and a copy too many in a child is better than two threads that wait for each other.
    """
    global _forker
    patience = time.monotonic() + PATIENCE
    while time.monotonic() < patience:
        held = 0
        for lock in _locks:
            if not lock.acquire(blocking=False):
                break
            held += 1
        else:
            _forker = threading.get_ident()
            return
        for lock in _locks[:held]:
            lock.release()
        time.sleep(PAUSE)


def _unlock_all() -> None:
    global _forker
    if _forker == threading.get_ident():
        _forker = 0
        for lock in _locks:
            lock.release()


def _renew_in_child() -> None:
    """Where patience was at its end, threads that are not here hold some of them."""
    global _locks, _forker
    _forker = 0
    _locks = tuple(threading.RLock() for _ in _locks)


if hasattr(os, "register_at_fork"):  # the first to be told in a child: the others close there what is not theirs
    os.register_at_fork(before=_lock_all, after_in_parent=_unlock_all, after_in_child=_renew_in_child)
_copies = _Copies()


def close_fully(descriptor: _Closable) -> None:
    """Close it.  A socket object gives up its number before the system closes it: no child is made in between."""
    with no_fork():
        descriptor.close()


def close_in_child(descriptor: _Closable) -> None:
    """A child is to close its copy of ``descriptor``.  With ``no_fork()`` held, since before it was made."""
    _copies.add(descriptor)
