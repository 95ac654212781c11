"""What the tests of the browser side need: a headless Chromium, and the demo server as a process of its own.

Why so: WebDriver is plain JSON over HTTP (W3C WebDriver), so the standard library alone can drive a page.
Waiting is done inside the page, in one request: a script runs again until it is true or the time is up.

Threading: none; everything belongs to the thread that made it. `Background` drains the output of its process
in a daemon thread, which ends with the process.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

__all__ = ["Background", "Browser", "BrowserError", "DemoServer", "missing_programs"]

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 15.0
REQUEST_TIMEOUT = 20.0
SCRIPT_TIMEOUT = 15.0
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--window-size=1000,800",
]
# Asked for in the page until true; a page that leaves (reload) ends the script with an error of its own.
WAIT = """
const [condition, patience, done] = arguments;
const test = new Function(condition);
const end = performance.now() + patience;
(function look() {
  if (test()) done(true);
  else if (performance.now() > end) done(false);
  else setTimeout(look, 15);
})();
"""


class BrowserError(Exception):
    """The browser or its driver refused something, or a condition did not come true in time."""


def missing_programs(*names: str) -> list[str]:
    """Those of the programs that are not installed."""
    return [name for name in names if shutil.which(name) is None]


class Background:
    """A process in a session of its own, whose output lines are kept; `kill` ends it and all its children."""

    def __init__(self, *command: str) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.seen: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},  # the demo imports sync_ws, installed or not
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip())
        self._lines.put(None)

    def wait_for(self, pattern: str) -> str:
        """The first group of the pattern in the next line that matches."""
        while True:
            try:
                line = self._lines.get(timeout=START_TIMEOUT)
            except queue.Empty:
                line = None
            if line is None:
                raise BrowserError(f"{self.process.args!r} never printed {pattern}; but: {self.seen}")
            self.seen.append(line)
            if found := re.search(pattern, line):
                return found[1]

    def signal(self, number: signal.Signals) -> None:
        """Sends the signal to the process and to whatever it started."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Ends the process at once (SIGKILL: also a stopped one). May be called again."""
        if self.process.returncode is None:
            self.signal(signal.SIGKILL)
            self.process.wait(START_TIMEOUT)
            self._reader.join(START_TIMEOUT)


class DemoServer(Background):
    """`demo/server.py`; `url` is that of the page."""

    def __init__(self, port: int = 0) -> None:
        script = str(ROOT / "demo" / "server.py")
        super().__init__(sys.executable, "-u", script, "--host", "127.0.0.1", "--port", str(port), "--path", "/ws/")
        try:
            self.port = int(self.wait_for(r"http://127\.0\.0\.1:(\d+)/"))
        except BaseException:
            self.kill()
            raise
        self.url = f"http://127.0.0.1:{self.port}/"


class Browser:
    """A headless Chromium with a profile of its own, driven through chromedriver. `close` it."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="sync-ws-browser-", ignore_cleanup_errors=True)
        driver = shutil.which("chromedriver")
        assert driver is not None
        self._driver = Background(driver, "--port=0")
        try:
            port = self._driver.wait_for(r"started successfully on port (\d+)")
            self._root = f"http://127.0.0.1:{port}/session"
            session = self._request("POST", "", {"capabilities": {"alwaysMatch": self._wanted()}})
            self._root += f"/{session['sessionId']}"
        except BaseException:
            self._discard()
            raise

    def _wanted(self) -> dict[str, Any]:
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={self._profile.name}"],
        }
        return {
            "browserName": "chrome",
            "timeouts": {"script": int(SCRIPT_TIMEOUT * 1000), "pageLoad": int(SCRIPT_TIMEOUT * 1000)},
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }

    def _request(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=REQUEST_TIMEOUT) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise BrowserError(exc.read().decode(errors="replace")[:1000]) from exc

    def open(self, url: str) -> None:
        """Loads a page, and returns when it is loaded."""
        self._request("POST", "/url", {"url": url})

    def run(self, script: str, *args: object) -> Any:
        """What the script, a function body, returns in the page."""
        return self._request("POST", "/execute/sync", {"script": script, "args": args})

    def wait_until(self, condition: str, timeout: float = 8.0) -> None:
        """Returns once the function body returns something true in the page."""
        body = {"script": WAIT, "args": [condition, timeout * 1000]}
        if not self._request("POST", "/execute/async", body):
            text = self.run("return document.body.innerText")
            raise BrowserError(f"not true within {timeout} s: {condition}\nThe page says:\n{text}")

    def _element(self, selector: str) -> str:
        found = self._request("POST", "/element", {"using": "css selector", "value": selector})
        (reference,) = found.values()
        return f"/element/{reference}"

    def click(self, selector: str) -> None:
        """A real click in the middle of the element; refused when something lies over it."""
        self._request("POST", self._element(selector) + "/click", {})

    def type_into(self, selector: str, text: str) -> None:
        """Types into an element; `"\\ue007"` is the Enter key."""
        self._request("POST", self._element(selector) + "/value", {"text": text})

    def command(self, name: str, **parameters: object) -> Any:
        """A command of the DevTools protocol, for what WebDriver lacks (window metrics, media features)."""
        return self._request("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def screenshot(self, path: Path) -> None:
        """Writes what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._request("GET", "/screenshot")))

    def complaints(self) -> list[str]:
        """The errors on the page's console since the last call."""
        entries = self._request("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def close(self) -> None:
        """Ends browser and driver, and removes the profile."""
        try:
            self._request("DELETE", "")
        finally:
            self._discard()

    def _discard(self) -> None:
        self._driver.kill()
        self._profile.cleanup()
