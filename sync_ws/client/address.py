"""WebSocket and proxy addresses, checked; and the header values that go with them.

Why so: what reaches the wire is checked in one place, so that nothing given as an argument can add a line to the
request.  Addresses print without their query and without credentials: those may be secrets.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Iterable, Mapping
from urllib.parse import unquote, urlsplit

from ..checks import check_pairs, check_token, check_value

__all__ = ["Target", "check_headers", "environment_proxy", "parse_proxy", "parse_url"]

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 8080, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_OURS = frozenset({"upgrade", "connection", "origin"})  # and every sec-websocket-*: the library sets them


@dataclass(frozen=True)
class Target:
    """A parsed address.  ``text``: as websocket-client or python-socks gets it; it may hold secrets."""

    scheme: str
    host: str
    port: int
    text: str = field(repr=False)
    basic_auth: str | None = field(default=None, repr=False)  # of user:password@, in base64
    shown: str = ""  # for people: no query, no credentials

    @property
    def secure(self) -> bool:
        return self.scheme == "wss"

    @property
    def place(self) -> str:
        """``host:port``, with the brackets that an IPv6 address needs."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header: the port only where it is not the scheme's own (RFC 6455 section 4.1)."""
        place = self.place
        return place.rpartition(":")[0] if self.port == _DEFAULT_PORTS[self.scheme] else place


def parse_url(url: str) -> Target:
    """A ``ws://`` or ``wss://`` address (RFC 6455 section 3); ValueError says what was expected."""
    return _parse(url, ("ws", "wss"), "a WebSocket address such as ws://host:port/path")


def parse_proxy(url: str) -> Target:
    """A proxy's address: ``http://``, ``socks4://``, ``socks4a://``, ``socks5://`` or ``socks5h://``."""
    return _parse(
        url,
        ("http", "socks4", "socks4a", "socks5", "socks5h"),
        "a proxy such as http://host:port or socks5h://host:port",
    )


def _parse(url: str, schemes: tuple[str, ...], expected: str) -> Target:
    if not isinstance(url, str):
        raise TypeError(f"expected {expected}, not {type(url).__name__}")
    if _UNSAFE.search(url) or not url.isascii():
        raise ValueError(f"expected {expected}, percent-encoded, without spaces or control characters")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
        (host or "").encode("idna")  # no empty label, none of more than 63 characters
    except ValueError:
        raise ValueError(f"expected {expected}") from None
    if parts.scheme not in schemes or not host or port == 0:
        raise ValueError(f"expected {expected}")
    if parts.fragment or url.endswith("#"):
        raise ValueError(f"expected {expected}, without a fragment")
    auth = None
    if parts.username is not None:
        auth = base64.b64encode(f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()).decode()
    port = port or _DEFAULT_PORTS[parts.scheme]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Target(parts.scheme, host, port, url, auth, f"{parts.scheme}://{place}{parts.path}")


def environment_proxy(target: Target) -> Target | None:
    """The proxy of the environment variables for ``target`` (``https_proxy`` for wss, ``no_proxy`` respected)."""
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(target.host):
        return None
    proxies = getproxies()
    named = proxies.get("https" if target.secure else "http") or proxies.get("all")
    return parse_proxy(named) if named else None


def check_headers(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Header fields as a list of pairs; ValueError for what does not belong in one, or is the library's to set."""
    pairs = check_pairs("headers", headers)
    for name, value in pairs:
        check_token("a header's name", name)
        check_value(f"the header {name}", value)
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"the header {name} is set by the library; see the options origin, subprotocols")
    return pairs
