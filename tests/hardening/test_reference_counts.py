"""With the garbage collector off nothing stays: what is over is freed by reference counts, however it ended."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any, ClassVar
from unittest import mock

import sync_ws
from sync_ws import Client, Connection, Heartbeat, Hub, Server
from sync_ws.channel.housekeeper import Housekeeper
from sync_ws.endings import Reason
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.protocol.http_head import parse_request
from sync_ws.server.server import _servers
from sync_ws.testing import FaultProxy, LedgerTestCase, free_port, serving, wait_until
from sync_ws.testing.certificates import Certificates, make_certificates
from tests.support.raw import PING, TEXT, RawClient, frame, handshake
from tests.support.scripted import ScriptedServer, Wire, refusing
from tests.support.server_case import LogLines, echo
from tests.support.wire import End, make_channel

OURS = ("sync_ws", "ssl", "zlib", "socket", "websocket", "threading")
QUIET: dict[str, Any] = {"heartbeat": None, "reconnect": None}


def of_ours(things: list[Any]) -> list[str]:
    """The classes of those that belong to the library, or that it holds."""
    classes = {type(thing) for thing in things}
    return sorted(f"{one.__module__}.{one.__qualname__}" for one in classes if one.__module__.split(".")[0] in OURS)


class Case(LedgerTestCase):
    timeout = 120.0

    def setUp(self) -> None:
        super().setUp()
        log = contextlib.ExitStack()
        log.enter_context(LogLines())
        self.addCleanup(log.close)
        gc.collect()
        if gc.isenabled():
            self.addCleanup(gc.enable)
        gc.disable()

    def check(self, scene: Callable[[], object]) -> None:
        """``scene`` leaves nothing to the garbage collector."""
        threads = set(threading.enumerate())
        scene()
        wait_until(lambda: set(threading.enumerate()) <= threads)
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            found = of_ours(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        self.assertEqual(found, [])


class TheCheck(Case):
    def test_a_circle_would_be_found(self) -> None:
        def circle() -> None:
            reason = Reason("")
            object.__setattr__(reason, "error", reason)

        with self.assertRaises(AssertionError):
            self.check(circle)


class Conversations(Case):
    """A client and a server, both in this process."""

    certificates: Certificates | None = None
    options: ClassVar[dict[str, Any]] = {}

    def client(self, url: str, **options: Any) -> Client:
        context = self.certificates.client_context() if self.certificates is not None else None
        return Client(url, ssl_context=context, **{**QUIET, **self.options, **options})

    def converse(self, scene: Callable[[Server], None], handler: Callable[[Connection], Any] | None = echo) -> None:
        def served() -> None:
            context = self.certificates.server_context() if self.certificates is not None else None
            with serving(handler, ssl_context=context, **self.options) as server:
                scene(server)
                wait_until(lambda: not server.connections)

        self.check(served)

    def test_a_clean_end(self) -> None:
        def scene(server: Server) -> None:
            with self.client(server.url, heartbeat=Heartbeat(0.02, 5)) as client:
                client.send("x" * 200)
                client.recv(5)
                with client.batch():
                    client.send("in a batch")
                client.recv(5)
                client.ping()
                wait_until(lambda: client.stats()["rtt"] is not None)

        self.converse(scene)

    def test_a_client_of_functions(self) -> None:
        def scene(server: Server) -> None:
            client = self.client(server.url, heartbeat=Heartbeat(0.02, 5))
            seen: list[object] = []
            client.on("message", seen.append)
            client.on("heartbeat", seen.append)
            client.open(5)
            wait_until(lambda: server.connections)
            server.broadcast("x" * 200)
            wait_until(lambda: len(seen) > 1)
            client.close()

        self.converse(scene)

    def test_an_end_by_the_server(self) -> None:
        def scene(server: Server) -> None:
            client = self.client(server.url).open(5)
            wait_until(lambda: server.connections)
            for conn in server.connections:
                conn.close(4000)
            with self.assertRaises(sync_ws.ConnectionClosed):
                client.recv(5)
            client.close()

        self.converse(scene)

    def test_an_end_by_a_handler_that_raises(self) -> None:
        def handler(conn: Connection) -> None:
            conn.recv()
            raise ValueError(conn)

        def scene(server: Server) -> None:
            client = self.client(server.url).open(5)
            client.send("go")
            with self.assertRaises(sync_ws.ConnectionClosed):
                client.recv(5)
            client.close()

        self.converse(scene, handler)

    def test_a_server_of_functions_that_raise(self) -> None:
        def scene(server: Server) -> None:
            def function(conn: Connection, message: object) -> None:
                raise ValueError(conn)

            server.on("message", function)
            client = self.client(server.url).open(5)
            client.send("go")
            client.close()

        self.converse(scene, None)

    def test_a_connection_that_is_reset(self) -> None:
        def scene(server: Server) -> None:
            with FaultProxy("127.0.0.1", server.port) as proxy:
                client = self.client(server.url.replace(str(server.port), str(proxy.port))).open(5)
                client.send("x" * 200)
                client.recv(5)
                proxy.reset_all()
                with self.assertRaises(sync_ws.ConnectionClosed):
                    while True:
                        client.send("x")
                        client.recv(5)
                client.close()

        self.converse(scene)

    def test_a_connection_that_is_given_up_and_made_anew(self) -> None:
        def scene(server: Server) -> None:
            with self.client(server.url, reconnect=0.01) as client:
                wait_until(lambda: server.connections)
                for conn in server.connections:
                    conn.channel.abort()
                wait_until(lambda: client.stats()["reconnects"])
                client.send("again")
                client.recv(5)

        self.converse(scene)

    def test_a_slow_reader_that_is_given_up(self) -> None:
        def scene(server: Server) -> None:
            client = self.client(server.url).open(5)
            wait_until(lambda: server.connections)
            (conn,) = wait_until(lambda: server.connections)
            channel = client._line.reading_channel
            assert channel is not None
            data = os.urandom(1 << 20)  # nothing to compress: buffers are full soon
            with channel.receiver.lock, contextlib.suppress(sync_ws.SyncWsError):
                while True:
                    conn.send(data)
            client.close()

        with mock.patch.dict(self.options, send_timeout=0.1):
            self.converse(scene)

    def test_messages_that_nobody_took(self) -> None:
        def scene(server: Server) -> None:
            client = self.client(server.url).open(5)
            for _ in range(40):
                client.send("x" * 200)
            wait_until(lambda: len(client._inbox) > 10)
            client.close()

        self.converse(scene)

    def test_a_shutdown_with_somebody_there(self) -> None:
        def scene(server: Server) -> None:
            client = self.client(server.url).open(5)
            server.shutdown()
            client.close()

        self.converse(scene)

    def test_a_name_taken_over(self) -> None:
        def scene(server: Server) -> None:
            first = self.client(server.url + "?name=a").open(5)
            with self.client(server.url + "?name=a"), self.assertRaises(sync_ws.ConnectionClosed):
                first.recv(5)
            first.close()

        self.converse(scene)


class Compressed(Conversations):
    options: ClassVar[dict[str, Any]] = {"compression": True}


class OverTls(Conversations):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.certificates = make_certificates(folder.name)


class Handshakes(Case):
    def test_a_client_that_does_not_get_through(self) -> None:
        def not_a_handshake(wire: Wire) -> None:
            wire.switch(accept="wrong")

        def leaves(wire: Wire) -> None:
            wire.read_request()

        for script in (refusing("403 Forbidden"), not_a_handshake, leaves, None):

            def scene(script: Any = script) -> None:
                with contextlib.ExitStack() as stack:
                    url = f"ws://127.0.0.1:{free_port()}/"
                    if script is not None:
                        url = stack.enter_context(ScriptedServer(script)).url()
                    client = Client(url, **QUIET)
                    with self.assertRaises(sync_ws.HandshakeError):
                        client.open(5)

            with self.subTest(script):
                self.check(scene)

    def test_a_client_that_is_closed_while_it_tries(self) -> None:
        def scene() -> None:
            client = Client(f"ws://127.0.0.1:{free_port()}/", heartbeat=None, reconnect=30).open(0)
            client.send("waits for ever")
            wait_until(lambda: client.state is sync_ws.ClientState.WAITING)
            client.close()

        self.check(scene)

    def test_options_that_raise(self) -> None:
        def address() -> str:
            raise ValueError("no address")

        def scene() -> None:
            client = Client(address, **QUIET)
            with self.assertRaises(sync_ws.HandshakeError):
                client.open(5)

        self.check(scene)

    def test_a_server_whose_strangers_do_not_get_in(self) -> None:
        requests = (handshake("/wrong"), handshake(drop=["Upgrade"]), b"\x00\x01\x02\r\n\r\n", b"GET /ws/ HT")

        def scene() -> None:
            with serving(echo) as server:
                for request in requests:
                    with RawClient(server.port) as client:
                        client.send(request)
                        client.sock.shutdown(socket.SHUT_WR)
                        client.read_to_end()

        self.check(scene)

    def test_a_hook_that_raises(self) -> None:
        def authenticate(request: object) -> bool:
            raise ValueError(request)

        def scene() -> None:
            with serving(echo, authenticate=authenticate) as server, RawClient(server.port) as client:
                client.send(handshake())
                client.read_to_end()

        self.check(scene)


class Interrupted(Case):
    def test_a_channel_that_nobody_released(self) -> None:
        def scene() -> None:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                channel, _ = make_channel(ours, client=False, deflate=Deflate(Negotiation()))
                keeper = Housekeeper("test", ping_interval=1, ping_timeout=1, close_timeout=1)
                keeper.add(channel)
                End(theirs, client=False).send(PING, b"a")
                with mock.patch.object(channel.writer, "post", side_effect=KeyboardInterrupt):
                    self.assertRaises(KeyboardInterrupt, channel.read, 5)
                keeper.stop(1)

        self.check(scene)

    def test_a_hub_whose_handler_is_interrupted(self) -> None:
        def handler(conn: Connection) -> None:
            conn.recv()
            raise KeyboardInterrupt

        def scene() -> None:
            ours, theirs = socket.socketpair()
            request = parse_request(handshake()[:-4], ("127.0.0.1", 1), False)
            with theirs, Hub(handler, close_timeout=0.1) as hub:
                theirs.sendall(frame(TEXT, b"go"))
                conn = hub.connect(hub.admit("a"), ours, request)
                with self.assertRaises(KeyboardInterrupt):
                    hub.run(conn)

        self.check(scene)


class NeverUsed(Case):
    def test_clients_and_servers_that_were_made_and_dropped(self) -> None:
        def a_client() -> None:
            Client("ws://127.0.0.1:1/", headers=dict).on("message", print)

        def a_server() -> None:
            server = Server("127.0.0.1", 0, echo)
            server._listener._sock.close()  # what its finalizer would warn about

        def a_hub() -> None:
            Hub(None).on("message", print)

        def a_housekeeper() -> None:
            keeper = Housekeeper("test", ping_interval=1, ping_timeout=1, close_timeout=1)
            keeper.stop(0)

        for scene in (a_client, a_server, a_hub, a_housekeeper):
            with self.subTest(scene.__name__):
                self.check(scene)

    def test_a_server_that_nobody_holds_on_to_goes_on(self) -> None:
        def scene() -> None:
            port = free_port()
            Server("127.0.0.1", port, echo).start()
            with Client(f"ws://127.0.0.1:{port}/ws/", **QUIET) as client:
                client.send("still there?")
                self.assertEqual(client.recv(5), "still there?")
            (server,) = [one for one in _servers._living() if one.port == port]
            server.shutdown()

        self.check(scene)
