"""A thread per connection, a blocking socket, the least framing an echo can do with: the floor for a library.

Nothing is checked, nothing is guarded: no UTF-8, no opcodes, no fragments, no limits, no locks. It is not a
contender but the measure of what Python threads and system calls cost by themselves.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.util
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LARGE = 4096
_numpy: Any = importlib.import_module("numpy") if importlib.util.find_spec("numpy") else None


def serve(announce: Callable[[int], None]) -> None:
    """Accepts for ever."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        announce(listener.getsockname()[1])
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_converse, args=(sock,), daemon=True).start()


def unmask(key: bytes, data: bytes | bytearray) -> bytes:
    """XOR with the repeated key, as one big integer."""
    size = len(data)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, sys.byteorder) ^ int.from_bytes(repeated, sys.byteorder)).to_bytes(size, sys.byteorder)


def _converse(sock: socket.socket) -> None:
    with sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _upgrade(sock)
        data = b""
        while chunk := sock.recv(65536):
            data = data + chunk if data else chunk
            while (frame := _split(data)) is not None:
                header, size = frame
                if size >= _LARGE:
                    _reply_large(sock, data, header, size)
                    data = b""
                    break
                if len(data) < header + size:
                    break
                payload = unmask(data[header - 4 : header], data[header : header + size])
                sock.sendall(_reply_header(data[0], size) + payload)
                data = data[header + size :]


def _split(data: bytes) -> tuple[int, int] | None:
    """Length of the header, length of the payload; None while the header is not complete."""
    if len(data) < 2:
        return None
    size, header = data[1] & 127, 6
    if size == 126:
        size, header = int.from_bytes(data[2:4], "big"), 8
    elif size == 127:
        size, header = int.from_bytes(data[2:10], "big"), 14
    return (header, size) if len(data) >= header else None


def _reply_large(sock: socket.socket, data: bytes, header: int, size: int) -> None:
    """Reads the rest of a frame into place, unmasks it and sends it from there. One in flight only."""
    whole = bytearray(size)
    whole[: len(data) - header] = data[header:]
    key = data[header - 4 : header]
    with memoryview(whole) as view:
        at = len(data) - header
        while at < size:
            got = sock.recv_into(view[at:])
            if not got:
                raise ConnectionError
            at += got
    if _numpy is not None and size % 4 == 0:
        words = _numpy.frombuffer(whole, _numpy.uint32)
        words ^= _numpy.frombuffer(key, _numpy.uint32)
    else:
        whole[:] = unmask(key, whole)
    sock.sendall(_reply_header(data[0], size))
    sock.sendall(whole)


def _reply_header(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


def _upgrade(sock: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += sock.recv(4096)
    key = request.lower().index(b"sec-websocket-key:") + len(b"sec-websocket-key:")
    value = request[key : request.index(b"\r\n", key)].strip()
    accept = base64.b64encode(hashlib.sha1(value + _GUID).digest())
    sock.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
