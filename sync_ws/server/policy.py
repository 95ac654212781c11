"""What a server asks of strangers, checked when the server is made; and tokens as an answer to who they are.

Why so: a wrong option is an error in the line that has it, not a refusal of everybody later on.  What is compared
with every request is brought into its form for comparison once.

Threading: pure functions; what ``bearer_token`` returns may be called in any thread.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..checks import check_flag, check_strings, check_token, check_value, shown
from ..protocol.handshake import SUBPROTOCOL_LENGTH, Policy
from ..protocol.http_head import Request
from ..protocol.origin import OPAQUE, Hosts, canonical_host, is_loopback, parse_origin, parse_place

__all__ = ["Authenticate", "bearer_token", "check_host", "check_hosts", "check_origin", "hosts_for", "make_policy"]

Authenticate = Callable[[Request], Any]
ANY = "*"


def make_policy(
    path: str = "/ws/",
    *,
    origins: Iterable[str] | None = None,
    require_name: bool = False,
    subprotocols: Iterable[str] = (),
    compression: bool = False,
) -> Policy:
    """A server's options as a policy; ValueError or TypeError for one that cannot be meant."""
    return Policy(
        _check_path(path),
        None if origins is None else _check_origins(origins),
        check_flag("require_name", require_name),
        tuple(map(_check_subprotocol, check_strings("subprotocols", subprotocols, '["chat"]'))),
        check_flag("compression", compression),
    )


def _check_path(path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"path is a string such as /ws/, not {shown(path)}")
    if not path.startswith("/") or "?" in path or "#" in path:
        raise ValueError(f"path is an absolute path without a query, such as /ws/, not {shown(path)}")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError(f"path is percent-encoded, as clients send it, such as /b%C3%BCro/, not {shown(path)}")
    return path


def _check_subprotocol(item: str) -> str:
    check_token("one of subprotocols", item)
    if len(item) > SUBPROTOCOL_LENGTH:
        raise ValueError(f"one of subprotocols has at most {SUBPROTOCOL_LENGTH} characters, not {len(item)}")
    return item


# -- origins and hosts ------------------------------------------------------------------------------------------------


def _check_origins(origins: Iterable[str]) -> frozenset[str]:
    return frozenset(map(check_origin, check_strings("origins", origins, '["https://ide.example"] or ["*"]')))


def check_origin(text: str) -> str:
    """One of ``origins`` in the form for comparison; ValueError says what it should have been."""
    if text in (ANY, *OPAQUE):
        return text
    what = f"one of origins is scheme, host and port of a page, such as https://ide.example, not {shown(text)}"
    if ANY in text:
        raise ValueError(f'{what}: name each one, or give ["*"] and let authenticate look at the Origin')
    scheme, found, rest = text.partition("://")
    if not found:
        raise ValueError(f"{what}: it has no scheme{_perhaps('https', text)}")
    if scheme.lower() in ("ws", "wss"):
        page = "https" if scheme.lower() == "wss" else "http"
        raise ValueError(f"{what}: a page has http:// or https://{_perhaps(page, rest)}")
    try:
        return str(parse_origin(f"{scheme}://{rest.removesuffix('/')}"))
    except ValueError as exc:
        raise ValueError(f"{what}: {exc}{_perhaps(scheme, rest)}") from None


def _perhaps(scheme: str, rest: str) -> str:
    """What was meant, if that can be told."""
    for end in "/?#":
        rest = rest.partition(end)[0]
    try:
        return f"; perhaps {parse_origin(f'{scheme}://{rest}')}"
    except ValueError:
        return ""


def check_host(text: str) -> str:
    """One of ``hosts`` in the form for comparison; ValueError says what it should have been."""
    what = f"one of hosts is a name or an address without scheme, port and path, such as ide.example, not {shown(text)}"
    if text == ANY:
        return text
    if ANY in text:
        raise ValueError(f'{what}: name each one, or take ["*"] for any')
    try:
        if text.count(":") > 1 and not text.startswith("["):
            return canonical_host(f"[{text}]")
        host, port = parse_place(text)
    except ValueError as exc:
        raise ValueError(f"{what}: {exc}") from None
    if port is not None:
        raise ValueError(f"{what}; perhaps {host}")
    return host


def check_hosts(hosts: Iterable[str] | None) -> frozenset[str] | None:
    """``hosts`` in the form for comparison; None as it is."""
    if hosts is None:
        return None
    return frozenset(map(check_host, check_strings("hosts", hosts, '["ide.example"] or ["*"]')))


def hosts_for(
    names: frozenset[str] | None, host: str, address: tuple[str, int], origins: Collection[str] | None
) -> Hosts | None:
    """Which names a server answers to that was told to listen on ``host`` and does so at ``address``; None: any.

    ``names``: the option ``hosts``, checked.  Where nothing is said of hosts or origins, a loopback address is guarded:
    only programs of this machine come there, but browsers among them, with pages of whoever.
    """
    loopback = is_loopback(address[0].partition("%")[0])
    if names is not None:
        return None if ANY in names else Hosts(names, loopback)
    if not loopback or origins is not None:
        return None
    try:
        own = frozenset({check_host(host)})
    except ValueError:  # an address in one of its stranger spellings
        own = frozenset()
    return Hosts(own, loopback, address[1])


def bearer_token(*tokens: str, query: str | None = None) -> Authenticate:
    """An ``authenticate`` hook: one of ``tokens`` must come as ``Authorization: Bearer TOKEN``.

    ``query``: a query parameter that may carry it instead, for browsers, which cannot set the header.  Compared in
    constant time.  ValueError without a token, for an empty one, or for one with anything but visible ASCII, which no
    client could send: RFC 6750 section 2.1 has no other characters.
    """
    for token in tokens:
        check_value("a token", token)
        if not all("!" <= character <= "~" for character in token):
            raise ValueError("a bearer token is visible ASCII characters without blanks (RFC 6750 section 2.1)")
    if not tokens or not all(tokens):
        raise ValueError("bearer_token() needs at least one token, and none of them empty")
    accepted = [token.encode() for token in tokens]

    def authenticate(request: Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        presented = given.strip().encode("latin-1", errors="backslashreplace")  # a header's characters are its bytes
        if scheme.lower() != "bearer":
            presented = (request.query.get(query, "") if query else "").strip().encode(errors="surrogateescape")
        # every token is compared, so that the time taken tells nothing
        return sum(hmac.compare_digest(presented, token) for token in accepted) > 0

    return authenticate
