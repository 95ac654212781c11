"""Origins and hosts: equal where they mean the same, different where they do not, and errors that say why."""

from __future__ import annotations

import time
import unittest

from sync_ws.protocol.origin import MAX_HOST, Hosts, canonical_host, is_loopback, parse_origin, parse_place


class OriginTest(unittest.TestCase):
    def test_spellings_of_one_origin_are_equal(self) -> None:
        for spelled, form in (
            ("https://ide.example", "https://ide.example"),
            ("https://ide.example:443", "https://ide.example"),
            ("https://ide.example:", "https://ide.example"),
            ("https://ide.example:0443", "https://ide.example"),
            ("HTTPS://IDE.Example:443", "https://ide.example"),
            ("http://ide.example:80", "http://ide.example"),
            ("http://ide.example:443", "http://ide.example:443"),
            ("https://ide.example:80", "https://ide.example:80"),
            ("https://b\xfccher.example", "https://xn--bcher-kva.example"),
            ("https://B\xdcCHER.example:443", "https://xn--bcher-kva.example"),
            ("https://XN--BCHER-KVA.example", "https://xn--bcher-kva.example"),
            ("https://\u4f8b\u3048\u3002\u30c6\u30b9\u30c8", "https://xn--r8jz45g.xn--zckzah"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[0:0:0:0:0:0:0:1]:8080", "http://[::1]:8080"),
            ("http://[2001:DB8::A]", "http://[2001:db8::a]"),
            ("http://127.0.0.1:1024", "http://127.0.0.1:1024"),
            ("http://my_plc:1024", "http://my_plc:1024"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost", "capacitor://localhost"),
        ):
            with self.subTest(spelled=spelled):
                origin = parse_origin(spelled)
                self.assertEqual(str(origin), form)
                self.assertEqual(parse_origin(form), origin)

    def test_what_differs_in_scheme_host_or_port_is_another(self) -> None:
        origin = parse_origin("https://ide.example")
        for other in (
            "http://ide.example", "http://ide.example:443", "https://ide.example:444", "https://ide.example.",
            "https://ide.example.evil", "https://a.ide.example", "https://ide-example", "wss://ide.example",
        ):  # fmt: skip
            with self.subTest(other=other):
                self.assertNotEqual(parse_origin(other), origin)
                self.assertNotEqual(str(parse_origin(other)), str(origin))

    def test_what_is_none_is_an_error_that_says_why(self) -> None:
        for text, says in (
            ("ide.example", "no scheme"), ("", "no scheme"), ("null", "no scheme"), ("://ide.example", "no scheme"),
            ("ht tp://ide.example", "no scheme"), ("\u0127ttps://ide.example", "no scheme"),
            ("https://ide.example/", "more than"), ("https://ide.example/app", "more than"),
            ("https://user@ide.example", "more than"), ("https://ide.example?a", "more than"),
            ("https://ide.example#a", "more than"), ("https://ide.example\\", "more than"),
            ("https://" + "a." * 200, "more than"),
            ("https://", "has not 1 to 253"), ("file://", "has not 1 to 253"),
            ("https://ide.example:0", "its port"), ("https://ide.example:65536", "its port"),
            ("https://ide.example:http", "its port"), ("https://ide.example:-1", "its port"),
            ("https://ide.example:\u0664\u0664\u0663", "its port"), ("https://ide.example:443:443", "in brackets"),
            ("http://::1", "in brackets"), ("http://[::1", "not an IPv6 address"), ("http://[::1]80", "no port"),
            ("http://[fe80::1%25eth0]", "not an IPv6 address"), ("http://[ide]", "not an IPv6 address"),
            ("https://ide..example", "not a name"), ("https://.ide.example", "not a name"),
            ("https://*.example", "not a name"), ("https://ide example", "not a name"),
            ("https://" + "a" * 64, "not a name"), ("https://\xfc..example", "not a name"),
            ("https://ide.example\x00", "not a name"), ("https://fa\xdf.example", "A-labels"),
            ("http://127.1", "IPv4"), ("http://1.2.3.256", "IPv4"),
        ):  # fmt: skip
            with self.subTest(text=text[:40]), self.assertRaisesRegex(ValueError, says):
                parse_origin(text)

    def test_a_page_is_from_the_place_that_it_was_loaded_from(self) -> None:
        """The place says what a browser left out: the default port of the page's scheme, whoever ended TLS."""
        for origin, host, same in (
            ("https://ide.example", "ide.example", True),
            ("https://ide.example", "ide.example:443", True),
            ("https://ide.example:443", "ide.example", True),
            ("https://ide.example:443", "IDE.example:443", True),
            ("http://ide.example", "ide.example", True),
            ("http://ide.example", "ide.example:80", True),
            ("http://ide.example:1024", "ide.example:1024", True),
            ("https://ide.example:1024", "ide.example:1024", True),
            ("http://[::1]:1024", "[0::1]:1024", True),
            ("https://b\xfccher.example", "xn--bcher-kva.example", True),
            ("https://ide.example", "ide.example:80", False),
            ("http://ide.example", "ide.example:443", False),
            ("https://ide.example:8443", "ide.example", False),
            ("https://ide.example", "ide.example:8443", False),
            ("https://evil.example", "ide.example", False),
            ("https://ide.example.", "ide.example", False),
            ("wss://ide.example", "ide.example", False),
            ("chrome-extension://ide", "ide", False),
            ("https://ide.example", "ide!example", False),
        ):
            with self.subTest(origin=origin, host=host):
                self.assertIs(parse_origin(origin).same_as(host), same)

    def test_the_worst_that_can_come_is_refused_at_once(self) -> None:
        begun = time.process_time()
        for text in ("https://" + "\xfc" * 40_000, "a" * 40_000, "https://" + ":" * 40_000, "https://" + "." * 40_000):
            self.assertRaises(ValueError, parse_origin, text)
        self.assertRaises(ValueError, parse_origin, "https://" + "\xfc" * MAX_HOST)
        self.assertLess(time.process_time() - begun, 0.25)


class HostsTest(unittest.TestCase):
    def test_named_hosts_are_compared_without_port(self) -> None:
        hosts = Hosts(frozenset({"ide.example", "[::1]"}))
        for place, welcome in (
            ("ide.example", True), ("IDE.EXAMPLE:1024", True), ("[0::1]:1", True),
            ("a.ide.example", False), ("localhost", False), ("ide!example", False), ("ide.example:x", False),
        ):  # fmt: skip
            with self.subTest(place=place):
                self.assertIs(hosts.welcome(place, False), welcome)

    def test_loopback_names_where_they_are_told_to(self) -> None:
        hosts = Hosts(frozenset({"plc"}), loopback=True)
        for place in ("plc", "localhost", "LOCALHOST.:1", "app.localhost", "127.0.0.1", "127.8.9.1:5", "[::1]:5"):
            self.assertTrue(hosts.welcome(place, False), place)
        for place in (
            "evil.example",
            "localhost.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "127.0.0.1.evil.example",
        ):
            self.assertFalse(hosts.welcome(place, False), place)

    def test_with_a_port_only_who_came_by_that_is_asked(self) -> None:
        hosts = Hosts(frozenset(), loopback=True, port=1024)
        self.assertFalse(hosts.welcome("evil.example:1024", False))
        self.assertFalse(hosts.welcome("evil!example:1024", False))
        self.assertTrue(hosts.welcome("ide.example", False))
        self.assertTrue(hosts.welcome("ide.example:443", False))
        self.assertTrue(hosts.welcome("localhost:1024", False))

    def test_a_port_that_is_left_out_is_the_default_one(self) -> None:
        for port, secure in ((80, False), (443, True)):
            hosts = Hosts(frozenset(), loopback=True, port=port)
            self.assertFalse(hosts.welcome("evil.example", secure))
            self.assertTrue(hosts.welcome("evil.example", not secure))

    def test_what_means_this_machine(self) -> None:
        for host in ("localhost", "localhost.", "a.localhost", "127.0.0.1", "127.255.0.1", "[::1]", "::1"):
            self.assertTrue(is_loopback(host), host)
        self.assertTrue(is_loopback("[::ffff:127.0.0.1]"))
        for host in ("localhost.example", "notlocalhost", "128.0.0.1", "[::2]", "[::ffff:10.0.0.1]", "", "0.0.0.0"):
            self.assertFalse(is_loopback(host), host)

    def test_places_and_hosts_have_one_form(self) -> None:
        self.assertEqual(parse_place("IDE.example:08080"), ("ide.example", 8080))
        self.assertEqual(parse_place("[::0:1]"), ("[::1]", None))
        self.assertEqual(canonical_host("Ide.Example."), "ide.example.")


if __name__ == "__main__":
    unittest.main()
