"""The client contenders: ``python -m tests.benchmark.clients NAME --port P ...`` plays ping-pong.

The peer is the echo server of the load generator. Every client is driven by the same loop; what differs is
``send`` and ``receive``. Those with callbacks (and picows) send the next message from the callback, as a
program using them would.

``reconnect`` is no ping-pong: it stays connected with a fixed delay and writes a line for every event, until
stdin ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

from tests.benchmark.servers import leave_with_stdin, ours

Message = str | bytes
PATTERN = "The quick brown fox jumps over the lazy dog, again and again; 0123456789. "


class Stopwatch:
    """Round trips after the warm-up: how many, how long each."""

    def __init__(self, seconds: float, warmup: float) -> None:
        self._times = array("Q")
        self._begin = time.perf_counter_ns() + int(warmup * 1e9)
        self._end = self._begin + int(seconds * 1e9)
        self._last = self._begin
        self._cpu = 0.0  # what this process had used when the first of them came

    def lap(self, since: int) -> int:
        """Notes a round trip begun at ``since``; returns the present time, 0 when it is enough."""
        now = time.perf_counter_ns()
        if now >= self._begin:
            if not self._times:
                self._cpu = time.process_time()
            self._times.append(now - since)
            self._last = now
        return now if now < self._end else 0

    def report(self) -> None:
        spent = time.process_time() - self._cpu
        ordered = sorted(self._times)
        if not ordered:
            raise SystemExit("not a single round trip")
        seconds = (self._last - self._begin) / 1e9
        print(
            json.dumps(
                {
                    "messages": len(ordered),
                    "seconds": seconds,
                    "per_second": len(ordered) / seconds,
                    "p50_us": ordered[len(ordered) // 2] / 1e3,
                    "p99_us": ordered[len(ordered) * 99 // 100] / 1e3,
                    "max_us": ordered[-1] / 1e3,
                    "client_cpu_us": spent / max(1, len(ordered) - 1) * 1e6,
                }
            ),
            flush=True,
        )


def play(watch: Stopwatch, message: Message, send: Callable[[Any], Any], receive: Callable[[], Any]) -> None:
    """Ping-pong with a blocking client."""
    if not echoes(message, send, receive):
        raise SystemExit("the echo differs from what was sent")
    size = len(message)
    now = time.perf_counter_ns()
    while now:
        send(message)
        if len(receive()) != size:
            raise SystemExit("the echo has another length than what was sent")
        now = watch.lap(now)


def echoes(message: Message, send: Callable[[Any], Any], receive: Callable[[], Any]) -> bool:
    """Compares one reply in full; the measurement itself compares lengths only."""
    send(message)
    return bool(receive() == message)


def run_sync_ws(url: str, message: Message, watch: Stopwatch) -> None:
    sync_ws = ours()
    with sync_ws.Client(url) as client:
        play(watch, message, client.send, client.recv)


def run_sync_ws_callbacks(url: str, message: Message, watch: Stopwatch) -> None:
    sync_ws = ours()
    client = sync_ws.Client(url)
    done = threading.Event()
    sent = 0

    def on_message(reply: Message) -> None:
        nonlocal sent
        sent = watch.lap(sent)
        if sent:
            client.send(message)
        else:
            done.set()

    client.on("message", on_message)
    with client:
        sent = time.perf_counter_ns()
        client.send(message)
        done.wait()


def run_websockets(url: str, message: Message, watch: Stopwatch) -> None:
    module: Any = importlib.import_module("websockets.sync.client")
    with module.connect(url) as connection:
        play(watch, message, connection.send, connection.recv)


def run_websocket_client(url: str, message: Message, watch: Stopwatch) -> None:
    websocket: Any = importlib.import_module("websocket")
    ws = websocket.create_connection(url)
    play(watch, message, ws.send if isinstance(message, str) else ws.send_binary, ws.recv)
    ws.close()


def run_picows(url: str, message: Message, watch: Stopwatch) -> None:
    picows: Any = importlib.import_module("picows")
    data = message.encode() if isinstance(message, str) else message
    kind = picows.WSMsgType.TEXT if isinstance(message, str) else picows.WSMsgType.BINARY

    class Listener(picows.WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: Any) -> None:
            self.sent = time.perf_counter_ns()
            transport.send(kind, data)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            _reply = frame.get_payload_as_utf8_text() if kind is picows.WSMsgType.TEXT else frame.get_payload_as_bytes()
            self.sent = watch.lap(self.sent)
            if self.sent:
                transport.send(kind, data)
            else:
                transport.disconnect()

    async def run() -> None:
        transport, _ = await picows.ws_connect(Listener, url)
        await transport.wait_disconnected()

    importlib.import_module("uvloop").run(run())


CLIENTS: dict[str, Callable[[str, Message, Stopwatch], None]] = {
    "sync_ws": run_sync_ws,
    "sync_ws-callbacks": run_sync_ws_callbacks,
    "websockets": run_websockets,
    "websocket-client": run_websocket_client,
    "picows": run_picows,
}


def stay_connected(url: str, delay: float) -> None:
    """Writes ``{"event", "at", "delay"}`` lines; ``at`` is the monotonic clock, which all processes share."""
    sync_ws = ours()
    client = sync_ws.Client(url, reconnect=delay)

    def note(event: str, waits: float) -> None:
        print(json.dumps({"event": event, "at": time.monotonic(), "delay": waits}), flush=True)

    client.on("open", lambda event: note("open", 0.0))
    client.on("reconnecting", lambda event: note("reconnecting", event.delay))
    client.run_forever()


def main() -> None:
    """Entry point of the child process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--binary", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--delay", type=float, default=0.05)
    options = parser.parse_args()
    leave_with_stdin()
    url = f"ws://127.0.0.1:{options.port}/ws/"
    if options.name == "reconnect":
        stay_connected(url, options.delay)
        return
    text = (PATTERN * (options.size // len(PATTERN) + 1))[: options.size]
    watch = Stopwatch(options.seconds, options.warmup)
    CLIENTS[options.name](url, text.encode() if options.binary else text, watch)
    watch.report()


if __name__ == "__main__":
    main()
