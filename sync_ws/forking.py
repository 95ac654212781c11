"""After a fork: objects whose threads and sockets are the parent's are told so in the child.

Why so: a child has copies of the sockets but none of the threads, and a byte it sent would be a byte too many.

Threading: registration at import or in constructors; the telling happens in the child's only thread.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, Generic, TypeVar

__all__ = ["ToldOfForks"]

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
