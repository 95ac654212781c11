"""WebSocket and proxy addresses, checked and brought to one form; and the header values that go with them.

Why so: what reaches the wire is checked in one place, so that nothing given as an argument can add a line to the
request, and what was checked is what is used: scheme and host in lower case, an international host name as the ASCII of
IDNA, what else is not ASCII in path and query percent-encoded as browsers do it.  Addresses print without their query
and without credentials, in errors too: those may be secrets.

Host names go through Python's own IDNA (RFC 3490), which no package is needed for.  The few letters that it and today's
browsers read differently (an "ss" instead of a German sharp s is another host) are refused: then the ASCII form it is.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401  # when it is needed there may be no descriptor left to load it with
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, quote, unquote, urlsplit

from ..checks import check_pairs, check_token, check_value
from ..protocol.shown_head import escaped

__all__ = ["Target", "check_headers", "environment_proxy", "parse_proxy", "parse_url"]

_DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 8080, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
_UNSAFE = re.compile("[\x00-\x20\x7f\ud800-\udfff]")
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")
_ZONE = re.compile(r"[A-Za-z0-9._~-]+")
_READ_DIFFERENTLY = re.compile("[\u00df\u1e9e\u03c2\u200c\u200d]")  # sharp s, final sigma, joiners: see above
_LONGEST_NAME = 253  # characters of a host name (RFC 1035)
_KEPT = "!$%&'()*+,-./:;=?@[\\]_|~"  # by browsers, in a path; more than that in a query
_OURS = frozenset({"upgrade", "connection", "origin"})  # and every sec-websocket-*: the library sets them
_WEBSOCKET = ("ws", "wss")
_PROXIES = ("http", "socks4", "socks4a", "socks5", "socks5h")
_EXPECTED_WEBSOCKET = "a WebSocket address such as ws://host:port/path"
_EXPECTED_PROXY = "a proxy such as http://host:port or socks5h://host:port"


@dataclass(frozen=True)
class Target:
    """A parsed address.  ``text``: as websocket-client or python-socks gets it; it may hold secrets."""

    scheme: str
    host: str
    port: int
    text: str = field(repr=False)
    basic_auth: str | None = field(default=None, repr=False)  # of user:password@, in base64
    shown: str = ""  # for people: no query, no credentials
    resource: str = field(default="/", repr=False)  # path and query, as the request line has them
    zone: str = ""  # of a link-local IPv6 address: which interface of this machine; nobody else's business

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

    @property
    def lookup(self) -> str:
        """The host as the system's resolver takes it."""
        return f"{self.host}%{self.zone}" if self.zone else self.host

    @property
    def path(self) -> str:
        """The request's path, without the query."""
        return self.resource.partition("?")[0]


def parse_url(url: str) -> Target:
    """A ``ws://`` or ``wss://`` address (RFC 6455 section 3); ValueError says what was expected, and what came."""
    return _parse(url, _WEBSOCKET, _EXPECTED_WEBSOCKET)


def parse_proxy(url: str) -> Target:
    """A proxy's address: ``http://``, ``socks4://``, ``socks4a://``, ``socks5://`` or ``socks5h://``."""
    return _parse(url, _PROXIES, _EXPECTED_PROXY)


def _parse(url: str, schemes: tuple[str, ...], expected: str) -> Target:
    if not isinstance(url, str):
        raise TypeError(f"expected {expected}, not {type(url).__name__}")
    came = f"expected {expected}, got {_shown(url)}"
    if _UNSAFE.search(url):
        raise ValueError(
            f"expected {expected}, got '{_shown(url)}', with spaces, line ends or control characters in it"
        )
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme not in schemes:
        raise ValueError(_other_scheme(url, scheme, schemes, came))
    try:
        parts = _split(url)
        host, zone = _host(parts.hostname or "", "[" in parts.netloc)
        port = _port(parts, _DEFAULT_PORTS[scheme])
    except _Unfit as unfit:
        raise ValueError(f"{came}: {unfit}") from None
    resource = _resource(parts)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    auth = base64.b64encode(login.encode()).decode() if login != ":" else None
    if "#" in url:
        raise ValueError(f"{came}, without a fragment; a # in path or query is written %23")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    userinfo = parts.netloc.rpartition("@")[0] + "@" if auth is not None and schemes is _PROXIES else ""
    shown_place = place.replace("]", f"%25{zone}]") if zone else place
    return Target(
        scheme,
        host,
        port,
        text=f"{scheme}://{userinfo}{place}" + (resource if schemes is _WEBSOCKET else ""),
        basic_auth=auth,
        shown=f"{scheme}://{shown_place}" + resource.partition("?")[0],
        resource=resource,
        zone=zone,
    )


class _Unfit(ValueError):
    """A part of an address that will not do, and why."""


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise _Unfit("an IPv6 address, and nothing else, stands in brackets") from None


def _port(parts: SplitResult, default: int) -> int:
    try:
        port = default if parts.port is None else parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _Unfit("a port is a number from 1 to 65535")
    return port


def _host(host: str, in_brackets: bool) -> tuple[str, str]:
    """The host in its one form, and its zone; _Unfit for what is none."""
    if not host:
        raise _Unfit("the host is missing")
    if in_brackets:
        address, percent, zone = host.partition("%")
        zone = (
            unquote(zone.removeprefix("25")) if percent else ""
        )  # RFC 6874: the % is written %25; many write it plain
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise _Unfit("an IPv6 address, and nothing else, stands in brackets") from None
        if percent and not _ZONE.fullmatch(zone):
            raise _Unfit("the zone of an IPv6 address is an interface's name, as in [fe80::1%25eth0]")
        return address.lower(), zone
    if len(host) > _LONGEST_NAME:
        raise _Unfit(f"a host name has at most {_LONGEST_NAME} characters")
    if _READ_DIFFERENTLY.search(host.lower()):
        raise _Unfit("this host name is read in two ways; give its ASCII form, which begins with xn--")
    try:
        name = host.encode("idna").decode().lower()
    except ValueError:
        raise _Unfit("that is no host name; an international one may be given in its ASCII form, xn--...") from None
    if not _NAME.fullmatch(name):
        raise _Unfit("a host name has letters, digits, hyphens and dots")
    return name, ""


def _resource(parts: SplitResult) -> str:
    """Path and query, in ASCII; what is percent-encoded stays as it is."""
    path = quote(parts.path, safe=_KEPT.replace("?", "")) or "/"
    return f"{path}?{quote(parts.query, safe=_KEPT + '^`{}')}" if parts.query else path


def _other_scheme(url: str, scheme: str, schemes: tuple[str, ...], came: str) -> str:
    """What is said of an address that does not begin with one of ``schemes``."""
    if schemes is not _WEBSOCKET:
        return f"{came}: TLS to a proxy is not supported" if scheme == "https" else f"{came}: its scheme is missing"
    got = f"expected ws:// or wss://, got {_shown(url)}"
    if scheme in ("http", "https"):
        return f"{got}: write {'ws' if scheme == 'http' else 'wss'}{_shown(url)[len(scheme) :]}"
    if url and not scheme and not url.startswith("/") and not url.lower().startswith(("ws:", "wss:")):
        return f"{got}: write ws://{_shown(url)}"
    return f"{got}: such as ws://host:port/path"


def _shown(url: str) -> str:
    """What was given, for an error: whatever may be a password or a token in it is left out."""
    if not url:
        return "an empty string"
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    before, at, after = rest.rpartition("@")
    if "?" in before or "#" in before:  # which of the two the @ belongs to is anybody's guess
        before, after = "", ""
    after, question, _ = after.partition("?")
    return escaped(f"{scheme}{found}{'...' + at if at else ''}{after}{question + '...' if question else ''}", 100)


def environment_proxy(target: Target) -> Target | None:
    """The proxy of the environment variables for ``target`` (``https_proxy`` for wss, ``no_proxy`` respected)."""
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(target.host):
        return None
    proxies = getproxies()
    named = proxies.get("https" if target.secure else "http") or proxies.get("all")
    if not named:
        return None
    return parse_proxy(named if "://" in named else f"http://{named}")  # as curl has it


def check_headers(headers: Mapping[str, str] | Iterable[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Header fields as a list of pairs; ValueError for what does not belong in one, or is the library's to set."""
    pairs = check_pairs("headers", headers)
    for name, value in pairs:
        check_token("a header's name", name)
        check_value(f"the header {name}", value)
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"the header {name} is set by the library; see the options origin, subprotocols")
    return pairs
