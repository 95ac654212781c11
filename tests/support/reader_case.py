"""What a frame reader makes of frames, as a server's and as a client's, and with the bytes at once and one by one.

Threading: none.
"""

from __future__ import annotations

import unittest
from collections import deque
from typing import Any

from sync_ws.messages import Message, Opcode
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.frames import Control
from tests.support.wire import frame, make_reader

__all__ = ["BothRoles", "Item", "each_byte", "failure", "read"]

Item = Message | tuple[Any, ...]


def read(reader: FrameReader, *pieces: bytes, room: int = 256) -> list[Item]:
    """Everything that comes of the pieces, in order of kind: the messages, then the controls."""
    messages: deque[Message] = deque()
    controls: list[Control] = []
    for piece in pieces:
        reader.feed(piece)
        while True:
            before = len(messages)
            found = reader.parse(messages, room)
            controls += found
            if not reader.buffered or (not found and len(messages) == before):
                break
    kinds = [(control.opcode, control.close or control.text or control.payload) for control in controls]
    return [*messages, *kinds]


def failure(reader: FrameReader, data: bytes) -> int:
    """The close code of the failure that is all that comes of the bytes."""
    [item] = read(reader, data)
    assert isinstance(item, tuple) and item[0] == Opcode.FAIL, item
    return int(item[1].code)


def each_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


class BothRoles(unittest.TestCase):
    """Each test runs as a server's reader and as a client's, and with the bytes at once and one by one."""

    def roles(self) -> list[bool]:
        return [True, False]

    def check(self, expected: list[Item], *frames: tuple[Any, ...] | bytes, **options: Any) -> None:
        """What comes of the frames: of each (opcode, payload, {details}), or bytes as they are."""
        for server in self.roles():
            data = b"".join(
                part if isinstance(part, bytes) else frame(*part[:2], masked=server, **(part[2] if part[2:] else {}))
                for part in frames
            )
            for pieces in ([data], each_byte(data)):
                with self.subTest(server=server, pieces=len(pieces)):
                    self.assertEqual(read(make_reader(server=server, **options), *pieces), expected)

    def refused(
        self, code: int, *frames: tuple[Any, ...] | bytes, messages: tuple[Message, ...] = (), **options: Any
    ) -> None:
        """That the frames end the connection with this code, after these messages."""
        for server in self.roles():
            data = b"".join(
                part if isinstance(part, bytes) else frame(*part[:2], masked=server, **(part[2] if part[2:] else {}))
                for part in frames
            )
            for pieces in ([data], each_byte(data)):
                with self.subTest(server=server, pieces=len(pieces)):
                    reader = make_reader(server=server, **options)
                    *got, last = read(reader, *pieces)
                    assert isinstance(last, tuple)
                    self.assertEqual((last[0], last[1].code), (Opcode.FAIL, code))
                    self.assertEqual(got, list(messages))
                    self.assertLessEqual(len(last[1].reason.encode()), 123)
                    self.assertTrue(reader.finished)
                    self.assertEqual(read(reader, frame(Opcode.TEXT, b"late", masked=server)), [])
