"""A Python program in a process of its own, as a user runs it, read line by line.

Threading: one thread at a time uses a Program; a thread of its own reads what it prints.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from sync_ws.testing import LedgerTestCase

__all__ = ["ROOT", "Program", "ProgramTest"]

ROOT = Path(__file__).parent.parent.parent


class Program:
    """A Python program in a process of its own, read line by line."""

    def __init__(self, *arguments: object, stdin: bool = False) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)

    def wait_for(self, text: str, timeout: float = 20.0) -> str:
        """The next line that contains ``text``."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r} in {self.lines}") from None
            self.lines.append(line.rstrip())
            if text in line:
                return line

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, how: int | None = None, timeout: float = 20.0) -> int:
        """The exit code, after the signal ``how``."""
        if how is not None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()


class ProgramTest(LedgerTestCase):
    def start(self, *arguments: object, stdin: bool = False) -> Program:
        program = Program(*arguments, stdin=stdin)
        self.addCleanup(lambda: program.process.poll() is None and program.end(signal.SIGKILL))
        return program
