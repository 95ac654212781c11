"""The reception: TLS, opening handshake, place and name, all for strangers; and closing it while they are at it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from sync_ws import Connection, Hub
from sync_ws.server.admission import Reception
from sync_ws.server.options import ServerOptions
from sync_ws.testing import LedgerTestCase, make_certificates, wait_until
from tests.server.test_options import SERVER
from tests.support.held import held_elsewhere
from tests.support.raw import RawClient, handshake, read_response
from tests.support.server_case import LogLines
from tests.support.wire import join

PEER = ("a stranger", 0)


class HookedContext(ssl.SSLContext):
    """Does something while a socket is changed into a TLS one."""

    hook: Callable[[], object] = staticmethod(lambda: None)

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        secure = super().wrap_bio(*args, **options)
        self.hook()
        return secure


class ReceptionTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.hub = self.stack.enter_context(Hub(max_connections=1, name_policy="reject"))
        ours, theirs = socket.socketpair()
        self.sock, self.client = ours, self.stack.enter_context(RawClient.over(theirs))

    def reception(self, **options: Any) -> Reception:
        checked = ServerOptions(**{**SERVER, **options})
        reception = Reception(checked, checked.policy, self.hub)
        reception.expect(self.sock)
        return reception

    def hooked(self) -> tuple[Reception, HookedContext]:
        context = HookedContext(ssl.PROTOCOL_TLS_SERVER)
        return self.reception(ssl_context=context), context

    def gone(self, reception: Reception) -> None:
        """Nobody is being received, no place is taken, and the stranger sees the end."""
        self.assertEqual(self.client.read_to_end(), b"")
        self.assertEqual((reception.pending, self.sock.fileno()), (0, -1))
        self.hub.withdraw(self.hub.admit())

    def test_a_good_request_becomes_a_connection_with_a_place_and_a_name(self) -> None:
        reception = self.reception()
        self.assertEqual(reception.pending, 1)
        self.client.send(handshake("/ws/?name=a"))
        connection = reception.receive(self.sock, PEER)
        assert isinstance(connection, Connection)
        self.client.send_close(1000)
        self.assertEqual((read_response(self.client.sock).status, reception.pending), (101, 0))
        self.assertEqual((connection.name, connection.request.peer), ("a", PEER))
        self.assertEqual(self.hub.connections, frozenset())  # not shown before it is run
        self.hub.run(connection)
        self.assertEqual(self.hub.stats()["opened"], 1)

    def test_what_the_hub_refuses_is_answered_over_http(self) -> None:
        claim = self.hub.admit("a")
        reception = self.reception()
        self.client.send(handshake("/ws/?name=b"))
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assertIsNone(reception.receive(self.sock, PEER))
        answer = read_response(self.client.sock)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (503, "5"))
        self.hub.withdraw(claim)
        self.gone(reception)

    def test_a_taken_name_is_answered_over_http(self) -> None:
        self.hub = self.stack.enter_context(Hub(name_policy="reject"))
        self.hub.admit("a")
        reception = self.reception()
        self.client.send(handshake("/ws/?name=a"))
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assertIsNone(reception.receive(self.sock, PEER))
        self.assertEqual(read_response(self.client.sock).status, 409)

    def test_a_stranger_that_leaves_takes_no_place(self) -> None:
        reception = self.reception()
        self.client.send(b"GET /ws/ HT")
        self.client.sock.shutdown(socket.SHUT_WR)
        self.assertRaises(OSError, reception.receive, self.sock, PEER)
        self.gone(reception)

    def test_an_answer_that_cannot_be_sent_gives_the_place_back(self) -> None:
        reception = self.reception()
        self.client.send(handshake())
        self.sock.shutdown(socket.SHUT_WR)
        self.assertRaises(OSError, reception.receive, self.sock, PEER)
        self.gone(reception)

    def test_closing_cuts_off_who_is_being_received(self) -> None:
        reception = self.reception()
        caught: list[OSError] = []

        def receive() -> None:
            try:
                reception.receive(self.sock, PEER)
            except OSError as exc:
                caught.append(exc)

        thread = threading.Thread(target=receive)
        thread.start()
        self.client.send(b"GET /ws/ HT")
        wait_until(lambda: reception.pending == 1)
        reception.close()
        join(thread)
        self.assertEqual(len(caught), 1)
        self.gone(reception)

    def test_nobody_is_received_after_closing(self) -> None:
        reception = self.reception()
        reception.close()
        self.client.sock.shutdown(socket.SHUT_RD)
        with self.assertRaises(ConnectionAbortedError):
            reception.receive(self.sock, PEER)
        self.assertEqual(self.sock.fileno(), -1)

    def test_whoever_has_left_already_does_not_keep_the_others_from_being_cut_off(self) -> None:
        reception = self.reception()
        for _ in range(5):
            reception.expect(self.stack.enter_context(socket.socket()))  # not connected any more
        reception.close()
        self.assertEqual(self.client.read_to_end(), b"")
        self.sock.close()

    def test_a_forked_child_leaves_those_alone_who_are_being_received(self) -> None:
        """They are the parent's; and one of its threads may have been at work in here."""
        reception = self.reception()
        with held_elsewhere(reception._lock):
            reception.forget_in_child()
            reception.close()  # would wait for that thread, and then cut the stranger off
        self.assertEqual(reception.pending, 0)
        self.sock.send(b"x")
        self.assertEqual(self.client.sock.recv(1), b"x")
        self.sock.close()

    def test_closing_while_the_socket_changes_into_a_tls_one_is_not_missed(self) -> None:
        """Neither the plain nor the TLS socket is to be found then."""
        reception, context = self.hooked()
        context.hook = reception.close
        with self.assertRaises(ConnectionAbortedError):
            reception.receive(self.sock, PEER)
        self.gone(reception)

    def test_others_come_and_go_while_a_socket_changes_into_a_tls_one(self) -> None:
        """Making the TLS object takes its time, and is done under no lock."""
        reception, context = self.hooked()
        other = self.stack.enter_context(socket.socket())

        def come_and_go() -> None:
            reception.expect(other)
            reception.forget(other)

        def meanwhile() -> None:
            thread = threading.Thread(target=come_and_go, daemon=True)
            thread.start()
            thread.join(5)
            done.append(not thread.is_alive())
            reception.close()

        done: list[bool] = []
        context.hook = meanwhile
        self.assertRaises(ConnectionAbortedError, reception.receive, self.sock, PEER)
        self.assertEqual(done, [True])

    def test_who_fails_in_the_tls_handshake_is_told_of_with_the_reason(self) -> None:
        for data, says in ((handshake(), "expected TLS, got plain HTTP: use wss://"), (b"nonsense" * 9, "")):
            with self.subTest(data=data), LogLines() as log:
                self.sock, theirs = socket.socketpair()
                reception, client = self.hooked()[0], self.stack.enter_context(RawClient.over(theirs))
                client.send(data)
                self.assertRaises(ssl.SSLError, reception.receive, self.sock, PEER)
                (line,) = [line for line in log.lines if "refused" in line]
                self.assertTrue(line.startswith("INFO sync_ws.server refused TLS: a stranger:0, -: "), line)
                self.assertIn(says or "[SSL", line)
                self.assertEqual((reception.pending, self.sock.fileno()), (0, -1))

    def test_who_leaves_in_the_tls_handshake_is_not_told_of(self) -> None:
        reception, _ = self.hooked()
        self.client.sock.shutdown(socket.SHUT_WR)
        with LogLines() as log:
            self.assertRaises(OSError, reception.receive, self.sock, PEER)
        self.assertEqual((log.lines, reception.pending, self.sock.fileno()), ([], 0, -1))

    def test_over_tls_too_a_good_request_becomes_a_connection(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            certificates = make_certificates(folder)
            reception = self.reception(ssl_context=certificates.server_context())
            made: list[Connection | None] = []
            thread = threading.Thread(target=lambda: made.append(reception.receive(self.sock, PEER)))
            thread.start()
            context = certificates.client_context()
            self.client.sock = self.stack.enter_context(
                context.wrap_socket(self.client.sock, server_hostname="localhost")
            )
        self.client.upgrade()
        join(thread)
        (connection,) = made
        assert connection is not None
        self.assertTrue(connection.request.secure)
        self.client.send_close(1000)
        self.hub.run(connection)

    def test_a_socket_that_cannot_be_wrapped_is_closed(self) -> None:
        reception, _ = self.hooked()
        self.client.close()
        self.sock.close()
        self.assertRaises(OSError, reception.receive, self.sock, PEER)
        self.assertEqual(reception.pending, 0)
