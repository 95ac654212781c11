"""One client's connection on the server: simple-websocket's ``Server``, on a channel of our own.

Why so: simple-websocket brings the face that its users know (``send``, ``receive``, ``close``, ``connected``,
``subprotocol``).  Its constructor is not called: it takes a socket out of a WSGI environment, does the opening
handshake and starts a thread, and makes the wsproto object that all this stands on.  Here the opening handshake is
over when a connection is made, its one thread reads inline, and everything is the channel's.

Threading: as in ``peer``.  Heartbeats are answered in whatever thread reads; the ``heartbeat`` event is emitted by
the connection's own thread, in order with everything else.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import simple_websocket

from ..channel.channel import Channel
from ..channel.conversation import Conversation
from ..channel.inbox import Inbox, Note
from ..channel.limits import Limits
from ..endings import CloseCode, Reason
from ..errors import ConnectionClosed
from ..messages import Data, Message, Opcode, Pieces
from ..net.transport import transport_for
from ..protocol.deflate import Deflate
from ..protocol.frames import Control
from ..protocol.handshake import Agreed
from ..protocol.http_head import Request
from ..protocol.intercepts import HEART_BEAT
from ..timing import Deadline
from ..weak import Weakly

__all__ = ["Connection"]


class _NotHere:
    """What is inherited and cannot work, so that ``hasattr`` says so, and whoever asks for it reads why."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        text = "a connection is made by its server, after the opening handshake"
        raise AttributeError(f"{owner.__name__!r} has no attribute {self._name!r}: {text}")


class Connection(Conversation, simple_websocket.Server):  # type: ignore[misc]
    """A conversation with one client.  Made by the server, after the 101; the handler gets it.

    ``name``: from the query, None without one.  ``request``: the opening handshake's request.  ``subprotocol``: the one
    agreed on, or None.  ``identity``: what the ``authenticate`` hook returned.  ``subprotocols``: what the server had
    to offer; simple-websocket's ``choose_subprotocol`` tells what that makes of other offers: this one is answered.
    """

    accept = _NotHere()
    handshake = _NotHere()

    def __init__(
        self,
        sock: socket.socket,
        request: Request,
        *,
        name: str | None = None,
        identity: Any = None,
        subprotocols: Iterable[str] = (),
        agreed: Agreed = Agreed(),
        limits: Limits | None = None,
        early: bytes = b"",
        on_heart_beat: Callable[[Connection, str], object] = lambda connection, text: None,
        on_end: Callable[[Reason], object] = lambda reason: None,
    ) -> None:
        Conversation.__init__(self, Inbox())  # and not simple_websocket.Server's, see the module
        self.name = name
        self.made = time.monotonic()
        self.request = request
        self.identity = identity
        self.subprotocols = list(subprotocols)
        self.subprotocol = agreed.subprotocol
        self._on_heart_beat = on_heart_beat
        self.channel = Channel(
            transport_for(sock),
            self._inbox,
            client=False,
            limits=limits or Limits(),
            on_end=on_end,
            intercepts={HEART_BEAT: Weakly(self._answer_heart_beat)},
            deflate=Deflate(agreed.deflate) if agreed.deflate else None,
            early=early,
        )

    # -- the application's face -----------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether messages may still be sent."""
        return self.channel.open

    def send(self, data: Data | Pieces) -> None:
        """Send one message: str as text, bytes as binary, pieces of either in as many fragments; back when it is in the
        kernel.

        Safe from any thread, in order for each.  ConnectionClosed when the connection is not open, SendTimeout when
        the client does not read for ``send_timeout`` seconds, TypeError for what is neither text nor bytes.
        """
        self.channel.send(data)

    def ping(self, timeout: float = 10.0) -> float:
        """The round-trip time of a Ping (RFC 6455 section 5.5.2), in seconds.

        From any thread; reads if nobody else does.  TimeoutError when no Pong comes within ``timeout`` seconds;
        ConnectionClosed when the connection is not open, or ends meanwhile.
        """
        return self.channel.ping(timeout)

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
        return self.channel.reason

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
        item = self.channel.read_kept(timeout)
        if item.__class__ is not Note:
            return item  # type: ignore[return-value]
        deadline = Deadline(timeout)
        while isinstance(item, Note):
            self._tell(item)
            self._inbox.kept = None
            item = self.channel.read_kept(deadline.remaining())
        return item

    def tell_notes(self) -> None:
        """Tell the application of what it has not received up to; in the connection's own thread, under no lock."""
        for item in list(self._inbox):
            if isinstance(item, Note):
                self._tell(item)

    def _tell(self, note: Note) -> None:
        self._on_heart_beat(self, str(note.what))

    def _answer_heart_beat(self, channel: Channel, beat: Control) -> Note:
        """Send it back as it came."""
        if beat.payload:
            channel.writer.post(Opcode.BINARY, beat.payload)
        else:
            channel.writer.post(Opcode.TEXT, beat.text.encode())
        return Note("heartbeat", beat.text)
