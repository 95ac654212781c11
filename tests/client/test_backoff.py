"""Backoff: attempt -> seconds, within its bounds for any attempt there can be."""

from __future__ import annotations

import dataclasses
import math
import random
import unittest
from typing import Any

from sync_ws.client.backoff import Backoff


class Delays(unittest.TestCase):
    def test_the_cap_doubles_up_to_the_maximum(self) -> None:
        policy = Backoff(first=0.5, maximum=60)
        self.assertEqual([policy.cap(n) for n in range(1, 9)], [0.5, 1, 2, 4, 8, 16, 32, 60])
        self.assertEqual(policy.cap(100), 60)

    def test_the_defaults_are_those_of_the_readme(self) -> None:
        self.assertEqual([Backoff().cap(n) for n in (1, 2, 7, 8)], [0.5, 1, 32, 60])
        self.assertEqual(Backoff().stable, 60)
        self.assertTrue(Backoff().jitter)

    def test_full_jitter_draws_from_zero_to_the_cap(self) -> None:
        random.seed(5)
        policy = Backoff(first=1, maximum=8)
        drawn = [policy.delay(3) for _ in range(2000)]
        self.assertTrue(all(0 <= delay <= 4 for delay in drawn))
        self.assertLess(min(drawn), 0.4)
        self.assertGreater(max(drawn), 3.6)
        self.assertAlmostEqual(sum(drawn) / len(drawn), 2, delta=0.2)

    def test_without_jitter_the_delay_is_the_cap(self) -> None:
        policy = Backoff(first=1, maximum=10, factor=3, jitter=False)
        self.assertEqual([policy.delay(n) for n in (1, 2, 3, 4)], [1, 3, 9, 10])

    def test_a_bare_number_means_a_fixed_delay(self) -> None:
        policy = Backoff.of(10)
        assert policy is not None
        self.assertEqual({policy.delay(n) for n in range(1, 50)}, {10.0})
        self.assertIsNone(Backoff.of(None))
        self.assertIs(Backoff.of(policy), policy)
        # it does not grow, so there is nothing that a short connection may not start anew
        self.assertEqual((policy.factor, policy.stable), (1, 0))

    def test_no_attempt_number_overflows(self) -> None:
        for policy in (Backoff(), Backoff(factor=1e10), Backoff(factor=1.5, first=1e-3), Backoff(factor=math.inf)):
            for attempt in (1, 2, 65, 66, 2000, 10**6, 10**400):
                with self.subTest(policy=policy, attempt=attempt):
                    self.assertTrue(0 < policy.cap(attempt) <= policy.maximum)
                    self.assertTrue(0 <= policy.delay(attempt) <= policy.maximum)

    def test_a_slowly_growing_cap_reaches_the_maximum_too(self) -> None:
        self.assertEqual(Backoff(first=0.5, maximum=60, factor=1.01).cap(1000), 60)

    def test_attempts_are_counted_from_one(self) -> None:
        for attempt in (0, -1):
            with self.assertRaises(ValueError):
                Backoff().delay(attempt)


class Herd(unittest.TestCase):
    def test_a_thousand_clients_of_a_restarted_server_come_back_spread_out(self) -> None:
        """The server is away for two minutes; what counts is when each client's first successful attempt comes."""
        self.addCleanup(random.setstate, random.getstate())
        random.seed(1)
        policy, away = Backoff(), 120.0
        returns: list[float] = []
        for _ in range(1000):
            now, attempt = 0.0, 0
            while now < away:
                attempt += 1
                now += policy.delay(attempt)
            returns.append(now - away)
        self.assertLess(max(returns), 90)
        in_second = [sum(1 for moment in returns if second <= moment < second + 1) for second in range(60)]
        self.assertLessEqual(max(in_second), 3 * len(returns) / 60)


class GivingUp(unittest.TestCase):
    def test_never_by_default(self) -> None:
        self.assertFalse(Backoff().exhausted(10**9))

    def test_after_as_many_failed_attempts_as_were_given(self) -> None:
        policy = Backoff(attempts=3)
        self.assertEqual([policy.exhausted(n) for n in range(5)], [False, False, False, True, True])
        self.assertTrue(Backoff.fixed(1, attempts=1).exhausted(1))


class Bounds(unittest.TestCase):
    def test_what_cannot_be_meant_is_refused(self) -> None:
        bad: list[dict[str, Any]] = [
            {"first": 0}, {"first": -1}, {"first": math.nan}, {"maximum": math.inf}, {"maximum": 0},
            {"first": 61}, {"factor": 0.9}, {"factor": math.nan}, {"attempts": 0}, {"attempts": -1},
            {"stable": -1}, {"stable": math.nan},
        ]  # fmt: skip
        for arguments in bad:
            with self.subTest(arguments), self.assertRaises(ValueError):
                Backoff(**arguments)
        wrong: list[dict[str, Any]] = [
            {"first": "1"}, {"maximum": None}, {"first": True}, {"attempts": 1.5}, {"factor": True}, {"factor": "2"},
            {"factor": None}, {"jitter": 1}, {"jitter": "no"}, {"stable": "60"},
        ]  # fmt: skip
        for arguments in wrong:
            (name,) = arguments
            with self.subTest(arguments), self.assertRaisesRegex(TypeError, rf"^Backoff\.{name} is "):
                Backoff(**arguments)
        not_seconds: list[Any] = [True, "10", [1]]
        for value in not_seconds:
            with (
                self.subTest(value),
                self.assertRaisesRegex(TypeError, r"a sync_ws\.Backoff, .* or None, not"),
            ):
                Backoff.of(value)
        with self.assertRaises(ValueError):
            Backoff.of(0)

    def test_a_policy_is_frozen(self) -> None:
        with self.assertRaises(dataclasses.FrozenInstanceError):
            Backoff().first = 2  # type: ignore[misc]


if __name__ == "__main__":
    unittest.main()
