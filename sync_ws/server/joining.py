"""Waiting for the end of threads, from wherever that may be asked for.

Why so: ``Thread.join`` raises for a thread that is just about to begin, which is how a signal's handler that
interrupted ``Thread.start`` finds it, and for a timeout beyond what the system's clocks hold.  And a signal that comes
just before such a wait is not seen until it ends, so it ends soon.

Threading: any thread, and a signal's handler.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ..interrupts import STEP
from ..timing import Deadline

__all__ = ["join"]


def join(threads: Iterable[threading.Thread], deadline: Deadline) -> None:
    """Until all of them have ended, or the deadline has passed.  The calling thread is not waited for, nor is one that
    has not begun: whoever waits for its end has told it to end at once."""
    for thread in threads:
        if thread is threading.current_thread():
            continue
        while thread.ident is not None and thread.is_alive():
            remaining = deadline.remaining()
            try:
                thread.join(STEP if remaining is None else min(remaining, STEP))
            except RuntimeError:  # about to begin
                break
            if deadline.passed:
                break
