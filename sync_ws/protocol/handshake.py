"""The opening handshake of both sides as values (RFC 6455 section 4): what is asked, what is answered, what is agreed.

Why so: whether a request may become a WebSocket depends on the request and on what the server asks, and on nothing
else.  So it is decided here, before anything is written, registered or made, and can be tested without a socket;
whoever has the socket writes the answer and makes the connection after it.

Threading: pure functions and frozen values.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import unquote

from ..checks import TOKEN
from ..envelope import ModeCode
from ..errors import Refusal
from ..headers import Headers
from .deflate import Negotiation, accept_first, check_answer
from .http_head import Request, Response
from .intercepts import HEART_BEAT_HEADER
from .origin import OPAQUE, Hosts, parse_origin
from .shown_head import escaped

__all__ = [
    "Accepted",
    "Agreed",
    "Policy",
    "accept_key",
    "answer",
    "check",
    "check_host",
    "check_name",
    "verify",
]

NAME_LENGTH = 128  # characters
LISTED = 5  # of what would have been welcome, in a refusal
SUBPROTOCOL_LENGTH = 128  # characters
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64


@dataclass(frozen=True)
class Policy:
    """What a server asks of an opening handshake, and what it has to offer.

    ``origins``: in the form of ``origin``'s; None: the same origin, ``*`` in it: any.  ``hosts``: None: any.
    """

    path: str = "/ws/"
    origins: frozenset[str] | None = None
    require_name: bool = False
    subprotocols: tuple[str, ...] = ()
    compression: bool = False
    hosts: Hosts | None = None


class Agreed(NamedTuple):
    """What both sides speak from here on."""

    subprotocol: str | None = None
    deflate: Negotiation | None = None


class Accepted(NamedTuple):
    """A request that passed the checks: what it brought, and what is agreed on.

    ``extension``: what ``agreed.deflate`` means, in the words of Sec-WebSocket-Extensions.
    """

    name: str | None
    key: str
    agreed: Agreed
    extension: str | None


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()


def check_name(name: str) -> str:
    """``name`` itself if a connection may have it; ValueError if not.

    1 to 128 printable characters: control, format (bidi marks) and separator characters would forge log lines.
    """
    if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a name has 1 to {NAME_LENGTH} printable characters")
    return name


def _names(headers: Headers, name: str, token: str) -> bool:
    """Whether a list of tokens has this one, in whatever case."""
    return token in {item.lower() for item in headers.tokens(name)}


# -- the server's side ----------------------------------------------------------------------------------------------


def check(request: Request, policy: Policy) -> Accepted:
    """What ``request`` gets under ``policy``; Refusal if it may not become a WebSocket."""
    if request.path != policy.path:
        raise Refusal(404, _elsewhere(request.path, policy.path))
    key = _check_handshake(request)
    # a browser always sends an Origin here; without one, only who has named the hosts asks for them
    if policy.hosts is not None and (policy.hosts.port is None or "Origin" in request.headers):
        check_host(request, policy)
    _check_origin(request, policy.origins)
    name = _check_name(request, policy.require_name)
    subprotocol = next((item for item in _offered_subprotocols(request) if item in policy.subprotocols), None)
    accepted = accept_first(request.headers.tokens("Sec-WebSocket-Extensions")) if policy.compression else None
    extension, deflate = accepted or (None, None)
    return Accepted(name, key, Agreed(subprotocol, deflate), extension)


def answer(accepted: Accepted) -> bytes:
    """The response that makes it a WebSocket (RFC 6455 section 4.2.2)."""
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept_key(accepted.key)}",
        f"{HEART_BEAT_HEADER}: {ModeCode.HEART_BEAT}",
    ]
    if accepted.agreed.subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {accepted.agreed.subprotocol}")
    if accepted.extension is not None:
        lines.append(f"Sec-WebSocket-Extensions: {accepted.extension}")
    return "\r\n".join([*lines, "", ""]).encode()


def _check_handshake(request: Request) -> str:
    """The key of what is an opening handshake by RFC 6455 section 4.2.1."""
    if request.method != "GET":
        raise Refusal(405, "expected the method GET", {"Allow": "GET"})
    headers = request.headers
    if not (_names(headers, "Upgrade", "websocket") and _names(headers, "Connection", "upgrade")):
        needed = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        text = (
            "expected an opening handshake: Upgrade: websocket, Connection: Upgrade (a proxy in front passes them on)"
        )
        raise Refusal(426, text, needed)
    if headers.get_all("Sec-WebSocket-Version") != ["13"]:
        raise Refusal(426, "expected Sec-WebSocket-Version: 13", {"Sec-WebSocket-Version": "13"})
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise Refusal(400, "expected one Sec-WebSocket-Key of 16 bytes in base64")
    return keys[0]


def _elsewhere(path: str, right: str) -> str:
    """That the WebSocket is not at ``path`` but at ``right``, and what the mistake may have been."""
    hint = ""
    if path.rstrip("/") == right.rstrip("/"):
        hint = ": mind the slash at its end"
    elif path.lower() == right.lower():
        hint = ": mind upper and lower case"
    elif unquote(path) == unquote(right):
        hint = ": it is compared as it is written, percent-encoding and all"
    elif path.endswith(right):
        hint = f": a proxy in front may have to take {_quoted(path.removesuffix(right))} away"
    return f"expected the path {right}, got {_quoted(path)}{hint}"


def _quoted(text: str) -> str:
    """What a peer sent, for a line that it must neither forge nor fill."""
    return f"'{escaped(text)}'"


def _some(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more if listed else "none"


def check_host(request: Request, policy: Policy) -> None:
    """Refusal for a Host that the server does not answer to.

    A page whose own name was made to point here, once it was loaded, is of the same origin by its Host (DNS rebinding).
    """
    host, hosts = request.headers["Host"], policy.hosts
    if hosts is None or hosts.welcome(host, request.secure):
        return
    if hosts.port is not None:
        expected = "a loopback name such as localhost as Host, for this server listens on a loopback address"
    elif hosts.loopback:
        expected = f"as Host a loopback name, or one of the option hosts: {_some(hosts.names)}"
    else:
        expected = f"as Host one of the option hosts: {_some(hosts.names)}"
    raise Refusal(403, f"expected {expected}, got {_quoted(host)}; the option hosts allows others")


def _check_origin(request: Request, allowed: frozenset[str] | None) -> None:
    """A browser tells where its page came from; what is not a browser sends no Origin and passes."""
    given = request.headers.get_all("Origin")
    if not given or (allowed is not None and "*" in allowed):
        return
    host = request.headers["Host"]
    if len(given) == 1 and _welcome(_utf8(given[0]), allowed, host):
        return
    if allowed is None:
        expected = f"the same origin as Host {_quoted(host)}"
        mend = "the option origins allows others, and a proxy in front has to pass the browser's Host on"
    else:
        expected = f"one of the option origins: {_some(allowed)}"
        mend = f"Host was {_quoted(host)}"
    came = " and ".join(map(_quoted, given[:2]))
    raise Refusal(403, f"expected an allowed Origin, {expected}, got {came}; {mend}")


def _utf8(value: str) -> str:
    """A header's value, which has a character for each byte, as text: international names may be in UTF-8."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value


def _welcome(text: str, allowed: frozenset[str] | None, host: str) -> bool:
    if text in OPAQUE:
        return allowed is not None and text in allowed
    try:
        origin = parse_origin(text)
    except ValueError:
        return False
    return origin.same_as(host) if allowed is None else str(origin) in allowed


def _check_name(request: Request, required: bool) -> str | None:
    name = request.query.get("name")
    if name is None:
        if required:
            raise Refusal(400, "expected a name in the query, such as ?name=test")
        return None
    if "name" in request.repeated:
        raise Refusal(400, "expected one name in the query")
    try:
        return check_name(name)
    except ValueError as exc:
        raise Refusal(400, f"expected a good name in the query: {exc}") from None


def _offered_subprotocols(request: Request) -> list[str]:
    offered = request.headers.tokens("Sec-WebSocket-Protocol")
    good = all(len(token) <= SUBPROTOCOL_LENGTH and TOKEN.fullmatch(token) for token in offered)
    if not good or len(offered) != len(set(offered)):
        raise Refusal(400, "expected Sec-WebSocket-Protocol to list distinct tokens")
    return offered


# -- the client's side ----------------------------------------------------------------------------------------------


def verify(response: Response, key: str, subprotocols: Collection[str] = (), compression: bool = False) -> Agreed:
    """What a server's answer to ``key`` agrees on; ValueError unless it completes the handshake (RFC 6455 section 4.1).

    ``subprotocols`` and ``compression``: what was offered.
    """
    headers = response.headers
    for name in ("sec-websocket-accept", "sec-websocket-protocol", "upgrade"):
        if len(headers.get_all(name)) > 1:
            raise ValueError(f"more than one {name} header")
    if response.status != 101:
        raise ValueError(f"the status is {response.status}, not 101")
    if not (_names(headers, "Upgrade", "websocket") and _names(headers, "Connection", "upgrade")):
        raise ValueError("Upgrade: websocket or Connection: Upgrade is missing")
    if headers.get("Sec-WebSocket-Accept") != accept_key(key):
        raise ValueError("Sec-WebSocket-Accept does not match the key: something between may have kept an old answer")
    subprotocol = headers.get("Sec-WebSocket-Protocol") or None
    if subprotocol is not None and subprotocol not in subprotocols:
        offered = ", ".join(subprotocols) or "none"
        raise ValueError(f"the server chose the subprotocol {subprotocol[:80]!a}, which was not offered: {offered}")
    extensions = headers.get("Sec-WebSocket-Extensions")
    if not extensions:
        return Agreed(subprotocol)
    if not compression:
        raise ValueError(f"the server chose an extension that was not offered: {extensions[:80]!a}")
    return Agreed(subprotocol, check_answer(extensions))
