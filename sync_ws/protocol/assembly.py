"""A message that comes in more than one frame, or compressed: its fragments, put together as they arrive.

Why so: everything here is state that spans frames (a decoder in the middle of a character, a decompressor), which the
frame reader's fast path never touches.  Text is validated as it arrives (RFC 6455 section 8.1), and inflation stops
at the message limit.

Threading: belongs to its frame reader.
"""

from __future__ import annotations

import codecs
import zlib

from ..endings import Close, CloseCode
from ..messages import Message, Opcode
from .deflate import Deflate, TooBig

__all__ = ["Assembly", "Failure"]


class Failure(Exception):
    """The peer broke a rule; it ends the connection with this code and reason.  ``about``: see ``Control.text``."""

    def __init__(self, code: int, reason: str, about: str = "") -> None:
        self.close = Close(code, reason)
        self.about = about


class Assembly:
    """One message at a time.  ``max_message``: bytes of it, after inflation; ``max_fragments``: frames of it."""

    def __init__(self, max_message: int, max_fragments: int, deflate: Deflate | None) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._deflate = deflate
        self.opcode = 0  # of the message under way, 0 if none is
        self.compressed = False
        self.gathered = 0  # bytes so far, inflated
        self._pieces: list[str] | list[bytes] = []
        self._fragments = 0
        self._decoder: codecs.IncrementalDecoder | None = None

    def add(self, opcode: int, compressed: bool, payload: bytes, final: bool) -> Message | None:
        """One frame's share; the message when it was the last one.  ``opcode`` is 0 for a continuation."""
        if opcode:
            self.opcode = opcode
            self.compressed = compressed
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == Opcode.TEXT else None
        self._fragments += 1
        if self._fragments > self._max_fragments:
            limit = f"a message has at most {self._max_fragments} fragments here"
            raise Failure(CloseCode.MESSAGE_TOO_BIG, limit, "max_fragments")
        if self.compressed:
            payload = self._inflate(payload, final)
        self.gathered += len(payload)
        piece: str | bytes = payload
        if self._decoder is not None:
            try:
                piece = self._decoder.decode(payload, final)
            except UnicodeDecodeError as exc:
                raise Failure(CloseCode.INVALID_DATA, f"a text message is not UTF-8: {exc.reason}") from None
        if piece:
            self._pieces.append(piece)  # type: ignore[arg-type]
        return self._whole() if final else None

    def _inflate(self, payload: bytes, final: bool) -> bytes:
        assert self._deflate is not None
        try:
            return self._deflate.inflate(payload, final, self._max_message - self.gathered)
        except TooBig:
            text = f"a message has at most {self._max_message} bytes here, after inflation"
            raise Failure(CloseCode.MESSAGE_TOO_BIG, text, "max_message") from None
        except zlib.error:
            raise Failure(CloseCode.INVALID_DATA, "a compressed message is not deflate data") from None

    def _whole(self) -> Message:
        text, pieces = self.opcode == Opcode.TEXT, self._pieces
        self.opcode = self.gathered = self._fragments = 0
        self._pieces = []
        self._decoder = None
        return "".join(pieces) if text else b"".join(pieces)  # type: ignore[arg-type]
