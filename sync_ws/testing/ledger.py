"""What a test must not leave behind: threads, timers, file descriptors, and exceptions that nobody caught.

`ResourceLedger` compares against a baseline and names precisely what is left over: the stack of each thread,
both ends of each socket. It waits for what is on its way out, and only then complains. `UncaughtThreadErrors`
collects what ends threads that no test waits for. `LedgerTestCase` applies both to every test of a class, and
prints the stacks of all threads when a test hangs.

Why strict: a descriptor that only the garbage collector closed was still leaked, so the ledger does not
collect before it judges; it collects afterwards, to be able to say so.

Threading: a ledger belongs to the thread that uses it. UncaughtThreadErrors collects from all threads.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import socket
import stat
import sys
import threading
import time
import traceback
import unittest
from dataclasses import dataclass
from types import FrameType, TracebackType

__all__ = ["LedgerTestCase", "ResourceLedger", "UncaughtError", "UncaughtThreadErrors"]

_FIRST_WAIT, _LONGEST_WAIT = 0.001, 0.05  # seconds between two looks while something is on its way out

# A thread that Python code runs in: its ident and its Thread object, None for one not made by `threading`.
# The object is kept, so that a new thread with the ident of a finished one is not taken for it.
_ThreadKey = tuple[int, "threading.Thread | None"]


class ResourceLedger:
    """The threads and file descriptors of this process when constructed: the baseline to return to."""

    def __init__(self) -> None:
        self._threads = _threads()
        self._descriptors = _descriptors()

    def check(self, deadline: float = 5.0) -> None:
        """Return as soon as nothing is left over; AssertionError listing what is after `deadline` seconds."""
        left = self.leftovers(deadline)
        if left:
            raise AssertionError("left behind:\n" + "\n".join(left))

    def leftovers(self, deadline: float = 5.0) -> list[str]:
        """A description of each thread and descriptor that is not in the baseline and still there after
        `deadline` seconds; the empty list as soon as there is none. Those of the baseline may be gone."""
        end, wait = time.monotonic() + deadline, _FIRST_WAIT
        while True:
            threads, descriptors = self._extra()
            remaining = end - time.monotonic()
            if remaining <= 0 or not (threads or descriptors):
                break
            time.sleep(min(wait, remaining))
            wait = min(wait * 2, _LONGEST_WAIT)
        return [_describe_thread(key) for key in threads] + self._describe_descriptors(descriptors)

    def _extra(self) -> tuple[list[_ThreadKey], dict[int, str]]:
        descriptors = _descriptors()
        for number, target in self._descriptors.items():
            if descriptors.get(number) == target:
                del descriptors[number]
        return sorted(_threads() - self._threads, key=lambda key: key[0]), descriptors

    def _describe_descriptors(self, descriptors: dict[int, str]) -> list[str]:
        if not descriptors:
            return []
        lines = {number: f"fd {number}: {target}{_ends(number)}" for number, target in descriptors.items()}
        gc.collect()
        now = _descriptors()
        for number, target in descriptors.items():
            if now.get(number) != target:
                lines[number] += " (closed by the garbage collector, not by its owner)"
        return list(lines.values())


@dataclass(frozen=True)
class UncaughtError:
    """An exception that ended a thread. Text only: the exception itself would keep its frames alive."""

    thread: str
    kind: type[BaseException]
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"uncaught in thread {self.thread!r}:\n{self.traceback}"


class UncaughtThreadErrors:
    """Collects the exceptions that end threads, as a context manager or between install() and uninstall().

    The `threading.excepthook` found by install() is called too, and put back. SystemExit counts as no error.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _errors; held for a few instructions, by any thread
        self._errors: list[UncaughtError] = []
        self._active = False
        self._previous = threading.excepthook
        self._hook = self._collect  # one object: a bound method is a new one each time it is asked for

    def install(self) -> None:
        """Begin to collect. RuntimeError when it has begun already."""
        if self._active:
            raise RuntimeError("installed already")
        self._previous = threading.excepthook
        self._active = True
        threading.excepthook = self._hook

    def uninstall(self) -> None:
        """Collect no more; idempotent. A hook put over this one stays, and reaches the one before."""
        self._active = False
        if threading.excepthook is self._hook:
            threading.excepthook = self._previous

    @property
    def errors(self) -> tuple[UncaughtError, ...]:
        """What has been collected and not been taken."""
        with self._lock:
            return tuple(self._errors)

    def take(self) -> tuple[UncaughtError, ...]:
        """What has been collected, which is thereby forgotten: for a test that expects it."""
        with self._lock:
            taken = tuple(self._errors)
            self._errors.clear()
            return taken

    def check(self) -> None:
        """AssertionError with the tracebacks when anything has been collected."""
        errors = self.errors
        if errors:
            raise AssertionError("\n".join(map(str, errors)))

    def __enter__(self) -> UncaughtThreadErrors:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def _collect(self, args: threading.ExceptHookArgs) -> None:
        if self._active and args.exc_type is not SystemExit:
            thread = args.thread.name if args.thread is not None else "unknown"
            text = "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
            error = UncaughtError(thread, args.exc_type, str(args.exc_value), text)
            with self._lock:
                self._errors.append(error)
        self._previous(args)


class LedgerTestCase(unittest.TestCase):
    """A base or mixin: a test fails that leaves a thread, timer or descriptor, or lets a thread die.

    The baseline is taken in setUp() and compared after tearDown() and all cleanups, so a subclass calls
    super().setUp() first. A test that expects such an exception calls `self.uncaught.take()`.
    A hanging test goes on hanging, but its stacks are printed. The interpreter has one such watchdog only:
    `faulthandler.dump_traceback_later` used elsewhere is replaced.
    """

    timeout: float = 60.0
    """Seconds after which the stacks of all threads are printed to stderr, once; 0 for never."""

    ledger_deadline: float = 5.0
    """Seconds that threads and descriptors have at the end of a test to be gone."""

    ledger: ResourceLedger
    uncaught: UncaughtThreadErrors

    def setUp(self) -> None:
        """Take the baseline, start to collect and to watch."""
        super().setUp()
        if self.timeout > 0 and sys.__stderr__ is not None:  # a test runner's capture has no descriptor
            faulthandler.dump_traceback_later(self.timeout, exit=False, file=sys.__stderr__)
            self.addCleanup(faulthandler.cancel_dump_traceback_later)  # registered first, so it runs last
        self.uncaught = UncaughtThreadErrors()
        self.ledger = ResourceLedger()
        self.uncaught.install()
        self.addCleanup(self._check_nothing_left)

    def _check_nothing_left(self) -> None:
        left = self.ledger.leftovers(self.ledger_deadline)
        self.uncaught.uninstall()  # after the wait: a thread may die during it
        problems = [f"left behind: {line}" for line in left] + list(map(str, self.uncaught.errors))
        if problems:
            self.fail("\n".join(problems))


def _threads() -> set[_ThreadKey]:
    known = {
        thread.ident: thread
        for thread in threading.enumerate()
        if not isinstance(thread, threading._DummyThread)  # made late, for a thread known by its ident before
    }
    return {(ident, known.get(ident)) for ident in sys._current_frames()}


def _describe_thread(key: _ThreadKey) -> str:
    ident, thread = key
    name = "thread not made by threading" if thread is None else f"thread {thread.name!r}"
    if isinstance(thread, threading.Timer):
        name = f"timer of {thread.interval:g} s calling {thread.function!r}, {name}"
    frame: FrameType | None = sys._current_frames().get(ident)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else "  (ended just now)\n"
    return f"{name}, ident {ident}:\n{stack.rstrip()}"


def _descriptors() -> dict[int, str]:
    """Each open file descriptor and what it points to."""
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = {}
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # closed meanwhile, as the one that lists the folder is
            found[int(name)] = _target(folder, int(name))
    return found


def _target(folder: str, number: int) -> str:
    try:
        return os.readlink(f"{folder}/{number}")
    except OSError:  # no links here, as on macOS
        status = os.fstat(number)
        return f"{stat.filemode(status.st_mode)} device {status.st_dev} inode {status.st_ino}"


def _ends(number: int) -> str:
    """Both addresses of a socket, for whoever has to find out which one it is; else the empty string."""
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            with socket.socket(fileno=os.dup(number)) as sock:
                own = sock.getsockname()
                try:
                    return f", {own} connected to {sock.getpeername()}"
                except OSError:
                    return f", {own}, not connected"
    return ""
