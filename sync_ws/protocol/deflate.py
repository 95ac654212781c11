"""permessage-deflate (RFC 7692): its negotiation, and compression with a bound on what comes out.

Why so: wsproto's own extension inflates without a bound (260 KB become 256 MB) and fails with a traceback on
parameters it cannot read.  This one parses strictly and inflates at most one message limit.

A window of 8 bits is legal on the wire, but zlib cannot compress with it: then this side simply sends its messages
uncompressed, which RFC 7692 always allows.

Threading: ``compress`` under the connection's write lock, ``inflate`` under its read lock; the two share nothing.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Deflate", "Negotiation", "OFFER", "TooBig", "accept_first", "accept_offer", "check_answer"]

NAME = "permessage-deflate"
OFFER = f"{NAME}; client_max_window_bits"  # what our client sends
SYNC_TAIL = b"\x00\x00\xff\xff"  # taken off by the sender, put back by the receiver: RFC 7692 section 7.2
WORTHWHILE = 64  # bytes: shorter messages go out as they are
MAX_STREAMS = 8  # deflate streams in one frame: one is what everybody sends, and each costs a copy of the rest
_WINDOW_BITS = re.compile(r"8|9|1[0-5]")


class TooBig(Exception):
    """The message inflates beyond the limit."""


class _Parameters(NamedTuple):
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None  # 0: given without a value, which an offer may do


def _parse(text: str) -> _Parameters | None:
    """The parameters behind the extension's name; None for another extension or for anything malformed."""
    name, *parts = (part.strip() for part in text.split(";"))
    if name != NAME:
        return None
    found: dict[str, bool | int] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        value = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
        if key in found or key not in _Parameters._fields:
            return None
        if key.endswith("no_context_takeover"):
            if equals:
                return None
            found[key] = True
        elif _WINDOW_BITS.fullmatch(value):
            found[key] = int(value)
        elif not equals and key == "client_max_window_bits":
            found[key] = 0
        else:
            return None
    return _Parameters(**found)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Negotiation:
    """What both sides agreed on, seen from one of them: windows in bits (8 to 15), context kept or not."""

    send_bits: int = 15
    send_takeover: bool = True
    receive_takeover: bool = True


def accept_offer(offer: str) -> tuple[str, Negotiation] | None:
    """A server's answer to one offer of a client, with what it means; None to decline it."""
    wanted = _parse(offer)
    if wanted is None or wanted.server_max_window_bits == 0:
        return None
    answer = [NAME]
    if wanted.server_no_context_takeover:
        answer.append("server_no_context_takeover")
    if wanted.client_no_context_takeover:
        answer.append("client_no_context_takeover")
    if wanted.server_max_window_bits:
        answer.append(f"server_max_window_bits={wanted.server_max_window_bits}")
    agreed = Negotiation(
        send_bits=wanted.server_max_window_bits or 15,
        send_takeover=not wanted.server_no_context_takeover,
        receive_takeover=not wanted.client_no_context_takeover,
    )
    return "; ".join(answer), agreed


def accept_first(offers: Iterable[str]) -> tuple[str, Negotiation] | None:
    """A server's answer to a client's offers, in their order of preference: the first that can be accepted."""
    for offer in offers:
        accepted = accept_offer(offer)
        if accepted is not None:
            return accepted
    return None


def check_answer(answer: str) -> Negotiation:
    """What a server's answer to ``OFFER`` means; ValueError for one that the offer does not allow."""
    got = _parse(answer)
    if got is None or got.client_max_window_bits == 0:
        raise ValueError(f"the server answered with an extension that was not offered: {answer[:200]!r}")
    return Negotiation(
        send_bits=got.client_max_window_bits or 15,
        send_takeover=not got.client_no_context_takeover,
        receive_takeover=not got.server_no_context_takeover,
    )


class Deflate:
    """The two directions of one connection."""

    def __init__(self, agreed: Negotiation) -> None:
        self._agreed = agreed
        self._compressor: zlib._Compress | None = None
        self._decompressor: zlib._Decompress | None = None

    def compress(self, payload: bytes) -> bytes | None:
        """The payload of a compressed message; None when it should go out as it is."""
        if len(payload) < WORTHWHILE or self._agreed.send_bits == 8:
            return None
        if self._compressor is None:
            self._compressor = zlib.compressobj(wbits=-self._agreed.send_bits)
        data = self._compressor.compress(payload) + self._compressor.flush(zlib.Z_SYNC_FLUSH)
        if not self._agreed.send_takeover:
            self._compressor = None
        return data[: -len(SYNC_TAIL)]

    def inflate(self, payload: bytes, final: bool, limit: int) -> bytes:
        """One frame's share of a message, at most ``limit`` bytes; TooBig beyond that, zlib.error for no deflate."""
        if self._decompressor is None:
            # 15 bits read whatever the peer agreed to compress with
            self._decompressor = zlib.decompressobj(wbits=-15)
        data = self._bounded(payload, limit)
        if final:
            if not self._decompressor.eof:  # a stream that ended has no block for the tail to complete
                data += self._bounded(SYNC_TAIL, limit - len(data))
            if not self._agreed.receive_takeover:
                self._decompressor = None
        return data

    def _bounded(self, payload: bytes, limit: int) -> bytes:
        assert self._decompressor is not None
        data = b""
        for _ in range(MAX_STREAMS):
            if self._decompressor.eof:  # the peer ended the deflate stream (RFC 7692 section 7.2.3.4): a new one begins
                self._decompressor = zlib.decompressobj(wbits=-15)
            # one byte more than allowed tells "exactly the limit" from "more than that"; zero would mean no bound
            data += self._decompressor.decompress(payload, limit + 1 - len(data))
            if len(data) > limit or self._decompressor.unconsumed_tail:
                raise TooBig
            payload = self._decompressor.unused_data
            if not payload:
                return data
        raise zlib.error(f"more than {MAX_STREAMS} deflate streams in one frame")
