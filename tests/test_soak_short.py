"""A soak of a few seconds; and that its oracle finds what is planted, so that silence means something."""

from __future__ import annotations

import contextlib
import random
import socket
import unittest
from collections.abc import Callable

from sync_ws import ConnectionClosed, Reason
from sync_ws.channel.writer import Writer
from sync_ws.net.transport import transport_for
from sync_ws.testing import LedgerTestCase
from tests.soak.faults import PLANTED
from tests.soak.oracle import Oracle
from tests.soak.payload import Altered, Message, make, parse
from tests.soak.resources import MIB, Resources, Sample
from tests.soak.run import Settings, run

SMALL = random.Random(1)


def up(seq: int, stream: str = "up/a/0") -> Message:
    return make(stream, seq, SMALL)


class SoakTest(LedgerTestCase):
    """Everything together."""

    timeout = 120.0

    def test_three_seconds_of_faults_hold_every_invariant(self) -> None:
        report = run(Settings(seconds=3.0, seed=11, clients=3, pause=0.1))
        self.assertEqual(report.violations, [])
        self.assertGreater(report.counts["received"], 50)
        self.assertGreater(sum(report.faults.values()), 3)

    def test_bytes_that_vanish_in_the_middle_of_a_connection_are_found(self) -> None:
        with self.assertNoLogs("sync_ws", "ERROR"):
            report = run(Settings(seconds=1.5, seed=1, clients=2, kinds=(PLANTED,), pause=0.1))
        self.assertNotEqual(report.violations, [])


class _DrainedWhenFormatted(float):
    """A send timeout that lets the peer read and another thread flush, at the moment that it is named in an error."""

    drain: Callable[[], object]

    def __format__(self, spec: str) -> str:
        self.drain()
        return super().__format__(spec)


class FoundTest(LedgerTestCase):
    """What was found in the library on the way."""

    def test_a_send_that_raises_send_timeout_is_not_delivered_at_the_last_moment(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            timeout = _DrainedWhenFormatted(0.1)
            writer = Writer(
                transport_for(ours), masked=False, deflate=None, send_timeout=timeout, max_queued=64,
                max_queued_bytes=1 << 20, closed_error=lambda: ConnectionClosed(Reason("closed")),
                on_broken=lambda text, error: None,
            )  # fmt: skip
            theirs.setblocking(False)
            received = bytearray()

            def drain() -> None:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        writer.flush()
                        received.extend(theirs.recv(1 << 20))

            timeout.drain = drain
            writer.send(bytes(2 << 20))  # more than the kernel takes at once: it waits, in vain, until the deadline
            drain()
            self.assertEqual(len(received), (2 << 20) + 10)


class PayloadTest(unittest.TestCase):
    """Messages that tell whether they are what was sent."""

    def test_a_message_survives_and_says_what_it_is(self) -> None:
        for seq in range(1, 50):
            self.assertEqual(parse(make("up/a/0", seq, SMALL, 7))[:3], ("up/a/0", seq, 7))

    def test_any_altered_byte_is_noticed(self) -> None:
        message = make("down/a", 1, random.Random(3), 2)
        data = message.encode() if isinstance(message, str) else message
        for at in range(min(len(data), 60)):
            changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
            with self.assertRaises(Altered):
                parse(changed)

    def test_text_that_arrives_as_binary_is_noticed(self) -> None:
        messages = [make("down/a", 1, random.Random(seed)) for seed in range(20)]
        for text in (message for message in messages if isinstance(message, str)):
            with self.assertRaises(Altered):
                parse(text.encode())


class OracleTest(unittest.TestCase):
    """Each rule of the oracle, broken; client "a", its connections by the number of their attempt."""

    def setUp(self) -> None:
        self.oracle = Oracle()
        self.oracle.opened("a", 1)

    def sent(self, *numbers: int, attempt: int = 1, stream: str = "up/a/0") -> None:
        for seq in numbers:
            self.oracle.sent(stream, seq, "a", attempt)

    def assert_found(self, part: str) -> None:
        self.oracle.judge()
        self.assertIn(part, "; ".join(self.oracle.violations))

    def assert_nothing_found(self) -> None:
        self.oracle.judge()
        self.assertEqual(self.oracle.violations, [])

    def test_what_arrives_in_order_is_right(self) -> None:
        self.sent(1, 2)
        self.oracle.received(up(1), "a", 1)
        self.oracle.received(up(2), "a", 1)
        self.oracle.ended("up", "a", 1, clean=True)
        self.assert_nothing_found()

    def test_a_duplicate_is_found(self) -> None:
        self.sent(1)
        self.oracle.received(up(1), "a", 1)
        self.oracle.received(up(1), "a", 1)
        self.assert_found("arrived twice")

    def test_a_duplicate_over_a_later_connection_is_found(self) -> None:
        self.sent(1, 2)
        self.oracle.received(up(1), "a", 1)
        self.oracle.received(up(2), "a", 1)
        self.oracle.opened("a", 2)
        self.oracle.received(up(1), "a", 2)
        self.assert_found("arrived twice")

    def test_messages_in_the_wrong_order_are_found(self) -> None:
        self.sent(1, 2)
        self.oracle.received(up(2), "a", 1)
        self.oracle.received(up(1), "a", 1)
        self.assert_found("is missing before 2")

    def test_a_gap_within_a_connection_is_found_even_when_it_dies(self) -> None:
        self.sent(1, 2)
        self.oracle.received(up(2), "a", 1)
        self.oracle.ended("up", "a", 1, clean=False)
        self.assert_found("is missing before 2")

    def test_an_altered_message_is_found(self) -> None:
        self.sent(1)
        message = up(1)
        self.oracle.received(message + "x" if isinstance(message, str) else message + b"x", "a", 1)
        self.assert_found("the hash is wrong")

    def test_a_message_for_somebody_else_is_found(self) -> None:
        self.sent(1)
        self.oracle.received(up(1), "b", 1)
        self.assert_found("has no part in it")

    def test_a_loss_with_a_connection_that_died_is_no_violation(self) -> None:
        self.sent(1)
        self.oracle.ended("up", "a", 1, clean=False)
        self.assert_nothing_found()
        self.assertEqual(self.oracle.counts["lost with a connection that died"], 1)

    def test_a_loss_with_a_connection_that_was_closed_is_found(self) -> None:
        for stream, direction in (("up/a/0", "up"), ("down/a", "down")):
            self.oracle = Oracle()
            self.oracle.opened("a", 1)
            self.sent(1, stream=stream)
            self.oracle.ended(direction, "a", 1, clean=True)
            self.assert_found("ended by a closing handshake")

    def test_a_receiver_that_closes_may_discard(self) -> None:
        self.sent(1)
        self.oracle.excuse("up", "a", 1)
        self.oracle.ended("up", "a", 1, clean=True)
        self.assert_nothing_found()

    def test_what_was_queued_and_neither_sent_nor_reported_is_found(self) -> None:
        self.sent(1, attempt=2)
        self.assert_found("neither sent nor reported")

    def test_what_was_reported_as_undelivered_is_accounted_for(self) -> None:
        self.sent(1, attempt=2)
        self.oracle.reported(up(1))
        self.assert_nothing_found()

    def test_what_was_reported_as_undelivered_and_arrives_is_found(self) -> None:
        self.sent(1)
        self.oracle.reported(up(1))
        self.oracle.received(up(1), "a", 1)
        self.assert_found("although it was reported")

    def test_a_report_of_what_was_delivered_is_found(self) -> None:
        self.sent(1)
        self.oracle.received(up(1), "a", 1)
        self.oracle.reported(up(1))
        self.assert_found("reported as undelivered, but")

    def test_a_delivery_although_the_send_raised_is_found(self) -> None:
        self.sent(1)
        self.oracle.unsent("up/a/0", 1)
        self.oracle.received(up(1), "a", 1)
        self.assert_found("its send raised")

    def test_a_held_up_connection_may_deliver_behind_a_newer_one(self) -> None:
        self.sent(1, 2)
        self.oracle.received(up(1), "a", 1)
        self.oracle.opened("a", 2)
        self.sent(3, attempt=2)
        self.oracle.received(up(3), "a", 2)
        self.oracle.received(up(2), "a", 1)
        self.oracle.ended("up", "a", 1, clean=True)
        self.assert_nothing_found()
        self.oracle.received(up(2), "a", 1)
        self.assert_found("arrived twice")

    def test_a_message_from_a_clients_past_is_found(self) -> None:
        self.sent(1, stream="down/a")
        self.oracle.opened("a", 2)
        self.sent(2, attempt=2, stream="down/a")
        self.oracle.received(make("down/a", 2, SMALL, 2), "a")
        self.oracle.received(make("down/a", 1, SMALL, 1), "a")
        self.assert_found("arrived behind 2")


class ResourcesTest(unittest.TestCase):
    """What is not flat, or beyond its bound."""

    def problems(self, *samples: Sample) -> str:
        resources = Resources(clients=1)
        resources.samples += samples
        return "; ".join(resources.problems(connections=1))

    def test_flat_use_is_right(self) -> None:
        self.assertEqual(self.problems(*[Sample(20, 30, 50 * MIB)] * 9), "")

    def test_too_much_of_anything_is_found(self) -> None:
        few, many = [Sample(20, 30, 50 * MIB)] * 6, [Sample(200, 300, 500 * MIB)] * 3
        found = self.problems(*few, *many)
        for part in ("threads", "descriptors", "memory grew"):
            self.assertIn(part, found)


if __name__ == "__main__":
    unittest.main()
