"""``python -m sync_ws serve`` and ``python -m sync_ws connect``: a server to try things against, and a terminal client.

Threading: the client's functions print from its own thread; the main thread reads the terminal.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from types import FrameType

from . import Client, CloseCode, Connection, HandshakeError, Heartbeat, Reason, Server, SyncWsError
from .client.events import Closed, GaveUp, Opened, Reconnecting

__all__ = ["main"]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _plain(text: str) -> str:
    """What the other side said, on one line whatever it is."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _serve(options: argparse.Namespace) -> int:
    """Send every message back, until Ctrl-C."""

    def opened(conn: Connection) -> None:
        _say(f"+ {conn.name or ''} {conn.request.peer[0]}:{conn.request.peer[1]}")

    def closed(conn: Connection, reason: Reason) -> None:
        _say(f"- {conn.name or ''} {_plain(reason.text)}")

    server = Server(options.host, options.port, path=options.path, pages=options.pages)
    server.on("open", opened)
    server.on("message", lambda conn, message: conn.send(message))
    server.on("close", closed)
    server.start()
    _say(f"sending back every message at {server.url}")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.shutdown(timeout=1.5)
    return 0


def _connect(options: argparse.Namespace) -> int:
    """Send the lines of standard input, print what comes, until its end or Ctrl-C.  0 if that was a clean end."""
    logging.getLogger("sync_ws.client").setLevel(logging.ERROR)  # what it would warn of is said here
    client = Client(
        options.url,
        headers=[tuple(header.split(": ", 1)) for header in options.header],
        heartbeat=Heartbeat(kind="ping"),
        reconnect=options.reconnect,
    )

    def show(message: str | bytes) -> None:
        print(message if isinstance(message, str) else f"({len(message)} bytes) {message[:64].hex(' ')}", flush=True)

    def opened(event: Opened) -> None:
        _say("connected" + (f", subprotocol {event.subprotocol}" if event.subprotocol else ""))

    def reconnecting(event: Reconnecting) -> None:
        _say(f"next attempt in {event.delay:.1f} s: {_plain(event.reason.text)}")

    def ended(event: Closed | GaveUp) -> None:
        for message in event.undelivered:
            _say(f"not sent: {message!a}")

    client.on("message", show)
    client.on("open", opened)
    client.on("reconnecting", reconnecting)
    client.on("close", ended)
    client.on("gave_up", ended)

    def type_in() -> None:
        for line in sys.stdin:
            try:
                client.send(line.rstrip("\n"))
            except SyncWsError as exc:
                _say(f"not sent: {exc}")
        if not options.stay:
            client.close()

    try:
        client.open()
        threading.Thread(target=type_in, daemon=True).start()
        client.run_forever()
    except HandshakeError:
        pass  # the reason says the same
    finally:
        reason = client.reason or Reason("never opened")
        # 1000 by either side; or by us, and there was no connection
        clean = reason.code == CloseCode.NORMAL or (reason.by_us and reason.code is None)
        _say(f"{'closed' if clean else 'gave up'}: {_plain(reason.text)}")
    return 0 if clean else 1


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sync_ws", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="send every message back")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8765)
    serve.add_argument("--path", default="/ws/")
    serve.add_argument("--pages", metavar="DIR", help="serve the files of this folder, too")
    connect = commands.add_parser("connect", help="send the lines of standard input, print what comes")
    connect.add_argument("url", metavar="URL")
    connect.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'")
    connect.add_argument("--reconnect", type=float, metavar="SECONDS", help="reconnect after so long (not at all)")
    connect.add_argument("--stay", action="store_true", help="stay connected after the end of standard input")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _serve(options) if options.command == "serve" else _connect(options)
    except (OSError, ValueError, SyncWsError) as exc:
        _say(f"error: {exc}")
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
