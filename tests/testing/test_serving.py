"""serving(), free_port() and wait_until(), mostly with a stand-in for the server."""

from __future__ import annotations

import socket
import threading
import unittest
from typing import Any, ClassVar
from unittest import mock

from sync_ws.testing import LedgerTestCase, free_port, serving, wait_until


class StandIn:
    """Takes the place of sync_ws.server.Server and notes what is done with it."""

    made: ClassVar[list[StandIn]] = []
    left: tuple[threading.Thread, ...] = ()

    def __init__(self, host: str, port: int, handler: Any = None, **options: Any) -> None:
        self.arguments = (host, port, handler, options)
        self.log: list[object] = []
        StandIn.made.append(self)

    def start(self) -> None:
        self.log.append("start")
        if self.arguments[3].get("broken"):
            raise OSError("on purpose")

    def shutdown(self, timeout: float) -> tuple[threading.Thread, ...]:
        self.log.append(timeout)
        return self.left


class Serving(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        StandIn.made = []
        patch = mock.patch("sync_ws.server.server.Server", StandIn)
        patch.start()
        self.addCleanup(patch.stop)

    def test_it_is_started_on_a_free_port_and_shut_down(self) -> None:
        with serving(print, path="/x/") as server:
            self.assertIs(server, StandIn.made[0])
            self.assertEqual(StandIn.made[0].log, ["start"])
        self.assertEqual(StandIn.made[0].arguments, ("127.0.0.1", 0, print, {"path": "/x/"}))
        self.assertEqual(StandIn.made[0].log, ["start", 5.0])

    def test_a_thread_left_is_named(self) -> None:
        with (
            mock.patch.object(StandIn, "left", (threading.Thread(name="the handler"),)),
            self.assertRaisesRegex(AssertionError, "0.5 s after.*: the handler"),
            serving(shutdown_timeout=0.5),
        ):
            pass

    def test_an_exception_of_the_block_takes_precedence_and_the_server_ends(self) -> None:
        with (
            mock.patch.object(StandIn, "left", (threading.Thread(name="the handler"),)),
            self.assertRaises(KeyError),
            serving(),
        ):
            raise KeyError
        self.assertEqual(StandIn.made[0].log, ["start", 5.0])

    def test_a_server_that_does_not_start_is_shut_down(self) -> None:
        with self.assertRaises(OSError), serving(broken=True):
            self.fail("not reached")
        self.assertEqual(StandIn.made[0].log, ["start", 5.0])


class RealServer(LedgerTestCase):
    def test_a_real_server_accepts_and_ends_clean(self) -> None:
        with serving() as server, socket.create_connection(("127.0.0.1", server.port), 5):
            self.assertIn(f":{server.port}/", server.url)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 5).close()


class FreePort(LedgerTestCase):
    def test_nobody_listens_there_and_it_can_be_bound(self) -> None:
        port = free_port()
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 5).close()
        with socket.create_server(("127.0.0.1", port)) as listener:
            self.assertEqual(listener.getsockname()[1], port)


class WaitUntil(LedgerTestCase):
    def test_it_returns_what_the_predicate_returns(self) -> None:
        self.assertEqual(wait_until(lambda: "yes", 0), "yes")

    def test_it_waits_for_another_thread(self) -> None:
        event = threading.Event()
        timer = threading.Timer(0.02, event.set)
        timer.start()
        self.assertTrue(wait_until(event.is_set))
        timer.join(5)

    def test_it_gives_up_with_the_message(self) -> None:
        with self.assertRaisesRegex(AssertionError, r"the moon is full \(waited 0.02 s; last: \[\]\)"):
            wait_until(list, 0.02, "the moon is full")

    def test_an_exception_of_the_predicate_is_the_callers(self) -> None:
        with self.assertRaises(ZeroDivisionError):
            wait_until(lambda: 1 / 0)


if __name__ == "__main__":
    unittest.main()
