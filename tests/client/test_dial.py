"""Opening a connection: one deadline over everything, cancellable throughout, and refusals that tell the truth."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from typing import Any
from unittest import mock

from sync_ws import HandshakeError, HandshakeTimeout, should_reconnect
from sync_ws.client.address import parse_proxy, parse_url
from sync_ws.client.dial import Dial
from sync_ws.net.tls import TlsSocket
from sync_ws.testing import FaultProxy, free_port, make_certificates, serving, wait_until
from tests.support.dial_case import SOON, DialTestCase
from tests.support.proxies import ConnectProxy, Socks5Proxy
from tests.support.scripted import GUID, ScriptedServer, Wire, frame

FORKING = """
import os, sys, threading, time
from sync_ws import HandshakeError
from sync_ws.client.address import parse_url
from sync_ws.client.dial import Dial

def sockets():
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return sum(link.startswith("socket:") for link in links)

def run():
    try:
        dial.run()
    except HandshakeError:
        pass

dial = Dial(parse_url(sys.argv[1]), timeout=60)
thread = threading.Thread(target=run)
thread.start()
while dial._missing[:12] != "no answer to":
    time.sleep(0.01)
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, str(sockets()).encode())
    os._exit(0)
os.waitpid(child, 0)
print(sockets(), os.read(read, 9).decode())
dial.cancel()
thread.join()
"""
STARVED = """
import os, resource, sys
from sync_ws import Client, HandshakeError, should_reconnect
from sync_ws.client.address import parse_url
from sync_ws.client.dial import Dial
import sync_ws.client.client

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for spare in range(30):
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    for fd in held[:spare]:
        os.close(fd)
    try:
        Dial(parse_url(sys.argv[1]), timeout=5.0).run().sock.close()
        print("connected")
        break
    except HandshakeError as exc:
        assert should_reconnect(exc.reason), (spare, exc)
        print(spare, exc)
    for fd in held[spare:]:
        os.close(fd)
"""


class HandshakeTest(DialTestCase):
    def test_request_is_as_rfc_6455_wants_it_and_holds_what_was_asked_for(self) -> None:
        seen: list[Wire] = []

        def script(wire: Wire) -> None:
            wire.switch(headers=("Sec-WebSocket-Protocol: b",))
            seen.append(wire)

        with ScriptedServer(script) as server:
            opened = self.dial(
                server.url("/ws/?name=test"), headers=[("X-One", "1"), ("Authorization", "Bearer t")],
                subprotocols=["a", "b"], origin="http://page.test", cookie="c=1",
            )  # fmt: skip
        (wire,) = seen
        self.assertEqual(opened.subprotocol, "b")
        self.assertEqual(wire.request.split(b"\r\n")[0], b"GET /ws/?name=test HTTP/1.1")
        for name, value in (
            ("Host", f"127.0.0.1:{server.port}"), ("Upgrade", "websocket"), ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "a, b"), ("Origin", "http://page.test"),
            ("Cookie", "c=1"), ("X-One", "1"), ("Authorization", "Bearer t"),
        ):  # fmt: skip
            self.assertEqual(wire.header(name), value, name)

    def test_an_address_in_capitals_or_of_another_script_or_with_a_semicolon_is_sent_as_it_was_checked(self) -> None:
        seen: list[tuple[bytes, str | None]] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append((wire.request.split(b" ")[1], wire.header("Host")))

        with ScriptedServer(script) as server:
            there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
            with mock.patch("socket.getaddrinfo", return_value=there) as asked:
                self.dial("WS://BÜCHER.Example:81/ä;b?q=ö;c")
                self.assertEqual(asked.call_args.args[:2], ("xn--bcher-kva.example", 81))
                self.dial("ws://[FE80::1%25eth0]:81/?")
                self.assertEqual(asked.call_args.args[:2], ("fe80::1%eth0", 81))
        self.assertEqual(seen, [(b"/%C3%A4;b?q=%C3%B6;c", "xn--bcher-kva.example:81"), (b"/", "[fe80::1]:81")])

    def test_a_zone_reaches_the_system(self) -> None:
        if not socket.has_ipv6:
            raise unittest.SkipTest("no IPv6 here")
        name = socket.if_indextoname(socket.if_nameindex()[0][0])
        dial = Dial(parse_url(f"ws://[fe80::1%25{name}]:81/"))
        self.assertEqual(dial._addresses(dial._target)[0][1][3], socket.if_nametoindex(name))

    def test_every_value_of_a_repeated_response_header_is_there(self) -> None:
        cookies = ("Set-Cookie: a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "Set-Cookie: b=2", "set-cookie: c=3")
        with ScriptedServer(lambda wire: wire.switch(headers=cookies)) as server:
            headers = self.dial(server.url()).headers
        self.assertEqual(headers.get_all("set-cookie"), [line.partition(": ")[2] for line in cookies])

    def test_what_the_rfcs_have_a_client_bear_is_borne(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            for interim in (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"):
                wire.send(interim)
            key = (wire.header("Sec-WebSocket-Key") or "").encode()
            accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
            fields = b"UPGRADE: WebSocket\nconnection: keep-alive,\n Upgrade\r\nsec-websocket-ACCEPT:" + accept
            wire.send(b"HTTP/1.1 101  \n" + fields + b"\n\n" + frame(1, b"early"))

        with ScriptedServer(script) as server:
            opened = self.dial(server.url())
        self.assertEqual(opened.headers["connection"], "keep-alive, Upgrade")
        self.assertEqual(opened.early[:2], frame(1, b"early")[:2])

    def test_without_options_there_is_no_origin_cookie_subprotocol_or_extension(self) -> None:
        seen: list[Wire] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire)

        with ScriptedServer(script) as server:
            self.dial(server.url())
        for name in ("Origin", "Cookie", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Authorization"):
            self.assertIsNone(seen[0].header(name), name)

    def test_a_host_header_of_ones_own(self) -> None:
        seen: list[str | None] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire.header("Host"))

        with ScriptedServer(script) as server:
            self.dial(server.url(), headers=[("host", "virtual.test")])
        self.assertEqual(seen, ["virtual.test"])

    def test_first_frame_in_the_segment_of_the_response_is_kept(self) -> None:
        with ScriptedServer(lambda wire: wire.switch(then=frame(1, b"early"))) as server:
            opened = self.dial(server.url())
            data = opened.early
            while len(data) < 7:  # the system may have split it
                with contextlib.suppress(BlockingIOError):
                    data += opened.sock.recv(100)
        self.assertEqual(data, frame(1, b"early"))

    def test_a_server_that_chooses_no_subprotocol_is_accepted(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            self.assertIsNone(self.dial(server.url(), subprotocols=["a"]).subprotocol)

    def test_what_is_no_valid_101_fails_the_handshake_for_good(self) -> None:
        for what, answer in {
            "wrong accept": {"accept": "d3Jvbmc="},
            "subprotocol not offered": {"headers": ("Sec-WebSocket-Protocol: c",)},
            "two subprotocols": {"headers": ("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: a")},
            "subprotocol in other case": {"headers": ("Sec-WebSocket-Protocol: A",)},
            "extension not offered": {"headers": ("Sec-WebSocket-Extensions: permessage-deflate",)},
            "malformed header": {"headers": ("no colon",)},
        }.items():
            with self.subTest(what), ScriptedServer(lambda wire, answer=answer: wire.switch(**answer)) as server:  # type: ignore[misc]
                error = self.fail_to_dial(server.url(), subprotocols=["a"])
                self.assertTrue(error.reason.permanent, error)
                self.assertIn("not a valid opening handshake", str(error))

    def test_extensions_with_parameters_that_were_not_agreed_on_fail(self) -> None:
        for answer in (
            "x-other", "permessage-deflate; unknown", "permessage-deflate; client_max_window_bits=99",
            "permessage-deflate; client_max_window_bits=abc", ";constructor",
            "permessage-deflate, permessage-deflate",
        ):  # fmt: skip
            line = f"Sec-WebSocket-Extensions: {answer}"
            with self.subTest(answer), ScriptedServer(lambda wire, line=line: wire.switch(headers=(line,))) as server:  # type: ignore[misc]
                self.assertTrue(self.fail_to_dial(server.url(), compression=True).reason.permanent)

    def test_missing_upgrade_or_connection_header_fails(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: x\r\n\r\n")

        with ScriptedServer(script) as server:
            self.assertIn("not a valid opening handshake", str(self.fail_to_dial(server.url())))


class DeadlineTest(DialTestCase):
    def expect_timeout(self, url: str, **options: Any) -> None:
        started = time.monotonic()
        error = self.fail_to_dial(url, timeout=0.15, **options)
        self.assertIsInstance(error, HandshakeTimeout)
        self.assertIsInstance(error, TimeoutError)
        self.assertIn("within 0.15 s", str(error))
        self.assertFalse(error.reason.permanent)
        self.assertLess(time.monotonic() - started, SOON)

    def test_a_server_that_accepts_and_never_answers(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            self.expect_timeout(server.url())

    def test_a_server_that_accepts_and_never_starts_tls(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            self.expect_timeout(server.url().replace("ws:", "wss:"))

    def test_it_is_told_what_did_not_come(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as silent:
            url = silent.url()
            self.assertIn(": no answer to the opening handshake", str(self.fail_to_dial(url, timeout=0.1)))
            text = str(self.fail_to_dial(url.replace("ws:", "wss:"), timeout=0.1))
            self.assertIn(": no answer to the TLS handshake; if the server has no TLS there, use ws://", text)
            via = parse_proxy(f"http://127.0.0.1:{silent.port}")
            text = str(self.fail_to_dial("ws://a.test/", proxy=via, timeout=0.1))
            self.assertIn(f"to a.test:80 within 0.1 s: no answer of the proxy 127.0.0.1:{silent.port}", text)

    def test_a_response_dribbled_for_longer_than_the_deadline(self) -> None:
        with serving(lambda conn: None) as server, FaultProxy("127.0.0.1", server.port) as proxy:
            proxy.to_client.throttle(40)
            self.expect_timeout(proxy.url())

    def test_a_name_that_takes_too_long_to_resolve(self) -> None:
        release = threading.Event()
        with mock.patch("socket.getaddrinfo", lambda *args: release.wait(SOON) and []):
            self.expect_timeout("ws://slow.test/")
            release.set()

    def test_a_proxy_that_never_answers(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as silent:
            self.expect_timeout("ws://a.test/", proxy=parse_proxy(f"http://127.0.0.1:{silent.port}"))

    def test_an_address_that_does_not_answer_leaves_time_for_the_next(self) -> None:
        full = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(full.close)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:  # the backlog is full: further SYNs are dropped
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
            self.addCleanup(sock.close)
        with ScriptedServer(Wire.switch) as server:
            places = [full.getsockname(), ("127.0.0.1", server.port)]
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
            with mock.patch("socket.getaddrinfo", lambda *args: found):
                self.dial("ws://two-addresses.test/", timeout=0.6)

    def test_a_name_that_the_system_takes_for_none_is_final(self) -> None:
        with mock.patch("socket.getaddrinfo", side_effect=UnicodeError("label too long")):
            error = self.fail_to_dial("ws://a.test/")
        self.assertIn("a.test:80 is no address to connect to: label too long", str(error))
        self.assertFalse(should_reconnect(error.reason))

    def test_connection_refused_names_the_place_and_is_worth_another_attempt(self) -> None:
        port = free_port()
        error = self.fail_to_dial(f"ws://127.0.0.1:{port}/?token=s3cret")
        self.assertIn(f"127.0.0.1:{port}", str(error))
        self.assertNotIn("s3cret", str(error))
        self.assertTrue(should_reconnect(error.reason))

    def test_an_address_that_the_system_refuses_at_once_is_told_at_once(self) -> None:
        with mock.patch("socket.socket.connect_ex", return_value=errno.ENETUNREACH):
            error = self.fail_to_dial("ws://127.0.0.1:1/", timeout=60)
        self.assertIn(f"no connection to 127.0.0.1:1: {os.strerror(errno.ENETUNREACH)}", str(error))
        self.assertTrue(should_reconnect(error.reason))

    def test_a_name_that_does_not_resolve_is_worth_another_attempt(self) -> None:
        failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=failure):
            error = self.fail_to_dial("ws://nowhere.test/")
        self.assertIn("Name or service not known", str(error))
        self.assertTrue(should_reconnect(error.reason))
        with mock.patch("socket.getaddrinfo", lambda *args: []):
            self.assertIn("has no address", str(self.fail_to_dial("ws://nowhere.test/")))

    def test_no_thread_to_resolve_a_name_is_a_failed_attempt(self) -> None:
        with mock.patch("threading.Thread.start", side_effect=RuntimeError("can't start new thread")):
            error = self.fail_to_dial("ws://a.test/")
        self.assertIn("can't start new thread", str(error))
        self.assertTrue(should_reconnect(error.reason))

    def test_out_of_memory_is_a_failed_attempt(self) -> None:
        for name in (
            "sync_ws.client.dial.Dial._connect_one",
            "websocket.WebSocket.connect",
            "sync_ws.client.dial.Waker",
        ):
            with self.subTest(name), ScriptedServer(Wire.switch) as server:
                with mock.patch(name, side_effect=MemoryError):
                    error = self.fail_to_dial(server.url())
                self.assertIn("out of memory (in this process or machine)", str(error))
                self.assertTrue(should_reconnect(error.reason))

    def test_whatever_is_the_last_descriptor_a_failure_is_told_as_ones_own_and_passes(self) -> None:
        """In a process of its own: with 0, 1, 2... descriptors to spare, until it connects."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = make_certificates(folder.name)
        with ScriptedServer(Wire.switch, context=made.server_context()) as server:
            environment = {**os.environ, "SSL_CERT_FILE": str(made.ca), "SSL_CERT_DIR": "/nowhere"}
            hashed = os.path.join(folder.name, "hashed")  # authorities that OpenSSL reads when it needs them
            os.mkdir(hashed)
            command = ["openssl", "x509", "-hash", "-noout", "-in", str(made.ca)]
            named = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            shutil.copy(made.ca, os.path.join(hashed, f"{named}.0"))
            for where in ({}, {"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": hashed}):
                for host in ("127.0.0.1", "localhost"):
                    with self.subTest(host, **where):
                        done = subprocess.run(
                            [sys.executable, "-c", STARVED, f"wss://{host}:{server.port}/"],
                            env={**environment, **where}, capture_output=True, text=True, timeout=60,
                        )  # fmt: skip
                        self.assertEqual(done.stdout.splitlines()[-1:], ["connected"], done.stdout + done.stderr)
                        for line in done.stdout.splitlines()[:-1]:
                            self.assertIn("Too many open files", line)

    def test_no_descriptor_left_is_a_failed_attempt(self) -> None:
        real = socket.socket

        def none_left(*given: Any) -> socket.socket:
            if len(given) == 4:  # the fourth is a descriptor that there is
                return real(*given)
            raise OSError(24, "Too many open files")

        for name, url in (("socket.socketpair", "ws://a.test/"), ("socket.socket", "ws://127.0.0.1:9/")):
            with self.subTest(name), mock.patch(name, none_left):
                error = self.fail_to_dial(url)
                self.assertIn("Too many open files", str(error))
                self.assertTrue(should_reconnect(error.reason))


class CancelTest(DialTestCase):
    def expect_cancelled(self, dial: Dial, under_way: Any) -> None:
        with self.running(dial) as outcome:
            wait_until(under_way)
            dial.cancel()
        (error,) = outcome
        self.assertIsInstance(error, HandshakeError)
        self.assertTrue(error.reason.by_us)

    def test_while_waiting_for_the_response(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            self.expect_cancelled(Dial(parse_url(server.url()), timeout=60), lambda: server.accepted)

    def test_while_waiting_for_the_body_of_a_refusal(self) -> None:
        sent = threading.Event()

        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 503 X\r\nContent-Length: 9\r\n\r\n")
            sent.set()
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            self.expect_cancelled(Dial(parse_url(server.url()), timeout=60), sent.is_set)

    def test_in_the_tls_handshake(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            url = server.url().replace("ws:", "wss:")
            self.expect_cancelled(Dial(parse_url(url), timeout=60), lambda: server.accepted)

    def test_in_name_resolution_and_a_late_result_is_thrown_away(self) -> None:
        asked, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def resolve(*args: Any) -> list[Any]:
            asked.set()
            release.wait(SOON * 2)
            return []

        with mock.patch("socket.getaddrinfo", resolve):
            self.expect_cancelled(Dial(parse_url("ws://slow.test/"), timeout=60), asked.is_set)

    def test_in_the_tunnel_request(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as silent:
            dial = Dial(parse_url("ws://a.test/"), proxy=parse_proxy(f"http://127.0.0.1:{silent.port}"), timeout=60)
            self.expect_cancelled(dial, lambda: silent.accepted)

    def test_before_it_has_begun(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as server:
            dial = Dial(parse_url(server.url()), timeout=60)
            dial.cancel()
            with self.running(dial) as outcome:
                pass
        self.assertTrue(outcome[0].reason.by_us)

    def test_after_it_has_ended(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            dial = Dial(parse_url(server.url()))
            dial.run().sock.close()
            dial.cancel()


class ProxyTest(DialTestCase):
    def test_through_http_connect_with_a_name_that_only_the_proxy_knows(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            with ConnectProxy(target=("127.0.0.1", server.port)) as proxy:
                self.dial("ws://inside.test:81/", proxy=parse_proxy(f"http://us%20er:pw@127.0.0.1:{proxy.port}"))
            assert isinstance(proxy, ConnectProxy)
            self.assertEqual(proxy.asked, ["inside.test:81"])
            self.assertIn("Proxy-Authorization: Basic dXMgZXI6cHc=", proxy.heads[0])

    def test_credentials_for_the_proxy_do_not_reach_the_server(self) -> None:
        seen: list[bytes] = []

        def script(wire: Wire) -> None:
            wire.switch()
            seen.append(wire.request)

        with ScriptedServer(script) as server, ConnectProxy() as proxy:
            self.dial(server.url(), proxy=parse_proxy(f"http://user:pw@127.0.0.1:{proxy.port}"))
        self.assertNotIn(b"proxy-", seen[0].lower())

    def test_a_proxy_that_refuses(self) -> None:
        for status, again in (("407 Proxy Authentication Required", False), ("502 Bad Gateway", True)):
            with self.subTest(status), ConnectProxy(f"HTTP/1.1 {status}") as proxy:
                error = self.fail_to_dial("ws://a.test/", proxy=parse_proxy(f"http://127.0.0.1:{proxy.port}"))
                self.assertIn(f"the proxy answered {status[:3]}", str(error))
                self.assertEqual(should_reconnect(error.reason), again)

    def test_a_proxy_that_is_none(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"SSH-2.0-nothing\r\n\r\n")

        with ScriptedServer(script) as server:
            error = self.fail_to_dial("ws://a.test/", proxy=parse_proxy(f"http://127.0.0.1:{server.port}"))
        self.assertIn("did not answer as one", str(error))

    def test_through_socks(self) -> None:
        _require_socks()
        with ScriptedServer(Wire.switch) as server:
            for login, scheme in (("", "socks5"), ("user:pw@", "socks5"), ("", "socks5h")):
                user, password = ("user", "pw") if login else (None, "")
                target = ("127.0.0.1", server.port)
                with self.subTest(login + scheme), Socks5Proxy(user, password, target=target) as proxy:
                    host = "inside.test" if scheme == "socks5h" else "127.0.0.1"
                    via = parse_proxy(f"{scheme}://{login}127.0.0.1:{proxy.port}")
                    self.dial(f"ws://{host}:81/", proxy=via)
                    self.assertEqual(proxy.asked, [f"{host}:81"])

    def test_a_socks_proxy_that_refuses(self) -> None:
        _require_socks()
        with Socks5Proxy("user", "right") as proxy:
            via = parse_proxy(f"socks5://user:wrong@127.0.0.1:{proxy.port}")
            error = self.fail_to_dial("ws://127.0.0.1:81/", proxy=via)
        self.assertNotIn("wrong", str(error))
        via = parse_proxy(f"socks5://127.0.0.1:{free_port()}")
        self.assertTrue(should_reconnect(self.fail_to_dial("ws://127.0.0.1:81/", proxy=via).reason))

    def test_a_socks_proxy_without_the_package_for_it(self) -> None:
        with mock.patch.dict("sys.modules", {"python_socks": None, "python_socks.sync": None}):
            error = self.fail_to_dial("ws://a.test/", proxy=parse_proxy("socks5://127.0.0.1:9"))
            with mock.patch("os.open", side_effect=OSError(24, "Too many open files")):  # so nothing can be imported
                short = self.fail_to_dial("ws://a.test/", proxy=parse_proxy("socks5://127.0.0.1:9"))
        self.assertIn("python-socks", str(error))
        self.assertTrue(error.reason.permanent)
        self.assertIn("Too many open files", str(short))
        self.assertFalse(short.reason.permanent)

    def test_a_fault_on_the_way_to_a_proxy_names_the_proxy(self) -> None:
        port = free_port()
        text = str(self.fail_to_dial("ws://a.test/", proxy=parse_proxy(f"http://us:hush@127.0.0.1:{port}")))
        self.assertIn(f"no connection to the proxy 127.0.0.1:{port}: ", text)
        with ScriptedServer(Wire.read_request) as server:
            error = self.fail_to_dial("ws://a.test/", proxy=parse_proxy(f"http://127.0.0.1:{server.port}"))
        self.assertIn(f"the proxy 127.0.0.1:{server.port} ended the connection", str(error))

    def test_a_fault_behind_a_proxy_names_both(self) -> None:
        with ScriptedServer(Wire.read_request) as server, ConnectProxy(target=("127.0.0.1", server.port)) as proxy:
            error = self.fail_to_dial("ws://a.test/", proxy=parse_proxy(f"http://127.0.0.1:{proxy.port}"))
        self.assertIn(f"a.test:80 (through the proxy 127.0.0.1:{proxy.port}) was lost", str(error))

    def test_cancelled_while_a_socks_proxy_is_silent_and_its_late_socket_is_closed(self) -> None:
        _require_socks()
        connected = threading.Event()

        def script(wire: Wire) -> None:
            connected.set()
            wire.wait_for_end()

        with ScriptedServer(script) as silent:
            dial = Dial(parse_url("ws://a.test/"), proxy=parse_proxy(f"socks5://127.0.0.1:{silent.port}"), timeout=60)
            with self.running(dial) as outcome:
                self.assertTrue(connected.wait(SOON))
                dial.cancel()
        self.assertTrue(outcome[0].reason.by_us)


@unittest.skipUnless(os.path.isdir("/proc/self/fd"), "no /proc")
class ForkTest(DialTestCase):
    def test_a_child_has_no_part_in_an_attempt_of_its_parent_and_closes_its_sockets(self) -> None:
        with ScriptedServer(Wire.wait_for_end) as silent:
            for scheme in ("ws", "wss"):  # in the opening handshake, in that of TLS
                done = subprocess.run(
                    [sys.executable, "-c", FORKING, f"{scheme}://127.0.0.1:{silent.port}/"],
                    capture_output=True, text=True, timeout=60,
                )  # fmt: skip
                self.assertEqual((done.stdout.split(), done.returncode), (["3", "0"], 0), done.stderr)


def _require_socks() -> None:
    try:
        import python_socks  # noqa: F401
    except ImportError:
        raise unittest.SkipTest("the package python-socks is not installed") from None


class WrongSchemeTest(DialTestCase):
    def test_with_tls_all_is_well_and_an_alert_is_named_also_after_our_part_of_the_handshake(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        made = make_certificates(folder.name)
        context = made.server_context()
        with ScriptedServer(Wire.switch, context=context) as server:
            self.assertIsInstance(self.dial(server.url(), ssl_context=made.client_context()).sock, TlsSocket)
            context.verify_mode = ssl.CERT_REQUIRED
            error = self.fail_to_dial(server.url(), ssl_context=made.client_context())
        self.assertIn("the server wants a client certificate", str(error))

    def test_wss_to_a_server_of_ours_without_tls_is_named_at_once(self) -> None:
        with serving(lambda conn: None) as server:
            started = time.monotonic()
            error = self.fail_to_dial(server.url.replace("ws:", "wss:"), ssl_context=ssl.create_default_context())
            self.assertLess(time.monotonic() - started, SOON)
        self.assertIn(f"127.0.0.1:{server.port} speaks plain HTTP, not TLS: use ws:// instead of wss://", str(error))
        self.assertFalse(should_reconnect(error.reason))

    def test_ws_to_a_server_that_answers_in_tls_is_named_at_once(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"\x15\x03\x03\x00\x02\x02\x0a")  # an alert: unexpected message
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            error = self.fail_to_dial(server.url())
        self.assertIn(f"127.0.0.1:{server.port} speaks TLS: use wss:// instead of ws:// there", str(error))
        self.assertFalse(should_reconnect(error.reason))

    def test_ws_to_a_server_that_ends_it_without_a_word_is_told_what_it_may_be(self) -> None:
        def reset(wire: Wire) -> None:
            wire.read_request()
            wire.reset()

        for script, how in ((Wire.read_request, "ended by the server"), (reset, "Connection reset by peer")):
            with self.subTest(how), ScriptedServer(script) as server:
                error = self.fail_to_dial(server.url())
                self.assertIn(f"lost during the opening handshake: {how}, without an answer; if it speaks", str(error))
                self.assertIn("use wss://", str(error))
                self.assertTrue(should_reconnect(error.reason))

    def test_an_answer_that_is_cut_off_is_no_sign_of_tls(self) -> None:
        def script(wire: Wire) -> None:
            wire.read_request()
            wire.send(b"HTTP/1.1 101 Switch")

        with ScriptedServer(script) as server:
            error = self.fail_to_dial(server.url())
        self.assertTrue(str(error).endswith("was lost during the opening handshake: ended by the server"), error)

    def test_a_server_of_another_protocol_is_told_by_what_it_says(self) -> None:
        def script(wire: Wire) -> None:
            wire.send(b"SSH-2.0-OpenSSH_9.9\r\n")
            wire.wait_for_end()

        with ScriptedServer(script) as server:
            error = self.fail_to_dial(server.url())
        self.assertIn("does not begin with an HTTP status line, but: SSH-2.0-OpenSSH_9.9", str(error))
        self.assertTrue(should_reconnect(error.reason))


if __name__ == "__main__":
    unittest.main()
