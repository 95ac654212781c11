"""The head of a request: read within its bounds, parsed strictly."""

from __future__ import annotations

import socket
import time
import unittest
from typing import cast

from sync_ws import Headers, Refusal, Request
from sync_ws.server.request import MAX_HEADER_BYTES, MAX_HEADERS, MAX_LINE, parse_request, read_head
from sync_ws.testing import LedgerTestCase
from sync_ws.timing import Deadline

PEER = ("127.0.0.1", 4242)
GOOD = b"GET /ws/?name=a HTTP/1.1\r\nHost: localhost"


def parse(head: bytes) -> Request:
    return parse_request(head, PEER, secure=False)


class OneByteAtATime:
    """A peer that dribbles, for counting the work it makes: what `read_head` needs of a socket."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def settimeout(self, timeout: float | None) -> None:
        """Never waits."""

    def recv(self, size: int) -> bytes:
        self.at += 1
        return self.data[self.at - 1 : self.at]


class HeadersTest(unittest.TestCase):
    def test_names_are_case_insensitive_and_repeated_values_are_joined(self) -> None:
        headers = Headers([("Accept", "a"), ("X-One", "1"), ("aCCept", "b, c")])
        self.assertEqual(headers["ACCEPT"], "a, b, c")
        self.assertEqual(headers.get_all("accept"), ["a", "b, c"])
        self.assertEqual(headers.tokens("accept"), ["a", "b", "c"])
        self.assertEqual(sorted(headers), ["accept", "x-one"])
        self.assertEqual(len(headers), 2)
        self.assertIn("x-ONE", headers)

    def test_a_missing_header_is_nothing(self) -> None:
        headers = Headers()
        self.assertEqual(headers.get_all("x"), [])
        self.assertEqual(headers.tokens("x"), [])
        self.assertIsNone(headers.get("x"))
        with self.assertRaises(KeyError):
            headers["x"]

    def test_empty_list_elements_are_left_out(self) -> None:
        self.assertEqual(Headers([("a", " ,x,, y ,")]).tokens("a"), ["x", "y"])

    def test_repr_shows_no_value(self) -> None:
        self.assertNotIn("hush", repr(Headers([("Authorization", "Bearer hush")])))


class ParseTest(unittest.TestCase):
    def refused(self, head: bytes, status: int, says: str = "expected") -> None:
        with self.assertRaises(Refusal) as caught:
            parse(head)
        self.assertEqual(caught.exception.status, status, head)
        self.assertIn(says, caught.exception.text)

    def test_a_good_request_is_taken_apart(self) -> None:
        request = parse(b"GET /a%20b/?name=J%C3%B6rg+X&e=&name=two HTTP/1.1\r\nHost: h:1\r\nX-A:  v \t")
        self.assertEqual((request.method, request.path), ("GET", "/a%20b/"))
        self.assertEqual(request.query, {"name": "Jörg X", "e": ""})
        self.assertEqual(request.repeated, {"name"})
        self.assertEqual(request.headers["x-a"], "v")
        self.assertEqual(request.peer, PEER)
        self.assertFalse(request.secure)

    def test_a_fragment_is_not_part_of_the_query(self) -> None:
        self.assertEqual(parse(b"GET /?a=1#b HTTP/1.1\r\nHost: x").query, {"a": "1"})

    def test_repr_shows_neither_query_nor_headers(self) -> None:
        request = parse(b"GET /ws/?token=hush HTTP/1.1\r\nHost: x\r\nAuthorization: hush")
        self.assertNotIn("hush", repr(request))
        self.assertIn("/ws/", repr(request))

    def test_what_is_not_a_request_line_is_refused(self) -> None:
        for line in (
            b"", b"GET /", b"GET / HTTP/1.0", b"GET / HTTP/0.9", b"GET / HTTP/2", b"GET  / HTTP/1.1", b"get / HTTP/1.1",
            b"GET / HTTP/1.1 ", b"GET /\xff HTTP/1.1", b"GET /a b HTTP/1.1", b"GET\t/ HTTP/1.1", b"\x16\x03\x01\x02",
            b"GET /\x00 HTTP/1.1", b"GET http://h/ HTTP/1.1", b"GET * HTTP/1.1",
        ):  # fmt: skip
            with self.subTest(line=line):
                self.refused(line + b"\r\nHost: x", 400)

    def test_malformed_headers_are_refused(self) -> None:
        for line in (
            b"colonless", b"Name : value", b" folded: value", b"\tfolded", b": no name", b"Na(me: x", b"X: a\rb",
            b"X: a\nb", b"X: a\x00b", b"X: a\x7fb", b"X: a\x1bb", b"N\xe4me: x",
        ):  # fmt: skip
            with self.subTest(line=line):
                self.refused(GOOD + b"\r\n" + line, 400)
                self.refused(GOOD + b"\r\n" + line + b"\r\nX-After: it", 400)

    def test_exactly_one_valid_host_is_asked_for(self) -> None:
        for line in (b"X: y", b"Host: a\r\nHost: a", b"Host:", b"Host: a b", b"Host: a/b", b"Host: a:999999"):
            with self.subTest(line=line):
                self.refused(b"GET / HTTP/1.1\r\n" + line, 400, "Host")
        for good in (b"localhost", b"127.0.0.1:80", b"[::1]:80", b"xn--bcher-kva.example"):
            self.assertEqual(parse(b"GET / HTTP/1.1\r\nHost: " + good).headers["host"], good.decode())

    def test_a_body_is_refused(self) -> None:
        self.refused(GOOD + b"\r\nContent-Length: 5", 400, "body")
        self.refused(GOOD + b"\r\nTransfer-Encoding: chunked", 400, "body")
        self.refused(GOOD + b"\r\nContent-Length: 0\r\nContent-Length: 5", 400, "body")
        parse(GOOD + b"\r\nContent-Length: 0")

    def test_bounds_on_the_line_and_on_the_headers(self) -> None:
        self.refused(b"GET /" + b"a" * MAX_LINE + b" HTTP/1.1\r\nHost: x", 414)
        self.refused(GOOD + b"\r\nX: y" * MAX_HEADERS, 431)
        self.refused(GOOD + b"\r\nX: " + b"y" * MAX_HEADER_BYTES, 431)
        parse(GOOD + b"\r\nX: y" * (MAX_HEADERS - 1))

    def test_a_bad_query_is_refused(self) -> None:
        self.refused(b"GET /?name=%ff HTTP/1.1\r\nHost: x", 400, "query")
        self.refused(b"GET /?" + b"a&" * 65 + b" HTTP/1.1\r\nHost: x", 400, "query")


class ReadHeadTest(LedgerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)

    def refused(self, status: int, seconds: float = 5.0) -> None:
        with self.assertRaises(Refusal) as caught:
            read_head(self.ours, Deadline(seconds))
        self.assertEqual(caught.exception.status, status)

    def test_bytes_behind_the_head_are_kept(self) -> None:
        self.theirs.sendall(GOOD + b"\r\n\r\n\x81\x00more")
        self.assertEqual(read_head(self.ours, Deadline(5)), (GOOD, b"\x81\x00more"))

    def test_a_silent_peer_is_refused_at_the_deadline(self) -> None:
        self.theirs.sendall(b"GET / HT")
        started = time.monotonic()
        self.refused(408, 0.05)
        self.assertLess(time.monotonic() - started, 3)

    def test_a_deadline_that_has_passed_does_not_wait(self) -> None:
        deadline = Deadline(0)
        with self.assertRaises(Refusal):
            read_head(self.ours, deadline)

    def test_a_peer_that_leaves_is_told_apart_from_a_slow_one(self) -> None:
        self.theirs.sendall(b"GET / HT")
        self.theirs.close()
        with self.assertRaises(ConnectionError):
            read_head(self.ours, Deadline(5))

    def test_a_line_or_headers_without_end_are_refused_early(self) -> None:
        self.theirs.sendall(b"GET /" + b"a" * (MAX_LINE + 4096))
        self.refused(414)

    def test_headers_without_end_are_refused_early(self) -> None:
        self.theirs.setblocking(False)
        self.theirs.send(GOOD + b"\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 2500)
        self.refused(431)

    def test_a_head_that_comes_byte_by_byte_costs_linear_time(self) -> None:
        def seconds(size: int) -> float:
            data = GOOD + b"\r\nX: " + b"y" * size + b"\r\n\r\n"
            started = time.process_time()
            head, early = read_head(cast(socket.socket, OneByteAtATime(data)), Deadline(30))
            self.assertEqual((head + b"\r\n\r\n", early), (data, b""))
            return time.process_time() - started

        self.assertLess(seconds(30_000), 2.0)
