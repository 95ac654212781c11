"""Every frame of a connection in the log, at DEBUG: what came (``<``) and what went (``>``).

Why so: what a strange peer really says is the first question when something is wrong.  It costs nothing where it is
off: a connection that was opened while its logger was not at DEBUG has no such log at all.

Threading: called under the channel's read lock and write lock; logging does the rest.
"""

from __future__ import annotations

import logging
import struct

from ..messages import Opcode

__all__ = ["FrameLog"]

SHOWN = 75  # characters or bytes of a payload
_NAMES = {
    Opcode.CONTINUATION: "CONT",
    Opcode.TEXT: "TEXT",
    Opcode.BINARY: "BINARY",
    Opcode.CLOSE: "CLOSE",
    Opcode.PING: "PING",
    Opcode.PONG: "PONG",
}


class FrameLog:
    """One connection's.  ``name``: how its lines begin."""

    def __init__(self, logger: logging.Logger, name: object) -> None:
        self._logger = logger
        self._name = name

    @classmethod
    def wanted(cls, logger: logging.Logger, name: object) -> FrameLog | None:
        """One, if its lines would go anywhere."""
        return cls(logger, name) if logger.isEnabledFor(logging.DEBUG) else None

    def sent(self, opcode: int, payload: bytes) -> None:
        """A message, in one frame or more, or a control frame went out."""
        self._logger.debug("%s > %s", self._name, _shown(opcode, payload))

    def received(self, opcode: int, payload: bytes, fin: bool) -> None:
        """A frame came in."""
        self._logger.debug("%s < %s%s", self._name, _shown(opcode, payload), "" if fin else " and more to come")


def _shown(opcode: int, payload: bytes) -> str:
    """Such as ``TEXT 'hello' [5]``: one line whatever it contains, the number is that of the bytes."""
    size = len(payload)
    if opcode == Opcode.CLOSE and size >= 2:
        (code,) = struct.unpack_from("!H", payload)
        shown = f"{code} {payload[2:].decode(errors='replace')!a}"
    elif opcode == Opcode.TEXT:
        text = payload[: 4 * SHOWN].decode(errors="replace")
        shown = ascii(text if len(text) <= SHOWN else text[:SHOWN] + "...")
    else:
        shown = payload[:SHOWN].hex(" ") + (" ..." if size > SHOWN else "") if payload else "''"
    return f"{_NAMES.get(opcode, hex(opcode))} {shown} [{size}]"
