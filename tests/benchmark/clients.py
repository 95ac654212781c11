"""The client contenders: ``python -m tests.benchmark.clients NAME --port P ...`` plays ping-pong.

The peer is the echo server of the load generator. Every client is driven by the same loop; what differs is ``send`` and
``receive``. Those with callbacks (and picows) send the next message from the callback, as a program using them would.
Before its turn, each opens a few connections in the same process, echoes a message over each and closes it.

``--clients N``: so many of them in one process, a thread playing on each (picows: one event loop for all). The memory
and threads of one are counted when all are open, have echoed a message and keep still.

``reconnect`` is no ping-pong: it stays connected with a fixed delay and writes a line for every event, until stdin
ends.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmark.servers import leave_with_stdin, ours, raise_file_limit

Message = str | bytes
PATTERN = "The quick brown fox jumps over the lazy dog, again and again; 0123456789. "
WARM_CONNECTIONS = 4
SETTLING = 0.5  # seconds before memory is looked at


class Stopwatch:
    """Round trips after the warm-up: how many, how long each."""

    def __init__(self, begin: int, end: int) -> None:
        self.times = array("Q")
        self.cpu = 0.0  # what this process had used when the first of them came
        self._begin, self._end = begin, end

    def lap(self, since: int) -> int:
        """Notes a round trip begun at ``since``; returns the present time, 0 when it is enough."""
        now = time.perf_counter_ns()
        if now >= self._begin:
            if not self.times:
                self.cpu = time.process_time()
            self.times.append(now - since)
        return now if now < self._end else 0


def started(seconds: float, warmup: float, count: int = 1) -> list[Stopwatch]:
    """Watches that run from now on."""
    begin = time.perf_counter_ns() + int(warmup * 1e9)
    return [Stopwatch(begin, begin + int(seconds * 1e9)) for _ in range(count)]


def report(watches: Sequence[Stopwatch], seconds: float, more: dict[str, float]) -> None:
    """The line of JSON."""
    ordered = sorted(value for watch in watches for value in watch.times)
    if not all(watch.times for watch in watches):
        raise SystemExit("not a single round trip on one of the connections")
    spent = time.process_time() - min(watch.cpu for watch in watches)
    figures = {
        "messages": len(ordered),
        "seconds": seconds,
        "per_second": len(ordered) / seconds,
        "p50_us": ordered[len(ordered) // 2] / 1e3,
        "p99_us": ordered[len(ordered) * 99 // 100] / 1e3,
        "max_us": ordered[-1] / 1e3,
        "client_cpu_us": spent / len(ordered) * 1e6,
        **more,
    }
    print(json.dumps(figures), flush=True)


class Link(NamedTuple):
    """An open connection of a client that blocks."""

    send: Callable[[Any], Any]
    receive: Callable[[], Any]
    close: Callable[[], Any]


def connect_sync_ws(url: str, binary: bool) -> Link:
    client = ours().Client(url)
    client.open()
    return Link(client.send, client.recv, client.close)


def connect_websockets(url: str, binary: bool) -> Link:
    # a context manager since 17, the connection itself before
    connection = importlib.import_module("websockets.sync.client").connect(url).__enter__()
    return Link(connection.send, connection.recv, connection.close)


def connect_websocket_client(url: str, binary: bool) -> Link:
    """With wsaccel, which it uses by itself where it can be imported: C for masks and for checking UTF-8."""
    ws = importlib.import_module("websocket").create_connection(url)
    return Link(ws.send_binary if binary else ws.send, ws.recv, ws.close)


def connect_websocket_client_pure(url: str, binary: bool) -> Link:
    """As it is installed."""
    sys.modules.setdefault("wsaccel", None)  # type: ignore[arg-type]  # to be found missing
    return connect_websocket_client(url, binary)


CONNECT: dict[str, Callable[[str, bool], Link]] = {
    "sync_ws": connect_sync_ws,
    "websockets": connect_websockets,
    "websocket-client": connect_websocket_client_pure,
    "websocket-client-wsaccel": connect_websocket_client,
}


def play(link: Link, message: Message, watch: Stopwatch) -> None:
    """Ping-pong with a blocking client; compares lengths only, ``echo`` has compared in full."""
    send, receive = link.send, link.receive
    size = len(message)
    now = time.perf_counter_ns()
    while now:
        send(message)
        if len(receive()) != size:
            raise SystemExit("the echo has another length than what was sent")
        now = watch.lap(now)


def echo(link: Link, message: Message) -> None:
    """One message, compared in full."""
    link.send(message)
    if link.receive() != message:
        raise SystemExit("the echo differs from what was sent")


def run_blocking(name: str, url: str, message: Message, options: argparse.Namespace) -> None:
    """One connection, or a thread for each of many."""
    for _ in range(WARM_CONNECTIONS):
        link = CONNECT[name](url, options.binary)
        echo(link, message)
        link.close()
    before, began = footprint(), time.perf_counter()
    links = [CONNECT[name](url, options.binary) for _ in range(options.clients)]
    open_ms = (time.perf_counter() - began) * 1e3 / options.clients
    for link in links:
        echo(link, message)
    each = footprint_each(before, options.clients)
    watches = started(options.seconds, options.warmup, options.clients)
    if len(links) == 1:
        play(links[0], message, watches[0])
    else:
        threads = [
            threading.Thread(target=play, args=(link, message, watch))
            for link, watch in zip(links, watches, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report(watches, options.seconds, {**each, "open_ms": open_ms})
    for link in links:
        link.close()


def footprint() -> tuple[int, int]:
    """Resident KiB and threads of this process."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0, 0
    found = dict(line.split(":", 1) for line in text.splitlines())
    return int(found["VmRSS"].split()[0]), int(found["Threads"])


def footprint_each(before: tuple[int, int], count: int) -> dict[str, float]:
    """What one of many clients has added, its own thread for playing apart; nothing for a single one."""
    if count == 1:
        return {}
    time.sleep(SETTLING)
    after = footprint()
    return {"kib": (after[0] - before[0]) / count, "threads": (after[1] - before[1]) / count}


def run_sync_ws_callbacks(url: str, message: Message, options: argparse.Namespace) -> None:
    """The next message is sent from the function for the one before."""
    sync_ws = ours()
    for _ in range(WARM_CONNECTIONS):
        with sync_ws.Client(url) as client:
            client.send(message)
            if client.recv() != message:
                raise SystemExit("the echo differs from what was sent")
    client = sync_ws.Client(url)
    done = threading.Event()
    sent = 0
    watches: list[Stopwatch] = []

    def on_message(reply: Message) -> None:
        nonlocal sent
        sent = watches[0].lap(sent)
        if sent:
            client.send(message)
        else:
            done.set()

    client.on("message", on_message)
    with client:
        watches += started(options.seconds, options.warmup)
        sent = time.perf_counter_ns()
        client.send(message)
        done.wait()
        report(watches, options.seconds, {})


def run_picows(url: str, message: Message, options: argparse.Namespace) -> None:
    """One event loop for all; the next message is sent from the callback for the one before."""
    picows: Any = importlib.import_module("picows")
    data = message.encode() if isinstance(message, str) else message
    kind = picows.WSMsgType.TEXT if isinstance(message, str) else picows.WSMsgType.BINARY

    class Listener(picows.WSListener):  # type: ignore[misc]
        watch: Stopwatch | None = None
        sent = 0
        echoed = False

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            reply = frame.get_payload_as_utf8_text() if kind is picows.WSMsgType.TEXT else frame.get_payload_as_bytes()
            if self.watch is None:
                self.echoed = reply == message
                return
            self.sent = self.watch.lap(self.sent)
            if self.sent:
                transport.send(kind, data)
            else:
                transport.disconnect()

    async def run() -> None:
        asyncio: Any = importlib.import_module("asyncio")

        async def open_and_echo() -> tuple[Any, Any]:
            transport, listener = await picows.ws_connect(Listener, url)
            transport.send(kind, data)
            while not listener.echoed:
                await asyncio.sleep(0.001)
            return transport, listener

        for _ in range(WARM_CONNECTIONS):
            transport, _ = await open_and_echo()
            transport.disconnect()
            await transport.wait_disconnected()
        before, began = footprint(), time.perf_counter()
        links = [await open_and_echo() for _ in range(options.clients)]
        open_ms = (time.perf_counter() - began) * 1e3 / options.clients
        each = footprint_each(before, options.clients)
        watches = started(options.seconds, options.warmup, options.clients)
        for (transport, listener), watch in zip(links, watches, strict=True):
            listener.watch, listener.sent = watch, time.perf_counter_ns()
            transport.send(kind, data)
        for transport, _ in links:
            await transport.wait_disconnected()
        report(watches, options.seconds, {**each, "open_ms": open_ms})

    importlib.import_module("uvloop").run(run())


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
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.2)
    parser.add_argument("--delay", type=float, default=0.05)
    options = parser.parse_args()
    raise_file_limit()
    leave_with_stdin()
    url = f"ws://127.0.0.1:{options.port}/ws/"
    text = (PATTERN * (options.size // len(PATTERN) + 1))[: options.size]
    message = text.encode() if options.binary else text
    if options.name == "reconnect":
        stay_connected(url, options.delay)
    elif options.name == "sync_ws-callbacks":
        run_sync_ws_callbacks(url, message, options)
    elif options.name == "picows":
        run_picows(url, message, options)
    else:
        run_blocking(options.name, url, message, options)


if __name__ == "__main__":
    main()
