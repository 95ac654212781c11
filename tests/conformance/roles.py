"""Run wstest against sync_ws in one role.

For each role two processes: wstest and the testee. Every child ends when its standard input does, so
closing that is how they are ended, and should this process be killed, the operating system closes it. Both
roles may run at once, each in its own thread: `Children` is the only thing they share, and is safe for
that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.testee import AGENT

__all__ = ["ROLES", "Children", "RoleError", "Run"]

ROOT = Path(__file__).resolve().parents[2]
END_TIMEOUT = 15.0  # seconds a child gets to end by itself
PROGRESS_STEP = 50  # cases between two lines of progress


class RoleError(Exception):
    """wstest or the testee did not do what it should; the message says which and where to look."""


class Children:
    """The child processes of a run; `close` ends them all, whatever state they are in."""

    def __init__(self) -> None:
        # Guards _running and _closed; any thread may hold it. A process is started under it, so that none can
        # be started after `close` has looked which there are.
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[str]] = []
        self._closed = False

    def start(
        self, command: list[str], directory: Path, errors: Path, env: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process with pipes for its standard input and output, and a file for its standard error."""
        with self._lock, errors.open("w") as stderr:
            if self._closed:
                raise RoleError("the run was stopped")
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                errors="replace",
            )
            self._running.append(process)
            return process

    def end(self, process: subprocess.Popen[str]) -> int:
        """End a process, kindly first, and return its exit code. Its output is not read any more."""
        if process.stdin is not None:
            process.stdin.close()
        try:
            code = process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return code

    def close(self) -> None:
        """End all of them, and let no new one start."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for process in running:
            self.end(process)


@dataclass
class Run:
    """One role's run."""

    role: str
    wstest: list[str]  # the command that starts it
    env: dict[str, str]  # its environment
    cases: list[str]  # patterns, as wstest understands them
    out: Path  # for the reports and logs
    children: Children
    report: Callable[[str], None]  # takes a line of progress
    total: int = 0  # cases to run, known once wstest said so
    started: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Run the cases; wstest writes its reports to `out`. Raises RoleError."""
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "index.json").unlink(missing_ok=True)
        ROLES[self.role](self)

    def start_testee(self, *arguments: str) -> subprocess.Popen[str]:
        """Start sync_ws's side."""
        command = [sys.executable, "-m", "tests.conformance.testee", *arguments]
        return self.children.start(command, ROOT, self.out / "testee.log")

    def start_wstest(self, mode: str, spec: dict[str, object]) -> subprocess.Popen[str]:
        """Start wstest in one of its modes; the specification is added to what both modes need."""
        path = self.out / "spec.json"
        path.write_text(json.dumps({"outdir": str(self.out), "cases": self.cases} | spec))
        command = [*self.wstest, "--mode", mode, "--spec", str(path), "--webport", "0"]
        return self.children.start(command, self.out, self.out / "wstest.log", self.env)

    def follow(self, wstest: subprocess.Popen[str], until: str = "") -> str:
        """Read what wstest prints, reporting progress, to a line that starts so (returned) or the end."""
        assert wstest.stdout is not None
        done, group = 0, ""
        for line in wstest.stdout:
            if until and line.startswith(until):
                return line
            if line.startswith("Ok, will run "):
                self.total = int(line.split()[3])
                if self.total == 0:  # then wstest waits for ever
                    raise RoleError(f"no case matches {', '.join(self.cases)}")
            elif line.startswith("Running test case ID "):
                case = line.split()[4]
                done += 1
                if case.split(".")[0] != group or done % PROGRESS_STEP == 0:
                    group = case.split(".")[0]
                    self.say(f"case {case} ({done} of {self.total})")
        return ""

    def say(self, text: str) -> None:
        """Report a line of progress."""
        self.report(f"{self.role}: {time.monotonic() - self.started:5.0f} s: {text}")


def _server(run: Run) -> None:
    testee = run.start_testee("server")
    assert testee.stdout is not None
    url = testee.stdout.readline().strip()
    if not url:
        raise RoleError(f"the echo server did not start: {run.out / 'testee.log'}")
    wstest = run.start_wstest("fuzzingclient", {"servers": [{"agent": AGENT, "url": url}]})
    run.follow(wstest)
    if run.children.end(wstest) != 0:
        raise RoleError(f"wstest failed: {run.out / 'wstest.log'}")
    if run.children.end(testee) != 0:
        raise RoleError(f"the echo server did not end cleanly: {run.out / 'testee.log'}")


def _client(run: Run) -> None:
    wstest = run.start_wstest("fuzzingserver", {"url": "ws://127.0.0.1:0"})
    listening = run.follow(wstest, "LISTENING ")
    if not listening:
        raise RoleError(f"wstest did not start: {run.out / 'wstest.log'}")
    testee = run.start_testee("client", f"ws://127.0.0.1:{listening.split()[1]}")
    follower = threading.Thread(target=run.follow, args=(wstest,))
    follower.start()
    try:
        code = testee.wait()
    finally:
        run.children.end(wstest)
        follower.join()
    if code != 0:
        raise RoleError(f"the echo client failed: {run.out / 'testee.log'}")


ROLES: dict[str, Callable[[Run], None]] = {"server": _server, "client": _client}
