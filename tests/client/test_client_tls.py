"""The client over TLS: certificates good and bad, and everything where TLS could make a difference."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
from typing import Any, ClassVar
from unittest import mock

from sync_ws import CertificateError, Client, ClientState, Connection, ConnectionClosed, HandshakeError, Heartbeat
from sync_ws.client import tls
from sync_ws.testing import Certificates, FaultProxy, LedgerTestCase, make_certificates, serving, wait_until
from tests.support.proxies import ConnectProxy
from tests.support.recorder import Recorder, sender
from tests.support.scripted import ScriptedServer, Wire, frame, refusing, staying_open

SOON = 5.0


def echo(conn: Connection) -> None:
    for message in conn:
        conn.send(message)


class TlsTestCase(LedgerTestCase):
    certificates: ClassVar[Certificates]
    folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.certificates = make_certificates(cls.folder.name)

    def client(self, url: str, **options: Any) -> Client:
        defaults = {"heartbeat": None, "reconnect": None, "ssl_context": self.certificates.client_context()}
        client = Client(url, **{**defaults, **options})
        self.addCleanup(client.close, timeout=1.0)
        return client

    def served(self, handler: Any = echo, **options: Any) -> Any:
        return serving(handler, ssl_context=self.certificates.server_context(), **options)


class CertificateTest(TlsTestCase):
    def test_a_good_certificate_for_a_name_and_for_an_address(self) -> None:
        with self.served() as server:
            for host in ("127.0.0.1", "localhost"):
                with self.client(f"wss://{host}:{server.port}/ws/") as client:
                    client.send("hello")
                    self.assertEqual(client.recv(SOON), "hello")

    def test_bad_certificates_fail_and_are_not_tried_again(self) -> None:
        made = self.certificates
        for certificate in (made.self_signed, made.wrong_host_cert, made.expired_cert):
            with self.subTest(certificate.name):
                context = made.server_context(certificate)
                with ScriptedServer(Wire.wait_for_end, context=context) as server:
                    client = self.client(server.url(), reconnect=0.01)
                    recorder = Recorder(client)
                    with self.assertRaises(CertificateError) as caught:
                        client.open(SOON)
                    self.assertIn("certificate of 127.0.0.1", str(caught.exception))
                    self.assertEqual((recorder.names, server.accepted), (["gave_up"], 1))

    def test_an_unknown_authority_fails_with_the_default_context(self) -> None:
        with self.served() as server, self.assertRaises(CertificateError):
            self.client(server.url, ssl_context=None).open(SOON)

    def test_switching_verification_off_takes_a_context_and_warns(self) -> None:
        context = self.certificates.client_context()
        context.check_hostname = False
        with self.served() as server:
            with self.assertWarnsRegex(RuntimeWarning, "does not verify"):
                self.client(server.url, ssl_context=context)
            context.verify_mode = ssl.CERT_NONE
            with self.assertWarns(RuntimeWarning) as caught:
                client = self.client(server.url, ssl_context=context)
            self.assertEqual(caught.filename, __file__)
            client.open(SOON)
            with self.assertRaises(TypeError):
                self.client(server.url, ssl_context=False)

    def test_a_verifying_context_does_not_warn(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.client("wss://a.test/")

    def test_a_redirect_from_wss_to_ws_is_an_error(self) -> None:
        with ScriptedServer(Wire.switch) as plain:
            location = f"Location: {plain.url()}"
            context = self.certificates.server_context()
            redirect = refusing("302 X", b"", location)
            with ScriptedServer(redirect, context=context) as server, self.assertRaises(HandshakeError) as caught:
                self.client(server.url(), headers={"Authorization": "Bearer t"}).open(SOON)
            self.assertEqual((caught.exception.reason.status, plain.accepted), (302, 0))


class ConversationTest(TlsTestCase):
    def test_large_messages_both_ways_at_once(self) -> None:
        count, size = 30, 300_000
        with self.served(max_message=1 << 22) as server, self.client(server.url, max_message=1 << 22) as client:
            messages = [bytes([number]) * (size + number) for number in range(count)]
            sending = sender(client, messages)
            sending.start()
            for message in messages:
                self.assertEqual(client.recv(SOON), message)
            sending.join(SOON)

    def test_many_threads_send_while_one_receives(self) -> None:
        with self.served() as server, self.client(server.url, heartbeat=Heartbeat(0.05, 5, kind="ping")) as client:
            threads = [sender(client, [f"{own} {n}" for n in range(100)]) for own in range(8)]
            for thread in threads:
                thread.start()
            got = [str(client.recv(SOON)).split() for _ in range(800)]
            for thread in threads:
                thread.join(SOON)
        for own in range(8):
            self.assertEqual([int(n) for who, n in got if who == str(own)], list(range(100)))

    def test_several_messages_in_one_record_are_all_seen_by_a_timed_recv(self) -> None:
        def script(wire: Wire) -> None:
            wire.switch()
            wire.send(b"".join(frame(1, str(number).encode()) for number in range(50)))
            wire.wait_for_end()

        with ScriptedServer(script, context=self.certificates.server_context()) as server:
            client = self.client(server.url(), close_timeout=0.3).open(SOON)
            self.assertEqual([client.recv(SOON) for _ in range(50)], [str(number) for number in range(50)])

    def test_first_frame_in_the_record_of_the_response(self) -> None:
        script = staying_open(then=frame(1, b"early"))
        with ScriptedServer(script, context=self.certificates.server_context()) as server:
            client = self.client(server.url(), close_timeout=0.3).open(SOON)
            self.assertEqual(client.recv(SOON), "early")

    def test_both_styles_and_heartbeats(self) -> None:
        with self.served() as server:
            client = self.client(server.url, heartbeat=Heartbeat(0.05, 2))
            recorder = Recorder(client, messages=True)
            client.open(SOON)
            client.send("x")
            recorder.wait_for("message")
            recorder.wait_for("heartbeat")
            client.close()
            self.assertEqual(recorder.names[-1], "close")

    def test_through_a_proxy_the_certificate_is_that_of_the_server(self) -> None:
        with self.served() as server, ConnectProxy(target=("127.0.0.1", server.port)) as proxy:
            url = f"http://127.0.0.1:{proxy.port}"
            with self.client("wss://localhost:1024/ws/", proxy=url) as client:
                client.send("hello")
                self.assertEqual(client.recv(SOON), "hello")
            with self.assertRaises(CertificateError):
                self.client("wss://other.test:1024/ws/", proxy=url).open(SOON)


class VerdictTest(TlsTestCase):
    """What the server thinks of us, and whether there is TLS at all: named, whatever comes first."""

    def fail_to_open(self, url: str, **options: Any) -> HandshakeError:
        with self.assertRaises(HandshakeError) as caught:
            self.client(url, **options).open(SOON)
        return caught.exception

    def wanting_certificates(self, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = self.certificates.server_context()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.certificates.ca)
        context.maximum_version = version
        return context

    def test_a_server_that_wants_a_client_certificate_is_named_in_every_run(self) -> None:
        """With TLS 1.3 it says so only after our part of the handshake, before, while or after we write the request."""
        with ScriptedServer(Wire.switch, context=self.wanting_certificates(ssl.TLSVersion.TLSv1_3)) as server:
            for _ in range(30):
                error = self.fail_to_open(server.url(), headers={"X-Long": "x" * 30_000})
                self.assertIn("the server wants a client certificate: ssl_context.load_cert_chain", str(error))
                self.assertIn(f"127.0.0.1:{server.port}", str(error))
                self.assertTrue(error.reason.permanent)

    def test_tls_1_2_names_it_as_one_of_the_causes(self) -> None:
        with ScriptedServer(Wire.switch, context=self.wanting_certificates(ssl.TLSVersion.TLSv1_2)) as server:
            self.assertIn("or wants a client certificate", str(self.fail_to_open(server.url())))

    def test_a_client_certificate_that_is_not_accepted_is_named(self) -> None:
        ours = self.certificates.client_context()
        ours.load_cert_chain(self.certificates.server_cert, self.certificates.server_key)  # not one for clients
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with ScriptedServer(Wire.switch, context=self.wanting_certificates(version)) as server:
                error = self.fail_to_open(server.url(), ssl_context=ours)
                self.assertIn("did not accept the client's certificate", str(error))
                self.assertTrue(error.reason.permanent)

    def test_no_common_version_is_named_by_whichever_side_notices(self) -> None:
        for server_version, client_version in (
            (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2),
        ):  # fmt: skip
            context, ours = self.certificates.server_context(), self.certificates.client_context()
            context.minimum_version = context.maximum_version = server_version
            ours.minimum_version = ours.maximum_version = client_version
            with self.subTest(client_version), ScriptedServer(Wire.switch, context=context) as server:
                error = self.fail_to_open(server.url(), ssl_context=ours)
                self.assertIn("does not speak the TLS versions that this side allows", str(error))
                self.assertFalse(error.reason.permanent)

    def test_a_name_that_the_server_does_not_know_is_named(self) -> None:
        context = self.certificates.server_context()
        context.sni_callback = lambda *_: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        with ScriptedServer(Wire.switch, context=context) as server:
            error = self.fail_to_open(f"wss://localhost:{server.port}/")
        self.assertIn("has no certificate for this host name", str(error))

    def test_wss_to_a_plain_server_is_named_at_once(self) -> None:
        def refuse(wire: Wire) -> None:
            wire.sock.recv(1)
            wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            wire.wait_for_end()

        for serve in (serving(echo), ScriptedServer(refuse)):
            with serve as server:
                started = time.monotonic()
                error = self.fail_to_open(f"wss://127.0.0.1:{server.port}/ws/", reconnect=0.01)
                self.assertLess(time.monotonic() - started, 3.0)
                self.assertIn(f"127.0.0.1:{server.port} speaks plain HTTP, not TLS: use ws://", str(error))

    def test_ws_to_a_server_with_tls_is_told_with_the_remedy(self) -> None:
        with self.served() as server:
            self.assertIn("use wss://", str(self.fail_to_open(server.url.replace("wss:", "ws:"))))

    def test_a_host_name_with_a_dot_at_its_end_has_the_certificate_of_the_name(self) -> None:
        with ScriptedServer(staying_open(), context=self.certificates.server_context()) as server:
            there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]
            with mock.patch("socket.getaddrinfo", return_value=there):
                self.client(f"wss://localhost.:{server.port}/", close_timeout=0.3).open(SOON)


class DefaultContextTest(TlsTestCase):
    def test_one_context_serves_every_attempt_of_every_client(self) -> None:
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(self.certificates.ca)}), self.served() as server:
            tls.default_context()
            with mock.patch("ssl.create_default_context", side_effect=AssertionError("another one was made")):
                for _ in range(3):
                    with Client(server.url, heartbeat=None) as client:
                        client.send("hello")
                        self.assertEqual(client.recv(SOON), "hello")

    def test_a_child_of_a_process_that_has_one_makes_its_own(self) -> None:
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(self.certificates.ca)}), self.served() as server:
            done = subprocess.run(
                [sys.executable, "-c", FORKED, server.url], capture_output=True, text=True, timeout=60, check=False
            )
        self.assertEqual((done.stdout.split(), done.returncode), (["hello", "hello", "0"], 0), done.stderr)


# OpenSSL takes a lock when a thread that used it ends, behind what Python calls the end of the thread: a fork in that
# very moment leaves the lock held in the child, whatever the program.  So the first client's thread has to be gone
FORKED = """
import os, sys, time
from sync_ws import Client

def talk(client):
    with client:
        client.send("hello")
        print(client.recv(5), flush=True)

talk(Client(sys.argv[1], heartbeat=None))
while os.path.isdir("/proc/self/task") and len(os.listdir("/proc/self/task")) > 1:
    time.sleep(0.001)
child = os.fork()
if child == 0:
    try:
        talk(Client(sys.argv[1], heartbeat=None))
    finally:
        os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class EndTest(TlsTestCase):
    def test_a_server_that_ends_the_stream_without_a_tls_goodbye(self) -> None:
        with ScriptedServer(Wire.switch, context=self.certificates.server_context()) as server:
            client = self.client(server.url()).open(SOON)
            with self.assertRaises(ConnectionClosed) as caught:
                client.recv(SOON)
            self.assertEqual(caught.exception.code, 1006)

    def test_a_half_closed_server_still_gets_our_messages(self) -> None:
        got: list[tuple[int, bytes]] = []

        def script(wire: Wire) -> None:
            wire.switch()
            wire.send_frame(8, b"\x03\xe8")
            got.append(wire.read_frame())

        with ScriptedServer(script, context=self.certificates.server_context()) as server:
            self.client(server.url()).run_forever()
        self.assertEqual(got, [(8, b"\x03\xe8")])

    def test_lost_and_back(self) -> None:
        with self.served() as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(scheme="wss"), reconnect=0.02)
            recorder = Recorder(client)
            client.open(SOON)
            for number, break_it in enumerate((proxy.cut_all, proxy.reset_all), 1):
                break_it()
                recorder.wait_for("reconnected", number)
            client.send("again")
            self.assertEqual(client.recv(SOON), "again")

    def test_cut_or_corrupted_in_the_tls_handshake_is_tried_again(self) -> None:
        with self.served() as server, FaultProxy("127.0.0.1", server.port) as proxy:
            for fault, at in (("cut_at", 0), ("cut_at", 50), ("reset_at", 200), ("corrupt", 60), ("corrupt", 400)):
                with self.subTest(fault, at=at):
                    getattr(proxy.to_client, fault)(at, scope="next")
                    client = self.client(proxy.url(scheme="wss"), reconnect=0.01)
                    recorder = Recorder(client)
                    try:
                        client.open(SOON)
                        self.assertEqual(recorder.names, ["reconnecting", "open"])
                    except CertificateError:  # where the flipped bit hit the certificate
                        self.assertEqual(fault, "corrupt")
                    client.close()

    def test_a_corrupted_record_is_never_data(self) -> None:
        with self.served() as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(scheme="wss"))
            client.open(SOON)
            proxy.to_client.corrupt(proxy.to_client.forwarded + 25, scope="current")
            client.send("hello, over there")
            with self.assertRaises(ConnectionClosed):
                client.recv(SOON)

    def test_close_wherever_it_is(self) -> None:
        with self.served() as server, FaultProxy("127.0.0.1", server.port) as proxy:
            client = self.client(proxy.url(scheme="wss")).open(SOON)
            reader = threading.Thread(target=lambda: list(client))
            reader.start()
            wait_until(lambda: client._inbox.receiving)
            proxy.both.stall(scope="current")
            started = time.monotonic()
            client.close(timeout=0.3)
            self.assertLess(time.monotonic() - started, SOON)
            reader.join(SOON)
            self.assertFalse(reader.is_alive())
            wait_until(lambda: client.state is ClientState.CLOSED)


if __name__ == "__main__":
    unittest.main()
