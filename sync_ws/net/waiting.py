"""Waiting for sockets, and waking a thread that waits: the only place that knows ``poll``, ``select`` and such pairs.

Why so: how to wait differs between systems, and so does what can be waited for.  ``poll`` is used wherever there is
one: it takes descriptors of any number.  Where there is none (Windows) it is ``select.select``, which there takes
512 sockets at a time and nothing but sockets; so a Waker is a socket pair, everywhere, not a pipe.

A wait that a signal interrupts goes on for the time that is left (Python sees to it, PEP 475), unless the signal's
handler raises.  One that comes in the moment before the system call does not interrupt it: the main thread waits in
steps, and sees to it between them.  An error, or the end of the stream, counts as ready: the operation that was waited
for will tell.  A system that has no memory for a wait is asked again after a pause: whoever waits has nobody to tell.

Threading: the functions keep nothing and may be called from any thread; a Waker says for itself who may do what.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable

from .. import interrupts
from ..forking import ToldOfForks, close_fully, no_fork
from ..interrupts import STEP, owned

__all__ = ["NOT_NOW", "READABLE", "WRITABLE", "Waker", "wait", "wait_any"]

# not POLLPRI: a TCP peer's urgent byte is never read, and would end every wait at once from then on
READABLE: int = getattr(select, "POLLIN", 1)
WRITABLE: int = getattr(select, "POLLOUT", 4)
# to be tried again; Python itself bears EINTR (PEP 475), sockets that others put in the place of its own may not
NOT_NOW = (BlockingIOError, InterruptedError)
LONGEST = 24 * 3600.0  # seconds in one system call: poll takes milliseconds in a C int, select a C time
GROUP = 500  # sockets in one call of select.select; Python allows 512 on Windows
SLICE = 0.05  # seconds for one look at all groups, when there are several
PAUSE = 0.05  # seconds, after the system refused to wait
TRIES = 3  # for a byte to a Waker, which nobody sends again


class Waker:
    """Ends the wait of a thread that was told to watch it.

    ``wake`` by any thread, and by a signal handler whatever it interrupted, one of these methods included; once or
    often, before the wait or in it: it lasts until ``clear``.  ``clear`` and ``close`` are for the thread that waits,
    or for any one while none waits; somebody may be about to ``wake`` meanwhile, which does nothing once it is closed.
    OSError when the process is out of descriptors.
    """

    def __init__(self) -> None:
        # guards the two sockets against being closed in the middle of a send: the descriptor's number may be another
        # file's by then.  Any thread, for calls that do not block; reentrant for the sake of signal handlers, and
        # whatever they interrupt: a socket object closes once, and takes its number only when it is used
        self._lock = threading.RLock()
        with no_fork():
            self._watched, self._far = socket.socketpair()
            _wakers.add(self)
        self._watched.setblocking(False)
        self._far.setblocking(False)

    def wake(self) -> None:
        """End the wait, now or as soon as it begins."""
        with self._lock:
            for _ in range(TRIES):
                try:
                    self._far.send(b"x")
                    return
                except BlockingIOError:
                    return  # full of such bytes, so awake already
                except OSError:
                    continue  # no memory, or closed

    def clear(self) -> None:
        """Wait anew.  Before looking for what one was woken for: what comes after that look wakes again."""
        with self._lock:
            try:
                self._watched.recv(65536)  # should more than that be there, the next wait ends at once
            except OSError:
                return  # nothing there, or closed

    @property
    def held_here(self) -> bool:
        """Whether the caller interrupted one of these methods in its own thread: no other can before it goes on."""
        return owned(self._lock)

    def fileno(self) -> int:
        """The descriptor that becomes readable; -1 once it is closed."""
        return self._watched.fileno()

    def close(self) -> None:
        """Give the descriptors back.  May be repeated."""
        with self._lock:
            close_fully(self._far)
            close_fully(self._watched)

    def _forget_in_child(self) -> None:
        """After fork: the lock may be held by a thread that is not here, both ends are copies."""
        self._lock = threading.RLock()
        self.close()


_wakers: ToldOfForks[Waker] = ToldOfForks()


class _SelectPoll:
    """``select.poll``, as far as it is used here, by ``select.select``."""

    def __init__(self) -> None:
        self._wanted: list[tuple[int, int]] = []

    def register(self, fd: int, events: int) -> None:
        self._wanted.append((fd, events))

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        """The descriptors that are ready, each with the events that were wanted of it."""
        first, rest = self._wanted[0], self._wanted[1:]
        # the first, which is the Waker if there is one, is in every group: to wake is to wake at once
        groups = [[first, *rest[at : at + GROUP - 1]] for at in range(0, len(rest), GROUP - 1)] or [[first]]
        longest = LONGEST if len(groups) == 1 else SLICE / len(groups)
        end = math.inf if milliseconds is None else time.monotonic() + milliseconds / 1000
        while True:
            ready: set[int] = set()
            for group in groups:
                step = 0.0 if ready else max(0.0, min(end - time.monotonic(), longest))
                ready |= _select(group, step)
            if ready or time.monotonic() >= end:
                return [(fd, events) for fd, events in self._wanted if fd in ready]


def _select(group: list[tuple[int, int]], timeout: float) -> set[int]:
    reading = [fd for fd, events in group if events & READABLE]
    writing = [fd for fd, events in group if events & WRITABLE]
    try:  # Windows tells of a failed connect among the exceptions only
        return set().union(*select.select(reading, writing, writing, timeout))
    except OSError:  # one of them is closed, and which is not said; poll calls that one ready
        if len(group) == 1:
            return {group[0][0]}
        return set().union(*(_select([one], 0.0) for one in group))


def _poll_object() -> _SelectPoll:
    """``select.poll`` makes what has the same two methods.  Looked for each time: gevent puts another one in its
    place, eventlet takes it away, and either may come after us."""
    make: Callable[[], _SelectPoll] = getattr(select, "poll", _SelectPoll)
    return make()


def wait(fd: int, events: int, timeout: float | None, waker: Waker | None = None) -> bool:
    """Until ``fd`` has one of ``events`` or ``waker`` was woken; False when ``timeout`` seconds have passed first.

    Any timeout will do, None for no end.  True at once for a closed descriptor or Waker: what follows will tell.
    """
    if fd < 0:
        return True
    poller = _poll_object()
    if waker is not None:
        if (wake_fd := waker.fileno()) < 0:
            return True
        poller.register(wake_fd, READABLE)
    poller.register(fd, events)
    return _poll(poller, timeout) != []


def wait_any(fds: Iterable[int], events: int, timeout: float | None, waker: Waker) -> list[int]:
    """The same for many: those of ``fds`` that are ready, none when it was the Waker or the timeout."""
    wake_fd = waker.fileno()
    if wake_fd < 0:
        return []
    poller = _poll_object()
    poller.register(wake_fd, READABLE)
    for fd in fds:
        poller.register(fd, events)
    return [fd for fd, _ in _poll(poller, timeout) or () if fd != wake_fd]


def _poll(poller: _SelectPoll, timeout: float | None) -> list[tuple[int, int]] | None:
    """Seconds for poll's milliseconds: it takes a C int of them, and a negative number for no end.

    None when the system refuses a wait that has no end: whoever waits is to look for himself now and then.
    """
    while True:
        try:
            if timeout is None or timeout > STEP:
                longest = STEP if threading.get_ident() == interrupts.main_ident else LONGEST
                if timeout is None and longest == LONGEST:
                    return poller.poll()
                end = math.inf if timeout is None else time.monotonic() + timeout
                while timeout is None or timeout > longest:
                    if ready := poller.poll(longest * 1000):
                        return ready
                    timeout = end - time.monotonic()
            return poller.poll(timeout * 1000 if timeout > 0 else 0)
        except (OSError, MemoryError):
            if timeout is not None and timeout <= 0:
                return []
            pause = PAUSE if timeout is None else min(PAUSE, timeout)
            time.sleep(pause)
            if timeout is None or timeout == math.inf:
                return None
            timeout -= pause
