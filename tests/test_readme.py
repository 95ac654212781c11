"""Every Python block of the README, run as it stands, in the order of the README.

Why so: an example that does not work is worse than none.  What a block takes for granted is given to it: names that an
application would have, a peer, and, in the place of addresses that are not ours, a server's on the loopback.

Threading: the block runs in the test's thread, its peer in another one.
"""

from __future__ import annotations

import io
import socket
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import sync_ws
from sync_ws import Client, ClientState, Connection, Heartbeat, Server
from sync_ws.protocol.http_head import parse_request
from sync_ws.testing import wait_until
from tests.support.raw import CLOSE, TEXT, RawClient, frame, handshake
from tests.support.server_case import ServerTestCase, echo
from tests.support.wire import join

README = Path(__file__).parent.parent / "README.md"
SOON = 10.0


def _blocks() -> list[str]:
    if not README.exists():
        raise unittest.SkipTest("the README is not beside the tests")
    return [rest.split("```")[0] for rest in README.read_text(encoding="utf-8").split("```python\n")[1:]]


class ReadmeTest(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.printed: list[tuple[object, ...]] = []
        self.servers: list[Server] = []
        self.url = ""  # of the server that clients come to, whatever address the block has
        public = {name: getattr(sync_ws, name) for name in sync_ws.__all__}
        self.names: dict[str, Any] = {
            "sync_ws": SimpleNamespace(**{**public, "Server": self.make_server, "Client": self.make_client}),
            "print": lambda *args: self.printed.append(args),
            "handler": echo,
            "echo": echo,
            "new_token": lambda: "token",
            "time": time,
        }

    def make_server(self, host: str, port: int, *args: Any, **options: Any) -> Server:
        """On a port of its own, for 1024 may be taken."""
        self.assertIn(host, ("127.0.0.1", "0.0.0.0"))
        self.servers.append(Server("127.0.0.1", 0, *args, **options))
        self.stack.callback(self.servers[-1].shutdown)
        return self.servers[-1]

    def make_client(self, url: str, **options: Any) -> Client:
        self.assertEqual(url, "wss://example.com/ws/?name=gateway-7")
        client = Client(self.url, **options)
        self.stack.callback(client.close, timeout=1)
        return client

    def run_block(self, code: str) -> None:
        exec(compile(code, "README.md", "exec"), self.names)

    def beside(self, peer: Callable[[], object]) -> threading.Thread:
        """What the block's peer does meanwhile."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                peer()
            except BaseException as exc:
                errors.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(lambda: self.assertEqual(errors, []))
        self.addCleanup(join, thread)
        return thread

    def converse(self, server: Server) -> None:
        """A client that is answered."""
        with Client(server.url + "?name=reader", heartbeat=None) as client:
            client.send("hello")
            self.assertEqual(client.recv(SOON), "hello")

    def test_every_block_in_its_order(self) -> None:
        scenes = (
            ("print(client.recv(timeout=1.0))", self.first),
            ("server.serve_forever()", self.serves_forever),
            ('server.on("open"', self.events),
            ("with conn.batch()", self.batch),
            ("sync_ws.Hub(handler)", self.hub),
            ("wss://example.com", self.client_of_messages),
            ("client.run_forever()", self.client_of_functions),
            ("sync_ws.Heartbeat(30, 10", self.heartbeats),
            ("sync_ws.Offline(", self.offline),
            ("class MyClientTest", self.own_code),
        )
        blocks = _blocks()
        self.assertEqual(len(blocks), len(scenes), "each block has a scene here")
        for (mark, scene), code in zip(scenes, blocks):
            with self.subTest(mark):
                self.assertIn(mark, code)
                scene(code)

    # -- the scenes ------------------------------------------------------------------------------------------------

    def first(self, code: str) -> None:
        exec(compile(code, "README.md", "exec"), {"print": self.names["print"]})
        self.assertEqual(self.printed.pop(), ("hello",))

    def serves_forever(self, code: str) -> None:
        def visit() -> None:
            wait_until(lambda: self.servers)
            self.converse(self.servers[0])  # a client waits for a server that is not there yet
            self.servers[0].shutdown()

        visitor = self.beside(visit)
        self.run_block(code)
        join(visitor)

    def events(self, code: str) -> None:
        self.run_block(code)
        server = self.servers[-1]
        self.converse(server)
        wait_until(lambda: len(self.printed) == 2)
        server.shutdown()
        self.assertEqual([words[:2] for words in self.printed], [("hello", "reader"), ("bye", "reader")])

    def batch(self, code: str) -> None:
        self.run_block(code)
        server = self.serve(self.names["echo"])
        self.converse(server)
        server.shutdown()

    def hub(self, code: str) -> None:
        ours, theirs = socket.socketpair()
        peer = self.stack.enter_context(RawClient.over(theirs))
        self.names.update(
            name="guest",
            sock=ours,
            request=parse_request(handshake().removesuffix(b"\r\n\r\n"), ("127.0.0.1", 1), False),
        )

        def converse() -> None:
            peer.send(frame(TEXT, b"hello"))
            self.assertEqual(peer.read_frame().payload, b"hello")
            peer.send(frame(CLOSE, b""))
            self.assertEqual(peer.read_frame().opcode, CLOSE)

        visitor = self.beside(converse)
        self.run_block(code)
        join(visitor)
        self.assertEqual(self.names["hub"].stats()["opened"], 1)
        self.names["hub"].shutdown()

    def client_of_messages(self, code: str) -> None:
        asked: list[object] = []

        def handler(conn: Connection) -> None:
            asked.append(conn.request.headers.get("Authorization"))
            conn.send(conn.recv(SOON))
            conn.send("and more")  # which the loop takes; then 1000, after which the client is over

        self.url = self.serve(handler).url
        self.run_block(code)
        self.assertEqual((asked, self.names["reply"], self.names["message"]), (["Bearer token"], "hello", "and more"))

    def client_of_functions(self, code: str) -> None:
        self.url = self.serve(lambda conn: conn.send("a message")).url
        self.names["client"] = self.make_client("wss://example.com/ws/?name=gateway-7", heartbeat=None)
        self.printed.clear()
        self.run_block(code)
        self.assertEqual((self.printed, self.names["reason"].code), ([("a message",)], 1000))

    def heartbeats(self, code: str) -> None:
        made: list[Heartbeat] = []
        self.names["sync_ws"].Heartbeat = lambda *args, **options: made.append(Heartbeat(*args, **options))
        self.run_block(code)
        self.assertEqual(len(made), 2)
        for heartbeat in made:
            self.url = self.serve().url
            with self.make_client("wss://example.com/ws/?name=gateway-7", heartbeat=heartbeat) as client:
                client.send("hello")
                self.assertEqual(client.recv(SOON), "hello")

    def offline(self, code: str) -> None:
        for line in code.splitlines():
            self.run_block(line)
            client = Client("ws://127.0.0.1:9/ws/", offline=self.names["offline"], reconnect=None)
            self.assertIs(client.state, ClientState.IDLE)

    def own_code(self, code: str) -> None:
        self.names["sync_ws"], self.names["__name__"] = sync_ws, "example"
        self.run_block(code)
        case = self.names["MyClientTest"]("test_comes_back_after_a_reset")
        said = io.StringIO()
        self.assertTrue(unittest.TextTestRunner(said).run(case).wasSuccessful(), said.getvalue())


if __name__ == "__main__":
    unittest.main()
