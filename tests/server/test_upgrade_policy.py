"""Who gets in: origins, hosts, names, what was negotiated, and what the application says; over the wire."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from unittest import mock

from sync_ws import Request, Server
from sync_ws.testing import wait_until
from tests.support.raw import RawClient, Response, handshake
from tests.support.refusal_case import RefusalTestCase, noting
from tests.support.server_case import echo

real = socket.create_server
QUICK = 2.0  # seconds; what must not depend on the input's size takes milliseconds


class OriginTest(RefusalTestCase):
    def status(self, server: Server, *origins: str) -> int:
        with RawClient(server.port) as client:
            return client.request(handshake(lines=[f"Origin: {origin}" for origin in origins], host="good:80")).status

    def test_foreign_origins_are_refused_before_anything_is_registered(self) -> None:
        asked: list[Request] = []
        server = self.serve(authenticate=noting(asked))
        for origin in (
            "http://evil", "null", "http://good.evil:80", "http://good:81", "http://goo:80", "file://", "good:80", "",
            "http://good:80/", "http://good:80@evil", "javascript:good:80", "http://evil?good:80",
        ):  # fmt: skip
            with self.subTest(origin=origin):
                self.assertEqual(self.status(server, origin), 403)
        self.assertEqual(self.status(server, "http://good:80", "http://good:80"), 403)
        self.assertEqual(self.status(server, "http://good:80", "http://evil"), 403)
        self.assertEqual(asked, [])
        self.assertEqual(server.stats()["opened"], 0)

    def test_the_same_origin_and_no_origin_pass(self) -> None:
        server = self.serve()
        self.assertEqual(self.status(server), 101)
        self.assertEqual(self.status(server, "http://good:80"), 101)
        self.assertEqual(self.status(server, "https://GOOD:80"), 101)

    def test_a_list_of_origins_is_matched_exactly(self) -> None:
        server = self.serve(origins=["https://app.example"])
        self.assertEqual(self.status(server, "https://app.example"), 101)
        self.assertEqual(self.status(server, "HTTPS://App.Example"), 101)
        for origin in ("http://app.example", "https://app.example.evil", "https://app.example:444", "http://good:80"):
            self.assertEqual(self.status(server, origin), 403)

    def test_a_star_lets_all_in(self) -> None:
        server = self.serve(origins=["*"])
        self.assertEqual(self.status(server, "http://evil"), 101)

    def test_spellings_of_one_origin_are_one(self) -> None:
        server = self.serve(origins=["https://App.example:443/", "https://b\xfccher.example", "null"])
        for origin in (
            "https://app.example", "https://app.example:443", "HTTPS://APP.EXAMPLE", "https://xn--bcher-kva.example",
            "null",
        ):  # fmt: skip
            self.assertEqual(self.status(server, origin), 101)

    def test_behind_a_proxy_that_ends_tls_the_page_of_that_host_is_from_the_same_origin(self) -> None:
        server = self.serve()
        for origin, host, status in (
            ("https://ide.example", "ide.example", 101),
            ("https://ide.example", "ide.example:443", 101),
            ("https://ide.example:443", "ide.example", 101),
            ("https://evil.example", "ide.example", 403),
            ("https://ide.example", "ide.example:8443", 403),
        ):
            with self.subTest(origin=origin, host=host), RawClient(server.port) as client:
                answer = client.request(handshake(lines=[f"Origin: {origin}"], host=host))
                self.assertEqual(answer.status, status)

    def test_a_refusal_says_the_same_to_the_peer_and_to_the_log_on_one_line(self) -> None:
        server = self.serve()
        answer = self.ask(server, handshake(lines=["Origin: https://evil.example\xe9" + "a" * 5000], host="good:80"))
        self.assert_refused(answer, 403, "the same origin as Host 'good:80'")
        self.assertIn("got 'https://evil.example\\xe9aaa", answer.line)
        self.assertLess(len(answer.line), 600)
        (line,) = [line for line in self.log.lines if "refused" in line]
        self.assertRegex(line, r"^INFO sync_ws.server refused 403: 127.0.0.1:\d+, GET /ws/: expected an allowed Origin")
        self.assertIn("option origins", line)
        self.assertTrue(line.isprintable())


class HostTest(RefusalTestCase):
    """A name that was made to point here (DNS rebinding): its pages are of the same origin by their Host."""

    def status(self, server: Server, host: str, path: str = "/ws/", *, origin: bool = True) -> Response:
        lines = [f"Origin: http://{host}"] if origin else []
        with RawClient(server.port) as client:
            return client.request(handshake(path, lines=lines, host=host))

    def test_on_a_loopback_address_only_loopback_names_lead_here(self) -> None:
        asked: list[Request] = []
        server = self.serve(authenticate=noting(asked))
        port = server.port
        for host in (f"evil.example:{port}", f"EVIL.example.:{port}", f"10.0.0.1:{port}", f"localhost.evil:{port}"):
            answer = self.status(server, host)
            self.assert_refused(answer, 403, f"got '{host}'; the option hosts")
            self.assertIn("listens on a loopback address", answer.line)
        self.assertEqual((asked, server.stats()["opened"]), ([], 0))
        for host in ("localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.0.0.53", "[::1]"):
            self.assertEqual(self.status(server, f"{host}:{port}").status, 101)

    def test_who_is_no_browser_may_know_it_by_any_name_unless_hosts_are_given(self) -> None:
        server = self.serve()
        self.assertEqual(self.status(server, f"plc-7:{server.port}", origin=False).status, 101)
        server = self.serve(hosts=["ide.example"])
        self.assert_refused(self.status(server, f"plc-7:{server.port}", origin=False), 403, "option hosts: ide.example")

    def test_pages_are_guarded_too(self) -> None:
        server = self.serve(pages=Path(__file__).parent)
        request = b"GET /__init__.py HTTP/1.1\r\nHost: %s:%d\r\n\r\n"
        self.assert_refused(self.ask(server, request % (b"evil.example", server.port)), 403, "got 'evil.example:")
        self.assertEqual(self.ask(server, request % (b"localhost", server.port)).status, 200)
        self.assertEqual(self.ask(server, request % (b"ide.example", 443)).status, 200)

    def test_hosts_that_are_named_are_welcome(self) -> None:
        server = self.serve(hosts=["IDE.example", "b\xfccher.example"])
        for host in ("ide.example", f"ide.example:{server.port}", "xn--bcher-kva.example:443", "localhost"):
            self.assertEqual(self.status(server, host).status, 101)
        answer = self.status(server, "evil.example")
        self.assert_refused(answer, 403, "option hosts: ide.example, xn--bcher-kva.example")

    def test_who_says_which_origins_are_welcome_or_that_any_host_is_has_decided(self) -> None:
        for server in (self.serve(hosts=["*"]), self.serve(origins=["*"])):
            self.assertEqual(self.status(server, f"evil.example:{server.port}").status, 101)
        server = self.serve(origins=["https://ide.example"])
        self.assertEqual(self.status(server, f"plc:{server.port}", origin=False).status, 101)
        answer = self.status(server, f"evil.example:{server.port}")
        self.assert_refused(answer, 403, "option origins: https://ide.example")

    def test_the_name_that_it_listens_on_leads_here(self) -> None:
        with mock.patch("socket.create_server", lambda address, **options: real(("127.0.0.1", address[1]), **options)):
            server = self.stack.enter_context(Server("plc.example", 0, echo).start())
        self.assertEqual(self.status(server, f"plc.example:{server.port}").status, 101)
        self.assertEqual(self.status(server, f"evil.example:{server.port}").status, 403)


class NameTest(RefusalTestCase):
    def test_names_that_would_forge_a_log_line_are_refused(self) -> None:
        server = self.serve()
        for name in (
            "%0d%0aFORGED", "a%00", "%1b[31m", "%e2%80%ae", "%e2%80%a8", "%c2%85", "%7f", "%e2%81%a6", "%c2%a0",
            "a" * 129, "a" * 8100, "%ff", "%ed%a0%80",
        ):  # fmt: skip
            with self.subTest(name=name[:20]):
                self.assertEqual(self.ask(server, handshake(f"/ws/?name={name}")).status, 400)
        self.assertEqual(self.ask(server, handshake("/ws/?name=" + "a" * 10_240)).status, 414)
        self.assert_unharmed(server)

    def test_the_log_has_one_line_a_record_whatever_comes(self) -> None:
        server = self.serve()
        with RawClient(server.port) as client:
            client.send(b"GET /\x1b[31mred HTTP/1.1\r\nHost: x\r\n\r\n")
            client.read_to_end()
        self.ask(server, handshake("/nowhere%0d%0aFORGED\x7e?name=%0d%0aFORGED"))
        self.ask(server, handshake("/ws/?name=%0d%0aFORGED"))
        self.client(server, "J%C3%B6rg").finish()
        self.assertTrue(self.log.lines)
        for line in self.log.lines:
            self.assertTrue(line.isprintable(), line)

    def test_printable_names_of_any_script_are_fine(self) -> None:
        server = self.serve()
        for name, query in (("Jörg", "J%C3%B6rg"), ("名前", "%E5%90%8D%E5%89%8D"), ("null", "null"), ("a b", "a+b")):
            self.client(server, query)
            self.assertIn(name, server.clients)

    def test_without_a_name_there_is_none(self) -> None:
        server = self.serve()
        self.client(server)
        self.assertEqual([connection.name for connection in server.connections], [None])
        self.assertEqual(dict(server.clients), {})


class HeaderJunkTest(RefusalTestCase):
    def test_junk_in_the_negotiation_is_refused_or_ignored_quickly(self) -> None:
        server = self.serve(subprotocols=["chat"], compression=True)
        spaces = " " * 32_000
        for lines, statuses in (
            ([f"Sec-WebSocket-Protocol: b{spaces}x"], (400, 431)),
            ([f"Sec-WebSocket-Protocol: b{' ' * 30_000}x"], (400,)),
            (["Sec-WebSocket-Protocol: a, a"], (400,)),
            (["Sec-WebSocket-Protocol: a/b"], (400,)),
            (["Sec-WebSocket-Protocol: \xe4"], (400,)),
            (["Sec-WebSocket-Protocol: a" + "b" * 200], (400,)),
            (["Sec-WebSocket-Protocol: a"] * 58, (400,)),
            (["Sec-WebSocket-Extensions: a"] * 58, (101,)),
            (["X-Same: a"] * 60, (431,)),
            (["Sec-WebSocket-Extensions: ;constructor"], (101,)),
            (["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=abc"], (101,)),
            (["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99"], (101,)),
            (["Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits"], (101,)),
            (["Sec-WebSocket-Extensions: permessage-deflate; x=y; constructor; __proto__=1"], (101,)),
            (["Sec-WebSocket-Extensions: permessage-deflate" + "; server_max_window_bits=10" * 2], (101,)),
            (["Sec-WebSocket-Extensions: " + ";" * 30_000], (101,)),
            (["Sec-WebSocket-Extensions: " + "," * 30_000], (101,)),
            (['Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits="' + "\\" * 30_000], (101,)),
        ):
            with self.subTest(line=lines[0][:60]), RawClient(server.port) as client:
                started = time.monotonic()
                answer = client.request(handshake(lines=lines))
                self.assertLess(time.monotonic() - started, QUICK)
                self.assertIn(answer.status, statuses, answer.body)
                self.assertNotIn("sec-websocket-extensions", answer.headers)
        self.assertEqual(self.log.tracebacks, [])

    def test_thirty_thousand_blanks_and_a_nul_are_refused_at_once(self) -> None:
        server = self.serve()
        started = time.monotonic()
        self.assert_refused(self.ask(server, handshake(lines=["X:" + " " * 30_000 + "\0"])), 400, "control characters")
        self.assertLess(time.monotonic() - started, QUICK)

    def test_what_is_valid_by_the_rfc_is_not_lost_in_the_handshake_library(self) -> None:
        server = self.serve(compression=True)
        for drop, line in (
            (["Upgrade"], "Upgrade: websocket, foo"),
            (["Upgrade"], "Upgrade: WebSocket"),
            (["Connection"], "Connection: keep-alive, Upgrade"),
            (["Connection"], "Connection: Upgrade, \xff"),
            (["Host"], "Host: xn--a"),
            (["Host"], "Host: " + "a" * 64),
            ([], "Sec-WebSocket-Extensions: \xff"),
            ([], "X-Latin: J\xf6rg"),
        ):
            with self.subTest(line=line), RawClient(server.port) as client:
                client.upgrade("/ws/", line, drop=drop)
        self.assertEqual(self.log.tracebacks, [])

    def test_subprotocols_are_chosen_in_the_clients_order(self) -> None:
        server = self.serve(subprotocols=["chat", "superchat"])
        client = self.client(server, None, "Sec-WebSocket-Protocol: x, superchat, chat")
        self.assertEqual(client.response.headers["sec-websocket-protocol"], "superchat")
        (connection,) = wait_until(lambda: server.connections)
        self.assertEqual(connection.subprotocol, "superchat")

    def test_without_a_common_subprotocol_there_is_none(self) -> None:
        server = self.serve(subprotocols=["chat"])
        client = self.client(server, None, "Sec-WebSocket-Protocol: x")
        self.assertNotIn("sec-websocket-protocol", client.response.headers)
        self.assertEqual([connection.subprotocol for connection in server.connections], [None])

    def test_compression_is_off_unless_asked_for(self) -> None:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        off, on = self.serve(), self.serve(compression=True)
        self.assertNotIn("sec-websocket-extensions", self.client(off, None, offer).response.headers)
        answer = self.client(on, None, offer).response.headers["sec-websocket-extensions"]
        self.assertEqual(answer, "permessage-deflate")
        self.assertNotIn("sec-websocket-extensions", self.client(on).response.headers)

    def test_the_first_good_offer_is_accepted(self) -> None:
        server = self.serve(compression=True)
        offers = "permessage-deflate; junk, permessage-deflate; server_max_window_bits=10; server_no_context_takeover"
        answer = self.client(server, None, f"Sec-WebSocket-Extensions: {offers}").response
        parts = {part.strip() for part in answer.headers["sec-websocket-extensions"].split(";")}
        self.assertEqual(parts, {"permessage-deflate", "server_no_context_takeover", "server_max_window_bits=10"})
