"""The demo's client: connects, sends, prints everything that happens, stays connected until Ctrl-C.

With a URL it talks to that server, and lines typed on its terminal are sent.  Without one it starts a server of its
own on a free port and shows the whole story in some ten seconds: message and echo, heartbeat, the server killed,
attempts to reconnect, the server back, and the messages delivered that were sent meanwhile.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from urllib.parse import quote

import sync_ws
from sync_ws.client.events import Closed, Error, GaveUp, HeartbeatAnswered, Opened, Reconnected, Reconnecting

SERVER = Path(__file__).with_name("server.py")
STARTED = time.monotonic()
AWAY = ["sent while the server was away", "and this too"]


def say(what: str, text: object = "") -> None:
    """One line on standard output, at once, with the seconds since the start."""
    print(f"{time.monotonic() - STARTED:7.3f}  {what:<13} {text}".rstrip(), flush=True)


def message_received(message: str | bytes) -> None:
    if isinstance(message, bytes):  # node's ws sends text back as binary
        message = message.decode("utf-8", "replace")
    try:
        mode, msg = sync_ws.decode(message)
    except sync_ws.MessageError:
        say("message", ascii(message))
    else:
        say(mode, msg)


def opened(event: Opened) -> None:
    say("open")


def closed(event: Closed) -> None:
    say("close", event.reason)
    if event.undelivered:
        say("undelivered", ", ".join(map(ascii, event.undelivered)))


def reconnecting(event: Reconnecting) -> None:
    say("reconnecting", f"attempt {event.attempt} in {event.delay:g} s ({event.reason})")


def reconnected(event: Reconnected) -> None:
    say("reconnected", f"{event.count} so far")


def gave_up(event: GaveUp) -> None:
    say("gave up", event.reason)
    if event.undelivered:
        say("undelivered", ", ".join(map(ascii, event.undelivered)))


def heartbeat(event: HeartbeatAnswered) -> None:
    say("heartbeat", f"answered after {event.rtt * 1000:.1f} ms")


def failed(event: Error) -> None:
    say("error", repr(event.exception))


def make_client(url: str, name: str, interval: float, timeout: float, reconnect: float) -> sync_ws.Client:
    if "name=" not in url:
        url += ("&" if "?" in url else "?") + "name=" + quote(name)
    beat = sync_ws.Heartbeat(interval=interval, timeout=timeout, kind="message")  # the article's, for its server too
    client = sync_ws.Client(url, heartbeat=beat, reconnect=reconnect)
    client.on("open", opened)
    client.on("message", message_received)
    client.on("close", closed)
    client.on("reconnecting", reconnecting)
    client.on("reconnected", reconnected)
    client.on("gave_up", gave_up)
    client.on("heartbeat", heartbeat)
    client.on("error", failed)
    return client


def send(client: sync_ws.Client, text: str) -> None:
    state = "" if client.state is sync_ws.ClientState.OPEN else f"   (queued: {client.state.value})"
    client.send(sync_ws.encode(sync_ws.ModeCode.MESSAGE, text))
    say("send", text + state)


def try_to_send(client: sync_ws.Client, text: str) -> None:
    try:
        send(client, text)
    except sync_ws.SyncWsError as exc:
        say("not sent", exc)


def send_typed_lines(client: sync_ws.Client) -> None:
    for line in sys.stdin:
        if line.strip():
            try_to_send(client, line.rstrip("\n"))


def talk(options: argparse.Namespace) -> int:
    """Talk to the server at ``options.url`` until Ctrl-C, or until it is over; 0 if that was a clean end."""
    client = make_client(options.url, options.name, options.interval, options.timeout, options.reconnect)
    say("connecting", options.url)
    client.open(timeout=0)
    try_to_send(client, options.message)
    threading.Thread(target=send_typed_lines, args=(client,), daemon=True).start()
    try:
        reason = client.run_forever()
    except KeyboardInterrupt:
        say("end", client.reason)
        return 0
    say("end", reason)
    return 0 if reason.code == sync_ws.CloseCode.NORMAL else 1


class OwnServer:
    """``demo/server.py`` in a process of its own, so that it can really be killed."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, str(SERVER), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self.url = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"wss?://\S+", line):
                self.url = found[0]
                break
        # what it prints from now on is not part of this story, but must be read
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def tell_story(name: str) -> int:
    """The whole story, against a server of our own."""
    seen: dict[str, threading.Event] = {event: threading.Event() for event in ("heartbeat", "reconnected", "message")}
    replies: list[str] = []
    server = OwnServer()
    say("server", f"started at {server.url}")
    client = make_client(server.url, name, interval=1.0, timeout=1.0, reconnect=1.0)
    client.on("heartbeat", lambda event: seen["heartbeat"].set())
    client.on("reconnected", lambda event: seen["reconnected"].set())

    def reply_received(message: str | bytes) -> None:
        replies.append(sync_ws.decode(message).msg)
        seen["message"].set()

    client.on("message", reply_received)
    try:
        with client:
            send(client, "hello")
            whole = seen["message"].wait(5) and seen["heartbeat"].wait(5)
            say("server", "killed (SIGKILL)")
            port = server.port
            server.kill()
            time.sleep(2.5)  # for the attempts to be seen
            for text in AWAY:
                send(client, text)
            server = OwnServer(port)
            say("server", f"back at {server.url}")
            whole = whole and seen["reconnected"].wait(5)
            deadline = time.monotonic() + 5
            while len(replies) < 3 and time.monotonic() < deadline:
                seen["message"].clear()
                seen["message"].wait(0.1)
            seen["heartbeat"].clear()
            whole = whole and seen["heartbeat"].wait(5) and replies[1:] == AWAY
    finally:
        server.kill()
    totals = client.stats()
    say("end", f"{totals['reconnects']} reconnect, {totals['messages_sent']} messages out, {len(replies)} back")
    return 0 if whole else 1


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo's client; without a URL it shows the whole story by itself.")
    parser.add_argument("url", nargs="?", metavar="URL", help="such as ws://127.0.0.1:1024/ws/")
    parser.add_argument("--name", default="test", help="this client's name (test)")
    parser.add_argument("--interval", type=float, default=30, help="seconds between heartbeats (30)")
    parser.add_argument("--timeout", type=float, default=3, help="seconds to wait for their answer (3)")
    parser.add_argument("--reconnect", type=float, default=10, help="seconds before the next attempt (10)")
    parser.add_argument("--message", default="hello", metavar="TEXT", help="what to send first (hello)")
    options = parser.parse_args()
    logging.getLogger("sync_ws.client").setLevel(logging.ERROR)  # what it would warn of is printed here
    signal.signal(signal.SIGTERM, interrupt)
    try:
        return talk(options) if options.url else tell_story(options.name)
    except (ValueError, sync_ws.SyncWsError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
