"""A process that is busy with both sides of connections, and forks: what each child finds.

``python -m tests.support.busy_forks COUNT [FOLDER]``: so many children, with TLS if there is a folder for certificates.
Prints what is wrong in any of them, and nothing if nothing is.

Threading: clients come and go in threads of their own, another one sends to all; the main thread forks.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import traceback
from typing import Any

from sync_ws import Client, ClientState, ConnectionClosed, Server
from sync_ws.testing import make_certificates, serving
from tests.support.server_case import echo
from tests.support.wire import fork

__all__: list[str] = []

PATIENCE = 20  # seconds that a child may take
BUSY = 4  # clients at a time


class Traffic:
    """Clients that come and go, until ``end``."""

    def __init__(self, server: Server, url: str, options: dict[str, Any]) -> None:
        self._server = server
        self._url = url
        self._options = options
        self.ended = False
        self.troubles: list[str] = []
        self.latest: Client | None = None
        self._threads = [threading.Thread(target=self._come_and_go, args=(number,)) for number in range(BUSY)]
        self._threads.append(threading.Thread(target=self._send_to_all))
        for thread in self._threads:
            thread.start()

    def _come_and_go(self, number: int) -> None:
        while not self.ended:
            try:
                with Client(f"{self._url}?name={number}", reconnect=None, **self._options) as client:
                    self.latest = client
                    for _ in range(random.randrange(3)):
                        client.send("x" * random.randrange(3000))
                        client.recv(PATIENCE)
            except Exception as exc:
                self.troubles.append(f"a client: {exc!r}")

    def _send_to_all(self) -> None:
        while not self.ended:
            self._server.broadcast("to all")
            list(self._server.clients)

    def end(self) -> None:
        self.ended = True
        for thread in self._threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                self.troubles.append(f"{thread.name} does not end")


def open_sockets() -> set[str]:
    """What the descriptors of sockets are, whoever has them."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if (target := os.readlink(f"/proc/self/fd/{name}")).startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    found.add(f"{target} {copy.family.name} {copy.getsockname()}")
    return found


def look(server: Server, client: Client | None, before: set[str]) -> list[str]:
    """In the child: what is not as it should be."""
    wrong = []
    if list(server.clients) or server.connections or server.broadcast("x").taken:
        wrong.append("it has connections")
    with contextlib.suppress(KeyError):
        server.send_to("1", "from a child")
        wrong.append("it has sent")
    if client is not None:
        if client.state is not ClientState.CLOSED:
            wrong.append(f"its client is {client.state.value}")
        for call in (client.recv, lambda: client.send("from a child")):
            try:
                call()
                wrong.append("its client goes on")
            except ConnectionClosed as exc:
                if "parent" not in str(exc) and "closed by us" not in str(exc):
                    wrong.append(str(exc))
        client.close()
    server.on("close", lambda connection, reason: None)
    server.stats()
    if server.shutdown(1):
        wrong.append("it has threads")
    if left := open_sockets() - before:
        wrong.append(f"left open: {left}")
    return wrong


def in_child(server: Server, client: Client | None, before: set[str]) -> None:
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PATIENCE)
        wrong = look(server, client, before)
        for line in wrong:
            print(line, flush=True)
        os._exit(1 if wrong else 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(2)


def main(count: int, folder: str) -> None:
    server_options: dict[str, Any] = {}
    client_options: dict[str, Any] = {}
    if folder:
        made = make_certificates(folder)
        server_options["ssl_context"], client_options["ssl_context"] = made.server_context(), made.client_context()
    before = open_sockets()
    with serving(echo, **server_options) as server:
        traffic = Traffic(server, server.url.replace("127.0.0.1", "localhost"), client_options)
        try:
            for _ in range(count):
                child = fork()
                if child == 0:
                    in_child(server, traffic.latest, before)
                status = os.waitpid(child, 0)[1]
                if status not in (0, 1 << 8):
                    print("a child ended with", status)
        finally:
            traffic.end()
        print(*traffic.troubles, sep="\n", end="")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
