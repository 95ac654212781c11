"""What is said of an answer other than 101: one line that tells what came, what was asked, and what mends it."""

from __future__ import annotations

import json
import time
import unittest

from sync_ws import Headers, should_reconnect
from sync_ws.client.address import parse_url
from sync_ws.client.refusal import Asked, rejected
from sync_ws.errors import HandshakeRejected

TARGET = parse_url("ws://a.test/ws/?token=hush")


def refused(
    status: int = 404, body: bytes = b"", *fields: tuple[str, str], asked: Asked = Asked(TARGET), phrase: str = ""
) -> HandshakeRejected:
    return rejected(status, phrase, Headers(fields), body, asked)


def kind(of: str) -> tuple[str, str]:
    return "Content-Type", of


class SaidTest(unittest.TestCase):
    def said(self, body: bytes | str, *fields: tuple[str, str]) -> str:
        """What the text has between the status and what was asked."""
        error = refused(503, body if isinstance(body, bytes) else body.encode(), *fields)
        self.assertTrue(str(error).isprintable() and str(error).isascii() and len(str(error)) < 3000, error)
        return str(error).removeprefix("the server answered 503").removeprefix(": ").strip()

    def test_plain_text_is_its_first_line(self) -> None:
        self.assertEqual(self.said("go away\nnow", kind("text/plain; charset=utf-8")), "go away")
        self.assertEqual(self.said("\r\n go away \r\nnow"), "go away")
        self.assertEqual(self.said("x" * 9999), "x" * 200 + "...")
        self.assertEqual(self.said("\x1b[31m\u202eevil\x00"), "\\x1b[31m\\u202eevil\\x00")

    def test_a_page_is_its_title_at_most(self) -> None:
        page = "<!DOCTYPE html>\n<html><head><title lang=en>\n Not &amp; \u00e4 here </title></head><body>hush</body>"
        for fields in ((), (kind("text/html"),), (kind("Application/XHTML+XML"),)):
            self.assertEqual(self.said(page, *fields), "an HTML page, 'Not & \\xe4 here'")
        self.assertEqual(self.said("<p>hush</p>"), "an HTML page")
        self.assertEqual(self.said("no tag", kind("text/html")), "an HTML page")
        self.assertEqual(self.said(f"<title>{'x' * 300}</title>"), f"an HTML page, '{'x' * 80}...'")

    def test_of_json_it_is_what_there_is_for_people(self) -> None:
        problem = {"type": "https://a.test/x", "title": "Out of credit", "status": 403, "detail": "You have 30."}
        for body, says in (
            (problem, "Out of credit: You have 30."),
            ({"message": "no such room", "trace": "hush"}, "no such room"),
            ({"error": {"code": 4, "message": "no such room"}}, "no such room"),
            ({"error": "unauthorized", "error_description": "expired"}, "unauthorized: expired"),
            ({"title": "same", "detail": "same"}, "same"),
            ({"code": 4}, '{"code": 4}'),
            ([1, 2], "[1, 2]"),
        ):
            with self.subTest(says):
                self.assertEqual(self.said(json.dumps(body), kind("application/problem+json")), says)
        self.assertEqual(self.said('{"title": "unnamed"}'), "unnamed")
        self.assertEqual(self.said('{"title": "cut', kind("application/json")), '{"title": "cut')
        self.assertTrue(self.said("[" * 60_000, kind("application/json")).endswith("[..."))
        self.assertEqual(len(self.said(json.dumps({"title": "x" * 9999}), kind("application/json"))), 203)

    def test_what_is_no_text_is_not_shown(self) -> None:
        self.assertEqual(self.said(b"\x89PNG", kind("image/png")), "a body of type image/png")
        self.assertEqual(
            self.said(b"\x1f\x8b..", kind("text/plain"), ("Content-Encoding", "gzip")), "Service Unavailable"
        )

    def test_without_a_body_it_is_the_phrase_or_what_the_status_means(self) -> None:
        self.assertIn("answered 404 Gone Fishing", str(refused(404, phrase="Gone Fishing")))
        self.assertIn("answered 404 Not Found", str(refused(404)))
        self.assertEqual(str(refused(599)), "the server answered 599")
        self.assertIn("answered 500 a\\x1bb", str(refused(500, phrase="a\x1bb")))

    def test_the_worst_page_takes_no_time(self) -> None:
        started = time.process_time()
        for body in (
            b"<title" * 10_000,
            b"<title>" * 9_000,
            b"<title" + b" " * 60_000,
            b"&amp;" * 13_000,
            b"{" * 65_000,
        ):
            refused(404, body)
        self.assertLess(time.process_time() - started, 1.0)


class AskedTest(unittest.TestCase):
    def test_what_was_asked_is_told_where_it_may_be_the_cause_and_never_the_query(self) -> None:
        asked = Asked(TARGET, "http://page.test", ("a", "b"), True)
        everything = "GET /ws/, Origin http://page.test, subprotocols a, b"
        for status, says in (
            (404, "(asked: GET /ws/)"), (405, "(asked: GET /ws/)"), (410, "(asked: GET /ws/)"),
            (426, "(asked: GET /ws/)"), (200, "(asked: GET /ws/)"), (401, "(asked: GET /ws/, with credentials)"),
            (400, f"(asked: {everything})"), (403, f"(asked: {everything}, with credentials)"),
        ):  # fmt: skip
            with self.subTest(status):
                self.assertIn(says, str(refused(status, asked=asked)))
                self.assertNotIn("hush", str(refused(status, asked=asked)))
        self.assertIn("(asked: GET /ws/, no Origin, without credentials)", str(refused(403)))
        for status in (302, 429, 500, 503):
            self.assertNotIn("asked", str(refused(status)))

    def test_advice_where_there_is_some(self) -> None:
        for status, body, fields, says in (
            (200, b"", (), "there is no WebSocket at that path"),
            (426, b"", (), "a proxy on the way may drop the Upgrade header"),
            (426, b"", (("Sec-WebSocket-Version", "8, 7"),), "it speaks version 8, 7 of the protocol, we 13"),
            (400, b"Client sent an HTTP request to an HTTPS server.\n", (), "the server speaks TLS there: use wss://"),
            (400, b"<title>400 The plain HTTP request was sent to HTTPS port</title>", (), "use wss://"),
            (400, b"You're speaking plain HTTP to an SSL-enabled server port.", (), "use wss://"),
        ):
            with self.subTest(says):
                self.assertIn(says, str(refused(status, body, *fields)))
        secure = Asked(parse_url("wss://a.test/"))
        self.assertNotIn("use wss", str(refused(400, b"sent to HTTPS port", asked=secure)))


class RedirectTest(unittest.TestCase):
    def test_where_it_leads_and_the_address_to_give_instead(self) -> None:
        for location, says in (
            ("wss://b.test/ws/", "redirects are not followed: to wss://b.test/ws/"),
            (
                "https://a.test/ws/?token=hush",
                "to https://a.test/ws/?token=***; if that is the WebSocket, give wss://a.test",
            ),
            ("http://b.test/", "to http://b.test/; if that is the WebSocket, give ws://b.test/"),
            ("/login?next=hush", "to /login?next=***; if that is the WebSocket, give ws://a.test:80/login?next=***"),
            ("//b.test/x", "to //b.test/x; if that is the WebSocket, give ws://b.test/x"),
            ("https://us:hush@b.test/", "to https://b.test/;"),
            ("mailto:x", "to mailto:x"),
            ("http://[", "to http://["),
            ("\x1b\u00e4\u202e", "to \\x1b\\xe4\\u202e"),
        ):
            for status in (301, 302, 303, 307, 308):
                with self.subTest(location, status=status):
                    error = refused(status, b"<html>moved", ("Location", location))
                    self.assertIn(says, str(error))
                    self.assertNotIn("hush", str(error))
                    self.assertTrue(str(error).isprintable() and str(error).isascii())
                    self.assertEqual(error.headers["location"], location)
                    self.assertTrue(error.reason.permanent)

    def test_one_that_leads_nowhere_or_far(self) -> None:
        self.assertIn("without a Location", str(refused(302)))
        self.assertLess(len(str(refused(302, b"", ("Location", "https://a.test/" + "x" * 9999)))), 600)


class ErrorTest(unittest.TestCase):
    def test_body_and_every_value_of_a_header_are_in_the_exception(self) -> None:
        cookies = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("set-cookie", "c=3")]
        error = refused(403, b"<p>no", *cookies)
        self.assertEqual((error.status, error.body), (403, b"<p>no"))
        self.assertEqual(error.headers.get_all("Set-Cookie"), ["a=1", "b=2", "c=3"])

    def test_which_status_is_worth_another_attempt(self) -> None:
        for status in (*range(200, 209), *range(300, 309), *range(400, 432), 451, 499, *range(500, 512), 599):
            again = status >= 500 or status in (408, 425, 429)
            self.assertEqual(should_reconnect(refused(status).reason), again, status)

    def test_retry_after_in_seconds_is_understood_and_bounded(self) -> None:
        for value, seconds in (
            ("7", 7.0), ("0", 0.0), ("999999999", 3600.0), ("9" * 400, 3600.0), ("soon", None), ("-1", None),
            ("1.5", None), ("٣", None),
        ):  # fmt: skip
            self.assertEqual(refused(503, b"", ("Retry-After", value)).reason.retry_after, seconds, value)


if __name__ == "__main__":
    unittest.main()
