"""Frames on their way into the kernel: one non-blocking write at once, and in order what it did not take.

Why so: the head of the queue is always completed first, so a frame once begun is never interleaved with another.  Where
the head was left is a number beside it, not a piece cut off: so "this much has been written" and "this is what is left"
change together, in assignments between which nothing is called.  An interrupt (a signal's handler that raises) finds
whole frames before it and whole frames after it.

Threading: no lock of its own; the writer's guards it.  The counters may be read by anyone.
"""

from __future__ import annotations

from collections import deque

from ..net.transport import Bytes, Transport
from ..net.waiting import NOT_NOW

__all__ = ["FrameQueue"]


class FrameQueue:
    """Writes to one transport.  OSError from whatever writes, when the connection broke."""

    def __init__(self, transport: Transport) -> None:
        self._sending = transport.sending
        self._sending_more = transport.sending_more
        self._frames: deque[Bytes] = deque()
        self._offset = 0  # bytes of the first one that are in the kernel
        self.waiting = 0  # bytes that are not
        self.bytes_sent = 0
        self.moved = False  # whether something was written, or begun to wait, since ``moved`` was last set to False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Bytes) -> int:
        """Write or queue one frame: 0 when it is in the kernel, else what ``bytes_sent`` will be when it is."""
        size = len(frame)
        if self._frames:
            self._frames += (frame,)
            self.waiting += size
        else:
            try:
                for sent in self._sending(frame):
                    self.bytes_sent += sent
                    if sent == size:
                        return 0
                    self._frames += (frame,)
                    self._offset, self.waiting, self.moved = sent, size - sent, True
            except NOT_NOW:
                self._frames += (frame,)
                self.waiting, self.moved = size, True
        return self.bytes_sent + self.waiting

    def put_parts(self, head: bytes, body: Bytes) -> int:
        """The same for a large frame, whose body is not copied to stand behind its head."""
        size = len(head) + len(body)
        begins = not self._frames
        self._frames += (head, body)
        self.waiting += size
        self.moved = self.moved or begins
        ticket = self.bytes_sent + self.waiting
        return 0 if self.flush() else ticket

    def flush(self) -> bool:
        """Write what the kernel takes; True when nothing is left."""
        while self._frames:
            head, offset = self._frames[0], self._offset
            size = len(head)
            data = memoryview(head)[offset:] if offset else head
            sending = self._sending_more if len(self._frames) > 1 else self._sending
            try:
                for sent in sending(data):
                    self.bytes_sent += sent  # counted before the frame leaves the queue: see Writer._wait_for
                    self.waiting -= sent
                    self.moved = True
                    if offset + sent == size:
                        del self._frames[0]
                        self._offset = 0
                    else:
                        self._offset = offset + sent
            except NOT_NOW:
                return False
            if self._offset:
                return False
        return True

    def forget(self) -> None:
        """Nothing of it will be written any more."""
        self._frames, self._offset, self.waiting = deque(), 0, 0
