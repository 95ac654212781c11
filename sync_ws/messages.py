"""What a message is: text or bytes, and the opcode that tells which.

Threading: pure functions and constants.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["Data", "Message", "Opcode", "Pieces", "as_payload", "as_pieces", "as_whole", "listed"]

Message = str | bytes  # as it is received
Data = str | bytes | bytearray | memoryview  # as it may be sent
Pieces = Iterable[str] | Iterable[bytes | bytearray | memoryview]  # as it may be sent, too: in that many fragments


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


def as_whole(data: Data | Pieces) -> tuple[int, bytes]:
    """``as_payload``, pieces joined."""
    if isinstance(data, (str, bytes, bytearray, memoryview)):
        return as_payload(data)
    opcode, pieces = as_pieces(data)
    return opcode, b"".join(pieces)


def listed(data: Pieces) -> list[Data]:
    """The pieces, which may then be sent more than once; TypeError for what are none.

    A mapping, which could be taken for its keys, is a message that somebody forgot to encode.
    """
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(f"a message is str for text, bytes for binary, or pieces of either, not {type(data).__name__}")
    return list(data)


def as_pieces(data: Pieces) -> tuple[int, list[bytes]]:
    """The opcode and the fragments of a message that is given in pieces, all of them text or all of them bytes.

    TypeError for what is neither.
    """
    pieces = [as_payload(piece) for piece in listed(data)]
    opcodes = {opcode for opcode, _ in pieces}
    if len(opcodes) > 1:
        raise TypeError("the pieces of a message are all str or all bytes, not some of each")
    return (opcodes.pop() if opcodes else Opcode.TEXT), [payload for _, payload in pieces]
