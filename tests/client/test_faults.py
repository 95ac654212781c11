"""Faults of this process are told as such, and never taken for the server's."""

from __future__ import annotations

import errno
import os
import socket
import unittest
from typing import Any
from unittest import mock

from sync_ws import should_reconnect
from sync_ws.client.faults import PASSING, exhausted, of_system, resolve


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class ExhaustedTest(unittest.TestCase):
    def test_whether_a_file_can_be_opened(self) -> None:
        self.assertIsNone(exhausted())
        for number in PASSING:
            with mock.patch("os.open", side_effect=failing(number)):
                found = exhausted()
            assert found is not None
            self.assertEqual(found.errno, number)
        with mock.patch("os.open", side_effect=failing(errno.ENOENT)):
            self.assertIsNone(exhausted())

    def test_less_than_a_few_is_none(self) -> None:
        opened: list[int] = []
        real = os.open

        def open_two(*given: Any) -> int:
            if len(opened) == 2:
                raise failing(errno.EMFILE)
            opened.append(real(*given))
            return opened[-1]

        with mock.patch("os.open", open_two):
            self.assertIsNotNone(exhausted())
        for descriptor in opened:
            with self.assertRaises(OSError):
                os.fstat(descriptor)


class ResolveTest(unittest.TestCase):
    def test_addresses_for_tcp(self) -> None:
        for family, kind, _, _, address in resolve("127.0.0.1", 80):
            self.assertEqual((family, kind, address), (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 80)))

    def test_a_name_that_was_not_found_for_want_of_a_descriptor_is_no_name_that_does_not_exist(self) -> None:
        missing = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=missing):
            with self.assertRaises(socket.gaierror):
                resolve("a.test", 80)
            with mock.patch("os.open", side_effect=failing(errno.EMFILE)), self.assertRaises(OSError) as caught:
                resolve("a.test", 80)
        self.assertEqual(caught.exception.errno, errno.EMFILE)
        self.assertIsNone(caught.exception.__cause__)


class OfSystemTest(unittest.TestCase):
    def test_a_fault_of_the_network_names_the_place(self) -> None:
        reason = of_system(failing(errno.ECONNREFUSED), "a.test:80")
        self.assertEqual(reason.text, "no connection to a.test:80: Connection refused")
        self.assertTrue(should_reconnect(reason))

    def test_a_fault_of_this_process_says_so_and_is_worth_another_attempt(self) -> None:
        faults: list[OSError | MemoryError] = [*map(failing, PASSING), MemoryError()]
        for exc in faults:
            reason = of_system(exc, "a.test:80")
            self.assertIn("(in this process or machine)", reason.text)
            self.assertTrue(should_reconnect(reason))
            self.assertIs(reason.error, exc)

    def test_an_error_without_a_number_is_its_own_text(self) -> None:
        self.assertEqual(
            of_system(OSError("a.test has no address"), "x").text, "no connection to x: a.test has no address"
        )


if __name__ == "__main__":
    unittest.main()
