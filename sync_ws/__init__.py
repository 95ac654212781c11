"""WebSockets for synchronous Python: a server and a client on threads, with heartbeats and automatic reconnect.

    import sync_ws

    def echo(conn):                       # runs in the connection's own thread
        for message in conn:              # str for text, bytes for binary
            conn.send(message)

    with sync_ws.Server("127.0.0.1", 1024, echo) as server:
        server.serve_forever()

Everything public is importable from here; the README is the guide.
"""

from .backoff import Backoff
from .client import Client
from .client_state import ClientState, should_reconnect
from .connection import Connection
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
