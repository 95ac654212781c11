"""The demo's server: a page at ``/``, a WebSocket at ``/ws/``, and one readable line for everything that happens.

Messages are JSON: ``{"ModeCode": "message", "msg": ...}`` is sent back; a ``heart_beat`` is sent back by the library
itself; anything else gets an ``error`` that says what was expected.
"""

from __future__ import annotations

import argparse
import logging
import ssl
import sys
import time
from pathlib import Path

import sync_ws

PAGE = Path(__file__).with_name("index.html")


def say(what: str, who: object = "", text: object = "") -> None:
    """One line on standard output, at once."""
    print(f"{time.strftime('%H:%M:%S')}  {what:<10} {who!s:<12} {text}".rstrip(), flush=True)


def who(conn: sync_ws.Connection) -> str:
    return conn.name or "(no name)"


def opened(conn: sync_ws.Connection) -> None:
    say("connect", who(conn), f"from {conn.request.peer[0]}:{conn.request.peer[1]}")


def message_received(conn: sync_ws.Connection, message: str | bytes) -> None:
    try:
        mode, msg = sync_ws.decode(message)
    except sync_ws.MessageError as exc:
        complain(conn, str(exc))
        return
    if mode != sync_ws.ModeCode.MESSAGE:
        complain(conn, f"expected the ModeCode message or heart_beat, not {mode!r}")
        return
    say("message", who(conn), ascii(msg) if not isinstance(msg, str) or not msg.isprintable() else msg)
    conn.send(message)


def complain(conn: sync_ws.Connection, text: str) -> None:
    say("error", who(conn), ascii(text)[1:-1])
    conn.send(sync_ws.encode(sync_ws.ModeCode.ERROR, text))


def heartbeat(conn: sync_ws.Connection, text: str) -> None:
    say("heartbeat", who(conn))


def closed(conn: sync_ws.Connection, reason: sync_ws.Reason) -> None:
    replaced = "4009" in reason.text and reason.by_us
    say("takeover" if replaced else "close", who(conn), ascii(reason.text)[1:-1])


def failed(conn: sync_ws.Connection, exception: Exception) -> None:
    say("error", who(conn), repr(exception))


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo's server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=1024, help="port to listen on, 0 for any free one (1024)")
    parser.add_argument("--path", default="/ws/", help="path of the WebSocket (/ws/)")
    parser.add_argument("--tls", nargs=2, metavar=("CERT", "KEY"), help="certificate and key files: wss and https")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s  %(levelname)-10s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    context = None
    if options.tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*options.tls)
    try:
        server = sync_ws.Server(
            options.host, options.port, path=options.path, ssl_context=context, pages={"/": PAGE, "/index.html": PAGE}
        )
    except (OSError, ValueError) as exc:
        print(f"cannot listen on {options.host}:{options.port}: {exc}", file=sys.stderr)
        return 1
    server.on("open", opened)
    server.on("message", message_received)
    server.on("heartbeat", heartbeat)
    server.on("close", closed)
    server.on("error", failed)
    server.start()
    print(f"page       {server.page_url}", flush=True)
    print(f"WebSocket  {server.url}", flush=True)
    try:
        server.serve_forever()  # until Ctrl-C or SIGTERM
    except KeyboardInterrupt:
        server.shutdown()
    say("stop")
    return 0


if __name__ == "__main__":
    sys.exit(main())
