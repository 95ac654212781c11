"""What a proxy does with one connection: each rule about bytes and ends, without a thread and without a port."""

from __future__ import annotations

import errno
import selectors
import socket
import unittest
from typing import Any
from unittest import mock

from sync_ws.testing._faults import Ending, Faults, Totals
from sync_ws.testing._flow import BUFFER, LINGER, Flow, Link, LinkState

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
MESSAGE = bytes(range(32, 64))


class FakeSocket(socket.socket):
    """Gives what was put into ``arrivals`` (b"": the end; or an error), and keeps what it is sent.

    ``takes``: how many bytes each send takes, or an error to raise; then everything.
    """

    def __init__(self, *arrivals: bytes | OSError, takes: tuple[int | OSError, ...] = ()) -> None:
        super().__init__()
        self.close()
        self.arrivals = list(arrivals)
        self.takes = list(takes)
        self.sends: list[bytes] = []
        self.said: list[Any] = []  # what else was asked of it
        self.error = 0
        self.connecting = errno.EINPROGRESS

    def recv(self, size: int, flags: int = 0) -> bytes:
        if not self.arrivals:
            raise BlockingIOError
        piece = self.arrivals.pop(0)
        if isinstance(piece, OSError):
            raise piece
        if len(piece) > size:
            self.arrivals.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: Any, flags: int = 0) -> int:
        size = self.takes.pop(0) if self.takes else len(data)
        if isinstance(size, OSError):
            raise size
        self.sends.append(bytes(data[:size]))
        return len(self.sends[-1])

    def shutdown(self, how: int) -> None:
        self.said.append(how)

    def setsockopt(self, *args: Any) -> None:
        self.said.append(args[1])

    def getsockopt(self, *args: Any) -> Any:
        return self.error

    def connect_ex(self, address: Any) -> int:
        self.said.append(address)
        return self.connecting


def flow(*arrivals: bytes | OSError, faults: Faults = Faults(), takes: tuple[int | OSError, ...] = ()) -> Flow:
    return Flow(FakeSocket(*arrivals), FakeSocket(takes=takes), faults, Totals())


def sends(of: Flow) -> list[bytes]:
    assert isinstance(of.sink, FakeSocket)
    return of.sink.sends


def said(sock: socket.socket) -> list[Any]:
    assert isinstance(sock, FakeSocket)
    return sock.said


class ForwardingTest(unittest.TestCase):
    def test_what_is_read_is_written_and_counted(self) -> None:
        one = flow(MESSAGE)
        one.read()
        self.assertIsNone(one.write(0.0))
        self.assertEqual((sends(one), one.forwarded), ([MESSAGE], len(MESSAGE)))
        self.assertEqual(one.totals, Totals(received=len(MESSAGE), forwarded=len(MESSAGE)))
        one.read()  # nothing is there
        self.assertIsNone(one.heard)

    def test_split_sends_each_piece_on_its_own(self) -> None:
        for size in (1, 5, 64):
            with self.subTest(size=size):
                one = flow(MESSAGE, faults=Faults(piece=size))
                one.read()
                self.assertIsNone(one.write(0.0))
                self.assertEqual(b"".join(sends(one)), MESSAGE)
                self.assertEqual({len(piece) for piece in sends(one)[:-1]} - {size}, set())

    def test_a_long_write_yields_and_comes_back_for_the_rest_and_the_end(self) -> None:
        one = flow(bytes(300), faults=Faults(piece=1, reset_at=256))
        one.read()
        self.assertIsNone(one.write(0.0))
        self.assertEqual(one.wants_turn_at(), 0.0)
        self.assertIs(one.write(0.0), Ending.RESET)
        self.assertEqual(len(sends(one)), 256)

    def test_a_sink_that_takes_no_more_is_waited_for_and_reading_pauses_when_the_buffer_is_full(self) -> None:
        for refusal in (BlockingIOError(), InterruptedError()):
            one = flow(bytes(BUFFER + 10), faults=Faults(), takes=(5, refusal))
            one.read()
            one.write(0.0)
            self.assertTrue(one.blocked)
            self.assertEqual((one.forwarded, one.wants_turn_at()), (5, None))  # the selector will tell
            self.assertTrue(one.wants_input())
            one.read()
            self.assertEqual((len(one.pending), one.wants_input()), (BUFFER, False))
            one.read()
            self.assertEqual(one.totals.received, BUFFER + 5)
            one.write(0.0)
            self.assertEqual(one.forwarded, 5)
            one.blocked = False
            one.write(0.0)
            self.assertEqual(one.forwarded, BUFFER + 5)

    def test_a_throttled_flow_says_when_it_wants_its_next_turn(self) -> None:
        one = flow(bytes(20), faults=Faults(rate=100))
        one.read()
        self.assertEqual(one.wants_turn_at(), 0.0)
        one.write(50.0)
        self.assertEqual((one.forwarded, one.wants_turn_at()), (5, 50.05))
        one.write(50.04)
        self.assertEqual(one.forwarded, 5)
        one.write(50.06)
        self.assertEqual(one.forwarded, 10)
        one.configure(Faults())
        one.write(50.06)
        self.assertEqual((one.forwarded, one.wants_turn_at()), (20, None))

    def test_corrupted_bytes_are_those_of_the_whole_stream(self) -> None:
        one = flow(b"aaaa", b"aaaa", faults=Faults(flips=((5, 1),)))
        for _ in range(2):
            one.read()
            one.write(0.0)
        self.assertEqual(b"".join(sends(one)), b"aaaaa`aa")


class EndsTest(unittest.TestCase):
    def test_the_end_of_the_source_is_passed_on_behind_its_bytes_once(self) -> None:
        one = flow(b"ab", b"")
        one.read()
        one.read()
        self.assertFalse(one.wants_input())
        one.write(0.0)
        self.assertTrue(one.finished)
        one.write(0.0)
        self.assertEqual((sends(one), said(one.sink)), ([b"ab"], [socket.SHUT_WR]))

    def test_a_sink_that_is_gone_already_minds_no_end(self) -> None:
        one = flow(b"")
        one.read()
        with mock.patch.object(one.sink, "shutdown", side_effect=OSError):
            self.assertIsNone(one.write(0.0))
        self.assertTrue(one.finished)

    def test_a_reset_overtakes_what_waits(self) -> None:
        one = flow(b"ab", ConnectionResetError())
        one.read()
        one.read()
        self.assertEqual((one.heard, one.wants_turn_at()), (Ending.RESET, 0.0))
        self.assertIs(one.write(0.0), Ending.RESET)
        self.assertEqual(sends(one), [])

    def test_a_cut_lets_through_what_stands_before_it(self) -> None:
        one = flow(MESSAGE, faults=Faults(cut_at=7))
        one.read()
        self.assertIs(one.write(0.0), Ending.FIN)
        self.assertEqual(sends(one), [MESSAGE[:7]])

    def test_a_sink_that_breaks_makes_the_rest_of_the_stream_disappear(self) -> None:
        one = flow(b"abc", b"de", takes=(1, BrokenPipeError()), faults=Faults(piece=1))
        one.read()
        one.write(0.0)
        self.assertTrue(one.sink_gone)
        one.read()
        self.assertEqual((one.pending, one.totals.discarded, one.forwarded), (b"", 4, 1))

    def test_a_stalled_flow_reads_nothing_and_keeps_even_the_reset_back(self) -> None:
        one = flow(MESSAGE, ConnectionResetError())
        one.read()
        one.read()
        one.configure(Faults(mode="stall"))
        self.assertEqual((one.wants_input(), one.wants_turn_at(), one.write(0.0)), (False, None, None))
        one.configure(Faults(mode="stall", cut_at=0))
        self.assertIs(one.write(0.0), Ending.FIN)

    def test_a_black_hole_discards_what_waits_and_what_comes(self) -> None:
        one = flow(b"abc", b"de", b"")
        one.read()
        one.configure(Faults(mode="blackhole"))
        one.read()
        one.read()
        self.assertEqual((one.totals.discarded, one.heard, one.write(0.0), sends(one)), (5, Ending.FIN, None, []))
        self.assertFalse(one.finished)


class LinkTest(unittest.TestCase):
    def setUp(self) -> None:
        self.client, self.server = FakeSocket(), FakeSocket()
        self.link = self.make()

    def make(self, **settings: Faults) -> Link:
        faults: Any = {"to_server": Faults(), "to_client": Faults(), **settings}
        return Link(self.client, self.server, faults, {"to_server": Totals(), "to_client": Totals()})

    def open(self, **settings: Faults) -> Link:
        self.link = self.make(**settings)
        self.link.dial(("127.0.0.1", 1))
        self.link.handle(self.server, WRITE)
        self.assertIs(self.link.state, LinkState.OPEN)
        self.client.said.clear()
        self.server.said.clear()
        return self.link

    def arrives(self, at: FakeSocket, *pieces: bytes | OSError) -> None:
        """They come one after the other; each is dealt with."""
        for piece in pieces:
            at.arrivals.append(piece)
            self.link.handle(at, READ)
            self.link.pump(50.0)

    def test_while_it_connects_nothing_is_read_and_its_end_is_a_reset_for_the_client(self) -> None:
        link = self.link
        link.dial(("127.0.0.1", 1))
        self.assertEqual(
            (self.server.said, link.interest(self.client), link.interest(self.server)), ([("127.0.0.1", 1)], 0, WRITE)
        )
        self.assertIsNone(link.wants_turn_at())
        link.pump(50.0)
        self.server.error = errno.ECONNREFUSED
        link.handle(self.server, WRITE)
        self.assertIs(link.state, LinkState.CLOSED)
        self.assertEqual(self.client.said, [socket.SO_LINGER])

    def test_a_connection_that_is_refused_at_once_is_a_reset_too(self) -> None:
        self.server.connecting = errno.ECONNREFUSED
        self.link.dial(("127.0.0.1", 1))
        self.assertIs(self.link.state, LinkState.CLOSED)

    def test_bytes_go_both_ways_and_both_ends_close_it(self) -> None:
        link = self.open()
        self.arrives(self.client, b"there")
        self.arrives(self.server, b"back", b"")
        self.assertEqual(
            (self.server.sends, self.client.sends, self.client.said), ([b"there"], [b"back"], [socket.SHUT_WR])
        )
        self.assertEqual((link.interest(self.client), link.interest(self.server)), (READ, 0))
        self.arrives(self.client, b"more", b"")
        self.assertEqual((self.server.sends, link.state), ([b"there", b"more"], LinkState.CLOSED))
        self.assertEqual((link.interest(self.client), link.wants_turn_at()), (0, None))
        link.handle(self.client, READ)  # of the same turn
        link.release()

    def test_a_sink_that_is_full_is_waited_for(self) -> None:
        link = self.open()
        self.server.takes = [BlockingIOError()]
        self.arrives(self.client, MESSAGE)
        self.assertEqual(link.interest(self.server), READ | WRITE)
        link.handle(self.server, WRITE)
        link.pump(50.0)
        self.assertEqual((self.server.sends, link.interest(self.server)), ([MESSAGE], READ))

    def test_a_broken_sink_is_the_end_of_what_it_would_have_said(self) -> None:
        link = self.open()
        self.server.takes = [BrokenPipeError()]
        self.arrives(self.client, MESSAGE)
        self.assertIs(link.to_client.heard, Ending.RESET)
        self.assertIs(link.state, LinkState.CLOSED)
        self.assertEqual((self.client.said, self.server.said), ([socket.SO_LINGER], [socket.SO_LINGER]))

    def test_the_earlier_of_two_turns_is_the_links(self) -> None:
        link = self.open(to_server=Faults(rate=100), to_client=Faults(rate=10))
        self.arrives(self.client, bytes(20))
        self.assertEqual(link.wants_turn_at(), 50.05)
        self.arrives(self.server, bytes(20))
        self.assertEqual(link.wants_turn_at(), 50.05)

    def test_a_cut_says_fin_to_both_and_lingers_until_both_have_said_it_too(self) -> None:
        link = self.open(to_client=Faults(cut_at=2))
        self.arrives(self.server, b"abc")
        self.assertIs(link.state, LinkState.LINGERING)
        self.assertEqual(
            (self.client.sends, self.client.said, self.server.said), ([b"ab"], [socket.SHUT_WR], [socket.SHUT_WR])
        )
        self.assertEqual((link.interest(self.client), link.wants_turn_at()), (READ, 50.0 + LINGER))
        link.cut(51.0)
        self.arrives(self.client, b"discarded", b"")
        self.assertEqual((link.interest(self.client), link.state), (0, LinkState.LINGERING))
        self.arrives(self.server, b"")
        self.assertEqual((link.state, self.server.sends), (LinkState.CLOSED, []))

    def test_peers_that_hold_on_are_left_after_a_while(self) -> None:
        link = self.open()
        link.cut(50.0)
        link.pump(50.0 + LINGER - 0.01)
        self.assertIs(link.state, LinkState.LINGERING)
        link.pump(50.0 + LINGER)
        self.assertIs(link.state, LinkState.CLOSED)
        link.cut(60.0)
        self.assertIs(link.state, LinkState.CLOSED)

    def test_trouble_with_a_socket_that_is_gone_stops_no_ending(self) -> None:
        for end in ("cut", "abort"):
            link = self.open()
            for sock in (self.client, self.server):
                sock.shutdown = sock.setsockopt = mock.Mock(side_effect=OSError)  # type: ignore[method-assign]
            if end == "cut":
                link.cut(50.0)
            else:
                link.abort()
            self.assertIs(link.state, LinkState.LINGERING if end == "cut" else LinkState.CLOSED)

    def test_the_end_of_a_reset_source_is_a_reset_for_the_other(self) -> None:
        self.open()
        self.arrives(self.client, ConnectionResetError())
        self.assertIs(self.link.state, LinkState.CLOSED)
        self.assertEqual(self.server.said, [socket.SO_LINGER])


if __name__ == "__main__":
    unittest.main()
