"""One client's connection on the server: simple-websocket's ``Server``, on a channel of our own.

Why so: simple-websocket brings the face that its users know (``send``, ``receive``, ``close``, ``connected``,
``subprotocol``), its hooks and its choice of a subprotocol.  Its reader thread is replaced through its own hook,
``thread_class``, by none at all: the connection's one thread reads inline, and everything after the 101 is the
channel's.

Threading: as in ``peer``.  Heartbeats are answered in whatever thread reads; the ``heartbeat`` event is emitted by
the connection's own thread, in order with everything else.
"""

from __future__ import annotations

import socket
from contextlib import AbstractContextManager
from typing import Any, Callable, Sequence

import simple_websocket
from wsproto.events import Request as HandshakeRequest
from wsproto.utilities import generate_accept_token

from ..channel.channel import Channel
from ..channel.conversation import Peer
from ..channel.inbox import Inbox, Note
from ..channel.limits import Limits
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed
from ..messages import Data, Message, Opcode
from ..net.transport import transport_for
from ..protocol.deflate import Deflate, Negotiation, accept_first
from ..protocol.frames import Control
from ..protocol.intercepts import HEART_BEAT
from ..timing import Deadline
from .request import Request

__all__ = ["Connection"]


class _NoThread:
    """What ``thread_class`` makes: nothing. Reading is inline."""

    name = ""

    def __init__(self, target: Callable[[], None]) -> None:
        """Nothing will run ``target``."""

    def start(self) -> None:
        """There is nothing to start."""


class Connection(Peer, simple_websocket.Server):  # type: ignore[misc]
    """A conversation with one client.  Made by the server; the handler gets it.

    ``name``: from the query, None without one.  ``request``: the opening handshake's request.  ``subprotocol``: the one
    agreed on, or None.  ``identity``: what the ``authenticate`` hook returned.
    """

    def __init__(
        self,
        sock: socket.socket,
        request: Request,
        *,
        name: str | None = None,
        identity: Any = None,
        subprotocols: Sequence[str] = (),
        compression: bool = False,
        limits: Limits | None = None,
        deadline: Deadline | None = None,
        early: bytes = b"",
        on_heart_beat: Callable[[Connection, str], None] | None = None,
        on_end: Callable[[Connection, Reason], object] | None = None,
    ) -> None:
        Peer.__init__(self)
        self.name = name
        self.request = request
        self.identity = identity
        self._on_heart_beat = on_heart_beat
        self._inbox = Inbox()
        self._accepted = False
        self._channel: Channel | None = None
        self._handshake_deadline = deadline or Deadline(10.0)
        self._compression = compression
        self._deflate: Negotiation | None = None
        environ = {"werkzeug.socket": sock}  # how simple-websocket is told of the socket
        simple_websocket.Server.__init__(
            self, environ, list(subprotocols), thread_class=_NoThread, event_class=object, selector_class=object
        )
        del self.ws, self.environ, self.thread, self.input_buffer  # of no use without its thread
        self._channel = Channel(
            transport_for(sock),
            self._inbox,
            client=False,
            limits=limits or Limits(),
            on_end=lambda reason: on_end(self, reason) if on_end is not None else None,
            intercepts={HEART_BEAT: self._answer_heart_beat},
            deflate=Deflate(self._deflate) if self._deflate else None,
            early=early,
        )

    def handshake(self) -> None:
        """simple-websocket calls it: answer the opening handshake (RFC 6455 section 4.2.2) under our deadline.

        The request has been checked by ``upgrade``.  Having wsproto and h11 parse it once more would cost a third of
        the whole handshake, and fail without an answer on what they read more narrowly than the RFC.
        """
        headers = self.request.headers
        offered = headers.tokens("Sec-WebSocket-Protocol")
        self.subprotocol = self.choose_subprotocol(HandshakeRequest("", self.request.path, subprotocols=offered))
        accept = generate_accept_token(headers["Sec-WebSocket-Key"].encode()).decode()
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {accept}",
        ]
        if self.subprotocol is not None:
            lines.append(f"Sec-WebSocket-Protocol: {self.subprotocol}")
        accepted = accept_first(headers.tokens("Sec-WebSocket-Extensions")) if self._compression else None
        if accepted is not None:
            answer, self._deflate = accepted
            lines.append(f"Sec-WebSocket-Extensions: {answer}")
        self.sock.settimeout(self._handshake_deadline.remaining())
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        self._accepted = True

    # -- the application's face -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether messages may still be sent."""
        return self._accepted if self._channel is None else self._channel.open

    @connected.setter
    def connected(self, value: bool) -> None:
        """simple-websocket's constructor sets it; what counts is the channel's state."""

    @property
    def channel(self) -> Channel:
        assert self._channel is not None
        return self._channel

    def send(self, data: Data) -> None:
        """Send one message: str as text, bytes as binary; back when it is in the kernel.

        Safe from any thread, in order for each.  ConnectionClosed when the connection is not open, SendTimeout when
        the client does not read for ``send_timeout`` seconds, TypeError for what is neither text nor bytes.
        """
        self._channel.send(data)  # type: ignore[union-attr]

    def batch(self) -> AbstractContextManager[None]:
        """``with conn.batch():`` gathers what this thread sends inside into one write.

        Written when the block ends, when 256 KiB have gathered, and always before this thread waits in ``recv``: an
        echo loop inside a batch answers everything that came in one read with one write.  A handler that works long
        inside the block holds its messages back for as long.
        """
        return self.channel.writer.batch()

    def receive(self, timeout: float | None = None) -> Message | None:
        """``recv`` as simple-websocket has it: None after ``timeout`` seconds, its own ConnectionClosed at the end."""
        try:
            return self.recv(timeout)
        except TimeoutError:
            return None
        except ConnectionClosed as exc:
            raise simple_websocket.ConnectionClosed(exc.code, exc.reason.text) from exc

    def close(self, code: int | None = None, reason: str | None = None, timeout: float | None = None) -> None:
        """The closing handshake; idempotent, from any thread.

        Back within ``timeout`` seconds (None: ``close_timeout``).
        ``code``: 1000 by default; ValueError for one that must not be sent or a reason of more than 123 bytes.
        """
        self.channel.close(CloseCode.NORMAL if code is None else code, reason or "", timeout)

    @property
    def close_reason(self) -> Any:
        """Why the connection ended (a ``Reason``), None while it has not."""
        return self._channel.reason if self._channel else None

    @close_reason.setter
    def close_reason(self, value: Any) -> None:
        """simple-websocket's constructor sets it; the channel knows better."""

    def stats(self) -> dict[str, Any]:
        """Counters of this connection: messages, bytes, what is queued."""
        channel = self.channel
        frames, size = channel.writer.queued
        return {
            "name": self.name,
            "messages_received": channel.messages_received,
            "messages_sent": channel.writer.messages_sent,
            "bytes_received": channel.bytes_received,
            "bytes_sent": channel.writer.bytes_sent,
            "queued_messages": frames,
            "queued_bytes": size,
        }

    def __repr__(self) -> str:
        state = "open" if self.connected else "closed"
        return f"<Connection {self.name!r} from {self.request.peer[0]}:{self.request.peer[1]}, {state}>"

    # -- what is received ------------------------------------------------------------------------------------------

    def _next_message(self, timeout: float | None) -> Message:
        item = self._channel.read(timeout)  # type: ignore[union-attr]
        if not isinstance(item, Note):
            return item
        deadline = Deadline(timeout)
        while isinstance(item, Note):
            self._tell(item)
            item = self.channel.read(deadline.remaining())
        return item

    def tell_notes(self) -> None:
        """Tell the application of what it has not received up to; in the connection's own thread, under no lock."""
        for item in list(self._inbox):
            if isinstance(item, Note):
                self._tell(item)

    def _tell(self, note: Note) -> None:
        if self._on_heart_beat is not None:
            self._on_heart_beat(self, str(note.what))

    def _answer_heart_beat(self, channel: Channel, beat: Control) -> Note | None:
        """Send it back as it came."""
        if beat.payload:
            channel.writer.post(Opcode.BINARY, beat.payload)
        else:
            channel.writer.post(Opcode.TEXT, beat.text.encode())
        return Note("heartbeat", beat.text) if self._on_heart_beat is not None else None
