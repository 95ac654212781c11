"""The server contenders: ``python -m tests.benchmark.servers NAME ROLE [PEM]``: ``READY <port>``, then serves.

Each is written as its own documentation shows, with the defaults of its package except where the package is faster
otherwise; the list, and what was tried without effect, is in the package's docstring. None compresses unless the load
generator offers to. Roles: ``echo`` sends every message back; ``batch`` likewise inside ``conn.batch()``; ``deflate``
echoes, with compression where that has to be switched on; ``broadcast`` sends every message to all connections;
``broadcast-function`` uses the package's own function for that. ``PEM``: a certificate and its key, then over TLS.

Packages are imported through importlib: the benchmark has to run, and to type-check, without any of them.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Tls = ssl.SSLContext | None
HOST = "127.0.0.1"
PATH = "/ws/"
TREE = "SYNC_WS_BENCHMARK_TREE"  # an environment variable: the checkout whose sync_ws is meant
CONNECTIONS = 20_000  # for a server that limits them


def announce(port: int) -> None:
    """Tells the benchmark that connections are accepted."""
    print("READY", port, flush=True)


def leave_with_stdin() -> None:
    """Ends this process when whoever started it closes our stdin, or dies."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="leave-with-stdin", daemon=True).start()


def raise_file_limit() -> None:
    """Thousands of connections need as many file descriptors."""
    try:
        import resource
    except ImportError:
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tls_context(pem: str) -> ssl.SSLContext:
    """The same for everybody: what Python negotiates by itself, which is TLS 1.3 with AES-256-GCM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def ours() -> Any:
    """The package of this checkout, or of the one that is compared with it."""
    tree = os.environ.get(TREE)
    if tree:
        sys.path.insert(0, tree)
    module = importlib.import_module("sync_ws")
    if tree and not Path(str(module.__file__)).is_relative_to(tree):
        raise SystemExit(f"sync_ws came from {module.__file__}, not from {tree}")
    return module


def serve_sync_ws(role: str, tls: Tls) -> None:
    """Ours; the loops are the ones of the README."""
    sync_ws = ours()

    def echo(conn: Any) -> None:
        for message in conn:
            conn.send(message)

    def batch(conn: Any) -> None:
        with conn.batch():
            for message in conn:
                conn.send(message)

    def broadcast(conn: Any) -> None:
        for message in conn:
            server.broadcast(message)

    handler = {"echo": echo, "deflate": echo, "batch": batch, "broadcast": broadcast}[role]
    server = sync_ws.Server(
        HOST, 0, handler, path=PATH, max_connections=CONNECTIONS, ssl_context=tls, compression=role == "deflate"
    )
    server.start()
    announce(server.port)
    threading.Event().wait()


def serve_websockets(role: str, tls: Tls) -> None:
    """websockets.sync: three threads a connection (handler, reader, keepalive)."""
    module: Any = importlib.import_module("websockets.sync.server")
    closed: Any = importlib.import_module("websockets.exceptions").ConnectionClosed
    peers: set[Any] = set()
    lock = threading.Lock()

    def echo(connection: Any) -> None:
        for message in connection:
            connection.send(message)

    def loop(connection: Any) -> None:
        with lock:
            peers.add(connection)
        for message in connection:
            for peer in list(peers):
                try:
                    peer.send(message)
                except closed:
                    pass
        with lock:
            peers.discard(connection)

    def function(connection: Any) -> None:
        with lock:
            peers.add(connection)
        for message in connection:
            module.broadcast(list(peers), message)
        with lock:
            peers.discard(connection)

    handler = {"echo": echo, "deflate": echo, "broadcast": loop, "broadcast-function": function}[role]
    with module.serve(handler, HOST, 0, ssl=tls) as server:
        announce(server.socket.getsockname()[1])
        server.serve_forever()


def serve_simple_websocket(role: str, tls: Tls) -> None:
    """Bare simple-websocket behind the http.server of the standard library, a thread per connection."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    simple_websocket: Any = importlib.import_module("simple_websocket")
    peers: set[Any] = set()
    lock = threading.Lock()

    class Upgrade(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in self.headers.items()}
            environ.update({"werkzeug.socket": self.connection, "PATH_INFO": self.path, "QUERY_STRING": ""})
            self.close_connection = True
            # 4096 bytes unless told: large messages take twice as long that way, small ones do not notice
            ws = simple_websocket.Server(environ, receive_bytes=65536)
            with lock:
                peers.add(ws)
            try:
                while role != "broadcast":
                    ws.send(ws.receive())
                while True:
                    message = ws.receive()
                    for peer in list(peers):
                        try:
                            peer.send(message)
                        except simple_websocket.ConnectionClosed:
                            pass
            except simple_websocket.ConnectionClosed:
                pass
            with lock:
                peers.discard(ws)

    class Listener(ThreadingHTTPServer):
        request_queue_size = 1024

    with Listener((HOST, 0), Upgrade) as server:
        announce(server.server_port)
        server.serve_forever()


def serve_aiohttp(role: str, tls: Tls) -> None:
    """aiohttp on the event loop of the standard library."""
    asyncio.run(_run_aiohttp(role, tls))


def serve_aiohttp_uvloop(role: str, tls: Tls) -> None:
    """aiohttp on uvloop."""
    importlib.import_module("uvloop").run(_run_aiohttp(role, tls))


async def _run_aiohttp(role: str, tls: Tls) -> None:
    aiohttp: Any = importlib.import_module("aiohttp")
    web: Any = importlib.import_module("aiohttp.web")

    peers: set[Any] = set()

    async def broadcast(request: Any) -> Any:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        peers.add(ws)
        async for message in ws:
            for peer in list(peers):
                try:
                    await peer.send_str(message.data)
                except ConnectionError:
                    pass
        peers.discard(ws)
        return ws

    async def echo(request: Any) -> Any:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get(PATH, broadcast if role == "broadcast" else echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0, ssl_context=tls)
    await site.start()
    announce(runner.addresses[0][1])
    await asyncio.Event().wait()


def serve_picows(role: str, tls: Tls) -> None:
    """picows on uvloop: C from the socket to the callback."""
    picows: Any = importlib.import_module("picows")
    transports: set[Any] = set()

    class Listener(picows.WSListener):  # type: ignore[misc]
        def on_ws_connected(self, transport: Any) -> None:
            transports.add(transport)

        def on_ws_disconnected(self, transport: Any) -> None:
            transports.discard(transport)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code(), frame.get_close_message())
                transport.disconnect()
            elif role == "echo":
                transport.send(frame.msg_type, frame.get_payload_as_memoryview())
            else:
                for peer in list(transports):
                    peer.send(frame.msg_type, frame.get_payload_as_memoryview())

    async def run() -> None:
        server = await picows.ws_create_server(lambda request: Listener(), HOST, 0, ssl=tls)
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    importlib.import_module("uvloop").run(run())


def serve_socket(role: str, tls: Tls) -> None:
    """No library at all; see ``bare``."""
    from tests.benchmark import bare

    bare.serve(announce)


SERVERS: dict[str, Callable[[str, Tls], None]] = {
    "sync_ws": serve_sync_ws,
    "websockets": serve_websockets,
    "simple-websocket": serve_simple_websocket,
    "aiohttp": serve_aiohttp,
    "aiohttp-uvloop": serve_aiohttp_uvloop,
    "picows": serve_picows,
    "socket": serve_socket,
}


def main() -> None:
    """Entry point of the child process."""
    name, role, *pem = sys.argv[1:]
    raise_file_limit()
    leave_with_stdin()
    SERVERS[name](role, tls_context(pem[0]) if pem else None)


if __name__ == "__main__":
    main()
