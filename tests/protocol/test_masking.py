"""Masking: every way to do it gives what RFC 6455 section 5.3 says, for every size."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import types
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from sync_ws.protocol import masking
from sync_ws.protocol.masking import apply_mask, new_key
from sync_ws.testing import LedgerTestCase
from tests.support.optional import needs
from tests.support.wire import KEY, fork, join, xor

SIZES = sorted(
    {size + near for size in (0, 4, 16, 125, 1024, 32768) for near in range(-5, 6) if size + near >= 0}
    | {65535, 65536, 65537, 100_003}
)
DATA = os.urandom(max(SIZES))


def without_numpy() -> Any:
    return mock.patch.multiple(masking, _numpy=None, _tried=True)


def with_numpy() -> Any:
    return mock.patch.multiple(masking, _numpy=importlib.import_module("numpy"))


class Masks(LedgerTestCase):
    def check_every_size(self) -> None:
        for size in SIZES:
            for kind in (bytes, bytearray, memoryview):
                with self.subTest(size=size, kind=kind.__name__):
                    payload: Any = kind(DATA[:size])
                    masked = apply_mask(payload, KEY)
                    self.assertIs(type(masked), bytes)
                    self.assertEqual(masked, xor(DATA[:size], KEY))
                    self.assertEqual(payload, DATA[:size])

    def test_every_size_around_the_thresholds_without_numpy(self) -> None:
        with without_numpy():
            self.check_every_size()

    @needs("numpy")
    def test_every_size_around_the_thresholds_with_numpy(self) -> None:
        with with_numpy():
            self.check_every_size()

    def test_the_example_of_the_rfc(self) -> None:
        self.assertEqual(apply_mask(b"Hello", KEY), b"\x7f\x9f\x4d\x51\x58")

    def test_views_into_the_middle_of_a_buffer(self) -> None:
        for context in (without_numpy(), mock.MagicMock()):
            with context:
                for begin, end in ((1, 50), (3, 2000), (7, 40_000)):
                    self.assertEqual(apply_mask(memoryview(DATA)[begin:end], KEY), xor(DATA[begin:end], KEY))

    def test_leading_and_trailing_zeros_are_kept(self) -> None:
        for size in (1, 4, 7, 300, 1500):
            self.assertEqual(apply_mask(bytes(size), b"\0\0\0\0"), bytes(size))
            self.assertEqual(apply_mask(xor(bytes(size), KEY), KEY), bytes(size))

    @needs("hypothesis")
    def test_any_payload_and_key_against_a_plain_loop(self) -> None:
        from hypothesis import given, settings
        from hypothesis import strategies as st

        size = st.one_of(st.integers(0, 300), st.sampled_from(SIZES), st.integers(0, 70_000))

        @settings(max_examples=100, derandomize=True, deadline=None, database=None)
        @given(size=size, start=st.integers(0, 50), key=st.binary(min_size=4, max_size=4), numpy=st.booleans())
        def check(size: int, start: int, key: bytes, numpy: bool) -> None:
            payload = (DATA[start:] + DATA)[:size]
            expected = xor(payload, key)
            context: Any = mock.MagicMock() if numpy else without_numpy()
            with context:
                assert apply_mask(payload, key) == expected
                assert apply_mask(expected, key) == payload

        check()

    def test_the_first_use_from_many_threads_at_once(self) -> None:
        payload, wrong = DATA[:2000], list[int]()
        expected = xor(payload, KEY)
        interval = sys.getswitchinterval()
        self.addCleanup(sys.setswitchinterval, interval)
        sys.setswitchinterval(1e-6)
        with without_numpy():
            for turn in range(3):
                masking._tables.clear()
                start = threading.Barrier(6)

                def use(start: threading.Barrier = start, turn: int = turn) -> None:
                    start.wait(10)
                    if apply_mask(payload, KEY) != expected:
                        wrong.append(turn)

                threads = [threading.Thread(target=use) for _ in range(6)]
                for thread in threads:
                    thread.start()
                join(*threads)
        self.assertEqual(wrong, [])


class Numpy(LedgerTestCase):
    def run_alone(self, code: str, *arguments: object, **environ: str) -> str:
        code = f"import sys\nfrom sync_ws.protocol.masking import *\nfrom sync_ws.protocol import masking\n{code}"
        env = {**os.environ, **environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    @needs("numpy")
    def test_it_is_imported_by_who_looks_after_connections_and_only_once_a_payload_was_large(self) -> None:
        code = """
mask = bytearray({size})
mask_in_place(mask, b"abcd")
print("numpy" in sys.modules, end=" ")
load_numpy()
print("numpy" in sys.modules, masking._numpy is sys.modules.get("numpy", 0))
again = bytearray({size})
mask_in_place(again, b"abcd")
assert again == mask
"""
        self.assertEqual(self.run_alone(code.format(size=32767), SYNC_WS_NO_NUMPY="0"), "False False False")
        self.assertEqual(self.run_alone(code.format(size=32768), SYNC_WS_NO_NUMPY="0"), "False True True")

    @needs("numpy")
    def test_one_that_the_program_imported_is_used_for_smaller_payloads_too(self) -> None:
        code = "import numpy\napply_mask(bytes(1024), b'abcd')\nload_numpy()\nprint(masking._numpy is numpy)"
        self.assertEqual(self.run_alone(code, SYNC_WS_NO_NUMPY="0"), "True")

    def test_the_environment_can_do_without(self) -> None:
        code = 'apply_mask(bytes(100000), b"abcd")\nload_numpy()\nprint("numpy" in sys.modules)'
        self.assertEqual(self.run_alone(code, SYNC_WS_NO_NUMPY="1"), "False")

    def wanted(self) -> Any:
        """As if it had not been tried, and the first large payload had come."""
        return mock.patch.multiple(masking, _numpy=None, _tried=False, _wanted=True)

    def load_with(self, module: Any) -> None:
        """With what ``import numpy`` finds."""
        with mock.patch.dict(sys.modules, numpy=module):
            masking.load_numpy()

    def test_whatever_goes_wrong_means_without_and_it_is_tried_once(self) -> None:
        wrong = mock.Mock(__spec__=None)
        wrong.frombuffer.side_effect = lambda *args: bytearray(8)  # calculates nothing
        half = types.ModuleType("numpy")  # as an import that broke off leaves it
        for module in (None, half, wrong, mock.Mock(__spec__=None, frombuffer=mock.Mock(side_effect=MemoryError))):
            with self.wanted():
                self.load_with(module)
                self.assertEqual((masking._numpy, masking._tried), (None, True))
                with mock.patch("builtins.__import__", side_effect=AssertionError("tried twice")):
                    masking.load_numpy()
                self.assertEqual(apply_mask(DATA[:40_000], KEY), xor(DATA[:40_000], KEY))

    def test_one_that_another_thread_is_importing_now_is_left_alone_for_now(self) -> None:
        module = types.ModuleType("numpy")
        module.__spec__ = mock.Mock(_initializing=True)
        with self.wanted():
            self.load_with(module)
            self.assertEqual((masking._numpy, masking._tried), (None, False))

    @needs("numpy")
    def test_without_memory_or_descriptors_it_is_not_begun(self) -> None:
        code = """
import os, resource
apply_mask(bytes(100000), b"abcd")
if sys.argv[1] == "memory":
    with open("/proc/self/statm") as file:
        space = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (space + int(sys.argv[2]),) * 2)
else:
    used = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + int(sys.argv[2]),) * 2)
load_numpy()
assert apply_mask(bytes(100000), b"abcd")[-4:] == b"abcd"
print([name for name in sys.modules if name.startswith("numpy")], masking._numpy)
"""
        if not sys.platform.startswith("linux"):
            raise unittest.SkipTest("limits as Linux has them")
        for kind, left in (("memory", 1 << 20), ("memory", 64 << 20), ("descriptors", 0), ("descriptors", 3)):
            with self.subTest(kind, left=left):
                self.assertEqual(self.run_alone(code, kind, left, SYNC_WS_NO_NUMPY="0"), "[] None")


class Keys(LedgerTestCase):
    def test_keys_are_four_bytes_and_do_not_repeat(self) -> None:
        keys = [new_key() for _ in range(2000)]
        self.assertEqual({len(key) for key in keys}, {4})
        self.assertGreater(len(set(keys)), 1990)

    def test_no_key_is_used_by_two_threads(self) -> None:
        drawn: list[list[bytes]] = [[] for _ in range(4)]

        def draw(keys: list[bytes]) -> Callable[[], None]:
            return lambda: keys.extend(new_key() for _ in range(1000))

        with mock.patch.object(os, "urandom", CountingRandom()):
            masking._keys.clear()
            threads = [threading.Thread(target=draw(keys)) for keys in drawn]
            for thread in threads:
                thread.start()
            join(*threads)
        masking._keys.clear()  # those were not random
        self.assertEqual(len({key for keys in drawn for key in keys}), 4000)

    def test_a_forked_child_does_not_use_its_parents_keys(self) -> None:
        new_key()
        self.assertTrue(masking._keys)
        read, write = os.pipe()
        child = fork()
        if not child:
            os.write(write, str(len(masking._keys)).encode())
            os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        self.assertEqual(os.read(read, 10), b"0")
        os.close(read)


class CountingRandom:
    """Never the same four bytes twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0

    def __call__(self, size: int) -> bytes:
        with self._lock:
            first, self._next = self._next, self._next + size // 4
        return b"".join(n.to_bytes(4, "big") for n in range(first, first + size // 4))
