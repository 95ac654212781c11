"""A server in a process of its own that tells how much memory that has:

    python -m tests.hardening.measured HANDLER [FOLDER]

A folder: its pages. Prints its port; then, for each line on its standard input, its resident bytes, how many
connections there are, and how many of them have taken twenty messages.

Threading: a connection's handler runs in its thread; the rest is for the main thread.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from sync_ws import Connection, Server

__all__ = ["resident"]


def resident() -> int | None:
    """Bytes of this process in memory, None where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_took_twenty: list[Connection] = []


def _receives_nothing(conn: Connection) -> None:
    threading.Event().wait()


def _receives_twenty(conn: Connection) -> None:
    for _ in range(20):
        conn.recv()
    _took_twenty.append(conn)
    threading.Event().wait()


def _echo(conn: Connection) -> None:
    for message in conn:
        conn.send(message)


HANDLERS = {"nothing": _receives_nothing, "twenty": _receives_twenty, "echo": _echo}


def main(handler: str, pages: str | None = None) -> None:
    """See the module."""
    server = Server("127.0.0.1", 0, HANDLERS[handler], compression=True, pages=pages).start()
    print("port", server.port, flush=True)
    for _ in sys.stdin:
        print("resident", resident() or 0, len(server.connections), len(_took_twenty), flush=True)
    os._exit(0)  # handlers that wait for ever are no reason to wait for them


if __name__ == "__main__":
    main(*sys.argv[1:])
