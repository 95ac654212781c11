"""A process whose sockets, locks and threads are gevent's: scenes to be played in one.

``python -m tests.support.green ORDER URL SCENE...`` patches, ``before`` or ``after`` the library is imported, and
plays the scenes one after the other.  It ends with 0, and has printed nothing, if all was well.  Meanwhile another
green thread ticks: whoever blocks the process, instead of the green thread that waits, is caught by it.

Threading: green threads, all in one of the system's.
"""

# ruff: noqa: E402
from __future__ import annotations

import importlib
import sys
from typing import Any

ORDERS = ("before", "after")

if __name__ == "__main__":
    if sys.argv[1] == "after":
        importlib.import_module("sync_ws")
    importlib.import_module("gevent.monkey").patch_all()

import contextlib
import io
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import simple_websocket
import websocket

from sync_ws import Client, ConnectionClosed, Heartbeat, Hub, Server
from sync_ws.net.transport import PortableTransport, transport_for
from sync_ws.protocol.http_head import parse_request
from sync_ws.testing import make_certificates, serving, wait_until

__all__ = ["ORDERS", "SCENES", "SCENES_WITH_A_SERVER"]

PATIENCE = 10.0  # seconds that anything may take
LONGEST_BLOCK = 2.0  # seconds between two ticks, on a machine with other things to do
SPARE = 6  # descriptors of gevent's own, for its loop and its resolver's threads
LARGE = 8 << 20
ROOM: dict[str, Any] = {"max_message": LARGE}

SCENES: dict[str, Callable[[], None]] = {}  # client and server in the same process
SCENES_WITH_A_SERVER: dict[str, Callable[[str], None]] = {}  # the server is another process


def scene(function: Callable[[], None]) -> Callable[[], None]:
    SCENES[function.__name__] = function
    return function


def scene_with_a_server(function: Callable[[str], None]) -> Callable[[str], None]:
    SCENES_WITH_A_SERVER[function.__name__] = function
    return function


def echo(connection: Any) -> None:
    for message in connection:
        connection.send(message)


def later(function: Callable[[], object], seconds: float = 0.1) -> threading.Thread:
    """Call it in another green thread, when this one waits."""

    def run() -> None:
        time.sleep(seconds)
        function()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def joined(thread: threading.Thread) -> None:
    thread.join(PATIENCE)
    assert not thread.is_alive(), thread.name


@contextlib.contextmanager
def soon(seconds: float = PATIENCE / 2) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds, time.monotonic() - began


def times_out(client: Client, timeout: float) -> None:
    began = time.monotonic()
    try:
        raise AssertionError(client.recv(timeout))
    except TimeoutError:
        assert timeout <= time.monotonic() - began < timeout + LONGEST_BLOCK


def converse(url: str, **options: Any) -> None:
    """Everything that is received and sent, by a client without functions."""
    with Client(url, **ROOM, **options) as client:
        client.send("there")
        assert client.recv(timeout=2) == "there"
        times_out(client, 0)
        times_out(client, 0.1)
        joined(later(lambda: client.send(b"late"), 0))
        assert client.recv() == b"late"
        for size in (0, 1, 200, 70_000, 1 << 20):
            client.send(bytes(size))
            assert client.recv(PATIENCE) == bytes(size)
        for number in range(100):
            client.send(str(number))
        assert [client.recv(PATIENCE) for _ in range(100)] == [str(number) for number in range(100)]
        whole = b"\xab" * LARGE
        sender = later(lambda: client.send(whole), 0)
        assert client.recv(PATIENCE) == whole
        joined(sender)
        with client.batch():
            client.send("a")
            client.send("b")
        got = []
        for message in client:
            got.append(message)
            if len(got) == 2:
                later(client.close)
        assert got == ["a", "b"], got
    assert client.state.value == "closed"


@scene_with_a_server
def a_client_converses(url: str) -> None:
    converse(url, heartbeat=None)


@scene_with_a_server
def a_client_with_functions_converses(url: str) -> None:
    got: list[Any] = []
    client = Client(url, **ROOM, heartbeat=Heartbeat(1.0, 1.0))
    client.on("message", got.append)
    client.on("heartbeat", lambda beat: got.append(None))
    with client:
        client.send("one")
        client.send(bytes(LARGE))
        wait_until(lambda: len([what for what in got if what is not None]) == 2 and None in got, PATIENCE)
    assert [what for what in got if what is not None] == ["one", bytes(LARGE)]
    forever = Client(url)
    forever.on("open", lambda event: later(forever.close))
    with soon():
        forever.run_forever()


@scene
def both_in_one_process() -> None:
    with serving(echo, **ROOM) as server:
        converse(server.url)


@scene
def both_over_tls() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = make_certificates(folder)
        with serving(echo, ssl_context=made.server_context(), **ROOM) as server:
            converse(server.url.replace("127.0.0.1", "localhost"), ssl_context=made.client_context())


@scene
def both_with_compression() -> None:
    with serving(echo, compression=True, **ROOM) as server:
        converse(server.url, compression=True)


@scene
def a_patched_socket_gets_the_transport_that_never_blocks() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert type(transport_for(ours)) is PortableTransport
        assert ours.gettimeout() == 0


@scene
def close_from_another_thread_wakes_whoever_receives() -> None:
    with serving(echo) as server:
        for timeout in (None, 60):
            with Client(server.url) as client:
                closer = later(client.close)
                with soon():
                    try:
                        raise AssertionError(client.recv(timeout))
                    except ConnectionClosed:
                        joined(closer)


@scene
def a_client_comes_back() -> None:
    with serving(echo) as server, Client(server.url + "?name=a", reconnect=0.05) as client:
        client.send("1")
        assert client.recv(PATIENCE) == "1"
        for number in range(3):
            server.clients["a"].close(1012, "again")
            client.send(f"after {number}")
            assert client.recv(PATIENCE) == f"after {number}"
        assert client.stats()["reconnects"] == 3, client.stats()


@scene
def a_dead_server_is_noticed() -> None:
    reasons: list[Any] = []

    def fall_silent(connection: Any) -> None:
        connection.channel.receiver.lock.acquire()  # nobody reads here any more
        joined_later.wait(PATIENCE)
        connection.channel.receiver.lock.release()

    joined_later = threading.Event()
    with serving(fall_silent, close_timeout=0.5) as server:
        client = Client(server.url, heartbeat=Heartbeat(0.1, 0.2), reconnect=None)
        client.on("close", lambda event: reasons.append(event.reason))
        client.on("gave_up", lambda event: reasons.append(event.reason))
        with client, soon():
            try:
                raise AssertionError(client.recv())
            except ConnectionClosed as exc:
                assert "heartbeat" in str(exc) or "sign of life" in str(exc), exc
        joined_later.set()
    assert reasons


@scene
def nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
    client = Client(f"ws://localhost:{port}/", reconnect=0.05)
    with soon():
        try:
            client.open(0.5)
            raise AssertionError(client)
        except OSError as exc:
            assert "no open connection" in str(exc), exc
    client = Client(f"ws://{host}:{port}/", reconnect=60)
    closer = later(client.close)
    with soon():
        client.run_forever()
    joined(closer)


@scene
def a_server_broadcasts_and_shuts_down() -> None:
    closed: list[Any] = []
    with serving(None) as server:
        server.on("message", lambda connection, message: connection.send(message))
        server.on("close", lambda connection, reason: closed.append(connection))
        clients = [Client(f"{server.url}?name={number}", reconnect=None).open(PATIENCE) for number in range(20)]
        wait_until(lambda: len(server.clients) == 20)
        for _ in range(5):
            assert server.broadcast("to all").taken == 20
        for number, client in enumerate(clients):
            assert [client.recv(PATIENCE) for _ in range(5)] == ["to all"] * 5
            server.send_to(str(number), "to you")
            assert client.recv(PATIENCE) == "to you"
        slow = clients[0]
        for _ in range(200):  # more than its socket and queue hold: the others get theirs
            server.broadcast(bytes(1 << 18), to=[server.clients["0"]])
        clients[1].send("still quick")
        assert clients[1].recv(PATIENCE) == "still quick"
        with soon():
            assert server.shutdown(2.0) == ()
        for client in clients[1:]:
            try:
                raise AssertionError(client.recv(PATIENCE))
            except ConnectionClosed as exc:
                assert exc.code == 1001, exc
        for client in clients:
            client.close()
        assert slow.state.value == "closed"
        assert len(closed) == 20


@scene
def a_server_serves_for_ever_until_it_is_told() -> None:
    server = Server(handler=echo)
    closer = later(server.shutdown)
    with soon():
        server.serve_forever()
    joined(closer)


@scene
def silent_clients_are_given_up() -> None:
    ends: list[Any] = []
    with serving(None, ping_interval=0.1, ping_timeout=0.1, handshake_timeout=0.2) as server:
        server.on("close", lambda connection, reason: ends.append(reason))
        with socket.create_connection((server.host, server.port)) as nobody, soon():
            assert nobody.recv(1000).startswith(b"HTTP/1.1 408 ")
        client = websocket.create_connection(server.url, timeout=PATIENCE)
        wait_until(lambda: ends)
        client.shutdown()  # type: ignore[no-untyped-call]
        assert "sign of life" in str(ends[0]), ends


@scene
def a_hub_takes_guests_from_elsewhere() -> None:
    hub = Hub(echo)
    ours, theirs = socket.socketpair()
    claim = hub.admit("guest")
    with ours, theirs:
        request = parse_request(b"GET / HTTP/1.1\r\nHost: a", ("127.0.0.1", 1), False)
        connection = hub.connect(claim, ours, request)
        runs = threading.Thread(target=lambda: hub.run(connection))
        runs.start()
        theirs.sendall(b"\x81\x82\0\0\0\0hi")
        assert theirs.recv(10) == b"\x81\x02hi"
        theirs.shutdown(socket.SHUT_RDWR)
        joined(runs)
        assert hub.shutdown() == ()


@scene
def other_clients_of_our_server() -> None:
    with serving(echo) as server:
        plain = websocket.create_connection(server.url, timeout=PATIENCE)
        plain.send("hello")
        assert plain.recv() == "hello"
        plain.send_binary(bytes(100_000))
        assert plain.recv() == bytes(100_000)
        plain.close()
        simple = simple_websocket.Client.connect(server.url)
        simple.send("hello")
        assert simple.receive(PATIENCE) == "hello"
        simple.send(bytes(1000))
        assert simple.receive(PATIENCE) == bytes(1000)
        simple.close()
        joined(simple.thread)


@scene
def another_server_for_our_client() -> None:
    def serve() -> None:
        sock, _ = listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        environ = {"werkzeug.socket": sock, "wsgi.input": io.BytesIO(), "REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        for line in head.decode().split("\r\n")[1:-2]:
            name, _, value = line.partition(": ")
            environ["HTTP_" + name.upper().replace("-", "_")] = value
        peer = simple_websocket.Server(environ)
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            while True:
                peer.send(peer.receive())
        joined(peer.thread)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = later(serve, 0)
        with Client(f"ws://127.0.0.1:{listener.getsockname()[1]}/", reconnect=None) as client:
            for message in ("hello", "x" * 3000, b"bytes"):
                client.send(message)
                assert client.recv(PATIENCE) == message
        joined(server)


@scene
def a_fork_has_no_part_in_it() -> None:
    before = Client("ws://127.0.0.1:1/", reconnect=None)
    with serving(echo) as server, Client(server.url + "?name=a", reconnect=None) as client:
        client.send("1")
        assert client.recv(PATIENCE) == "1"
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # ends the child, should it hang
            with contextlib.suppress(ConnectionClosed):
                client.recv(1)
                os._exit(2)
            if server.broadcast("x").taken or len(server.clients):
                os._exit(3)
            client.close()
            server.shutdown()
            before.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        client.send("2")
        assert client.recv(PATIENCE) == "2"


class Ticker:
    """Ticks in another green thread; ``longest``: seconds that it was kept from it."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="ticker")
        self._thread.start()

    def _tick(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(0.02):
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now

    def end(self) -> None:
        self._ended.set()
        joined(self._thread)


def played(name: str, url: str) -> None:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    ticker = Ticker()
    try:
        if name in SCENES:
            SCENES[name]()
        else:
            SCENES_WITH_A_SERVER[name](url)
    finally:
        ticker.end()
    assert ticker.longest < LONGEST_BLOCK, f"everything stood still for {ticker.longest:.1f} s"
    wait_until(lambda: threading.active_count() == threads, message=str(threading.enumerate()))
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + SPARE, message="descriptors")


if __name__ == "__main__":
    for scene_name in sys.argv[3:]:
        try:
            played(scene_name, sys.argv[2])
        except BaseException:
            print(f"in the scene {scene_name}:")
            raise
