"""Heads for people: what a log or an error may show of a request or a response.

Why so: a log is read by more people than may connect.  Credentials are masked wherever they stand: in the headers made
for them, in headers whose name says so, in the query, in an address that a header names.  Whatever a peer sent is
escaped and bounded: it can neither forge a line nor fill a disk.

Threading: pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["escaped", "shown_address", "shown_lines"]

MAX_SHOWN = 200  # characters of a line
MASK = "***"
_ADDRESSES = ("location", "content-location", "referer", "origin")
_OFFERS = "sec-websocket-protocol"  # where browsers, which cannot set headers, put their tokens
_LONGEST_OFFER = 32  # characters: what is longer is no name
# in a name, for its value to be a secret; those of the opening handshake itself are none
_SECRET = re.compile(r"auth|token|secret|password|passwd|cookie|session|signature|credential|api-?key|access-?key")
_PUBLIC = ("www-authenticate", "proxy-authenticate")
_QUERY_VALUE = re.compile(r"=[^&]*")


def escaped(text: str, limit: int = MAX_SHOWN) -> str:
    """``text`` in printable ASCII on one line, of at most about ``limit`` characters."""
    return ascii(text[:limit])[1:-1] + ("..." if len(text) > limit else "")


def shown_address(address: str) -> str:
    """An address or a request's target without its credentials, and with the names only of its query."""
    address, hashed, _ = address.partition("#")
    address, question, query = address.partition("?")
    scheme, found, rest = address.partition("://")
    if found:
        authority, slash, path = rest.partition("/")
        address = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    values = _QUERY_VALUE.sub(f"={MASK}", query)
    if values and "=" not in values:
        values = MASK  # all of it may be a token
    return escaped(f"{address}{question}{values}{hashed + MASK if hashed else ''}")


def shown_lines(first: str, fields: Iterable[tuple[str, str]]) -> Iterator[str]:
    """The lines of a head: the first as it is (its target is the caller's to show), the values masked."""
    yield escaped(first)
    for name, value in fields:
        yield f"{escaped(name)}: {escaped(_value(name.lower(), value))}"


def _value(name: str, value: str) -> str:
    if name == "cookie":
        return "; ".join(map(_cookie, value.split(";")))
    if name == "set-cookie":
        first, semicolon, attributes = value.partition(";")
        return f"{_cookie(first)}{semicolon}{attributes}"
    if name == _OFFERS:
        offers = (part.strip() for part in value.split(","))
        return ", ".join(MASK if len(offer) > _LONGEST_OFFER else offer for offer in offers)
    if name in _ADDRESSES:
        return shown_address(value)
    if _SECRET.search(name) and name not in _PUBLIC:
        scheme, blank, _ = value.partition(" ")
        return f"{scheme} {MASK}" if blank and name.endswith("authorization") else MASK
    return value


def _cookie(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name.strip()}={MASK}" if equals else MASK
