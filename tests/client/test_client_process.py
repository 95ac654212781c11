"""What a signal, an exit or a fork does to a process with a client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path
from typing import Any

from sync_ws import Connection
from sync_ws.testing import free_port, serving
from tests.support.client_case import ClientTestCase, echo
from tests.support.scripted import ScriptedServer, Wire

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import json, logging, os, sys, threading, time
import sync_ws
logging.getLogger("sync_ws").addHandler(logging.NullHandler())
url = sys.argv[1]
def say(text):
    print(text, flush=True)
"""


class ProcessTest(ClientTestCase):
    """What a signal, an exit or a fork does, in a process of its own."""

    def run_script(self, text: str, url: str, *, interrupt: bool = False) -> tuple[int, str]:
        """Exit code and output; interrupted by SIGINT once it has printed "ready". It has 2 s after that."""
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "ignore::DeprecationWarning", "-c", SCRIPT + text, url],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        with process, contextlib.ExitStack() as undo:
            undo.callback(process.kill)
            ready = b""  # and not a byte more: communicate() would not find what is in the buffer of a readline()
            while not ready.endswith(b"\n") and (byte := os.read(process.stdout.fileno(), 1)):
                ready += byte
            self.assertEqual(ready, b"ready\n", "the script did not get so far")
            time.sleep(0.1 if interrupt else 0)  # not "and hope": at whatever point it is, the promise is the same
            started = time.monotonic()
            if interrupt:
                process.send_signal(signal.SIGINT)
            output, _ = process.communicate(timeout=20)
            self.assertLess(time.monotonic() - started, 2.0 + 1.0)  # the promise, and a slow machine
        return process.returncode, output

    def interrupt(self, text: str, url: str) -> None:
        body = "".join(f"    {line}\n" for line in text.splitlines())
        script = f"try:\n{body}except KeyboardInterrupt:\n    say('interrupted ' + client.state.value)\n"
        script += "left = lambda: sorted(t.name for t in threading.enumerate() if 'sync_ws' in t.name)\n"
        script += "end = time.monotonic() + 1\nwhile left() and time.monotonic() < end: time.sleep(0.01)\nsay(left())"
        code, output = self.run_script(script, url, interrupt=True)
        self.assertEqual((code, output), (0, "interrupted closed\n[]\n"))

    def test_ctrl_c_in_recv(self) -> None:
        with serving(echo) as server:
            self.interrupt("with sync_ws.Client(url) as client:\n    say('ready')\n    client.recv()", server.url)

    def test_ctrl_c_in_open_and_in_backoff(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            self.interrupt("client = sync_ws.Client(url)\nsay('ready')\nclient.open()", server.url())
        url = f"ws://127.0.0.1:{free_port()}/"
        self.interrupt("client = sync_ws.Client(url, reconnect=60)\nsay('ready')\nclient.open()", url)

    def test_ctrl_c_in_a_send_that_waits_for_room_in_the_queue(self) -> None:
        text = (
            "policy = sync_ws.Offline(1, when_full='block')\n"
            "client = sync_ws.Client(url, reconnect=60, offline=policy, send_timeout=60).open(0)\n"
            "with client:\n    client.send('x')\n    say('ready')\n    client.send('y')"
        )
        self.interrupt(text, f"ws://127.0.0.1:{free_port()}/")

    def test_ctrl_c_in_run_forever(self) -> None:
        text = "client = sync_ws.Client(url)\nclient.on('open', lambda event: say('ready'))\nclient.run_forever()"
        with serving(echo) as server:
            self.interrupt(text, server.url)

    def test_exit_and_plain_return_with_timers_armed(self) -> None:
        with serving(echo) as server:
            for how, code in (("", 0), ("sys.exit(3)", 3), ("1 / 0", 1)):
                with self.subTest(how):
                    text = (
                        "client = sync_ws.Client(url).open()\n"
                        "other = sync_ws.Client('ws://127.0.0.1:9/', reconnect=60).open(0)\n"
                        "while other.state.value != 'waiting': time.sleep(0.01)\n"
                        f"say('ready')\n{how}"
                    )
                    got, output = self.run_script(text, server.url)
                    self.assertEqual((got, "Fatal" in output), (code, False), output)

    def test_after_fork_the_child_has_no_part_in_the_connection(self) -> None:
        text = """
client = sync_ws.Client(url, heartbeat=sync_ws.Heartbeat(0.05, 5)).open()
reader = threading.Thread(target=client.recv, daemon=True)
reader.start()
while not client._inbox.receiving: time.sleep(0.01)
say('ready')
sys.stdout.flush()
child = os.fork()
if child == 0:
    outcome = [client.state.value]
    for call in (lambda: client.recv(), lambda: client.send('from the child')):
        try:
            call()
        except sync_ws.ConnectionClosed as exc:
            outcome.append('parent' in str(exc))
    client.close()
    with sync_ws.Client(url) as own:  # and may have one of its own
        own.send('own')
        outcome.append(own.recv(5))
    say(json.dumps(outcome))
    os._exit(0)
say(os.waitpid(child, 0)[1])
client.send('from the parent')
reader.join(5)
say(client.state.value + ' ' + str(client.stats()['reconnects']))
client.close()
"""
        got: list[Any] = []

        def note(conn: Connection) -> None:
            for message in conn:
                got.append(message)
                conn.send(message)

        with serving(note) as server:
            code, output = self.run_script(text, server.url)
        self.assertEqual(code, 0, output)
        child, status, parent = output.splitlines()
        self.assertEqual(json.loads(child), ["closed", True, True, "own"])
        self.assertEqual((status, parent, got), ("0", "open 0", ["own", "from the parent"]))

    def test_a_client_that_was_made_before_a_fork_is_opened_in_the_child(self) -> None:
        text = """
client = sync_ws.Client(url)
client.on('open', lambda event: None)
say('ready')
for _ in range(2):
    child = os.fork()
    if child == 0:
        with client:
            client.send('own')
            said = client.recv(5)
        say(said + ' ' + client.state.value)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
with client:
    client.send('the parent too')
    say(client.recv(5))
"""
        with serving(echo) as server:
            code, output = self.run_script(text, server.url)
        self.assertEqual(code, 0, output)
        self.assertEqual(output.splitlines(), ["own closed", "own closed", "the parent too"])


if __name__ == "__main__":
    unittest.main()
