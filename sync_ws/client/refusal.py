"""An answer other than 101, as an error: what the server said, what was asked, and what mends it.

Why so: the text goes into logs and onto screens, one line of it.  So of a page it is the title, of JSON what there is
in it for people, of plain text the first line; escaped and bounded all of it.  Headers and body are in the exception.

Redirects are not followed: the credentials of one host are not another's, and the address in the program would stay
wrong.  What the address should be is in the text.

Threading: pure functions.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urljoin

from ..endings import Reason
from ..errors import HandshakeRejected
from ..headers import Headers
from ..protocol.shown_head import escaped, shown_address
from .address import Target

__all__ = ["Asked", "rejected"]

RETRY_STATUS = frozenset({408, 425, 429})  # and every 5xx
MAX_RETRY_AFTER = 3600.0  # seconds: a server may not put us off for longer
MAX_TITLE = 80  # characters
_TITLE = re.compile(r"<title[^<>]{0,100}>([^<]{0,300})", re.IGNORECASE)
_WORDS = ("title", "detail", "message", "error", "error_description", "reason")  # of RFC 9457, and its forerunners
_TLS_WANTED = ("https port", "https server", "ssl-enabled", "tls is required")  # of nginx, Go, Apache


class Asked(NamedTuple):
    """What was asked of the server, as far as it may be why it refused."""

    target: Target
    origin: str | None = None
    subprotocols: tuple[str, ...] = ()
    authorized: bool = False  # an Authorization or a Cookie was sent

    def shown(self, status: int) -> str:
        """What of it matters for ``status``."""
        parts = [f"GET {shown_address(self.target.path)}"]
        if status in (400, 403):
            parts.append(f"Origin {escaped(self.origin)}" if self.origin else "no Origin")
            if self.subprotocols:
                parts.append(f"subprotocols {', '.join(self.subprotocols)}")
        if status in (401, 403):
            parts.append("with credentials" if self.authorized else "without credentials")
        return f" (asked: {', '.join(parts)})"


def rejected(status: int, phrase: str, headers: Headers, body: bytes, asked: Asked) -> HandshakeRejected:
    """The exception for an answer other than 101."""
    text = f"the server answered {status}"
    said = _said(headers, body)
    text += f": {said}" if said else f" {_phrase(status, phrase)}".rstrip()
    if status < 300 or status in (400, 401, 403, 404, 405, 410, 421, 426):
        text += asked.shown(status)
    text += _advice(status, headers, body, asked.target)
    again = status in RETRY_STATUS or status >= 500
    wait = _retry_after(headers.get("Retry-After", ""))
    return HandshakeRejected(Reason(text, status=status, retry_after=wait, permanent=not again), headers, body)


def _phrase(status: int, phrase: str) -> str:
    if phrase:
        return escaped(phrase, MAX_TITLE)
    try:
        return HTTPStatus(status).phrase
    except ValueError:  # registered nowhere
        return ""


def _said(headers: Headers, body: bytes) -> str:
    """What the body says to people, in one line; empty if that is nothing."""
    kind = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    coded = headers.get("Content-Encoding", "identity").lower() != "identity"
    text = body.decode("utf-8", "replace").strip()
    if not text or coded:
        return ""
    if "html" in kind or text.startswith("<"):
        title = _TITLE.search(text[:8192])
        import html  # a table of two thousand names, for the few that are refused by a page

        words = " ".join(html.unescape(title[1]).split()) if title else ""
        return f"an HTML page, '{escaped(words, MAX_TITLE)}'" if words else "an HTML page"
    if kind.endswith("json") or (not kind and text.startswith("{")):
        return escaped(_of_json(text) or text)
    if kind and not kind.startswith("text/"):
        return f"a body of type {escaped(kind, MAX_TITLE)}"
    return escaped(text.partition("\n")[0].strip())


def _of_json(text: str) -> str:
    """The strings for people in an object, RFC 9457's first; empty if there are none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    if not isinstance(found, dict):
        return ""
    words = [found[key].strip() for key in _WORDS if isinstance(found.get(key), str)]
    return ": ".join(dict.fromkeys(filter(None, words)))


def _advice(status: int, headers: Headers, body: bytes, target: Target) -> str:
    if 300 <= status <= 399:
        location = headers.get("Location")
        if not location:
            return "; without a Location"
        return f"; redirects are not followed: to {_as_websocket(target, location)}"
    if status == 426 and headers.get("Sec-WebSocket-Version", "13") != "13":
        version = escaped(headers["Sec-WebSocket-Version"], MAX_TITLE)
        return f"; it speaks version {version} of the protocol, we 13"
    if status == 426:
        return "; a proxy on the way may drop the Upgrade header"
    if status < 300:
        return "; there is no WebSocket at that path"
    said = body[:4096].decode("latin-1").lower()
    if status == 400 and not target.secure and any(words in said for words in _TLS_WANTED):
        return "; the server speaks TLS there: use wss://"
    return ""


def _as_websocket(target: Target, location: str) -> str:
    """Where a redirect leads, for people, and as a WebSocket address if it is one of HTTP."""
    try:
        place = urljoin(f"http{target.text[2:]}", location)
    except ValueError:
        return shown_address(location)
    scheme, _, rest = place.partition("://")
    other = {"http": "ws", "https": "wss"}.get(scheme.lower())
    advice = f"; if that is the WebSocket, give {shown_address(f'{other}://{rest}')}" if other else ""
    return shown_address(location) + advice


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header; the form with a date is not used by anything that we talk to."""
    return min(float(value), MAX_RETRY_AFTER) if value.isascii() and value.isdigit() else None
