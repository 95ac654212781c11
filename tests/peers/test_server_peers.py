"""Clients of other people against our server: python's `websockets`, bare websocket-client, bare simple-websocket,
and node's `ws`."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from pathlib import Path
from typing import Any

import simple_websocket
import websocket

from sync_ws import Connection, Server
from sync_ws.testing import make_certificates, wait_until
from tests.support.node import NodeProcess, missing, require_peer
from tests.support.raw import handshake
from tests.support.server_case import Events, ServerTestCase

HEART_BEAT = '{"ModeCode":"heart_beat","msg":1}'
SAMPLES: tuple[str | bytes, ...] = ("", "grüße 𝄞", "x" * 126, "x" * 70_000, b"", b"\x00\xff" * 100, bytes(200_000))

try:
    import websockets.asyncio.client
    import websockets.exceptions
    import websockets.sync.client as websockets_client
    from websockets.typing import Subprotocol
except ImportError:
    websockets_client = None  # type: ignore[assignment]


class WebsocketsTest(ServerTestCase):
    def setUp(self) -> None:
        require_peer(None if websockets_client else "the package websockets is not installed")
        super().setUp()

    def test_messages_pings_and_close_with_and_without_compression(self) -> None:
        for compression in (False, True):
            server = self.serve(compression=compression)
            events = Events(server)
            with websockets_client.connect(server.url + "?name=a", max_size=None) as client:
                for sample in SAMPLES:
                    client.send(sample)
                    self.assertEqual(client.recv(10), sample)
                self.assertTrue(client.ping().wait(10))
                client.send(HEART_BEAT)
                self.assertEqual(client.recv(10), HEART_BEAT)
                client.close(4000, "done")
            ((connection, reason),) = events.wait("close")
            self.assertEqual((connection.name, reason.code), ("a", 4000))

    def test_fragments_of_a_message_are_put_together(self) -> None:
        server = self.serve(compression=True)
        with websockets_client.connect(server.url) as client:
            client.send(["gr", "ü", "", "ße"])
            self.assertEqual(client.recv(10), "grüße")

    def test_subprotocol_headers_and_refusal(self) -> None:
        def handler(connection: Connection) -> None:
            connection.send(f"{connection.subprotocol} {connection.request.headers['x-asked']}")

        server = self.serve(handler, subprotocols=["chat"])
        with websockets_client.connect(
            server.url,
            subprotocols=[Subprotocol("other"), Subprotocol("chat")],
            additional_headers={"X-Asked": "yes"},
        ) as client:
            self.assertEqual((client.subprotocol, client.recv(10)), ("chat", "chat yes"))
        with self.assertRaises(websockets.exceptions.InvalidStatus) as caught:
            websockets_client.connect(server.url + "nowhere")
        self.assertEqual(caught.exception.response.status_code, 404)

    def test_shutdown_and_takeover_are_understood(self) -> None:
        server = self.serve()
        url = server.url + "?name=a"
        with websockets_client.connect(url) as old, websockets_client.connect(url) as new:
            with self.assertRaises(websockets.exceptions.ConnectionClosed) as caught:
                old.recv(10)
            assert caught.exception.rcvd
            self.assertEqual(caught.exception.rcvd.code, 4009)
            self.assertEqual(server.shutdown(), ())
            with self.assertRaises(websockets.exceptions.ConnectionClosed) as caught:
                new.recv(10)
            assert caught.exception.rcvd
            self.assertEqual(caught.exception.rcvd.code, 1001)

    def test_over_tls(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = make_certificates(folder)
            server, trust = self.serve(ssl_context=made.server_context(), compression=True), made.client_context()

        async def exchange() -> None:
            # its client for threads reads and writes one SSL object at the same time, which OpenSSL does not allow:
            # some three of its opening handshakes in a thousand hang, with its own server, too
            async with websockets.asyncio.client.connect(server.url, ssl=trust, max_size=None) as client:
                for sample in SAMPLES:
                    await client.send(sample)
                    self.assertEqual(await asyncio.wait_for(client.recv(), 10), sample)

        asyncio.run(exchange())


class WebsocketClientTest(ServerTestCase):
    def connect(self, server: Server, query: str = "", **options: Any) -> Any:
        client = websocket.create_connection(server.url + query, timeout=10, **options)
        self.stack.callback(client.shutdown)
        return client

    def test_messages_pings_and_close(self) -> None:
        server = self.serve()
        events = Events(server)
        client = self.connect(server, "?name=a")
        for sample in SAMPLES:
            client.send(sample) if isinstance(sample, str) else client.send_binary(sample)
            self.assertEqual(client.recv(), sample)
        client.send(HEART_BEAT)
        self.assertEqual(client.recv(), HEART_BEAT)
        client.ping(b"there?")
        self.assertEqual(client.recv_data(control_frame=True), (websocket.ABNF.OPCODE_PONG, b"there?"))
        client.close(4000)
        self.assertEqual(events.wait("close")[0][1].code, 4000)

    def test_subprotocol_and_refusal(self) -> None:
        server = self.serve(subprotocols=["chat"], authenticate=lambda request: "X-Token" in request.headers)
        self.assertEqual(self.connect(server, subprotocols=["chat"], header=["X-Token: t"]).getsubprotocol(), "chat")
        with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
            self.connect(server)
        self.assertEqual(caught.exception.status_code, 401)

    def test_over_tls(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            made = make_certificates(folder)
            server = self.serve(ssl_context=made.server_context())
            client = self.connect(server, sslopt={"ca_certs": str(made.ca), "cert_reqs": ssl.CERT_REQUIRED})
        client.send("secret")
        self.assertEqual(client.recv(), "secret")


class SimpleWebsocketTest(ServerTestCase):
    def connect(self, server: Server, query: str = "") -> Any:
        client = simple_websocket.Client.connect(server.url + query)
        self.stack.callback(self.end, client)
        return client

    def end(self, client: Any) -> None:
        if client.connected:
            client.close()
        client.sock.close()
        client.thread.join(10)

    def test_messages_and_close_with_and_without_compression(self) -> None:
        for compression in (False, True):
            server = self.serve(compression=compression)
            events = Events(server)
            client = self.connect(server, "?name=a")
            for sample in SAMPLES:
                client.send(sample)
                self.assertEqual(client.receive(10), sample)
            client.send(HEART_BEAT)
            self.assertEqual(client.receive(10), HEART_BEAT)
            client.close(4000, "done")
            self.assertEqual(events.wait("close")[0][1].code, 4000)

    def test_it_hears_of_our_close(self) -> None:
        def handler(connection: Connection) -> None:
            connection.recv()  # what comes together with the 101 it may lose
            connection.close(4000, "enough")

        client = self.connect(self.serve(handler))
        client.send("go")
        with self.assertRaises(simple_websocket.ConnectionClosed) as caught:
            client.receive(10)
        self.assertEqual((int(caught.exception.reason), caught.exception.message), (4000, "enough"))


class NodeTest(ServerTestCase):
    timeout = 150.0

    def setUp(self) -> None:
        require_peer(missing())
        super().setUp()

    def test_clients_of_nodes_ws(self) -> None:
        server = self.serve(compression=True)
        events = Events(server)
        script = Path(__file__).parents[1] / "support" / "ws_clients.js"
        with NodeProcess(script, server.url, "4") as node:
            node.wait_for("^ok$")
            self.assertEqual(node.seen, ["ok"])
        events.wait("close", 4)
        self.assertEqual(sorted(reason.code for _, reason in events.of("close")), [4000, 4001, 4002, 4003])
        self.assertEqual(
            sorted(connection.name for connection, _ in events.of("close")), [f"node-{number}" for number in range(4)]
        )
        wait_until(lambda: not server.connections)


class ArticleTest(ServerTestCase):
    """The article's wire, as its page speaks it."""

    def test_a_client_of_the_article_is_served(self) -> None:
        server = self.serve(require_name=True)
        client = self.client(server, "test", "Origin: http://localhost")
        message = {"ModeCode": "message", "msg": "hello"}
        client.send_text(json.dumps(message))
        self.assertEqual(json.loads(client.read_text()), message)
        client.send_text(HEART_BEAT)
        self.assertEqual(client.read_text(), HEART_BEAT)
        self.assertEqual(list(server.clients), ["test"])
        refused = self.raw(server).request(handshake("/x/ws/y?name=test"))
        self.assertEqual(refused.status, 404)
