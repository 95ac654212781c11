"""Locks that another thread holds, for as long as a block lasts: what a child finds, made in that moment.

Threading: a thread of its own holds them, so that whoever is in the block would wait for them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager

from tests.support.wire import join

__all__ = ["held_elsewhere"]


@contextlib.contextmanager
def held_elsewhere(*locks: AbstractContextManager[object]) -> Iterator[None]:
    """``with held_elsewhere(lock): child = fork()``."""
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            held.set()
            let_go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(10), "the locks are not to be had"
        yield
    finally:
        let_go.set()
        join(holder)
