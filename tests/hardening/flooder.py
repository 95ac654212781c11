"""Floods a server with what costs a peer some bytes each, from a process of its own:

    python -m tests.hardening.flooder PORT KIND COUNT

Opens COUNT connections, prints "flooding", and floods them until its standard input ends.

Threading: two threads for each connection, one that writes and one that reads whatever comes back.
"""

from __future__ import annotations

import sys
import threading
import zlib

from tests.support.raw import CONTINUATION, PING, TEXT, RawClient, frame

__all__ = ["FLOODS"]

EXTENSION = "permessage-deflate; client_no_context_takeover"


def _squeezed(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


FLOODS = {
    "pings": frame(PING) * 20_000,
    "heartbeats": frame(TEXT, b'{"ModeCode": "heart_beat"}') * 4000,
    "fragments": (frame(TEXT, b"x", fin=False) + frame(CONTINUATION, b"x", fin=False) * 900 + frame(CONTINUATION, b"x"))
    * 20,
    "compressed": frame(TEXT, _squeezed(b"x"), rsv=4) * 10_000,
}


def _flood(client: RawClient, data: bytes) -> None:
    try:
        while True:
            client.sock.sendall(data)
    except OSError:
        return  # the server has had enough, or has ended


def _swallow(client: RawClient) -> None:
    try:
        while client.sock.recv(1 << 20):
            pass
    except OSError:
        return


def main(port: int, kind: str, count: int) -> None:
    """See the module."""
    for _ in range(count):
        client = RawClient(port).upgrade("/ws/", f"Sec-WebSocket-Extensions: {EXTENSION}")
        client.sock.settimeout(None)
        threading.Thread(target=_swallow, args=(client,), daemon=True).start()
        threading.Thread(target=_flood, args=(client, FLOODS[kind]), daemon=True).start()
    print("flooding", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
