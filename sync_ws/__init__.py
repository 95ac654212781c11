"""WebSockets for synchronous Python: a server and a client on threads, with heartbeats and automatic reconnect.

    import sync_ws

    def echo(conn):                       # runs in the connection's own thread
        for message in conn:              # str for text, bytes for binary
            conn.send(message)

    with sync_ws.Server("127.0.0.1", 1024, echo) as server:
        server.serve_forever()

Everything public is importable from here; the README is the guide.

The client and the server are loaded when they are first asked for: a program that only has a client never pays for
an HTTP server, nor for what simple-websocket imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .backoff import Backoff
from .client_state import ClientState, should_reconnect
from .errors import (
    CertificateError,
    Close,
    CloseCode,
    ConcurrentReceive,
    ConnectionClosed,
    HandshakeError,
    HandshakeRejected,
    HandshakeTimeout,
    MessageError,
    NotConnected,
    QueueFull,
    Reason,
    Refusal,
    SendTimeout,
    SyncWsError,
)
from .events import EventBus
from .heartbeat import Heartbeat
from .messages import Envelope, ModeCode, decode, encode

if TYPE_CHECKING:
    from .client import Client
    from .connection import Connection
    from .request import Headers, Request
    from .server import Delivery, Server
    from .upgrade import bearer_token

__all__ = [
    "Backoff",
    "CertificateError",
    "Client",
    "ClientState",
    "Close",
    "CloseCode",
    "ConcurrentReceive",
    "Connection",
    "ConnectionClosed",
    "Delivery",
    "Envelope",
    "EventBus",
    "HandshakeError",
    "HandshakeRejected",
    "HandshakeTimeout",
    "Headers",
    "Heartbeat",
    "MessageError",
    "ModeCode",
    "NotConnected",
    "QueueFull",
    "Reason",
    "Refusal",
    "Request",
    "SendTimeout",
    "Server",
    "SyncWsError",
    "bearer_token",
    "decode",
    "encode",
    "should_reconnect",
]

__version__ = "0.1.0"

_LOADED_ON_DEMAND = {
    "Client": "client",
    "Connection": "connection",
    "Delivery": "server",
    "Headers": "request",
    "Request": "request",
    "Server": "server",
    "bearer_token": "upgrade",
}


def __getattr__(name: str) -> Any:
    module = _LOADED_ON_DEMAND.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value  # the next time it is simply there
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
