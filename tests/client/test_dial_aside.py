"""What a dial does aside from the straight way: threads whose results come too late, and what interrupts it."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws import HandshakeError, HandshakeTimeout, should_reconnect
from sync_ws.client.address import parse_url
from sync_ws.client.dial import Dial
from sync_ws.endings import Reason
from sync_ws.testing import free_port, wait_until
from sync_ws.timing import Deadline
from tests.support.dial_case import SOON, DialTestCase
from tests.support.scripted import ScriptedServer, Wire
from tests.support.wire import join

URL = "ws://a.test/"


def found(*places: Any) -> Any:
    """The resolver finds these."""
    return mock.patch(
        "socket.getaddrinfo", lambda *args: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    )


class AsideTest(DialTestCase):
    """A function that cannot be interrupted."""

    def aside(self, function: Callable[[], str], wait: Callable[..., None]) -> list[str]:
        """What was discarded of it, where the wait for it ends so."""
        dial, discarded = Dial(parse_url(URL)), list[str]()
        with mock.patch.object(dial, "wait", wait), self.assertRaisesRegex(HandshakeError, "given up"):
            dial._aside(function, discarded.append)
        return discarded

    def test_a_result_that_came_in_the_moment_of_giving_up_is_discarded_once(self) -> None:
        def give_up(*args: Any) -> None:
            wait_until(lambda: not any(thread.name == "sync_ws-aside" for thread in threading.enumerate()))
            raise HandshakeError(Reason("given up"))

        self.assertEqual(self.aside(lambda: "result", give_up), ["result"])
        self.assertEqual(self.aside(mock.Mock(side_effect=OSError), give_up), [])

    def test_a_result_that_comes_later_is_discarded_once(self) -> None:
        for outcome, expected in (("result", ["result"]), (OSError(), [])):
            release = threading.Event()
            function = mock.Mock(side_effect=[outcome])

            def run(release: threading.Event = release, function: Any = function) -> Any:
                release.wait(SOON)
                return function()

            with self.subTest(expected):
                discarded = self.aside(run, mock.Mock(side_effect=HandshakeError(Reason("given up"))))
                self.assertEqual(discarded, [])
                (thread,) = [thread for thread in threading.enumerate() if thread.name == "sync_ws-aside"]
                self.assertTrue(thread.daemon, "it keeps no program alive")
                release.set()
                join(thread)
                self.assertEqual(discarded, expected)

    def test_a_result_in_time_is_returned_and_what_is_raised_is_raised(self) -> None:
        dial = Dial(parse_url(URL))
        discard = mock.Mock()
        self.assertEqual(dial._aside(lambda: "result", discard), "result")
        with self.assertRaisesRegex(OSError, "on purpose"):
            dial._aside(mock.Mock(side_effect=OSError("on purpose")), discard)
        discard.assert_not_called()


class FaultTest(DialTestCase):
    def test_an_interrupt_is_not_taken_for_a_fault_and_leaves_no_socket(self) -> None:
        with (
            mock.patch.object(Dial, "_connect_one", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            self.dial("ws://127.0.0.1:9/")

    def test_a_fault_of_tls_before_the_handshake_is_told_and_its_cause_is_kept(self) -> None:
        error = ssl.SSLError(1, "[SSL] on purpose")
        error.reason = "ON_PURPOSE"
        with ScriptedServer(Wire.wait_for_end) as server, mock.patch("sync_ws.client.tls.default_context") as context:
            context.side_effect = error
            failed = self.fail_to_dial(server.url().replace("ws:", "wss:"))
        self.assertIn("on purpose", str(failed))
        self.assertIs(failed.__cause__, error)

    def test_a_fault_of_the_system_has_its_cause(self) -> None:
        error = self.fail_to_dial(f"ws://127.0.0.1:{free_port()}/")
        self.assertIsInstance(error.__cause__, ConnectionRefusedError)
        self.assertFalse(error.reason.permanent)
        self.assertFalse(error.reason.by_us)

    def test_no_handshake_without_a_valid_answer_has_its_cause(self) -> None:
        with ScriptedServer(lambda wire: wire.switch(headers=("Sec-WebSocket-Protocol: c",))) as server:
            error = self.fail_to_dial(server.url())
        self.assertIsInstance(error.__cause__, ValueError)
        self.assertIsInstance(error.reason.error, ValueError)


class AddressesTest(DialTestCase):
    def test_a_connection_that_is_there_at_once_is_not_waited_for(self) -> None:
        def connect_ex(sock: socket.socket, address: Any) -> int:
            sock.setblocking(True)
            sock.connect(address)
            sock.setblocking(False)
            return 0

        with ScriptedServer(Wire.switch) as server:
            dial = Dial(parse_url(server.url()))
            sock = socket.socket()
            self.addCleanup(sock.close)
            connecting = mock.patch("socket.socket.connect_ex", connect_ex)
            with connecting, mock.patch.object(dial, "wait", side_effect=AssertionError("waited")):
                dial._connect_one(sock, ("127.0.0.1", server.port), Deadline(SOON))
            self.assertEqual(sock.getpeername()[1], server.port)

    def test_where_no_address_answers_the_last_one_says_why(self) -> None:
        answers = [errno.ENETUNREACH, errno.EHOSTUNREACH]
        with found(("127.0.0.1", 1), ("127.0.0.2", 1)), mock.patch("socket.socket.connect_ex", side_effect=answers):
            error = self.fail_to_dial(URL)
        self.assertIn("No route to host", str(error))
        self.assertTrue(should_reconnect(error.reason))

    def test_the_first_that_answers_is_taken(self) -> None:
        with ScriptedServer(Wire.switch) as server, ScriptedServer(Wire.switch) as other:
            places = [("127.0.0.1", free_port()), ("127.0.0.1", server.port), ("127.0.0.1", other.port)]
            with found(*places):
                opened = self.dial(URL)
            self.assertEqual(opened.sock.getpeername(), places[1])
            self.assertFalse(opened.sock.getblocking())
            self.assertEqual(other.accepted, 0)

    def test_each_address_gets_its_share_of_the_time_that_is_left(self) -> None:
        shares: list[float] = []

        def connect_one(dial: Dial, sock: socket.socket, address: Any, share: Deadline) -> None:
            shares.append(share.remaining() or 0.0)
            raise OSError(errno.ECONNREFUSED, "refused")

        with found(*[("127.0.0.1", 1)] * 3), mock.patch.object(Dial, "_connect_one", connect_one):
            self.fail_to_dial(URL, timeout=60.0)
        for share, expected in zip(shares, (20.0, 30.0, 60.0), strict=True):
            self.assertAlmostEqual(share, expected, delta=5.0)

    def test_an_address_that_is_one_asks_no_resolver(self) -> None:
        with ScriptedServer(Wire.switch) as server, mock.patch.object(Dial, "_aside", side_effect=AssertionError):
            self.dial(server.url())


class DeadlineTest(DialTestCase):
    def test_the_time_is_counted_from_the_run(self) -> None:
        with ScriptedServer(Wire.switch) as server:
            dial = Dial(parse_url(server.url()), timeout=SOON)
            dial._deadline = Deadline(0.0)  # as if it had been made long ago
            dial.run().sock.close()

    def test_past_the_deadline_what_comes_is_too_late(self) -> None:
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        far.send(b"x")
        dial = Dial(parse_url(URL), timeout=1)
        dial._deadline = Deadline(0.0)
        with self.assertRaisesRegex(HandshakeTimeout, r"^no open connection to a\.test:80 within 1 s$"):
            dial.wait(near, 1)

    def test_past_the_share_of_one_address_it_is_the_address_that_does_not_answer(self) -> None:
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        dial, begun = Dial(parse_url(URL), timeout=60), time.monotonic()
        with self.assertRaisesRegex(TimeoutError, "this address does not answer") as caught:
            dial.wait(near, 1, Deadline(0.01))
        self.assertNotIsInstance(caught.exception, HandshakeTimeout)
        self.assertEqual(caught.exception.errno, errno.ETIMEDOUT)
        self.assertLess(time.monotonic() - begun, SOON)


class OwnerTest(DialTestCase):
    def test_where_to_is_there_to_be_asked(self) -> None:
        target = parse_url(URL)
        self.assertIs(Dial(target).target, target)

    def test_whoever_interrupted_cancel_in_its_own_thread_can_tell(self) -> None:
        dial, seen = Dial(parse_url("ws://127.0.0.1:9/")), list[bool]()
        self.assertIs(dial.held_here, False)

        def connect(*args: Any) -> None:
            assert dial._waker is not None
            seen.append(dial.held_here)
            with dial._waker._lock:
                seen.append(dial.held_here)
            raise OSError(errno.ECONNREFUSED, "refused")

        with mock.patch.object(Dial, "_connect_one", connect), self.assertRaises(HandshakeError):
            dial.run()
        self.assertEqual(seen, [False, True])


if __name__ == "__main__":
    unittest.main()
