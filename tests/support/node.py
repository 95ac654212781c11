"""node and its package `ws`, for tests with the peers that the article uses.

Where `ws` is looked for: in the folder that the environment variable SYNC_WS_NODE_MODULES names, else in
`sync_ws-node` in the system's folder for temporary files; npm installs it there when it is missing. Without node, or
without a way to get `ws`, tests are skipped; with SYNC_WS_REQUIRE_PEERS=1 they fail instead.

Threading: none; a `NodeProcess` drains the output of its process in a daemon thread, which ends with the process.
"""

from __future__ import annotations

import functools
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path
from types import TracebackType

__all__ = ["ArticleServer", "NodeProcess", "OtherServer", "missing", "modules_folder", "require_peer"]

START_TIMEOUT = 20.0
INSTALL_TIMEOUT = 90.0


def require_peer(problem: str | None) -> None:
    """Skip the test when there is a problem with the peer it needs; fail it where peers are required."""
    if problem is None:
        return
    if os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        raise AssertionError(f"required by SYNC_WS_REQUIRE_PEERS: {problem}")
    raise unittest.SkipTest(problem)


def modules_folder() -> Path:
    """The folder `node_modules`, whether it is there or not."""
    folder = os.environ.get("SYNC_WS_NODE_MODULES")
    prefix = Path(folder) if folder else Path(tempfile.gettempdir()) / "sync_ws-node"
    return prefix if prefix.name == "node_modules" else prefix / "node_modules"


@functools.lru_cache(maxsize=1)
def missing() -> str | None:
    """What is missing to run `ws` under node, None when nothing is."""
    if shutil.which("node") is None:
        return "node is not installed"
    modules = modules_folder()
    if (modules / "ws").is_dir():
        return None
    if shutil.which("npm") is None:
        return f"node's package ws is not in {modules}, and npm is not installed"
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(modules.parent), "ws"]
    modules.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return "npm install ws took too long"
    if done.returncode or not (modules / "ws").is_dir():
        return f"npm install ws failed: {done.stderr.strip()[-200:]}"
    return None


class NodeProcess:
    """A node process running a script; a context manager that kills it. `port` is known once it has printed it."""

    def __init__(self, script: Path, *arguments: str) -> None:
        self.lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            ["node", str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NODE_PATH": str(modules_folder())},
        )
        self._reader = threading.Thread(target=self._read, name="node-output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self.lines.put(line.rstrip())
        self.lines.put(None)

    def wait_for(self, pattern: str, timeout: float = START_TIMEOUT) -> str:
        """The next line that matches: its first group, or all of it; AssertionError when it does not come."""
        while True:
            try:
                line = self.lines.get(timeout=timeout)
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"node never printed {pattern!r}; but: {self.seen}")
            self.seen.append(line)
            if found := re.search(pattern, line):
                return found[1] if found.groups() else found[0]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end; may be repeated."""
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait(START_TIMEOUT)
        self._reader.join(START_TIMEOUT)

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class ArticleServer(NodeProcess):
    """article_server.js: the server of the article, on `port`. Use `missing` first."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(Path(__file__).with_name("article_server.js"), str(port))
        try:
            self.port = int(self.wait_for(r"listening on (\d+)"))
        except BaseException:
            self.kill()
            raise

    def url(self, name: str = "test") -> str:
        return f"ws://127.0.0.1:{self.port}/ws/?name={name}"


class OtherServer(NodeProcess):
    """ws_servers.js: a server of `ws` with a protocol of its own, by `mode`. Use `missing` first."""

    def __init__(self, mode: str) -> None:
        super().__init__(Path(__file__).with_name("ws_servers.js"), mode, "0")
        try:
            self.url = f"ws://127.0.0.1:{self.wait_for(r'listening on ([0-9]+)')}/"
        except BaseException:
            self.kill()
            raise

    def got(self) -> list[str]:
        """What clients sent so far, messages and Pings; empties the list."""
        while not self.lines.empty():
            self.seen.append(self.lines.get() or "")
        got, self.seen = [line[4:] for line in self.seen if line.startswith("got ")], []
        return got
