"""The protocol engine of both sides: bytes in, messages and control frames out.

Why so: a complete, unfragmented, uncompressed data frame, which is nearly every frame there is, is parsed in a few
byte operations where it lies.  Everything else takes the general path of the same parser: there is one place that
reads a header, so every limit is enforced from the header, before a payload is waited for or allocated.  A second
parser behind a fast path (wsproto's, say) would have to be kept in step frame by frame, sees every byte twice, and
enforces no limit; measured, a Ping costs it 12 µs against 4 here, a fragment of 100 bytes 13 against 4.

A payload that is not there yet is gathered in a growing buffer, so that what arrives byte by byte costs linear
time, and memory grows with what arrived, not with what was announced.

Threading: a ``FrameReader`` belongs to whoever holds its connection's read lock.
"""

from __future__ import annotations

import codecs
import struct
import zlib
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..endings import Close, CloseCode
from ..messages import Opcode
from .deflate import Deflate, TooBig
from .frames import FIN, LARGE_BLOCK, MASKED, RSV1, Control, keep_large_blocks
from .intercepts import Intercept
from .masking import apply_mask, mask_in_place

__all__ = ["FrameReader"]

_FIN_TEXT = FIN | Opcode.TEXT
_FIN_BINARY = FIN | Opcode.BINARY
_WHOLE_DATA = (_FIN_TEXT, _FIN_BINARY)
_TWO_BYTES = struct.Struct("!H")
_EIGHT_BYTES = struct.Struct("!Q")
_INTERCEPT_MAX = 1024  # characters: a longer text is a message, whatever it contains
_IN_PLACE = 4096  # bytes: from here on another copy costs more than a branch
_GROW = 64 * 1024  # bytes: the first room made for a payload that has not arrived
_NO_CONTROLS: Sequence[Control] = ()
_NO_MARK = "\0\0"  # where nothing is intercepted; text that has it is looked at once more, and delivered


class _Failure(Exception):
    """The peer broke a rule; it ends the connection with this close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        self.close = Close(code, reason)


class FrameReader:
    """Parses what one peer sends.

    ``expect_masked``: True on a server (RFC 6455 section 5.1).  ``max_message``: bytes of a whole message, after
    inflation.  ``max_fragments``: frames of one message.  ``intercepts``: messages that come out as controls.
    """

    def __init__(
        self,
        *,
        expect_masked: bool,
        max_message: int,
        max_fragments: int,
        intercepts: Sequence[Intercept] = (),
        deflate: Deflate | None = None,
    ) -> None:
        self._mask_bit = MASKED if expect_masked else 0
        self._max_message = max_message
        self._short = min(126, max_message + 1)  # payloads below it may take the fast path
        self._max_fragments = max_fragments
        self._intercepts = tuple(intercepts)
        # the first mark is looked for in place: a loop over one would cost as much as all else about a short message
        self._mark, *more_marks = [intercept.mark for intercept in intercepts] or [_NO_MARK]
        self._more_marks = tuple(more_marks)
        self._binary_mark = self._mark.encode()
        self._more_binary_marks = tuple(mark.encode() for mark in more_marks)
        self._deflate = deflate
        self._buffer = b""  # bytes not parsed yet, from _at on
        self._at = 0
        # the frame whose payload has not all arrived: its first byte, masking key, payload so far, bytes missing
        self._first = 0
        self._key = b""
        self._partial: bytearray | memoryview | None = None  # a view when all of it was there at once
        self._missing = 0
        self._filled = 0  # bytes of _partial that have arrived, when it is a bytearray
        # the message whose last fragment has not arrived
        self._opcode = 0
        self._compressed = False
        self._pieces: list[str] | list[bytes] = []
        self._gathered = 0
        self._fragments = 0
        self._decoder: codecs.IncrementalDecoder | None = None
        self.finished = False  # a Close frame or a failure came: nothing after it counts

    @property
    def wanted(self) -> int:
        """Bytes missing to the frame under way, 0 if none is: how much is worth reading at once."""
        return self._missing

    @property
    def buffered(self) -> bool:
        """Whether bytes are waiting that ``parse`` has not looked at."""
        return self._at < len(self._buffer)

    def vacancy(self) -> memoryview:
        """Where the next bytes of the frame under way may be read into, when ``wanted``; then call ``filled``.

        Grows with what has arrived, not with what was announced.
        """
        partial = self._partial
        assert isinstance(partial, bytearray)
        if self._filled == len(partial):
            partial += bytes(min(self._missing, max(len(partial), _GROW)))
        return memoryview(partial)[self._filled :]

    def filled(self, size: int) -> None:
        """``size`` bytes were read into ``vacancy()``, which has been released."""
        self._filled += size
        self._missing -= size

    def feed(self, data: bytes) -> None:
        """Take what was received, to be parsed by the next ``parse``."""
        if self._partial is not None:  # then nothing is buffered
            at = 0
            while self._missing and at < len(data):
                with self.vacancy() as room:
                    size = min(len(room), len(data) - at)
                    room[:size] = data[at : at + size]
                self.filled(size)
                at += size
            self._buffer, self._at = data, at
        elif self._at >= len(self._buffer):
            self._buffer, self._at = data, 0
        else:
            self._buffer, self._at = self._buffer[self._at :] + data, 0

    def parse(self, messages: deque[Any], room: int) -> Sequence[Control]:
        """Parse until no whole frame is left, or ``room`` more messages are in ``messages``.

        Returns the controls met on the way.  After a CLOSE or FAIL control nothing more is parsed.
        """
        if self.finished:
            return _NO_CONTROLS
        controls: list[Control] = []
        limit = len(messages) + room
        try:
            if self._partial is not None:
                if self._missing:
                    return controls
                self._end_partial(messages, controls)
            # not after a Close frame that ended with these bytes, nor when they made up the last message asked for
            if not self.finished and len(messages) < limit:
                self._parse_frames(messages, controls, limit)
        except _Failure as failure:
            self.finished = True
            controls.append(Control(Opcode.FAIL, b"", failure.close))
        return controls

    def _parse_frames(self, messages: deque[Any], controls: list[Control], limit: int) -> None:
        mask_bit, short_limit = self._mask_bit, self._short
        mark, more_marks = self._mark, self._more_marks
        head = 6 if mask_bit else 2
        buffer, at = self._buffer, self._at
        last = len(buffer) - head  # where the last frame can begin whose header is short and complete
        while at <= last:
            first = buffer[at]
            short = buffer[at + 1] ^ mask_bit  # the payload length, if the mask bit is right and the length short
            end = at + head + short
            if short < short_limit and end <= len(buffer) and first in _WHOLE_DATA and not self._opcode:
                payload = buffer[at + head : end]
                if mask_bit:
                    payload = apply_mask(payload, buffer[at + 2 : at + 6])
                at = self._at = end
                if first == _FIN_BINARY:
                    self._deliver_binary(payload, messages, controls)
                elif mark in (text := self._decode(payload)) or (
                    more_marks and any(more in text for more in more_marks)
                ):
                    self._deliver_text(text, messages, controls)
                else:
                    messages.append(text)
            elif self._begin_frame():
                self._end_partial(messages, controls)
                if self.finished or self._partial is not None:
                    return
                at = self._at
            else:
                return
            if len(messages) >= limit:
                return
        if at < len(buffer) - 1:  # not the whole of a short header, but perhaps enough to refuse it
            self._check_first_bytes(buffer[at], buffer[at + 1])

    # -- the general path -------------------------------------------------------------------------------------

    def _begin_frame(self) -> bool:
        """Read a header and take what is there of its payload; False while the header is not complete."""
        buffer, at = self._buffer, self._at
        size = len(buffer)
        first, second = buffer[at], buffer[at + 1]
        length = second & 0x7F
        begin = at + 2
        self._check_first_bytes(first, second)
        if length == 126:
            begin += 2
            if size < begin:
                return False
            (length,) = _TWO_BYTES.unpack_from(buffer, at + 2)
            if length < 126:
                raise _Failure(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form")
        elif length == 127:
            begin += 8
            if size < begin:
                return False
            (length,) = _EIGHT_BYTES.unpack_from(buffer, at + 2)
            if length < 65536 or length >> 63:
                raise _Failure(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form or beyond 63 bits")
        limit = self._max_message
        if first & RSV1 or (self._compressed and self._opcode):  # deflate adds a little to what it cannot compress
            limit += (limit >> 5) + 64
        if self._gathered + length > limit and not first & 0x08:
            raise _Failure(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {self._max_message} bytes here")
        if self._mask_bit:
            begin += 4
            if size < begin:
                return False
            self._key = buffer[begin - 4 : begin]
        if length >= LARGE_BLOCK:
            keep_large_blocks()
        end = min(begin + length, size)
        self._first = first
        self._missing = begin + length - end
        payload = memoryview(buffer)[begin:end]
        self._filled = len(payload)
        self._partial = bytearray(payload) if self._missing else payload
        self._at = end
        return True

    def _check_first_bytes(self, first: int, second: int) -> None:
        """The rules about the first two bytes of a frame, RFC 6455 sections 5.1, 5.2, 5.4 and 5.5."""
        opcode = first & 0x0F
        if first & 0x30 or (first & RSV1 and (self._deflate is None or opcode not in (Opcode.TEXT, Opcode.BINARY))):
            raise _Failure(CloseCode.PROTOCOL_ERROR, "a reserved bit is set without an extension that uses it")
        if second & MASKED != self._mask_bit:
            expected = "unmasked" if self._mask_bit == 0 else "masked"
            raise _Failure(CloseCode.PROTOCOL_ERROR, f"frames to this side are {expected}")
        if opcode & 0x08:
            if opcode > Opcode.PONG:
                raise _Failure(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
            if not first & FIN:
                raise _Failure(CloseCode.PROTOCOL_ERROR, "a control frame must not be fragmented")
            if second & 0x7F > 125:
                raise _Failure(CloseCode.PROTOCOL_ERROR, "a control frame has at most 125 bytes")
        elif opcode > Opcode.BINARY:
            raise _Failure(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
        elif opcode == Opcode.CONTINUATION and not self._opcode:
            raise _Failure(CloseCode.PROTOCOL_ERROR, "a continuation with nothing to continue")
        elif opcode != Opcode.CONTINUATION and self._opcode:
            raise _Failure(CloseCode.PROTOCOL_ERROR, "a new message inside a fragmented one")

    def _end_partial(self, messages: deque[Any], controls: list[Control]) -> None:
        """If the payload of the frame under way is complete, unmask and dispatch it."""
        if self._missing or self._partial is None:
            return
        partial, first, self._partial = self._partial, self._first, None
        if first == _FIN_TEXT:
            self._deliver_text(self._decode(self._unmask(partial)), messages, controls)
            return
        payload = bytes(self._unmask(partial))
        if first == _FIN_BINARY:
            self._deliver_binary(payload, messages, controls)
        elif first & 0x08:
            controls.append(self._control(first & 0x0F, payload)._replace(at=len(messages)))
        else:
            self._fragment(first, payload)
            if first & FIN:
                self._end_message(messages, controls)

    def _unmask(self, payload: bytearray | memoryview) -> bytes | bytearray:
        """The payload in the clear; a bytearray is changed in place, and only copied if it must be."""
        if isinstance(payload, memoryview) or len(payload) < _IN_PLACE:
            return apply_mask(payload, self._key) if self._mask_bit else bytes(payload)
        if self._mask_bit:
            mask_in_place(payload, self._key)
        return payload

    def _control(self, opcode: int, payload: bytes) -> Control:
        if opcode != Opcode.CLOSE:
            return Control(opcode, payload)
        self.finished = True
        if not payload:
            return Control(opcode, payload, None)
        if len(payload) == 1:
            raise _Failure(CloseCode.PROTOCOL_ERROR, "a Close frame's payload is empty or has a two-byte code")
        (code,) = _TWO_BYTES.unpack_from(payload)
        if not CloseCode.may_be_sent(code):
            raise _Failure(CloseCode.PROTOCOL_ERROR, f"close code {code} must not be sent")
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            raise _Failure(CloseCode.INVALID_DATA, "the reason in a Close frame is not UTF-8") from None
        return Control(opcode, payload, Close(code, reason))

    def _decode(self, payload: bytes | bytearray) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError as exc:
            raise _Failure(CloseCode.INVALID_DATA, f"a text message is not UTF-8: {exc.reason}") from None

    def _deliver_text(self, text: str, messages: deque[Any], controls: list[Control]) -> None:
        intercept = self._intercepted(text) if len(text) < _INTERCEPT_MAX else None
        if intercept is None:
            messages.append(text)
        else:
            controls.append(Control(Opcode.INTERCEPTED, b"", None, text, intercept, len(messages)))

    def _deliver_binary(self, payload: bytes, messages: deque[Any], controls: list[Control]) -> None:
        # node's ws, told to send back what it received, answers a text message with a binary one
        if len(payload) < _INTERCEPT_MAX and (
            self._binary_mark in payload
            or (self._more_binary_marks and any(more in payload for more in self._more_binary_marks))
        ):
            text = payload.decode("utf-8", "replace")
            intercept = self._intercepted(text)
            if intercept is not None:
                controls.append(Control(Opcode.INTERCEPTED, payload, None, text, intercept, len(messages)))
                return
        messages.append(payload)

    def _intercepted(self, text: str) -> Intercept | None:
        for intercept in self._intercepts:
            if intercept.mark in text and intercept.recognise(text):
                return intercept
        return None

    def _fragment(self, first: int, payload: bytes) -> None:
        """Take one fragment's share of a message; text is validated as it arrives (RFC 6455 section 8.1)."""
        opcode = first & 0x0F
        if opcode:
            self._opcode = opcode
            self._compressed = bool(first & RSV1)
            self._decoder = codecs.getincrementaldecoder("utf-8")() if opcode == Opcode.TEXT else None
        self._fragments += 1
        if self._fragments > self._max_fragments:
            raise _Failure(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {self._max_fragments} fragments here")
        final = bool(first & FIN)
        if self._compressed:
            payload = self._inflate(payload, final)
        self._gathered += len(payload)
        piece: str | bytes = payload
        if self._decoder is not None:
            try:
                piece = self._decoder.decode(payload, final)
            except UnicodeDecodeError as exc:
                raise _Failure(CloseCode.INVALID_DATA, f"a text message is not UTF-8: {exc.reason}") from None
        if piece:
            self._pieces.append(piece)  # type: ignore[arg-type]

    def _inflate(self, payload: bytes, final: bool) -> bytes:
        assert self._deflate is not None
        try:
            return self._deflate.inflate(payload, final, self._max_message - self._gathered)
        except TooBig:
            text = f"a message has at most {self._max_message} bytes here, after inflation"
            raise _Failure(CloseCode.MESSAGE_TOO_BIG, text) from None
        except zlib.error:
            raise _Failure(CloseCode.INVALID_DATA, "a compressed message is not deflate data") from None

    def _end_message(self, messages: deque[Any], controls: list[Control]) -> None:
        text = self._opcode == Opcode.TEXT
        pieces = self._pieces
        self._opcode = self._gathered = self._fragments = 0
        self._pieces = []
        self._decoder = None
        if text:
            self._deliver_text("".join(pieces), messages, controls)  # type: ignore[arg-type]
        else:
            self._deliver_binary(b"".join(pieces), messages, controls)  # type: ignore[arg-type]
