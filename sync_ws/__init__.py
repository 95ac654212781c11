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

from typing import TYPE_CHECKING

from .client.backoff import Backoff
from .client.heartbeat import Heartbeat
from .client.outbox import Offline
from .client.state import ClientState, should_reconnect
from .endings import Close, CloseCode, Reason
from .envelope import Envelope, ModeCode, decode, encode
from .errors import (
    CertificateError,
    ConcurrentReceive,
    ConnectionClosed,
    HandshakeError,
    HandshakeRejected,
    HandshakeTimeout,
    MessageError,
    NotConnected,
    QueueFull,
    Refusal,
    SendTimeout,
    SyncWsError,
)
from .events import EventBus
from .on_demand import names_on_demand

if TYPE_CHECKING:
    from .client.client import Client
    from .headers import Headers
    from .protocol.http_head import Request
    from .server.connection import Connection
    from .server.hub import Delivery, Hub
    from .server.policy import bearer_token
    from .server.server import Server

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
    "Hub",
    "MessageError",
    "ModeCode",
    "NotConnected",
    "Offline",
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

__getattr__ = names_on_demand(
    __name__,
    {
        "Client": "client.client",
        "Connection": "server.connection",
        "Delivery": "server.hub",
        "Headers": "headers",
        "Hub": "server.hub",
        "Request": "protocol.http_head",
        "Server": "server.server",
        "bearer_token": "server.policy",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
