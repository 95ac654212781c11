"""Heads of requests and responses: gathered within their bounds, parsed strictly, in linear time."""

from __future__ import annotations

import time
import unittest

from sync_ws import Headers, Request
from sync_ws.protocol.http_head import (
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_LINE,
    MAX_RESPONSE,
    BadHead,
    HeadBuffer,
    Response,
    TlsInstead,
    check_request_size,
    check_response_size,
    parse_request,
    parse_response,
)

PEER = ("127.0.0.1", 4242)
GOOD = b"GET /ws/?name=a HTTP/1.1\r\nHost: localhost"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket"
QUICK = 0.5  # seconds of processor time: a hundred times what is needed, a hundredth of what a quadratic search takes


def parse(head: bytes) -> Request:
    return parse_request(head, PEER, secure=False)


class RequestTest(unittest.TestCase):
    def refused(self, head: bytes, status: int, says: str = "expected") -> None:
        with self.assertRaises(BadHead) as caught:
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

    def test_the_bounds_themselves_are_within_bounds(self) -> None:
        line = b"GET /" + b"a" * (MAX_LINE - len(b"GET / HTTP/1.1")) + b" HTTP/1.1"
        fields = b"\r\nHost: x\r\nX: "
        fields += b"y" * (MAX_HEADER_BYTES - len(fields))
        self.assertEqual(parse(line + fields).headers["x"][:1], "y")
        self.refused(line.replace(b"GET", b"POST") + fields, 414)
        self.refused(line + fields + b"y", 431)

    def test_what_costs_a_careless_parser_quadratic_time_is_refused_at_once(self) -> None:
        for field in (
            b"X:" + b" " * 30_000 + b"\x00",
            b"X:" + b" \t" * 15_000 + b"\x00",
            b"X" * 30_000,
            b"X" * 30_000 + b" : y",
            b"X:" + b":" * 30_000 + b"\x00",
            b"Host: " + b"a" * 30_000 + b"/",
            b"Host: [" + b":" * 30_000,
        ):
            with self.subTest(field=field[:8]):
                started = time.process_time()
                self.refused(b"GET / HTTP/1.1\r\n" + field, 400)
                self.assertLess(time.process_time() - started, QUICK)


class ResponseTest(unittest.TestCase):
    def refused(self, head: bytes, status: int, says: str) -> None:
        with self.assertRaisesRegex(ValueError, says) as caught:
            parse_response(head)
        assert isinstance(caught.exception, BadHead)
        self.assertEqual(caught.exception.status, status, head)

    def test_a_good_response_is_taken_apart(self) -> None:
        response = parse_response(SWITCHING + b"\r\nSet-Cookie: a=1\r\nset-cookie:  b=2 \t\r\nX-Latin: J\xf6rg")
        self.assertEqual((response.status, response.phrase), (101, "Switching Protocols"))
        self.assertEqual(response.headers.get_all("Set-Cookie"), ["a=1", "b=2"])
        self.assertEqual((response.headers["upgrade"], response.headers["X-Latin"]), ("websocket", "J\xf6rg"))

    def test_a_status_needs_no_phrase_and_may_come_from_an_old_server(self) -> None:
        for line in (b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 200 \xff \x1b"):
            self.assertEqual(parse_response(line).status, 200)

    def test_lines_may_end_in_a_bare_lf(self) -> None:
        response = parse_response(b"HTTP/1.1 101\nUpgrade: websocket\nX-A: b\r\nX-C: d\r")
        self.assertEqual((response.status, response.phrase), (101, ""))
        self.assertEqual(dict(response.headers), {"upgrade": "websocket", "x-a": "b", "x-c": "d"})

    def test_folded_lines_are_one_with_a_space_between(self) -> None:
        response = parse_response(SWITCHING + b"\r\nX-A: b\r\n \t c\r\n\td \r\nX-E: f")
        self.assertEqual((response.headers["x-a"], response.headers["x-e"]), ("b c d", "f"))

    def test_blanks_behind_the_status_and_any_case_of_a_name_are_borne(self) -> None:
        for line in (b"HTTP/1.1 101 ", b"HTTP/1.1 101   ", b"HTTP/1.0 101  X "):
            response = parse_response(line + b"\r\nUPGRADE:websocket\r\nsec-WEBSOCKET-accept:  x ")
            self.assertEqual((response.status, response.headers["Upgrade"]), (101, "websocket"))
            self.assertEqual(response.headers["Sec-WebSocket-Accept"], "x")

    def test_what_came_instead_is_shown_escaped_and_bounded(self) -> None:
        self.refused(b"SSH-2.0-\x1b[31m" + b"x" * 999, 0, r"but: SSH-2.0-\\x1b\[31mx{1,60}\.\.\.$")

    def test_repr_shows_no_header(self) -> None:
        self.assertNotIn("hush", repr(parse_response(SWITCHING + b"\r\nSet-Cookie: hush")))
        self.assertEqual(Response(101, "X", Headers()), Response(101, "X", Headers()))

    def test_what_does_not_begin_with_a_status_line_has_no_status(self) -> None:
        for line in (
            b"", b"SSH-2.0-x", b"HTTP/2 101 X", b"HTTP/1.1 1O1 X", b"HTTP/1.1 99 X", b"HTTP/1.1 1000 X",
            b"HTTP/1.1  101 X", b"HTTP/1.1 101\tX", b"HTTP/1.1 \xb2\xb2\xb2 X",
            b" HTTP/1.1 101 X",
        ):  # fmt: skip
            with self.subTest(line=line):
                self.refused(line + b"\r\nUpgrade: websocket", 0, "does not begin with an HTTP status line")

    def test_malformed_fields_are_refused_and_the_status_is_known(self) -> None:
        for line in (
            b"no colon", b" folded: x", b"Name : x", b"a\x00b: x", b"X: a\rb", b"X: a\nY b", b": x",
            b"X: a\x00", b"X: a\r\r",
        ):  # fmt: skip
            with self.subTest(line=line):
                self.refused(b"HTTP/1.1 503 X\r\n" + line, 503, "malformed header")

    def test_bounds_on_the_headers(self) -> None:
        parse_response(SWITCHING + b"\r\nX: y" * (MAX_HEADERS - 1))
        self.refused(SWITCHING + b"\r\nX: y" * MAX_HEADERS, 101, "more than 64 headers")

    def test_thirty_thousand_blanks_and_a_nul_are_refused_at_once(self) -> None:
        started = time.process_time()
        self.refused(SWITCHING + b"\r\nX:" + b" " * 30_000 + b"\x00", 101, "malformed header")
        self.assertLess(time.process_time() - started, QUICK)


class HeadBufferTest(unittest.TestCase):
    def test_the_end_is_found_wherever_the_pieces_are_cut(self) -> None:
        data = GOOD + b"\r\n\r\n\x81\x00more"
        for cut in range(1, len(data)):
            buffer = HeadBuffer(check_request_size)
            first, behind = buffer.feed(data[:cut]), b""
            if first is None:
                first = buffer.feed(data[cut:])
            else:
                behind = data[cut:]
            assert first is not None
            self.assertEqual((first[0], first[1] + behind), (GOOD, b"\x81\x00more"))

    def test_a_response_may_end_its_lines_in_a_bare_lf_and_a_request_may_not(self) -> None:
        for end in (b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\n\r\n"):
            data = b"HTTP/1.1 101 X\nUpgrade: websocket" + end + b"\x81\x02\n\n"
            for cut in range(1, len(data)):
                buffer = HeadBuffer(check_response_size, bare_lf=True)
                whole, behind = buffer.feed(data[:cut]), data[cut:]
                if whole is None:
                    whole, behind = buffer.feed(data[cut:]), b""
                assert whole is not None
                self.assertEqual(whole[0].rstrip(b"\r"), b"HTTP/1.1 101 X\nUpgrade: websocket")
                self.assertEqual(whole[1] + behind, b"\x81\x02\n\n")
            if end != b"\r\n\r\n":
                self.assertIsNone(HeadBuffer(check_request_size).feed(GOOD + end))

    def test_tls_instead_of_http_is_refused_at_its_first_byte(self) -> None:
        for first in (b"\x16", b"\x16\x03\x01\x02\x00", b"\x15\x03\x03\x00\x02\x02\x46"):
            with self.assertRaisesRegex(TlsInstead, "use ws://") as caught:
                HeadBuffer(check_request_size).feed(first)
            self.assertEqual(caught.exception.status, 400)
        self.assertIsNone(HeadBuffer(check_request_size).feed(b""))

    def test_an_empty_line_at_once_is_an_empty_head(self) -> None:
        self.assertEqual(HeadBuffer(check_request_size).feed(b"\r\n\r\n"), (b"", b""))

    def refused(self, data: bytes, piece: int, status: int) -> int:
        """How many bytes of a head without end were taken before it was refused."""
        buffer, taken = HeadBuffer(check_request_size), 0
        with self.assertRaises(BadHead) as caught:
            while taken < len(data):
                self.assertIsNone(buffer.feed(data[taken : taken + piece]))
                taken += piece
        self.assertEqual(caught.exception.status, status)
        return taken

    def test_a_line_or_fields_without_end_are_refused_early(self) -> None:
        for piece in (1, 100, 4096):
            with self.subTest(piece=piece):
                self.assertLess(self.refused(b"GET /" + b"a" * 20_000, piece, 414), MAX_LINE + piece + 4)
                fields = GOOD + b"\r\n" + b"X: yyyyyyyyyyyyyyyyyyyy\r\n" * 2500
                self.assertLess(self.refused(fields, piece, 431), MAX_HEADER_BYTES + len(GOOD) + piece + 4)

    def test_exactly_the_bounds_may_come_byte_by_byte(self) -> None:
        head = GOOD + b"\r\nX: "
        head += b"y" * (MAX_HEADER_BYTES - (len(head) - GOOD.index(b"\r")))
        buffer, whole = HeadBuffer(check_request_size), None
        for byte in head + b"\r\n\r\n":
            self.assertIsNone(whole)
            whole = buffer.feed(bytes([byte]))
        self.assertEqual(whole, (head, b""))
        parse(head)

    def test_a_response_is_bounded_as_a_whole(self) -> None:
        for data in (b"H" * (MAX_RESPONSE + 5000), SWITCHING + b"\r\nX: " + b"y" * MAX_RESPONSE):
            with self.assertRaisesRegex(BadHead, "more than 40960 bytes"):
                HeadBuffer(check_response_size).feed(data)
        self.assertIsNone(HeadBuffer(check_response_size).feed(SWITCHING + b"\r\nX: " + b"y" * (MAX_RESPONSE - 100)))

    def test_a_head_that_comes_byte_by_byte_costs_linear_time(self) -> None:
        for tail in (b"y" * 30_000, b"\r" * 30_000, b"\n" * 30_000):
            data = GOOD + b"\r\nX: " + tail + b"\r\n\r\n"
            buffer = HeadBuffer(check_request_size)
            started = time.process_time()
            wholes = [whole for byte in data if (whole := buffer.feed(bytes([byte])))]
            self.assertLess(time.process_time() - started, 2.0)
            self.assertEqual(wholes, [(data[:-4], b"")])


if __name__ == "__main__":
    unittest.main()
