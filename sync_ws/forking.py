"""After a fork: objects whose threads and sockets are the parent's are told so in the child.

Why so: a child has copies of the sockets but none of the threads, and a byte it sent would be a byte too many.  A copy
that stays open is one too: the peer does not see the end of the stream before the last of them is closed.  So a socket
is known here from its very beginning to its very end: it is made and closed with ``NO_FORK`` held, and so is a child.

Threading: registration by any thread; the telling happens in the child's only thread.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["NO_FORK", "ToldOfForks", "close_fully", "close_in_child"]

# held by the thread that forks, while it does, so that it finds every descriptor in an object that is known here; and
# by any thread from before it makes one until it is known, and while it closes one.  Neither takes waiting.  The
# innermost of all locks
NO_FORK = threading.RLock()
T = TypeVar("T", bound=Any)  # has a method _forget_in_child


class ToldOfForks(Generic[T]):
    """A weak set; in a forked child ``_forget_in_child`` of everything in it is called."""

    def __init__(self) -> None:
        self._objects: weakref.WeakSet[T] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._tell)

    def add(self, thing: T) -> None:
        """Tell ``thing``, for as long as it lives."""
        self._objects.add(thing)

    def _tell(self) -> None:
        for thing in list(self._objects):
            thing._forget_in_child()


class _Closable(Protocol):
    def close(self) -> object: ...


class _Copies(ToldOfForks[_Closable]):
    """Descriptors, which are closed."""

    def _tell(self) -> None:
        for descriptor in list(self._objects):
            descriptor.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=NO_FORK.release)
_copies = _Copies()


def close_fully(descriptor: _Closable) -> None:
    """Close it.  A socket object gives up its number before the system closes it: no child is made in between."""
    with NO_FORK:
        descriptor.close()


def close_in_child(descriptor: _Closable) -> None:
    """A child is to close its copy of ``descriptor``.  With NO_FORK held, since before it was made."""
    _copies.add(descriptor)
