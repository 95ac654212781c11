"""The head of an HTTP request: read under a deadline and a bound, parsed strictly.

Why so: ``http.server`` reads with a timeout per read (so a request dribbled byte by byte holds a thread for ever),
drops every header after a line without a colon, and reads ahead bytes that belong to the WebSocket.  Here the head is
read whole, up to its limit and its deadline, what came behind it is kept, and anything unusual is refused.

Threading: pure functions and frozen values, but for reading from a socket that is the caller's alone.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import Any, Iterable, Iterator, Mapping
from urllib.parse import parse_qsl

from ..errors import Refusal
from ..timing import Deadline

__all__ = ["Headers", "Request", "parse_request", "read_head"]

MAX_LINE = 8 * 1024  # bytes of the request line
MAX_HEADERS = 64
MAX_HEADER_BYTES = 32 * 1024  # bytes of all header lines
_END = b"\r\n\r\n"
_REQUEST_LINE = re.compile(r"([A-Z]{1,20}) ([!-~]+) HTTP/1\.1")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Headers(Mapping[str, str]):
    """Header fields by case-insensitive name; of a repeated one, the values joined by commas (RFC 9110 section 5.3)."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def get_all(self, name: str) -> list[str]:
        """Every value of ``name``, in the order received; an empty list if there is none."""
        return list(self._fields.get(name.lower(), ()))

    def tokens(self, name: str) -> list[str]:
        """The comma-separated elements of ``name``, over all its lines, empty ones left out."""
        parts = (part.strip() for value in self._fields.get(name.lower(), ()) for part in value.split(","))
        return [part for part in parts if part]

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._fields[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:  # names only: values may be secrets
        return f"<Headers {', '.join(self._fields)}>"


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


def read_head(sock: socket.socket, deadline: Deadline) -> tuple[bytes, bytes]:
    """The head of a request, and the bytes that came behind it.

    Refusal (408, 414, 431) past the deadline or a limit; ConnectionError when the peer left before the end.
    """
    head = bytearray()
    while (end := head.find(_END, max(0, len(head) - 4096 - 3))) < 0:
        line_end = head.find(b"\n", 0, MAX_LINE + 1)
        if line_end < 0 and len(head) > MAX_LINE:
            raise Refusal(414, f"expected a request line of at most {MAX_LINE} bytes")
        if len(head) > MAX_LINE + MAX_HEADER_BYTES or len(head) - line_end > MAX_HEADER_BYTES + 1:
            raise Refusal(431, f"expected headers of at most {MAX_HEADER_BYTES} bytes together")
        remaining = deadline.remaining()
        try:
            if remaining == 0:
                raise TimeoutError
            sock.settimeout(remaining)
            data = sock.recv(4096)
        except TimeoutError:
            raise Refusal(408, "expected the whole request within the time allowed") from None
        if not data:
            raise ConnectionResetError("the peer left before its request was complete")
        head += data
    return bytes(head[:end]), bytes(head[end + len(_END) :])


def parse_request(head: bytes, peer: Any, secure: bool) -> Request:
    """The request in ``head``; Refusal (400, 414, 431) for whatever is not strictly HTTP/1.1."""
    lines = head.decode("latin-1").split("\r\n")
    request_line = lines[0]
    if len(request_line) > MAX_LINE:
        raise Refusal(414, f"expected a request line of at most {MAX_LINE} bytes")
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise Refusal(400, "expected a request line such as: GET /ws/ HTTP/1.1")
    if len(lines) - 1 > MAX_HEADERS:
        raise Refusal(431, f"expected at most {MAX_HEADERS} headers")
    if len(head) - len(request_line) > MAX_HEADER_BYTES:
        raise Refusal(431, f"expected headers of at most {MAX_HEADER_BYTES} bytes together")
    headers = Headers(_header(line) for line in lines[1:])
    hosts = headers.get_all("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Refusal(400, "expected exactly one valid Host header")
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        raise Refusal(400, "expected a request without a body")
    method, target = match.groups()
    if not target.startswith("/"):
        raise Refusal(400, "expected a request target that begins with a slash")
    path, _, query_text = target.partition("#")[0].partition("?")
    query, repeated = _query(query_text)
    return Request(method, path, query, headers, (str(peer[0]), int(peer[1])), secure, repeated)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _HEADER_NAME.fullmatch(name):
        raise Refusal(400, "expected header lines of the form: Name: value")
    if _BAD_VALUE.search(value):
        raise Refusal(400, "expected no control characters in a header")
    return name, value.strip(" \t")


def _query(text: str) -> tuple[dict[str, str], frozenset[str]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=64)
    except ValueError:  # UnicodeDecodeError is one
        raise Refusal(400, "expected a query of at most 64 fields, percent-encoded UTF-8") from None
    query: dict[str, str] = {}
    repeated = set()
    for name, value in pairs:
        if name in query:
            repeated.add(name)
        query.setdefault(name, value)
    return query, frozenset(repeated)
