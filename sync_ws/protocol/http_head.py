"""Heads of HTTP/1.1 requests and responses: gathered within bounds, parsed strictly; one parser for both sides.

Why so: ``http.server`` drops every header field after a line without a colon, websocket-client has no bound on what it
reads, and two parsers of one's own would read the same bytes differently.  Here anything unusual is an error, and the
same error on both sides; what it is called is up to the side.  All of it is linear in what the peer sends, pieces of
one byte included: fields are taken apart by ``partition`` and ``strip``, patterns have nothing to go back for.

Threading: pure functions and frozen values, but for ``HeadBuffer``, which belongs to one thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ..checks import CONTROL, TOKEN
from ..headers import Headers
from .shown_head import escaped

__all__ = [
    "BadHead", "HeadBuffer", "Request", "Response", "TlsInstead", "check_request_size", "check_response_size",
    "parse_request", "parse_response",
]  # fmt: skip

MAX_LINE = 8 * 1024  # bytes of a request line
MAX_HEADERS = 64  # header fields
MAX_HEADER_BYTES = 32 * 1024  # bytes of all header fields of a request
MAX_RESPONSE = 40 * 1024  # bytes of the whole head of a response
MAX_QUERY_FIELDS = 64
_END = b"\r\n\r\n"
_ENDS_WITH_BARE_LF = (b"\n\r\n", b"\n\n")
_TLS_RECORDS = (0x15, 0x16)  # an alert, a handshake message (RFC 8446 section 5.1)
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) ([!-~]+) HTTP/1\.1")
_STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-9][0-9]{2})(?: ([^\r\n]*))?")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class BadHead(ValueError):
    """A head that is malformed or beyond its bounds.  ``text``: one line.

    ``status``: of a request, what a server answers to it; of a response, its own, 0 where it has none.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class TlsInstead(BadHead):
    """No head, but TLS: the peer takes this for a connection with it, or has answered in it."""

    def __init__(self) -> None:
        super().__init__(400, "expected HTTP, got TLS: this port has none, use ws:// and http:// here")


@dataclass(frozen=True)
class Request:
    """An opening handshake's request.  Its repr shows no header value and no query: they may hold secrets.

    ``path``: without the query, as sent.  ``query``: decoded, the first value of each name.  ``peer``: host and port
    of the other end of the TCP connection (a proxy's, if there is one).  ``secure``: over TLS here.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Headers = field(repr=False)
    peer: tuple[str, int]
    secure: bool = False
    repeated: frozenset[str] = field(default=frozenset(), repr=False)  # query names given more than once


@dataclass(frozen=True)
class Response:
    """The head of a response.  ``phrase``: what stands behind the status, of no meaning."""

    status: int
    phrase: str = field(repr=False)
    headers: Headers = field(repr=False)


# -- gathering ------------------------------------------------------------------------------------------------------


class HeadBuffer:
    """Gathers a head from the pieces it comes in, and finds its end; every byte is looked at once or twice.

    ``check_size(size, line)`` is asked for as long as the end has not come: ``size`` bytes belong to the head for
    certain, of which ``line`` to its first line.  It raises BadHead beyond its bounds.  ``bare_lf``: lines may end in
    LF alone.
    """

    def __init__(self, check_size: Callable[[int, int], None], *, bare_lf: bool = False) -> None:
        self._check_size = check_size
        self._ends = _ENDS_WITH_BARE_LF if bare_lf else (_END,)
        self._data = bytearray()
        self._line = -1  # bytes of the first line; -1: its end has not come

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head without the empty line that ends it, and what came behind; None while it has not ended.

        TlsInstead as soon as the first byte says so: the rest of it may never come.
        """
        searched = max(0, len(self._data) - len(_END) + 1)  # an end may have come in part
        self._data += data
        if self._data[:1] and self._data[0] in _TLS_RECORDS:
            raise TlsInstead
        found = [(at, at + len(end)) for end in self._ends if (at := self._data.find(end, searched)) >= 0]
        if found:
            end, behind = min(found)
            return bytes(self._data[:end]), bytes(self._data[behind:])
        if self._line < 0:
            self._line = self._data.find(b"\r\n", searched)
        size = max(0, len(self._data) - len(_END) + 1)
        self._check_size(size, size if self._line < 0 else self._line)
        return None


def check_request_size(size: int, line: int) -> None:
    """BadHead for a request whose first ``line`` bytes are a line too long, or whose fields are too many bytes."""
    if line > MAX_LINE:
        raise BadHead(414, f"expected a request line of at most {MAX_LINE} bytes")
    if size - line > MAX_HEADER_BYTES:
        raise BadHead(431, f"expected headers of at most {MAX_HEADER_BYTES} bytes together")


def check_response_size(size: int, line: int) -> None:
    """BadHead for a response head of too many bytes, wherever they are."""
    if size > MAX_RESPONSE:
        raise BadHead(0, f"the head of the response has more than {MAX_RESPONSE} bytes")


# -- parsing --------------------------------------------------------------------------------------------------------


def parse_request(head: bytes, peer: Any, secure: bool) -> Request:
    """The request in ``head``; BadHead (400, 414, 431) for whatever is not strictly HTTP/1.1, or has a body."""
    line, *lines = head.decode("latin-1").split("\r\n")
    check_request_size(len(head), len(line))
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadHead(400, "expected a request line such as: GET /ws/ HTTP/1.1")
    if len(lines) > MAX_HEADERS:
        raise BadHead(431, f"expected at most {MAX_HEADERS} headers")
    headers = Headers(map(_parse_field, lines))
    hosts = headers.get_all("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise BadHead(400, "expected exactly one valid Host header")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise BadHead(400, "expected a request without a body")
    method, target = match.groups()
    if not target.startswith("/"):
        raise BadHead(400, "expected a request target that begins with a slash")
    path, _, query_text = target.partition("#")[0].partition("?")
    query, repeated = _parse_query(query_text)
    return Request(method, path, query, headers, (str(peer[0]), int(peer[1])), secure, repeated)


def parse_response(head: bytes) -> Response:
    """The response whose head this is; BadHead for what is none."""
    line, *lines = (line.removesuffix("\r") for line in head.decode("latin-1").split("\n"))
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadHead(0, f"the response does not begin with an HTTP status line, but: {escaped(line, 60)}")
    status = int(match[1])
    if len(lines) > MAX_HEADERS:
        raise BadHead(status, f"the response has more than {MAX_HEADERS} headers")
    try:
        return Response(status, (match[2] or "").strip(), Headers(map(_parse_field, _unfold(lines))))
    except BadHead:
        raise BadHead(status, "the response has a malformed header") from None


def _unfold(lines: list[str]) -> list[str]:
    """Lines that begin with a blank go on the one before (RFC 9112 section 5.2: a client puts a space there)."""
    unfolded: list[list[str]] = []
    for line in lines:
        if unfolded and line.startswith((" ", "\t")):
            unfolded[-1].append(line.strip(" \t"))
        else:
            unfolded.append([line])
    return [" ".join(parts) for parts in unfolded]


def _parse_field(line: str) -> tuple[str, str]:
    """RFC 9112 section 5: no blank before the colon, no control character in the value."""
    name, colon, value = line.partition(":")
    if not colon or not TOKEN.fullmatch(name):
        raise BadHead(400, "expected header lines of the form: Name: value")
    if CONTROL.search(value):
        raise BadHead(400, "expected no control characters in a header")
    return name, value.strip(" \t")


def _parse_query(text: str) -> tuple[dict[str, str], frozenset[str]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:  # UnicodeDecodeError is one
        raise BadHead(400, f"expected a query of at most {MAX_QUERY_FIELDS} fields, percent-encoded UTF-8") from None
    query: dict[str, str] = {}
    repeated = set()
    for name, value in pairs:
        if name in query:
            repeated.add(name)
        query.setdefault(name, value)
    return query, frozenset(repeated)
