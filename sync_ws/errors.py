"""Everything sync_ws raises.

One root, so that ``except SyncWsError`` is enough:

    SyncWsError
    ├── ConnectionClosed        the connection is over; carries both Close frames and the reason
    ├── NotConnected            a client that is not open, where waiting or queueing was not wanted
    ├── SendTimeout             the peer did not read within ``send_timeout`` (also a TimeoutError)
    ├── QueueFull               a bound was reached: nothing was queued, nothing was lost in silence
    ├── ConcurrentReceive       a second thread called recv() while another one was in it
    ├── MessageError            a message is not what was asked for, such as bad JSON (also a ValueError)
    ├── Refusal                 raised by an ``authenticate`` hook to refuse with a status of its choice
    └── HandshakeError          the opening handshake failed, client side
        ├── HandshakeRejected   the server answered with an HTTP status other than 101
        ├── HandshakeTimeout    no connection within ``open_timeout`` (also a TimeoutError)
        └── CertificateError    the server's certificate was not accepted; not retried, unless it is not yet valid

Why so: foreign exceptions (``OSError``, ``ssl.SSLError``, those of the two packages) are translated once, where
they enter, and chained with ``from``.  A plain ``TimeoutError`` is what ``recv(timeout=...)`` raises.

Threading: these are values; share them freely.
"""

from __future__ import annotations

from collections.abc import Mapping

from .endings import Close, CloseCode, Reason
from .headers import Headers

__all__ = [
    "CertificateError",
    "ConcurrentReceive",
    "ConnectionClosed",
    "HandshakeError",
    "HandshakeRejected",
    "HandshakeTimeout",
    "MessageError",
    "NotConnected",
    "QueueFull",
    "Refusal",
    "SendTimeout",
    "SyncWsError",
]


class SyncWsError(Exception):
    """The root of everything this package raises."""


class ConnectionClosed(SyncWsError):
    """The connection is over.

    ``sent`` and ``received`` are the Close frames of the two directions, None where there was none;
    ``reason`` says the same in words, and why there was no Close frame.
    """

    def __init__(self, reason: Reason, sent: Close | None = None, received: Close | None = None) -> None:
        super().__init__(reason.text)
        self.reason = reason
        self.sent = sent
        self.received = received

    @property
    def code(self) -> int:
        """The close code as RFC 6455 section 7.1.5 has it: the received one, else 1006."""
        return self.reason.code if self.reason.code is not None else CloseCode.ABNORMAL


class NotConnected(SyncWsError):
    """The client is not open now, and was told to raise rather than to wait or queue."""


class SendTimeout(SyncWsError, TimeoutError):
    """The peer did not take what was sent within ``send_timeout``; the connection is given up."""


class QueueFull(SyncWsError):
    """The bound on messages waiting to be sent was reached; this message was not queued."""


class ConcurrentReceive(SyncWsError):
    """Two threads called recv() at once; one connection has one reader at a time."""


class MessageError(SyncWsError, ValueError):
    """A message is not of the form that was asked for; the connection goes on."""


class Refusal(SyncWsError):
    """Raise it in an ``authenticate`` hook to refuse the opening handshake with ``status`` and one line of text.

    ``status`` is an HTTP status from 400 to 599; ``headers`` are added to the answer.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal needs a status from 400 to 599, not {status}")
        if "\r" in text or "\n" in text:
            raise ValueError("the text of a refusal is one line")
        super().__init__(f"{status} {text}")
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


class HandshakeError(SyncWsError):
    """The opening handshake failed (RFC 6455 section 4); ``reason`` tells how."""

    def __init__(self, reason: Reason | str) -> None:
        self.reason = reason if isinstance(reason, Reason) else Reason(reason)
        super().__init__(self.reason.text)


class HandshakeRejected(HandshakeError):
    """The server answered the opening handshake with an HTTP status other than 101.

    ``headers`` and ``body``: of its answer; the body as it came, at most 64 KiB of it.
    """

    def __init__(self, reason: Reason, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(reason)
        self.status = reason.status
        self.headers = headers if isinstance(headers, Headers) else Headers(headers.items())
        self.body = body


class HandshakeTimeout(HandshakeError, TimeoutError):
    """There was no open connection within the time allowed."""


class CertificateError(HandshakeError):
    """The server's certificate was not accepted: self-signed, expired, or for another host."""
