"""What wstest examines, a process of its own: `python -m tests.conformance.testee server`, or `client URL`.

server: an echo Server on a free port of 127.0.0.1; prints its URL, then serves until standard input ends.
client: asks the fuzzing server at URL how many cases there are, opens one connection for each and echoes
what comes, then has the reports written. Should standard input end before that, its parent has gone: it
stops at once.

Limits are raised to what the cases need (messages of 16 MiB, 65,536 fragments, a slow peer), heartbeats of
our own are off: a Ping that a case does not expect fails it. The rest is what a user gets.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback

import sync_ws

__all__ = ["AGENT", "main"]

AGENT = "sync_ws"
MAX_MESSAGE = 32 << 20
MAX_FRAGMENTS = 1 << 20
PATIENCE = 120.0  # seconds; one case of wstest may keep it too busy to read for long


def _echo(connection: sync_ws.Connection) -> None:
    for message in connection:
        connection.send(message)


def _serve() -> None:
    server = sync_ws.Server(
        "127.0.0.1",
        0,
        _echo,
        path="/",
        compression=True,
        max_message=MAX_MESSAGE,
        max_fragments=MAX_FRAGMENTS,
        send_timeout=PATIENCE,
        ping_interval=PATIENCE,
        ping_timeout=PATIENCE,
    )
    with server:
        server.start()
        print(server.url, flush=True)
        sys.stdin.read()


def _client(url: str) -> sync_ws.Client:
    return sync_ws.Client(
        url,
        reconnect=None,
        heartbeat=None,
        offline="raise",
        compression=True,
        max_message=MAX_MESSAGE,
        max_fragments=MAX_FRAGMENTS,
        send_timeout=PATIENCE,
    )


def _run_cases(url: str) -> None:
    with _client(f"{url}/getCaseCount") as client:
        count = int(client.recv(timeout=PATIENCE))
    for case in range(1, count + 1):
        try:
            with _client(f"{url}/runCase?case={case}&agent={AGENT}") as client:
                for message in client:
                    client.send(message)
        except (sync_ws.ConnectionClosed, sync_ws.NotConnected):
            pass  # a send met the end of the connection: the case has failed it on purpose
        except (sync_ws.SyncWsError, OSError):
            print(f"the case number {case} ended with", file=sys.stderr)
            traceback.print_exc()
    with _client(f"{url}/updateReports?agent={AGENT}") as client:
        for _ in client:
            pass


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Be the server or the client, as the arguments say."""
    if arguments == ["server"]:
        _serve()
    elif len(arguments) == 2 and arguments[0] == "client":
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _run_cases(arguments[1])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
