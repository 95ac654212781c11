"""The opening handshake as values: what gets in and as what, what is answered, and what a client accepts of it."""

from __future__ import annotations

import base64
import unittest
from collections.abc import Iterable

from sync_ws import Headers, Refusal, Request
from sync_ws.protocol.deflate import Negotiation
from sync_ws.protocol.handshake import (
    Accepted,
    Agreed,
    Policy,
    accept_key,
    answer,
    check,
    check_host,
    check_name,
    verify,
)
from sync_ws.protocol.http_head import Response, parse_request, parse_response
from sync_ws.protocol.origin import Hosts

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
GOOD = {
    "Host": "good:80",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}
DEFLATE = "permessage-deflate"


def request(path: str = "/ws/", *lines: str, method: str = "GET", drop: Iterable[str] = ()) -> Request:
    fields = [f"{name}: {value}" for name, value in GOOD.items() if name not in drop]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *fields, *lines])
    return parse_request(head.encode("latin-1"), ("127.0.0.1", 4242), secure=False)


class CheckTest(unittest.TestCase):
    def refused(self, asked: Request, status: int, says: str, policy: Policy = Policy()) -> Refusal:
        with self.assertRaises(Refusal) as caught:
            check(asked, policy)
        self.assertEqual(caught.exception.status, status, caught.exception)
        self.assertIn(says, caught.exception.text)
        return caught.exception

    def test_a_plain_handshake_is_accepted_as_nothing_special(self) -> None:
        self.assertEqual(check(request(), Policy()), Accepted(None, KEY, Agreed(), None))

    def test_what_is_no_opening_handshake_of_rfc_6455_is_refused_with_what_is_missing(self) -> None:
        for asked, status, says in (
            (request("/"), 404, "expected the path /ws/, got '/'"),
            (request(method="POST"), 405, "method GET"),
            (request(drop=["Upgrade"]), 426, "Upgrade: websocket"),
            (request("/ws/", "Upgrade: h2c", drop=["Upgrade"]), 426, "Upgrade: websocket"),
            (request(drop=["Connection"]), 426, "Connection: Upgrade"),
            (request("/ws/", "Connection: close", drop=["Connection"]), 426, "Connection: Upgrade"),
            (request(drop=["Sec-WebSocket-Version"]), 426, "Version: 13"),
            (request("/ws/", "Sec-WebSocket-Version: 13"), 426, "Version: 13"),
            (request(drop=["Sec-WebSocket-Key"]), 400, "one Sec-WebSocket-Key"),
            (request("/ws/", f"Sec-WebSocket-Key: {KEY}"), 400, "one Sec-WebSocket-Key"),
        ):
            with self.subTest(says=says):
                refusal = self.refused(asked, status, says)
                self.assertEqual(refusal.headers.get("Sec-WebSocket-Version"), "13" if status == 426 else None)

    def test_upgrade_and_connection_are_lists_without_case(self) -> None:
        for line in ("Upgrade: h2c, WebSocket", "Connection: keep-alive, UPGRADE", "Connection: \xff, upgrade"):
            check(request("/ws/", line, drop=[line.partition(":")[0]]), Policy())

    def test_a_key_is_sixteen_bytes_in_base64(self) -> None:
        for size in range(1, 40):
            line = f"Sec-WebSocket-Key: {base64.b64encode(bytes(range(size))).decode()}"
            asked = request("/ws/", line, drop=["Sec-WebSocket-Key"])
            with self.subTest(size=size):
                if size == 16:
                    check(asked, Policy())
                else:
                    self.refused(asked, 400, "one Sec-WebSocket-Key")

    def test_origins(self) -> None:
        listed = Policy(origins=frozenset({"https://app.example", "null"}))
        anyone = Policy(origins=frozenset({"*"}))
        for policy, origins, welcome in (
            (Policy(), [], True),
            (Policy(), ["HTTPS://GOOD:80"], True),
            (Policy(), ["http://good"], True),
            (Policy(), ["https://good"], False),
            (Policy(), ["http://good:81"], False),
            (Policy(), ["ws://good:80"], False),
            (Policy(), ["null"], False),
            (Policy(), ["http://good:80", "http://good:80"], False),
            (listed, ["https://App.example"], True),
            (listed, ["HTTPS://App.example:443"], True),
            (listed, ["https://app.example/"], False),
            (listed, ["null"], True),
            (listed, ["file://"], False),
            (listed, [""], False),
            (listed, ["http://good:80"], False),
            (anyone, ["null", "x"], True),
            (Policy(origins=frozenset()), ["http://good:80"], False),
        ):
            asked = request("/ws/", *(f"Origin: {origin}" for origin in origins))
            with self.subTest(policy=policy, origins=origins):
                if welcome:
                    check(asked, policy)
                else:
                    self.refused(asked, 403, "expected an allowed Origin", policy)

    def test_an_origin_with_letters_is_the_one_in_a_labels_however_they_are_encoded(self) -> None:
        policy = Policy(origins=frozenset({"https://xn--bcher-kva.example"}))
        sent = "https://B\xdccher.example".encode().decode("latin-1")
        check(request("/ws/", f"Origin: {sent}"), policy)
        check(request("/ws/", "Origin: https://b\xfccher.example"), policy)
        self.refused(request("/ws/", "Origin: https://b\xf6cher.example"), 403, "b\\xf6cher", policy)

    def test_a_refused_origin_says_what_came_what_was_expected_and_which_option_mends_it(self) -> None:
        evil = request("/ws/", "Origin: https://evil.example")
        text = self.refused(evil, 403, "expected an allowed Origin").text
        for says in ("got 'https://evil.example'", "the same origin as Host 'good:80'", "option origins", "proxy"):
            self.assertIn(says, text)
        text = self.refused(evil, 403, "", Policy(origins=frozenset({"https://b", "https://a"}))).text
        for says in ("got 'https://evil.example'", "Host was 'good:80'", "option origins: https://a, https://b,"):
            self.assertIn(says, text)
        self.refused(evil, 403, "option origins: none", Policy(origins=frozenset()))
        many = frozenset(f"https://{number:03}.example" for number in range(1000))
        text = self.refused(evil, 403, "https://004.example and 995 more", Policy(origins=many)).text
        self.assertLess(len(text), 400)
        twice = request("/ws/", "Origin: http://good:80", "Origin: https://evil.example")
        self.refused(twice, 403, "got 'http://good:80' and 'https://evil.example'")

    def test_what_came_is_shown_on_one_short_line(self) -> None:
        long, odd = "https://" + "a" * 5000, "https://\xe9\x85\x9b"
        for text in (
            self.refused(request("/ws/", f"Origin: {long}"), 403, "...").text,
            self.refused(request("/ws/", f"Origin: {odd}"), 403, "\\xe9\\x85\\x9b").text,
            self.refused(request("/" + "a" * 5000), 404, "...").text,
        ):
            self.assertTrue(text.isprintable() and text.isascii())
            self.assertLess(len(text), 600)

    def test_a_wrong_path_is_answered_with_the_right_one_and_what_may_be_the_matter(self) -> None:
        for path, right, says in (
            ("/ws", "/ws/", "got '/ws': mind the slash at its end"),
            ("/ws//", "/ws/", "mind the slash"),
            ("/ws/", "/ws", "mind the slash"),
            ("/WS/", "/ws/", "mind upper and lower case"),
            ("/%77s/", "/ws/", "percent-encoding"),
            ("/app/ws/", "/ws/", "a proxy in front may have to take '/app' away"),
        ):
            with self.subTest(path=path):
                self.refused(request(path), 404, f"expected the path {right}, ", Policy(path=right))
                self.refused(request(path), 404, says, Policy(path=right))
        self.assertTrue(self.refused(request("/other"), 404, "").text.endswith("got '/other'"))

    def test_hosts(self) -> None:
        guarded = Policy(hosts=Hosts(frozenset({"plc"}), True, 80))
        listed = Policy(hosts=Hosts(frozenset({"ide.example"})))
        both = Policy(hosts=Hosts(frozenset({"ide.example"}), True))
        for policy, host, says in (
            (guarded, "localhost:80", None),
            (guarded, "plc", None),
            (guarded, "ide.example:443", None),
            (
                guarded,
                "evil.example:80",
                "listens on a loopback address, got 'evil.example:80'; the option",
            ),
            (guarded, "evil.example", "expected a loopback name such as localhost as Host"),
            (listed, "ide.example:443", None),
            (listed, "localhost", "expected as Host one of the option hosts: ide.example, got 'localhost'"),
            (both, "localhost", None),
            (
                both,
                "evil.example:443",
                "a loopback name, or one of the option hosts: ide.example, got 'evil",
            ),
        ):
            asked = request("/ws/", f"Host: {host}", f"Origin: http://{host}", drop=["Host"])
            with self.subTest(policy=policy, host=host):
                if says is None:
                    check_host(asked, policy)
                    check(asked, policy)
                else:
                    self.refused(asked, 403, says, policy)
                    self.assertRaises(Refusal, check_host, asked, policy)
        alias = request("/ws/", "Host: plc-7:80", drop=["Host"])  # no browser: nobody has lured it here
        check(alias, guarded)
        self.refused(alias, 403, "got 'plc-7:80'", listed)

    def test_names(self) -> None:
        self.assertEqual(check(request("/ws/?name=J%C3%B6rg"), Policy()).name, "J\xf6rg")
        self.refused(request("/ws/?name="), 400, "a name has 1 to 128 printable characters")
        self.refused(request("/ws/?name=%0a"), 400, "expected a good name in the query")
        self.refused(request("/ws/?name=a&name=a"), 400, "expected one name")
        self.refused(request(), 400, "?name=test", Policy(require_name=True))

    def test_check_name_says_what_it_wants(self) -> None:
        self.assertEqual(check_name("a" * 128), "a" * 128)
        for name in ("", "a" * 129, "a\n"):
            with self.assertRaisesRegex(ValueError, "printable"):
                check_name(name)

    def test_the_subprotocol_is_the_first_of_the_clients_that_the_server_has(self) -> None:
        policy = Policy(subprotocols=("chat", "superchat"))
        for offered, chosen in (
            ("x, superchat, chat", "superchat"), ("x", None), ("Chat", None), ("chat,, ,x", "chat"), ("", None),
        ):  # fmt: skip
            asked = request("/ws/", f"Sec-WebSocket-Protocol: {offered}")
            self.assertEqual(check(asked, policy).agreed.subprotocol, chosen)
        for bad in ("a, a", "a b", "a/b", "\xe4", "a" * 129):
            self.refused(request("/ws/", f"Sec-WebSocket-Protocol: {bad}"), 400, "distinct tokens", policy)

    def test_compression_is_agreed_on_where_it_is_offered_and_wanted(self) -> None:
        offer = f"Sec-WebSocket-Extensions: x-other, {DEFLATE}; server_max_window_bits=10"
        self.assertEqual(check(request("/ws/", offer), Policy()).agreed, Agreed())
        accepted = check(request("/ws/", offer), Policy(compression=True))
        self.assertEqual(accepted.agreed.deflate, Negotiation(send_bits=10))
        self.assertEqual(accepted.extension, f"{DEFLATE}; server_max_window_bits=10")
        self.assertIsNone(check(request(), Policy(compression=True)).extension)

    def test_the_cheap_checks_come_first(self) -> None:
        asked = request("/ws/?name=", "Origin: null", "Sec-WebSocket-Protocol: a b", drop=["Upgrade"], method="POST")
        self.refused(asked, 405, "GET")
        asked = request("/ws/?name=", "Origin: null", "Sec-WebSocket-Protocol: a b")
        self.refused(asked, 403, "Origin")
        self.refused(request("/ws/?name=", "Sec-WebSocket-Protocol: a b"), 400, "name")


class AnswerTest(unittest.TestCase):
    def test_the_accept_value_is_the_one_of_the_rfc(self) -> None:
        self.assertEqual(accept_key(KEY), ACCEPT)

    def test_the_answer_says_what_was_agreed_on_and_that_heartbeats_are_answered(self) -> None:
        plain = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        plain += f"Sec-WebSocket-Accept: {ACCEPT}\r\nSync-WS: heart_beat\r\n".encode()
        self.assertEqual(answer(Accepted("ann", KEY, Agreed(), None)), plain + b"\r\n")
        self.assertEqual(
            answer(Accepted(None, KEY, Agreed("chat", Negotiation()), DEFLATE)),
            plain + b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
        )

    def test_the_two_sides_agree(self) -> None:
        offer = f"Sec-WebSocket-Extensions: {DEFLATE}; client_max_window_bits"
        accepted = check(
            request("/ws/", "Sec-WebSocket-Protocol: a, b", offer), Policy(subprotocols=("b",), compression=True)
        )
        head = answer(accepted).removesuffix(b"\r\n\r\n")
        self.assertEqual(verify(parse_response(head), KEY, ["a", "b"], True), accepted.agreed)


class VerifyTest(unittest.TestCase):
    def response(self, *more: tuple[str, str], status: int = 101, **changed: str | None) -> Response:
        """A good response, with more fields; `changed`: the value of one, None to leave it out."""
        fields = {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}
        kept = {name: changed.get(name.rpartition("-")[2], value) for name, value in fields.items()}
        return Response(status, "", Headers([*((n, v) for n, v in kept.items() if v is not None), *more]))

    def test_what_was_offered_may_be_agreed_on(self) -> None:
        self.assertEqual(verify(self.response(), KEY), Agreed())
        self.assertEqual(verify(self.response(), KEY, ["a"], True), Agreed())
        more = ("Sec-WebSocket-Protocol", "b"), ("Sec-WebSocket-Extensions", f"{DEFLATE}; client_max_window_bits=9")
        self.assertEqual(verify(self.response(*more), KEY, ["a", "b"], True), Agreed("b", Negotiation(send_bits=9)))

    def test_an_empty_choice_is_none(self) -> None:
        more = ("Sec-WebSocket-Protocol", ""), ("Sec-WebSocket-Extensions", "")
        self.assertEqual(verify(self.response(*more), KEY, ["a"]), Agreed())

    def test_upgrade_and_connection_are_lists_without_case(self) -> None:
        verify(self.response(upgrade="WebSocket", connection="keep-alive, upgrade"), KEY)
        verify(self.response(("Connection", "Upgrade"), connection="keep-alive"), KEY)

    def test_what_does_not_complete_the_handshake_is_an_error_that_says_why(self) -> None:
        for response, says in (
            (self.response(status=200), "the status is 200"),
            (self.response(upgrade=None), "Upgrade: websocket"),
            (self.response(upgrade="h2c"), "Upgrade: websocket"),
            (self.response(connection=None), "Connection: Upgrade"),
            (self.response(connection="close"), "Connection: Upgrade"),
            (self.response(accept=None), "does not match the key"),
            (self.response(accept=ACCEPT.lower()), "does not match the key"),
            (self.response(accept=ACCEPT[:-1]), "does not match the key"),
            (self.response(("Sec-WebSocket-Accept", ACCEPT)), "more than one sec-websocket-accept header"),
            (self.response(("Upgrade", "websocket")), "more than one upgrade header"),
            (self.response(*[("Sec-WebSocket-Protocol", "a")] * 2), "more than one sec-websocket-protocol header"),
            (self.response(("Sec-WebSocket-Protocol", "c")), "the subprotocol '[cA]', which was not offered: a"),
            (self.response(("Sec-WebSocket-Protocol", "A")), "the subprotocol '[cA]', which was not offered: a"),
            (self.response(("Sec-WebSocket-Extensions", "x-other")), "extension that was not offered"),
            (self.response(("Sec-WebSocket-Extensions", f"{DEFLATE}, {DEFLATE}")), "extension that was not offered"),
        ):
            with self.subTest(says=says), self.assertRaisesRegex(ValueError, says):
                verify(response, KEY, ["a"], True)

    def test_compression_that_was_not_offered_is_an_error(self) -> None:
        with self.assertRaisesRegex(ValueError, "extension that was not offered"):
            verify(self.response(("Sec-WebSocket-Extensions", DEFLATE)), KEY)


if __name__ == "__main__":
    unittest.main()
