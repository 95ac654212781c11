"""Origins (RFC 6454) and hosts as values: brought to one form, then compared.

Why so: one origin can be spelled in many ways: ``https://ide.example``, ``HTTPS://Ide.Example:443`` and, where a name
is international, with its letters or as A-labels (RFC 5890).  Two spellings compared as text are two origins, and
whoever is shut out by that cannot see why.  So both what comes and what is allowed become a value here, the latter
when a server is made.

Where TLS is ended by a proxy, the scheme that the browser used cannot be seen; so a page is from the *same* origin when
its host and port are those of Host, whatever its scheme.  A Host without a port means the default port of the scheme
that the page has, for that is what a browser leaves out.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

__all__ = ["OPAQUE", "Hosts", "Origin", "canonical_host", "is_loopback", "parse_origin", "parse_place"]

DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
OPAQUE = ("null", "file://")  # what browsers send for pages that have no origin of their own; equal to themselves only
MAX_HOST = 253  # characters, as in DNS
MAX_ORIGIN = 300  # characters; more cannot be one
_HOST_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-._")
_AMBIGUOUS = frozenset("\xdf\u03c2\u200c\u200d")  # what IDNA 2003, which Python has, and 2008 make different names of


class Origin(NamedTuple):
    """Scheme, host and port; the port is None only where the scheme has no default."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """As a browser sends it: without the default port."""
        port = "" if self.port == DEFAULT_PORTS.get(self.scheme) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    def same_as(self, place: str) -> bool:
        """Whether this page was loaded from ``place``, a Host header's value."""
        default = DEFAULT_PORTS.get(self.scheme)
        try:
            host, port = parse_place(place)
        except ValueError:
            return False
        return self.scheme in ("http", "https") and (host, default if port is None else port) == (self.host, self.port)


class Hosts(NamedTuple):
    """Which names a server answers to: ``names``, and with ``loopback`` those of the loopback addresses.

    ``port``: ask only of a Host with this port, the server's own.  With another one, a proxy or a tunnel stands in
    front, and which names lead to that is its own affair.
    """

    names: frozenset[str]
    loopback: bool = False
    port: int | None = None

    def welcome(self, place: str, secure: bool) -> bool:
        """Whether ``place``, a Host header's value, is one of them."""
        try:
            text, port = _split(place)
            if self.port is not None and self.port != (port or DEFAULT_PORTS["https" if secure else "http"]):
                return True
            host = canonical_host(text)
        except ValueError:
            return False
        return host in self.names or (self.loopback and is_loopback(host))


def parse_origin(text: str) -> Origin:
    """The origin that ``text`` names; ValueError says what is wrong with it."""
    scheme, found, authority = text[: MAX_ORIGIN + 1].partition("://")
    scheme = scheme.lower()
    if not found or not scheme.isascii() or not scheme.replace("-", "").replace("+", "").replace(".", "").isalnum():
        raise ValueError("it has no scheme, such as https://")
    if len(text) > MAX_ORIGIN or any(mark in authority for mark in "/?#\\@"):
        raise ValueError("it is more than scheme, host and port")
    host, port = parse_place(authority)
    return Origin(scheme, host, DEFAULT_PORTS.get(scheme) if port is None else port)


def parse_place(text: str) -> tuple[str, int | None]:
    """Host and port of ``text``, which is ``host``, ``host:port`` or ``[address]:port``; ValueError for what is not."""
    host, port = _split(text)
    return canonical_host(host), port


def _split(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, port = text.partition("]")
        host += bracket
        if port and not port.startswith(":"):
            raise ValueError("its IPv6 address is followed by no port")
        port = port[1:]
    else:
        host, _, port = text.partition(":")
        if ":" in port:
            raise ValueError("an IPv6 address stands in brackets, such as [::1]")
    if not port:
        return host, None
    if len(port) > 5 or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError("its port is not a number from 1 to 65535")
    return host, int(port)


def canonical_host(text: str) -> str:
    """A host in the one form in which browsers send it: lower case, A-labels, addresses at their shortest.

    ValueError says what is wrong with it.
    """
    if text.startswith("["):
        try:
            if not text.endswith("]") or "%" in text:  # a zone means something on one machine only
                raise ValueError
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        except ValueError:
            raise ValueError("what stands in its brackets is not an IPv6 address") from None
    if not 0 < len(text) <= MAX_HOST:
        raise ValueError(f"its host has not 1 to {MAX_HOST} characters")
    if not text.isascii():
        text = _a_labels(text)
    text = text.lower()
    labels = text.removesuffix(".").split(".")
    if not _HOST_LETTERS.issuperset(text) or not all(0 < len(label) < 64 for label in labels):
        raise ValueError("its host is not a name such as ide.example")
    if labels[-1].isdigit():
        try:
            return str(IPv4Address(text))
        except ValueError:
            raise ValueError("its host is neither a name nor an IPv4 address") from None
    return text


def _a_labels(text: str) -> str:
    if not _AMBIGUOUS.isdisjoint(text):
        raise ValueError("its host has a letter that has two forms on the wire: write it in A-labels, such as xn--...")
    try:
        return text.encode("idna").decode()
    except UnicodeError:
        raise ValueError("its host is not a name, nor an international one") from None


def is_loopback(host: str) -> bool:
    """Whether ``host``, in canonical form, can only mean this machine (RFC 6761 section 6.3, RFC 1122, RFC 4291)."""
    name = host.removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
