"""Locks and waits that a signal may interrupt at any instant.

Why so: a signal's handler runs in the main thread, between two steps of whatever function is at work there, one of ours
perhaps, and it may do two things to that function.

It may call ``close()`` or ``shutdown()``.  A lock that the interrupted function holds must not be waited for then: the
wait would never end.  So every lock of this package is a ``threading.RLock``, whose owner may enter again and can be
asked for (``owned``): short sections are written so that whoever enters in the middle finds something usable, and who
finds a long one in use by its own thread leaves a note and returns.

It may raise.  ``with lock:`` is safe as long as the lock is an object of C: nothing of Python's runs between the taking
and the block.  ``threading.Condition`` and ``threading.Event`` are classes of Python: an exception inside their own
methods leaves their lock held for ever.  So waiting is done with ``Waiters`` and ``Flag``, which hold nothing.

It may come too late: a signal that arrives between Python's last look for signals and the system call that waits does
not end that call.  So the main thread, the only one that runs handlers, never waits longer than a STEP at a time.

Threading: everything from any thread, and from a signal's handler.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .timing import Deadline

__all__ = ["STEP", "Flag", "Waiters", "main_ident", "owned"]

STEP = 0.5  # seconds: Python does not see a signal that comes just before a wait begins until the wait ends
# of the thread in which signals' handlers run: ask as ``interrupts.main_ident``, for in a child it is another
main_ident = threading.main_thread().ident


def _forget_in_child() -> None:
    """After fork, the thread that forked is the main thread."""
    global main_ident
    main_ident = threading.get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def owned(lock: Any) -> bool:
    """Whether the calling thread holds ``lock``, an RLock: then it is the frame below that does."""
    return bool(lock._is_owned())


class Waiters:
    """Threads that wait for something to come true.  Whoever changes what they look at calls ``wake`` afterwards."""

    def __init__(self) -> None:
        self._waiting: deque[_thread.LockType] = deque()  # each locked, until somebody wakes it

    def wait(self, settled: Callable[[], object], deadline: Deadline) -> bool:
        """Whether ``settled`` came true before the deadline.  It is called under no lock, any number of times."""
        while not settled():
            remaining = deadline.remaining()
            if remaining == 0.0:
                return False
            waiter = _thread.allocate_lock()
            waiter.acquire()
            self._waiting.append(waiter)
            try:
                if settled():  # it came true before anybody could have known of this waiter
                    return True
                waiter.acquire(timeout=STEP if remaining is None else min(STEP, remaining))
            finally:
                self._forget(waiter)
        return True

    def wake(self) -> None:
        """Let all of them look again."""
        while self._waiting:
            try:
                waiter = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            waiter.release()

    def _forget(self, waiter: _thread.LockType) -> None:
        try:
            self._waiting.remove(waiter)
        except ValueError:
            return  # it was woken


class Flag:
    """Something that happens once, and that threads may wait for: ``threading.Event`` without a lock of its own."""

    def __init__(self) -> None:
        self._set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    def set(self) -> None:
        """It has happened; wakes everybody who waits for it."""
        self._set = True
        self._waiters.wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has happened, after at most ``timeout`` seconds (None: as long as it takes)."""
        return self._set or self._waiters.wait(self.is_set, Deadline(timeout))
