"""The transports: bytes over a plain and over a TLS socket, blocking where told and never elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from sync_ws.channel.channel import Channel
from sync_ws.channel.limits import Limits
from sync_ws.endings import Reason
from sync_ws.errors import ConnectionClosed, SendTimeout
from sync_ws.interrupts import STEP
from sync_ws.net import transport as module
from sync_ws.net.tls import TlsSocket
from sync_ws.net.transport import PlainTransport, PortableTransport, TlsTransport, Transport, transport_for
from sync_ws.protocol.deflate import Deflate, Negotiation
from sync_ws.testing import Certificates, LedgerTestCase, make_certificates, wait_until
from tests.support.wire import join, make_channel

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[2]


def now(values: Iterator[Any]) -> Any:
    """What a read that does not wait gives, None for nothing."""
    try:
        return next(values)
    except BlockingIOError:
        return None


def sent(counts: Iterator[int]) -> int:
    """How much of a write was taken."""
    return now(counts) or 0


def shaken(sock: TlsSocket) -> TlsSocket:
    sock.do_handshake()
    return sock


class TransportTestCase(LedgerTestCase):
    certificates: Certificates

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        cls.certificates = make_certificates(folder)

    def sockets(self, tls: bool) -> tuple[socket.socket, socket.socket]:
        """A connected pair over loopback; with TLS the first one is the server's."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = socket.create_connection(listener.getsockname())
            here, _ = listener.accept()
        if tls:
            wrapped: list[socket.socket] = []
            context = self.certificates.client_context()
            plain = there
            thread = threading.Thread(
                target=lambda: wrapped.append(shaken(TlsSocket(plain, context, server_hostname="localhost")))
            )
            thread.start()
            here = shaken(TlsSocket(here, self.certificates.server_context(), server_side=True))
            join(thread)
            there = wrapped[0]
        self.addCleanup(here.close)
        self.addCleanup(there.close)
        return here, there

    def transports(self, tls: bool) -> tuple[Transport, Transport]:
        here, there = self.sockets(tls)
        return transport_for(here), transport_for(there)

    def start(self, function: Callable[[], Any]) -> threading.Thread:
        thread = threading.Thread(target=function)
        thread.start()
        self.addCleanup(join, thread)
        return thread

    def send_all(self, transport: Transport, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[sent(transport.sending(view)) :]
            if view:
                transport.wait_writable(5)


class Plain(TransportTestCase):
    def test_which_transport_a_socket_gets(self) -> None:
        for portable in (False, True):
            with mock.patch.object(module, "_PORTABLE", portable):
                plain = PortableTransport if portable else PlainTransport
                self.assertEqual([type(end) for end in self.transports(False)], [plain] * 2)
                self.assertEqual([type(end) for end in self.transports(True)], [TlsTransport] * 2)

    def test_a_socket_that_only_wraps_one_gets_the_portable_transport(self) -> None:
        ours, theirs = self.sockets(False)
        wrapper = mock.Mock(wraps=ours)  # as gevent's is one
        transport = transport_for(wrapper)
        self.assertIs(type(transport), PortableTransport)
        self.assertEqual(ours.gettimeout(), 0)
        theirs.send(b"x")
        self.assertEqual(next(transport.receiving(10)), b"x")
        with self.assertRaises(BlockingIOError):
            next(transport.receiving_now(10))

    def test_where_it_is_asked_for_and_where_there_are_no_flags_it_is_the_portable_transport(self) -> None:
        code = (
            "import socket\n{}\nfrom sync_ws.net.transport import *\nprint(type(transport_for(socket.socketpair()[0])))"
        )
        for change, asked, expected in (
            ("", "", "PlainTransport"),
            ("", "1", "PortableTransport"),
            ("del socket.MSG_DONTWAIT, socket.MSG_MORE", "", "PortableTransport"),
            ("import sys; sys.modules['fcntl'] = sys.modules['termios'] = None", "", "PlainTransport"),
        ):
            done = subprocess.run(
                [sys.executable, "-W", "ignore::ResourceWarning", "-c", code.format(change)],
                env={**os.environ, "SYNC_WS_PORTABLE": asked}, cwd=ROOT, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            self.assertIn(expected, done.stdout, done.stderr)

    def test_a_message_does_not_wait_for_more(self) -> None:
        for tls in (False, True):
            here, _there = self.sockets(tls)
            transport_for(here)
            self.assertTrue(here.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def test_the_hint_of_more_to_come_goes_with_that_write_alone(self) -> None:
        sock = mock.create_autospec(socket.socket, instance=True)
        transport = PlainTransport(sock)
        sent(transport.sending_more(b"head"))
        sent(transport.sending(b"body"))
        flags = [call.args[1] for call in sock.send.call_args_list]
        self.assertEqual(flags, [socket.MSG_DONTWAIT | socket.MSG_MORE, socket.MSG_DONTWAIT])

    def test_an_urgent_byte_is_nothing_to_read(self) -> None:
        here, there = self.sockets(False)
        transport = transport_for(here)
        there.send(b"!", socket.MSG_OOB)
        self.assertTrue(select.select([], [], [here], 10)[2], "it has come")
        self.assertFalse(transport.wait_readable(0))
        self.assertIsNone(now(transport.receiving_now(10)))
        there.send(b"x")
        self.assertTrue(transport.wait_readable(10))
        self.assertEqual(next(transport.receiving(10)), b"x")

    def test_a_socket_that_is_not_tcp_is_fine(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        transport = transport_for(ours)
        theirs.sendall(b"x")
        self.assertEqual(next(transport.receiving(10)), b"x")


class Each(TransportTestCase):
    """Each test with plain sockets and with TLS."""

    def test_bytes_arrive_as_they_were_sent(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            data = os.urandom(3 * MIB)
            sender = self.start(lambda: self.send_all(there, data))  # noqa: B023
            got = bytearray()
            while len(got) < len(data):
                if len(got) % 2:
                    room = bytearray(50_000)
                    size = next(here.receiving_into(memoryview(room)))
                    got += room[:size]
                else:
                    got += next(here.receiving(65_537))
            join(sender)
            self.assertEqual(got, data)

    def test_nothing_there_is_none_and_the_end_is_empty(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            room = memoryview(bytearray(10))
            wait_until(lambda: now(here.receiving_now(10)) is None)  # noqa: B023
            self.assertIsNone(now(here.receiving_into_now(room)))
            self.send_all(there, b"abcd")
            self.assertTrue(here.wait_readable(5))
            wait_until(lambda: now(here.receiving_into_now(room[:2])) == 2)  # noqa: B023
            self.assertEqual((bytes(room[:2]), now(here.receiving_now(10))), (b"ab", b"cd"))
            there.shutdown(socket.SHUT_WR)
            self.assertTrue(here.wait_readable(5))
            self.assertEqual(
                (next(here.receiving(10)), now(here.receiving_now(10)), next(here.receiving_into(room))), (b"", b"", 0)
            )
            self.assertEqual(now(here.receiving_into_now(room)), 0)

    def test_a_read_in_steps_comes_back_after_each_and_loses_nothing(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            reads, room = here.receiving(10), memoryview(bytearray(10))
            here.step_reads()
            if type(here) is PortableTransport or isinstance(self, Portable):  # there it is the wait that has steps
                continue
            with contextlib.suppress(BlockingIOError):  # TLS may have something to tell first
                while True:
                    begun = time.monotonic()
                    next(reads)
            self.assertLess(time.monotonic() - begun, STEP + 1.5)
            with self.assertRaises(BlockingIOError):
                next(here.receiving_into(room))
            self.send_all(there, b"abcd")
            self.assertEqual(next(reads), b"abcd")
            self.send_all(there, b"efgh")
            self.assertEqual(next(here.receiving_into(room)), 4)
            here.close()
            here.step_reads()  # raises nothing

    def test_a_reader_of_half_a_record_is_told_that_the_rest_waits(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            self.send_all(there, b"x" * 1000)
            self.assertEqual(next(here.receiving(10)), b"x" * 10)
            self.assertTrue(here.wait_readable(0))  # TLS has it decrypted: the descriptor itself has nothing any more
            self.assertEqual(next(here.receiving(2000)), b"x" * 990)

    def test_a_write_never_blocks_and_goes_on_when_the_peer_reads(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            data, total = os.urandom(64 * 1024), 0
            began = time.monotonic()
            expected = bytearray()
            rest = memoryview(data)
            while True:
                size = sent(here.sending(rest))
                expected += rest[:size]
                total += size
                if not size:
                    break
                rest = rest[size:] or memoryview(data)  # what was begun has to be completed
            self.assertLess(time.monotonic() - began, 10)
            self.assertFalse(here.wait_writable(0))
            self.assertEqual((sent(here.sending(rest)), sent(here.sending_more(rest))), (0, 0))
            got = bytearray()
            while len(got) < total:
                got += next(there.receiving(MIB))
            self.assertEqual(got, expected)
            self.assertTrue(here.wait_writable(5))
            self.send_all(here, bytes(rest))  # TLS has begun with these
            while len(got) < total + len(rest):
                got += next(there.receiving(MIB))
            self.assertEqual(got, expected + rest)

    def test_a_write_with_more_to_come_arrives_in_its_order(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            self.assertEqual((sent(here.sending_more(b"ab")), sent(here.sending(b"cd"))), (2, 2))
            got = b""
            while len(got) < 4:
                got += next(there.receiving(10))
            self.assertEqual(got, b"abcd")

    def test_shutdown_wakes_a_blocked_reader_and_never_raises(self) -> None:
        for tls in (False, True):
            here, _there = self.transports(tls)
            got: list[bytes] = []
            reader = self.start(lambda: got.append(next(here.receiving(10))))  # noqa: B023
            here.shutdown()
            join(reader)
            self.assertEqual(got, [b""])
            here.shutdown()
            here.close()
            here.shutdown()
            self.assertEqual(here.fileno(), -1)
            self.assertTrue(here.wait_readable(60))
            self.assertTrue(here.wait_writable(60))
            with self.assertRaises(OSError):
                now(here.receiving_now(1))
            with self.assertRaises(OSError):
                sent(here.sending(b"x"))
            with self.assertRaises(OSError):
                sent(here.sending_more(b"x"))

    def test_what_waits_in_the_socket_can_be_counted_without_reading_it(self) -> None:
        for tls in (False, True):
            here, there = self.transports(tls)
            self.send_all(there, b"x")
            self.assertEqual(next(here.receiving(1)), b"x")  # and whatever TLS had to tell before it
            self.assertEqual((here.unread(), here.crowded()), (0, False))
            self.send_all(there, bytes(1000))
            wait_until(lambda: here.unread() >= 1000)  # noqa: B023
            self.assertLess(here.unread(), 1100)
            self.assertFalse(here.crowded())
            self.send_all(there, bytes(100_000))
            wait_until(here.crowded)
            here.close()
            self.assertEqual((here.unread(), here.crowded()), (0, False))

    def test_where_the_system_does_not_tell_how_much_waits_it_is_looked_at(self) -> None:
        with mock.patch.object(module, "fcntl", None):
            self.test_what_waits_in_the_socket_can_be_counted_without_reading_it()

    def test_a_socket_pair_is_crowded_by_the_first_byte(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        transport = transport_for(ours)
        self.assertFalse(transport.crowded())
        theirs.send(b"x")
        self.assertTrue(transport.crowded())
        transport.close()

    def test_a_tls_peer_that_vanishes_without_goodbye_is_the_end_of_the_stream(self) -> None:
        here, there = self.sockets(True)
        transport = transport_for(here)
        socket.socket.shutdown(there, socket.SHUT_WR)  # the TCP stream ends, and TLS has not said so
        self.assertEqual(next(transport.receiving(10)), b"")


class Portable(Each):
    """The same promises where sockets never block."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(module, "_PORTABLE", True)
        patch.start()
        self.addCleanup(patch.stop)

    def test_a_write_has_no_flags(self) -> None:
        sock = mock.create_autospec(socket.socket, instance=True)
        transport = PortableTransport(sock)
        sent(transport.sending_more(b"head"))
        sent(transport.sending(b"body"))
        self.assertEqual(sock.send.call_args_list, [mock.call(b"head"), mock.call(b"body")])


class TlsChannels(TransportTestCase):
    """Reading and writing at once over one TLS socket, which Python alone does not allow."""

    def channels(self, deflate: bool = False, **limits: Any) -> tuple[Channel, Channel]:
        made = []
        for sock, client in zip(self.sockets(True), (False, True)):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            channel, _ = make_channel(
                sock, client=client, limits=Limits(**limits), deflate=Deflate(Negotiation()) if deflate else None
            )
            made.append(channel)

        def clean() -> None:
            for channel in made:
                channel.abort(Reason("the test is over"))
                channel.release()

        self.addCleanup(clean)
        return made[0], made[1]

    def test_several_threads_send_both_ways_at_once(self) -> None:
        for deflate in (False, True):
            pair = self.channels(deflate)
            count = 150
            got: dict[Channel, list[Any]] = {channel: [] for channel in pair}

            def send(channel: Channel, name: int, count: int = count) -> None:
                for number in range(count):
                    size = 100_000 if number % 50 == 7 else 200
                    channel.send(b"%d %d " % (name, number) + bytes([name]) * size)

            def read(channel: Channel, count: int = count, got: dict[Channel, list[Any]] = got) -> None:
                for _ in range(4 * count):
                    got[channel].append(channel.read(20))

            threads = [self.start(lambda c=c: read(c)) for c in pair]  # type: ignore[misc]
            threads += [self.start(lambda c=c, n=n: send(c, n)) for c in pair for n in range(4)]  # type: ignore[misc]
            join(*threads, timeout=40)
            for messages in got.values():
                for name in range(4):
                    parts = [message.split(b" ", 2) for message in messages if message[0] == ord(str(name))]
                    self.assertEqual([int(number) for _, number, _ in parts], list(range(count)))
                    self.assertTrue(all(set(rest) == {name} for _, _, rest in parts))

    def test_the_write_deadline_over_tls(self) -> None:
        server, _ = self.channels(send_timeout=0.2)
        with self.assertRaises(SendTimeout):
            server.send(os.urandom(16 * MIB))
        with self.assertRaises(ConnectionClosed):
            server.read(5)

    def test_the_closing_handshake_over_tls(self) -> None:
        for first in (0, 1):
            pair = self.channels()
            answering = self.start(
                lambda pair=pair, first=first: self.assertRaises(  # type: ignore[misc]
                    ConnectionClosed, pair[1 - first].read
                )
            )
            pair[first].close(1001)
            join(answering)
            self.assertEqual([channel.closed_error().code for channel in pair], [1001, 1001])

    def test_the_context_is_a_checking_one(self) -> None:
        context = self.certificates.client_context()
        self.assertEqual((context.verify_mode, context.check_hostname), (ssl.CERT_REQUIRED, True))


class TlsAlone(unittest.TestCase):
    """Over a TLS socket that is none: what an interrupt or an error in the middle of an operation leaves."""

    def operations(self) -> Iterator[tuple[mock.Mock, object, Callable[[], object]]]:
        """Each kind of operation: the function of TLS that it calls, what that may give, and itself."""
        raw, sock = mock.Mock(), mock.Mock()
        raw.sending.side_effect = lambda data: [len(data)]
        raw.fileno.return_value = 3
        sock.incoming.pending = 0
        sock.outgoing.pending = 0
        sock.outgoing.read.return_value = b"record"
        sock.take_unsent.return_value = b""
        transport = TlsTransport(raw, sock)
        yield sock.tls.read, b"x", lambda: next(transport.receiving(5))
        yield sock.tls.read, 1, lambda: next(transport.receiving_into(memoryview(bytearray(5))))
        yield sock.tls.write, 1, lambda: next(transport.sending(b"x"))
        yield sock.tls.write, 1, lambda: next(transport.sending_more(b"x"))
        yield sock.tls.write, 20_000, lambda: next(transport.sending(bytes(20_000)))

    def test_an_interrupt_in_the_middle_ends_the_connection_for_nobody_knows_what_went(self) -> None:
        for number in range(5):
            function, _, operate = list(self.operations())[number]
            function.side_effect = KeyboardInterrupt
            self.assertRaises(KeyboardInterrupt, operate)
            with self.assertRaisesRegex(ConnectionAbortedError, "an interrupt came in the middle"):
                operate()
            function.assert_called_once()

    def test_an_error_of_reading_is_raised_and_leaves_it_usable(self) -> None:
        for number in range(2):
            function, result, operate = list(self.operations())[number]
            function.side_effect = [ConnectionResetError(), result]
            self.assertRaises(ConnectionResetError, operate)
            self.assertEqual(operate(), result)

    def test_after_an_error_of_writing_nothing_more_is_written_for_a_part_of_it_may_have_gone(self) -> None:
        for number in (2, 3, 4):
            function, _, operate = list(self.operations())[number]
            function.side_effect = ConnectionResetError
            self.assertRaises(ConnectionResetError, operate)
            with self.assertRaisesRegex(ConnectionAbortedError, "a failure or an interrupt came in the middle"):
                operate()
            function.assert_called_once()
