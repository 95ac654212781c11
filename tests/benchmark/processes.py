"""Child processes of the benchmark: pinned to a core, spoken to by lines, never left behind.

A child is told to leave by the end of its standard input. That happens when we stop it, and also when this
process dies in whatever way, so nothing outlives the benchmark. Children have a session of their own: Ctrl-C
reaches this process only, which then stops them in order.

Threads: everything here is called from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

ROOT = Path(__file__).resolve().parents[2]

STOP_TIMEOUT = 3.0


class MeasureError(Exception):
    """One measurement came to nothing; the run goes on and the table says why."""


@contextlib.contextmanager
def pinned(cpus: frozenset[int]) -> Iterator[None]:
    """What is started inside inherits this CPU affinity; no change for an empty set."""
    if not cpus or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours for a child: the project importable, bytecode caching on (import times count on it), and without what
    would slow some of them down: debugging and development modes, other allocators, proxies for loopback addresses.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "MALLOC_", "SYNC_WS_")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


@final
class Child:
    """One child process that writes lines to its standard output."""

    def __init__(self, command: Sequence[str], *, cpus: frozenset[int], env: Mapping[str, str] | None = None) -> None:
        # A file, not a pipe: a child that logs a lot must not block on us.
        self._errors = tempfile.TemporaryFile()
        self._pending = b""
        with pinned(cpus):
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                cwd=ROOT,
                env=environment(env or {}),
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read_line(self, timeout: float) -> str:
        """The next line; MeasureError, with the end of what it wrote to stderr, when none comes in time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise MeasureError(f"no answer within {timeout:.0f} s{self._complaint()}")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise MeasureError(f"the process ended{self._complaint()}")
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def write_line(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def wait_ready(self, timeout: float = 20.0) -> int:
        """Waits for ``READY <port>``."""
        word, _, port = self.read_line(timeout).partition(" ")
        if word != "READY":
            raise MeasureError(f"unexpected first line: {word} {port}")
        return int(port)

    def stop(self) -> None:
        """Ends the process, by force if need be; idempotent."""
        assert self._process.stdin is not None and self._process.stdout is not None
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT)
        except BaseException as exc:  # Ctrl-C while we wait: this one goes first
            self._process.kill()
            self._process.wait()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
        finally:
            self._process.stdout.close()
            self._errors.close()

    def status(self, field: str) -> int:
        """A number from /proc/PID/status: ``VmRSS`` (KiB) or ``Threads``."""
        try:
            text = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            raise MeasureError("no /proc file system") from None
        for line in text.splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise MeasureError(f"no {field} in /proc/PID/status")

    def _complaint(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 2000))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip()[:160]})" if lines else ""


def run_once(
    command: Sequence[str], *, cpus: frozenset[int], timeout: float, env: Mapping[str, str] | None = None
) -> str:
    """Runs a bounded command and returns the first line it writes; interrupted, it is killed."""
    with Child(command, cpus=cpus, env=env) as child:
        return child.read_line(timeout)
