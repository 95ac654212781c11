"""Frames written and read by hand, and a channel between two ends of a socket pair.

Why so: what the library writes is judged by a reader that shares no code with it, and what it reads is written by
one that can break every rule.

Threading: everything belongs to the thread that made it, but for the lists of an ``Owner``, which only grow.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import warnings
import zlib
from itertools import cycle
from typing import NamedTuple

from sync_ws.channel.channel import Channel
from sync_ws.channel.inbox import Inbox, Note
from sync_ws.channel.limits import Limits
from sync_ws.endings import Reason
from sync_ws.messages import Opcode
from sync_ws.net.transport import Transport, transport_for
from sync_ws.protocol.deflate import Deflate
from sync_ws.protocol.frame_reader import FrameReader
from sync_ws.protocol.frames import Control
from sync_ws.protocol.intercepts import HEART_BEAT

__all__ = [
    "KEY", "End", "Frame", "Owner", "deflated", "fork", "frame", "join", "make_channel", "make_reader", "read_frames",
    "xor",
]  # fmt: skip

KEY = b"\x37\xfa\x21\x3d"  # that of the examples in RFC 6455 section 5.7


class Frame(NamedTuple):
    """A frame as it was on the wire, unmasked."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0


def xor(data: bytes, key: bytes) -> bytes:
    """Masking as RFC 6455 section 5.3 words it."""
    return bytes(a ^ b for a, b in zip(data, cycle(key)))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    masked: bool,
    fin: bool = True,
    rsv: int = 0,
    size: int | None = None,
    form: int | None = None,
) -> bytes:
    """One frame, as RFC 6455 section 5.2 has it, or as it must not be.

    ``rsv``: the reserved bits as a number, RSV1 is 4.  ``size``: the length it announces, if not that of ``payload``;
    ``form``: in 7, 16 or 64 bits, if not in as few as possible.
    """
    assert 0 <= rsv <= 7, rsv
    size = len(payload) if size is None else size
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mask = 0x80 if masked else 0
    if form == 7:
        head += bytes([mask | size])
    else:
        head += bytes([mask | (126 if form == 16 else 127)]) + size.to_bytes(form // 8, "big")
    return head + (KEY + xor(payload, KEY) if masked else payload)


def deflated(payload: bytes) -> bytes:
    """The payload of a compressed message (RFC 7692 section 7.2.1), made with zlib alone."""
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def read_frames(data: bytes, *, masked: bool) -> tuple[list[Frame], bytes]:
    """The whole frames in ``data``, and what is left; AssertionError if one breaks the rules for its sender."""
    frames = []
    while len(data) >= 2:
        size, at = data[1] & 0x7F, 2
        if size >= 126:
            form = 2 if size == 126 else 8
            if len(data) < 2 + form:
                break
            size, at = int.from_bytes(data[2 : 2 + form], "big"), 2 + form
            assert size >= (126 if form == 2 else 65536), "a length not in its shortest form"
        assert bool(data[1] & 0x80) == masked, "the mask bit is wrong"
        key, at = (data[at : at + 4], at + 4) if masked else (b"", at)
        if len(data) < at + size:
            break
        payload = data[at : at + size]
        frames.append(
            Frame(data[0] & 15, xor(payload, key) if masked else payload, bool(data[0] & 0x80), data[0] >> 4 & 7)
        )
        data = data[at + size :]
    return frames, data


def make_reader(
    *, server: bool, max_message: int = 1 << 20, max_fragments: int = 1024, deflate: Deflate | None = None
) -> FrameReader:
    """A reader of what the peer of a server, or of a client, sends."""
    return FrameReader(
        expect_masked=server,
        max_message=max_message,
        max_fragments=max_fragments,
        intercepts=(HEART_BEAT,),
        deflate=deflate,
    )


class Owner:
    """What owns a channel: answers heartbeats as a connection does, and keeps notes."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self.heart_beats: list[str] = []
        self.pongs: list[bytes] = []
        self.ends: list[Reason] = []

        self.notes = False  # whether heartbeats and Pongs are told in the inbox, too

    def answer(self, channel: Channel, beat: Control) -> Note | None:
        self.heart_beats.append(beat.text)
        channel.writer.post(Opcode.TEXT, beat.text.encode())
        return Note("heartbeat", beat.text) if self.notes else None

    def pong(self, payload: bytes) -> Note | None:
        self.pongs.append(payload)
        return Note("pong", payload) if self.notes else None


def make_channel(
    transport: Transport | socket.socket,
    *,
    client: bool,
    limits: Limits = Limits(),
    deflate: Deflate | None = None,
    early: bytes = b"",
) -> tuple[Channel, Owner]:
    """A channel over one end of a connection, and its owner."""
    if isinstance(transport, socket.socket):
        transport = transport_for(transport)
    owner = Owner()
    channel = Channel(
        transport,
        owner.inbox,
        client=client,
        limits=limits,
        on_end=owner.ends.append,
        on_pong=owner.pong,
        intercepts={HEART_BEAT: owner.answer},
        deflate=deflate,
        early=early,
    )
    return channel, owner


class End:
    """The other end of a channel, by hand.  ``client``: whether the channel's end is the client's."""

    def __init__(self, sock: socket.socket, *, client: bool) -> None:
        sock.settimeout(10)
        self.sock = sock
        self._client = client
        self._frames: list[Frame] = []
        self._rest = b""
        self.received = 0
        self.ended = False

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
        """A frame as this end has to send it."""
        return frame(opcode, payload, masked=not self._client, fin=fin, rsv=rsv)

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        self.sock.sendall(self.frame(opcode, payload, fin=fin, rsv=rsv))

    def send_close(self, code: int | None = 1000, reason: str = "") -> None:
        self.send(Opcode.CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())

    def hang_up(self) -> None:
        """End both directions; wakes a thread that is blocked in sending."""
        with contextlib.suppress(OSError):  # reset already
            self.sock.shutdown(socket.SHUT_RDWR)

    def read(self, count: int = 1) -> list[Frame]:
        """The next ``count`` frames; fewer at the end of the stream; TimeoutError when nothing comes for 10 s."""
        while len(self._frames) < count and not self.ended:
            data = self.sock.recv(1 << 18)
            self.ended = not data
            self.received += len(data)
            found, self._rest = read_frames(self._rest + data, masked=self._client)
            self._frames += found
        taken, self._frames = self._frames[:count], self._frames[count:]
        return taken

    def pending(self) -> list[Frame]:
        """The frames that are there now."""
        self.sock.setblocking(False)
        try:
            return self.read(1 << 30)
        except BlockingIOError:
            taken, self._frames = self._frames, []
            return taken
        finally:
            self.sock.settimeout(10)


def fork() -> int:
    """os.fork without the warning that there are threads, which is what such a test is about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def join(*threads: threading.Thread, timeout: float = 10.0) -> None:
    """Wait for threads to end; AssertionError if one does not in time."""
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive(), f"{thread.name} did not end within {timeout:g} s"
