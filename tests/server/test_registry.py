"""Names, claims and takeovers."""

from __future__ import annotations

import threading
import unittest

from sync_ws.server.registry import POLICIES, NameTaken, NoPlace, Registry


class RegistryTest(unittest.TestCase):
    def test_a_claim_shows_once_it_is_open_and_until_it_is_released(self) -> None:
        registry: Registry[str] = Registry()
        claim = registry.claim("a")
        self.assertEqual((dict(registry), registry.places), ({}, 1))
        self.assertEqual(registry.open(claim, "first"), [])
        self.assertEqual((dict(registry), registry.everyone()), ({"a": "first"}, ["first"]))
        self.assertTrue(registry.release(claim))
        self.assertFalse(registry.release(claim))
        self.assertEqual((dict(registry), registry.places, registry.everyone()), ({}, 0, []))
        with self.assertRaises(KeyError):
            registry["a"]

    def test_replace_gives_the_name_to_the_newer_and_the_late_end_of_the_old_changes_nothing(self) -> None:
        registry: Registry[str] = Registry("replace")
        old, new = registry.claim("a"), registry.claim("a")
        registry.open(old, "old")
        self.assertEqual(registry["a"], "old")
        self.assertEqual(registry.open(new, "new"), ["old"])
        self.assertTrue(registry.release(old))
        self.assertEqual(dict(registry), {"a": "new"})

    def test_whoever_leaves_while_all_are_gone_through_is_among_them_still(self) -> None:
        registry: Registry[str] = Registry("allow")
        claims = [registry.claim(name) for name in ("a", "b", "b")]
        for claim, holder in zip(claims, ("first", "second", "third")):
            registry.open(claim, holder)
        items, values = registry.items(), registry.values()
        for claim in claims:
            registry.release(claim)
        self.assertEqual((list(items), list(values)), ([("a", "first"), ("b", "third")], ["first", "third"]))
        self.assertEqual((list(registry.items()), list(registry.values()), len(registry)), ([], [], 0))

    def test_replace_goes_by_the_order_of_the_claims_when_a_handshake_is_slow(self) -> None:
        registry: Registry[str] = Registry("replace")
        slow, fast = registry.claim("a"), registry.claim("a")
        self.assertEqual(registry.open(fast, "fast"), [])
        self.assertEqual(registry.open(slow, "slow"), ["slow"])
        self.assertEqual(registry.holders("a"), ["fast"])
        registry.release(slow)
        self.assertEqual(dict(registry), {"a": "fast"})

    def test_an_end_before_the_opening_was_noted_leaves_nothing(self) -> None:
        registry: Registry[str] = Registry()
        for name in ("a", None):
            claim = registry.claim(name)
            registry.release(claim)
            self.assertEqual(registry.open(claim, "late"), [])
        self.assertEqual((dict(registry), registry.everyone(), registry.places), ({}, [], 0))

    def test_reject_keeps_the_first_also_while_it_is_in_its_handshake(self) -> None:
        registry: Registry[str] = Registry("reject")
        first = registry.claim("a")
        self.assertRaises(NameTaken, registry.claim, "a")
        registry.open(first, "first")
        self.assertRaises(NameTaken, registry.claim, "a")
        self.assertEqual(registry.places, 1)
        registry.release(first)
        registry.claim("a")

    def test_allow_keeps_all_and_shows_the_newest(self) -> None:
        registry: Registry[str] = Registry("allow")
        claims = [registry.claim("a") for _ in range(3)]
        for number, claim in enumerate(claims):
            self.assertEqual(registry.open(claim, str(number)), [])
        self.assertEqual(registry.holders("a"), ["0", "1", "2"])
        registry.release(claims[2])
        self.assertEqual((registry["a"], len(registry)), ("1", 1))

    def test_without_a_name_there_is_no_conflict(self) -> None:
        for policy in POLICIES:
            registry: Registry[str] = Registry(policy)
            for number in range(3):
                self.assertEqual(registry.open(registry.claim(None), str(number)), [])
            self.assertEqual((len(registry), registry.places), (0, 3))

    def test_the_limit_counts_every_place_and_a_release_frees_one(self) -> None:
        registry: Registry[str] = Registry(limit=2)
        claim = registry.claim(None)
        registry.claim("a")
        self.assertRaises(NoPlace, registry.claim, "b")
        self.assertEqual(list(registry._named), ["a"])
        registry.release(claim)
        registry.claim("b")

    def test_an_unknown_policy_is_a_mistake(self) -> None:
        with self.assertRaisesRegex(ValueError, "replace, reject, allow"):
            Registry("steal")

    def test_many_threads_taking_one_name_leave_one_holder_and_replace_every_other_once(self) -> None:
        registry: Registry[int] = Registry("replace")
        replaced: list[int] = []

        def take(first: int) -> None:
            for number in range(first, first + 200):
                replaced.extend(registry.open(registry.claim("a"), number))

        threads = [threading.Thread(target=take, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        self.assertEqual((len(replaced), len(set(replaced)), len(registry.holders("a"))), (799, 799, 1))
        self.assertNotIn(registry["a"], replaced)

    def test_a_claim_given_back_keeps_nobody_alive(self) -> None:
        registry: Registry[str] = Registry()
        claim = registry.claim("a")
        registry.open(claim, "holder")
        registry.release(claim)
        self.assertIsNone(claim.holder)

    def test_a_fork_renews_the_lock_and_empties_the_copy_if_told(self) -> None:
        for empty, left in ((True, []), (False, ["holder"])):
            registry: Registry[str] = Registry()
            claim = registry.claim("a")
            registry.open(claim, "holder")
            holder = threading.Thread(target=registry._lock.acquire)
            holder.start()
            holder.join(10)
            registry.forget_in_child(empty=empty)
            self.assertEqual((registry.everyone(), registry.holders("a"), registry.places), (left, left, len(left)))
            self.assertEqual(registry.release(claim), not empty)

    def test_repr_counts(self) -> None:
        self.assertEqual(repr(Registry("allow")), "<Registry of 0 names, 0 places, policy allow>")
