"""WebSockets for synchronous Python: a server and a client on threads, with heartbeats and automatic reconnect.

    import sync_ws

    def echo(conn):                       # runs in the connection's own thread
        for message in conn:              # str for text, bytes for binary
            conn.send(message)

    with sync_ws.Server("127.0.0.1", 1024, echo) as server:
        server.serve_forever()

Everything public is importable from here; the README is the guide.

What belongs to the client or to the server is loaded when it is first asked for: a program that only has a client never
pays for an HTTP server, nor for what simple-websocket imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from .client.backoff import Backoff
    from .client.client import Client
    from .client.heartbeat import Heartbeat
    from .client.outbox import Offline
    from .client.state import ClientState, should_reconnect
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
        "Backoff": "client.backoff",
        "Client": "client.client",
        "ClientState": "client.state",
        "Connection": "server.connection",
        "Delivery": "server.hub",
        "Headers": "headers",
        "Heartbeat": "client.heartbeat",
        "Hub": "server.hub",
        "Offline": "client.outbox",
        "Request": "protocol.http_head",
        "Server": "server.server",
        "bearer_token": "server.policy",
        "should_reconnect": "client.state",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
