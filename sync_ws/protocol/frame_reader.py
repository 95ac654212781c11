"""The protocol engine of both sides: bytes in, messages and control frames out.

Why so: a complete, unfragmented, uncompressed data frame, which is nearly every frame there is, is parsed in a few
byte operations where it lies.  Everything else takes the general path of the same parser: there is one place that
reads a header, so every limit is enforced from the header, before a payload is waited for or allocated.  A second
parser behind a fast path (wsproto's, say) would have to be kept in step frame by frame, sees every byte twice, and
enforces no limit; measured, a Ping costs it 12 µs against 4 here, a fragment of 100 bytes 13 against 4.

A payload that is not there yet is gathered in a growing buffer, so that what arrives byte by byte costs linear
time, and memory grows with what arrived, not with what was announced.

An interrupt (a signal's handler that raises) may come at any call in here, and the next ``parse`` goes on as if it had
not: whatever leaves the reader and the position behind it change together, in assignments between which nothing is
called, and everything before that is computed without a trace.  So ``deque += (item,)`` stands where ``append``
would be a call.  Where that is not to be had, in the middle of unmasking in place and in a message of several
frames, the connection ends: ``ConnectionAbortedError`` (InterruptedError would mean that nothing was done: try again).

Threading: a ``FrameReader`` belongs to whoever holds its connection's read lock.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from sys import getsizeof
from typing import Any

from ..endings import Close, CloseCode
from ..messages import Message, Opcode
from .assembly import Assembly, Failure
from .deflate import Deflate
from .frames import FIN, GOODBYE, LARGE_BLOCK, MASKED, RSV1, Control, keep_large_blocks
from .intercepts import MAX_LENGTH, Intercept
from .masking import apply_mask, mask_in_place

__all__ = ["FrameReader"]

_FIN_TEXT = FIN | Opcode.TEXT
_FIN_BINARY = FIN | Opcode.BINARY
_WHOLE_DATA = (_FIN_TEXT, _FIN_BINARY)
_TWO_BYTES = struct.Struct("!H")
_EIGHT_BYTES = struct.Struct("!Q")
_IN_PLACE = 4096  # bytes: from here on another copy costs more than a branch
_GROW = 64 * 1024  # bytes: the first room made for a payload that has not arrived
_NO_BOUND = 1 << 62
_AT_ONCE = 256  # frames that are no message of the application's: after so many ``parse`` comes back, some ms at most
_NO_MARK = "\0\0"  # where nothing is intercepted; text that has it is looked at once more, and delivered


class FrameReader:
    """Parses what one peer sends.

    ``expect_masked``: True on a server (RFC 6455 section 5.1).  ``max_message``: bytes of a whole message, after
    inflation.  ``max_fragments``: frames of one message.  ``intercepts``: messages that come out as controls.
    ``on_frame(opcode, payload, fin)``: told each frame's payload in the clear, before it is inflated.
    """

    def __init__(
        self,
        *,
        expect_masked: bool,
        max_message: int,
        max_fragments: int,
        intercepts: Sequence[Intercept] = (),
        deflate: Deflate | None = None,
        on_frame: Callable[[int, bytes, bool], None] | None = None,
    ) -> None:
        self._mask_bit = MASKED if expect_masked else 0
        self._max_message = max_message
        self._short = min(126, max_message + 1)  # payloads below it may take the fast path
        self._intercepts = tuple(intercepts)
        # the first mark is looked for in place: a loop over one would cost as much as all else about a short message
        self._mark, self._more_marks, self._binary_mark, self._more_binary_marks = _marks(self._intercepts)
        self._on_frame = on_frame
        self._reserved = 0x30 if deflate else 0x70  # bits that no extension uses
        self.fresh: bytes | None = None  # what was just received, until ``take_fresh``
        self._fresh_at = 0  # how much of it belongs to the frame under way, and has been copied there
        self._buffer = b""  # bytes not parsed yet, from _at on
        self._at = 0
        # the frame whose payload has not all arrived: its first byte, masking key, payload so far, bytes missing
        self._first = 0
        self._key = b""
        self._partial: bytearray | memoryview | None = None  # a view when all of it was there at once
        self.missing = 0
        self.present = 0  # bytes of _partial that have arrived, when it is a bytearray
        self._assembly = Assembly(max_message, max_fragments, deflate)
        self._unsafe = False  # True while something is half done that cannot be done again
        self._budget = 0  # bytes that messages may yet take in this parse
        self.more = False  # ``parse`` came back for the number of frames, and has more to do
        self.finished = False  # a Close frame or a failure came: nothing after it counts

    @property
    def wanted(self) -> int:
        """Bytes missing to the frame under way, 0 if none is: how much is worth reading at once."""
        return self.missing

    @property
    def buffered(self) -> bool:
        """Whether bytes are waiting that ``parse`` has not looked at, or, after an interrupt, not to the end."""
        return self._at < len(self._buffer) or (self._partial is not None and not self.missing)

    def vacancy(self) -> memoryview:
        """Where the next bytes of the frame under way may be read into, when ``wanted``.

        Then add how many there were to ``present``, and take them from ``missing``.
        Grows with what has arrived, not with what was announced.
        """
        partial = self._partial
        assert isinstance(partial, bytearray)
        if self.present == len(partial):
            partial += bytes(min(self.missing, max(len(partial), _GROW)))
        return memoryview(partial)[self.present :]

    def feed(self, data: bytes) -> None:
        """Take what was received, to be parsed by the next ``parse``."""
        self.fresh = data
        self.take_fresh()

    def forget(self) -> None:
        """What was received and not parsed is none of ours: a forked child's copy of it."""
        self._buffer, self._at, self.fresh = b"", 0, None

    def take_fresh(self) -> None:
        """Take what is in ``fresh``."""
        data = self.fresh
        if data is None:
            return
        if self._partial is not None:  # then nothing is buffered
            while self.missing and self._fresh_at < len(data):
                with self.vacancy() as room:
                    size = min(len(room), len(data) - self._fresh_at)
                    room[:size] = data[self._fresh_at : self._fresh_at + size]
                    self.present += size
                    self.missing -= size
                    self._fresh_at += size
            self._buffer, self._at, self.fresh, self._fresh_at = data, self._fresh_at, None, 0
        else:
            joined = self._buffer[self._at :] + data  # no copy where nothing is left
            self._buffer, self._at, self.fresh = joined, 0, None

    def parse(
        self, messages: deque[Any], room: int, budget: int = _NO_BOUND, controls: list[Control] | None = None
    ) -> list[Control]:
        """Parse until no whole frame is left, or ``room`` more messages are in ``messages``, or such as take ``budget``
        bytes of memory.

        Returns the controls met on the way: ``controls``, where that was given, with those that were in it.  After a
        CLOSE or FAIL control nothing more is parsed.  What a peer can send for six bytes (a control, a fragment, an
        intercepted message) is bounded too, so that the caller can look at the time: ``more`` says so.
        """
        if controls is None:
            controls = []
        if self.fresh is not None:
            if self._partial is None and self._at >= len(self._buffer):  # nearly always, so without a call
                self._buffer, self._at, self.fresh = self.fresh, 0, None
            else:
                self.take_fresh()
        if self.finished:
            return controls
        if self._unsafe:
            raise ConnectionAbortedError("an interrupt came in the middle of reading a message")
        limit = len(messages) + room
        self._budget = budget
        self.more = False
        try:
            if self._partial is not None:
                if self.missing:
                    return controls
                self._end_partial(messages, controls)
            # not after a Close frame that ended with these bytes, nor when they made up the last message asked for
            if not self.finished and len(messages) < limit and self._budget > 0:
                self._parse_frames(messages, controls, limit)
        except Failure as failure:
            failed = Control(Opcode.FAIL, b"", failure.close, failure.about, at=len(messages))
            controls += (failed,)
            self.finished = True
        return controls

    def _parse_frames(self, messages: deque[Any], controls: list[Control], limit: int) -> None:
        mask_bit, short_limit = self._mask_bit, self._short
        mark, more_marks, binary_mark = self._mark, self._more_marks, self._binary_mark
        head = 6 if mask_bit else 2
        buffer, at, assembly, on_frame = self._buffer, self._at, self._assembly, self._on_frame
        last = len(buffer) - head  # where the last frame can begin whose header is short and complete
        frames = _AT_ONCE
        while at <= last:
            first = buffer[at]
            short = buffer[at + 1] ^ mask_bit  # the payload length, if the mask bit is right and the length short
            end = at + head + short
            if short < short_limit and end <= len(buffer) and first in _WHOLE_DATA and not assembly.opcode:
                item: Any = buffer[at + head : end]
                if mask_bit:
                    item = apply_mask(item, buffer[at + 2 : at + 6])
                if on_frame is not None:
                    on_frame(first & 0x0F, item, True)
                marked: object
                if first == _FIN_TEXT:
                    item = _decode(item)
                    marked = mark in item or (more_marks and any(more in item for more in more_marks))
                else:
                    marked = binary_mark in item or self._more_binary_marks
                if marked and (control := self._intercepted(item, len(messages))) is not None:
                    controls += (control,)
                    at = self._at = end
                    frames -= 1
                else:
                    messages += (item,)
                    at = self._at = end
            elif self._begin_frame():
                self._end_partial(messages, controls)
                if self.finished or self._budget <= 0:
                    return
                at = self._at
                frames -= 1
            else:
                return
            if not frames:
                self.more, limit = True, 0
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
                raise Failure(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form")
        elif length == 127:
            begin += 8
            if size < begin:
                return False
            (length,) = _EIGHT_BYTES.unpack_from(buffer, at + 2)
            if length < 65536 or length >> 63:
                raise Failure(CloseCode.PROTOCOL_ERROR, "payload length not in its shortest form or beyond 63 bits")
        limit = self._max_message
        assembly = self._assembly
        if first & RSV1 or (assembly.compressed and assembly.opcode):
            # deflate adds a little to what it cannot compress
            limit += (limit >> 5) + 64
        if assembly.gathered + length > limit and not first & 0x08:
            text = f"a message has at most {self._max_message} bytes here"
            raise Failure(CloseCode.MESSAGE_TOO_BIG, text, "max_message")
        if self._mask_bit:
            begin += 4
            if size < begin:
                return False
        if length >= LARGE_BLOCK:
            keep_large_blocks()
        end = min(begin + length, size)
        missing = begin + length - end
        present = end - begin
        payload = memoryview(buffer)[begin:end]
        partial = bytearray(payload) if missing else payload
        self._first, self._key, self._at = first, buffer[begin - 4 : begin], end
        self._partial, self.missing, self.present = partial, missing, present
        return True

    def _check_first_bytes(self, first: int, second: int) -> None:
        """The rules about the first two bytes of a frame, RFC 6455 sections 5.1, 5.2, 5.4 and 5.5."""
        opcode = first & 0x0F
        if first & self._reserved or (first & RSV1 and opcode not in (Opcode.TEXT, Opcode.BINARY)):
            raise Failure(CloseCode.PROTOCOL_ERROR, "a reserved bit is set without an extension that uses it")
        if second & MASKED != self._mask_bit:
            expected = "unmasked" if self._mask_bit == 0 else "masked"
            raise Failure(CloseCode.PROTOCOL_ERROR, f"frames to this side are {expected}")
        if opcode & 0x08:
            if opcode > Opcode.PONG:
                raise Failure(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
            if not first & FIN:
                raise Failure(CloseCode.PROTOCOL_ERROR, "a control frame must not be fragmented")
            if second & 0x7F > 125:
                raise Failure(CloseCode.PROTOCOL_ERROR, "a control frame has at most 125 bytes")
        elif opcode > Opcode.BINARY:
            raise Failure(CloseCode.PROTOCOL_ERROR, f"unknown opcode {opcode:#x}")
        elif opcode == Opcode.CONTINUATION and not self._assembly.opcode:
            raise Failure(CloseCode.PROTOCOL_ERROR, "a continuation with nothing to continue")
        elif opcode != Opcode.CONTINUATION and self._assembly.opcode:
            raise Failure(CloseCode.PROTOCOL_ERROR, "a new message inside a fragmented one")

    def _end_partial(self, messages: deque[Any], controls: list[Control]) -> None:
        """If the payload of the frame under way is complete, unmask and dispatch it."""
        partial, first = self._partial, self._first
        if self.missing or partial is None:
            return
        if not first & 0x08 and first not in _WHOLE_DATA:
            self._fragment(first, partial, messages, controls)
            return
        self._unsafe = isinstance(partial, bytearray) and len(partial) >= _IN_PLACE
        payload = self._unmask(partial)
        if self._on_frame is not None:
            self._on_frame(first & 0x0F, bytes(payload), True)
        if first & 0x08:
            control, finished = self._control(first & 0x0F, bytes(payload), len(messages))
            self._partial, self._unsafe, self.finished = None, False, finished
            controls += (control,)
            return
        item: Message = _decode(payload) if first == _FIN_TEXT else bytes(payload)
        self._deliver(item, messages, controls)

    def _fragment(
        self, first: int, partial: bytearray | memoryview, messages: deque[Any], controls: list[Control]
    ) -> None:
        self._unsafe = True
        payload = bytes(self._unmask(partial))
        if self._on_frame is not None:
            self._on_frame(first & 0x0F, payload, bool(first & FIN))
        item = self._assembly.add(first & 0x0F, bool(first & RSV1), payload, bool(first & FIN))
        if item is None:
            self._partial, self._unsafe = None, False
        else:
            self._deliver(item, messages, controls)

    def _deliver(self, item: Message, messages: deque[Any], controls: list[Control]) -> None:
        control = self._intercepted(item, len(messages))
        size = getsizeof(item)
        if control is not None:
            controls += (control,)
        else:
            messages += (item,)
        self._partial, self._unsafe = None, False
        self._budget -= size

    def _unmask(self, payload: bytearray | memoryview) -> bytes | bytearray:
        """The payload in the clear; a bytearray is changed in place, and only copied if it must be."""
        if isinstance(payload, memoryview) or len(payload) < _IN_PLACE:
            return apply_mask(payload, self._key) if self._mask_bit else bytes(payload)
        if self._mask_bit:
            mask_in_place(payload, self._key)
        return payload

    def _control(self, opcode: int, payload: bytes, at: int) -> tuple[Control, bool]:
        """The control, and whether it is the last one."""
        if opcode != Opcode.CLOSE:
            return Control(opcode, payload, at=at), False
        if not payload:
            return Control(opcode, payload, None, at=at), True
        if len(payload) == 1:
            raise Failure(CloseCode.PROTOCOL_ERROR, "a Close frame's payload is empty or has a two-byte code", GOODBYE)
        (code,) = _TWO_BYTES.unpack_from(payload)
        if not CloseCode.may_be_sent(code):
            raise Failure(CloseCode.PROTOCOL_ERROR, f"close code {code} must not be sent", GOODBYE)
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            raise Failure(CloseCode.INVALID_DATA, "the reason in a Close frame is not UTF-8", GOODBYE) from None
        return Control(opcode, payload, Close(code, reason), at=at), True

    def _intercepted(self, item: Message, at: int) -> Control | None:
        """The control for a message that the library takes itself; None for one of the application's."""
        if len(item) >= MAX_LENGTH:
            return None
        # node's ws, told to send back what it received, answers a text message with a binary one
        text = item if isinstance(item, str) else item.decode("utf-8", "replace")
        for intercept in self._intercepts:
            if intercept.mark in text and intercept.recognise(item if intercept.verbatim else text):
                payload = b"" if isinstance(item, str) else item
                return Control(Opcode.INTERCEPTED, payload, None, text, intercept, at)
        return None


@lru_cache(16)  # every connection of a server has the same ones
def _marks(intercepts: tuple[Intercept, ...]) -> tuple[str, tuple[str, ...], bytes, tuple[bytes, ...]]:
    """The first mark and the others, as text and as bytes."""
    first, *more = [intercept.mark for intercept in intercepts] or [_NO_MARK]
    return first, tuple(more), first.encode(), tuple(mark.encode() for mark in more)


def _decode(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as exc:
        raise Failure(CloseCode.INVALID_DATA, f"a text message is not UTF-8: {exc.reason}") from None
