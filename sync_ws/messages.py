"""What a message is: text or bytes, and the opcode that tells which.

Threading: pure functions and constants.
"""

from __future__ import annotations

__all__ = ["Data", "Message", "Opcode", "as_payload"]

Message = str | bytes  # as it is received
Data = str | bytes | bytearray | memoryview  # as it may be sent


class Opcode:
    """RFC 6455 section 5.2; and two that are never on the wire, for what else a reader reports."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA
    INTERCEPTED = 0x100  # a message that the library takes itself
    FAIL = 0x101  # the peer broke the protocol: close with this code and reason


def as_payload(data: Data) -> tuple[int, bytes]:
    """The opcode and payload of a message; TypeError unless it is text or bytes, ValueError for lone surrogates."""
    if isinstance(data, str):
        return Opcode.TEXT, data.encode()
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Opcode.BINARY, bytes(data)
    raise TypeError(f"a message is str for text or bytes for binary, not {type(data).__name__}")
