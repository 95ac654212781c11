"""What a FaultProxy does with one connection: one direction of it, and the pair of both.

Why apart from `proxy`: this half has no thread, no lock and no selector, so each rule about bytes stands
alone. A `Flow` carries the bytes of one direction from a source socket to a sink socket; a `Link` is the two
flows of one proxied connection with its life: connecting, open, lingering (cut: our FIN is out), closed.

Flow control: a flow holds at most `BUFFER` bytes; when it may not pass them on it stops reading, so a stalled
direction pushes back on its sender as a full network would.

Threading: none. Every object here belongs to the one thread of its proxy, and all sockets are non-blocking.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import selectors
import socket
import struct
from collections.abc import Mapping

from ._faults import DirectionName, Ending, Faults, Totals

__all__ = ["BUFFER", "LINGER", "Flow", "Link", "LinkState"]

BUFFER = 64 * 1024  # bytes one direction of one connection may hold
PIECES_PER_TURN = 256  # then other connections and the controls get their turn
LINGER = 1.0  # seconds a cut connection waits for the peers' FINs before its sockets are closed

_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST


class Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, faults: Faults, totals: Totals) -> None:
        self.source = source
        self.sink = sink
        self.faults = faults
        self.totals = totals
        self.pending = bytearray()  # received, not yet forwarded
        self.forwarded = 0
        self.heard: Ending | None = None  # how the source ended, once it has
        self.finished = False  # the FIN has been passed on
        self.blocked = False  # the sink takes no more for now: go on when it is writable
        self.sink_gone = False
        self.interrupted = False  # the last write() ended because its turn was over
        self.due = 0.0  # monotonic time before which a throttled flow sends nothing

    def configure(self, faults: Faults) -> None:
        """Put settings in force from the next byte on."""
        self.faults = faults
        self.due = 0.0
        if faults.mode == "blackhole":
            self._discard_pending()

    def wants_input(self) -> bool:
        """Whether to read from the source."""
        if self.heard is not None or self.faults.mode == "stall":
            return False
        return len(self.pending) < BUFFER

    def wants_turn_at(self) -> float | None:
        """The monotonic time at which to call `write` although no socket changes; None: no such time."""
        if self.faults.mode != "forward":
            return None
        if self.heard is Ending.RESET or self.interrupted:
            return 0.0
        return self.due if self.pending and not self.blocked else None

    def read(self) -> None:
        """Take once what the source has, if there is room for it."""
        if not self.wants_input():
            return
        try:
            data = self.source.recv(BUFFER - len(self.pending))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.heard = Ending.RESET
            return
        if not data:
            self.heard = Ending.FIN
            return
        self.totals.received += len(data)
        self.pending += data
        if self.faults.mode == "blackhole" or self.sink_gone:
            self._discard_pending()

    def write(self, now: float) -> Ending | None:
        """Forward what may go at monotonic time `now`; how the whole connection has to end, or None."""
        self.interrupted = False
        for _ in range(PIECES_PER_TURN):
            due = self.faults.reached(self.forwarded)
            if due is not None:
                return due
            if self.faults.mode != "forward":
                return None  # the end of the source is held back with everything else
            if self.heard is Ending.RESET:
                return Ending.RESET  # as on a real path, a RST does not queue behind a full window
            if not self.pending:
                self._pass_fin_on()
                return None
            if self.blocked or now < self.due:
                return None
            self._send_piece(now)
        self.interrupted = True
        return None

    def lose_sink(self) -> None:
        """The sink can take nothing any more: what comes from now on is discarded."""
        self.sink_gone = True
        self.blocked = False
        self._discard_pending()

    def _send_piece(self, now: float) -> None:
        size = self.faults.piece_size(len(self.pending), self.forwarded)
        piece = self.faults.corrupted(self.pending[:size], self.forwarded)
        try:
            sent = self.sink.send(piece)
        except (BlockingIOError, InterruptedError):
            self.blocked = True
            return
        except OSError:
            self.lose_sink()
            return
        del self.pending[:sent]
        self.forwarded += sent
        self.totals.forwarded += sent
        if self.faults.rate is not None:
            self.due = now + sent / self.faults.rate

    def _pass_fin_on(self) -> None:
        if self.heard is Ending.FIN and not self.finished:
            self.finished = True
            with contextlib.suppress(OSError):  # the sink may be gone already
                self.sink.shutdown(socket.SHUT_WR)

    def _discard_pending(self) -> None:
        self.totals.discarded += len(self.pending)
        self.pending.clear()


class LinkState(enum.Enum):
    """CONNECTING -> OPEN -> LINGERING -> CLOSED; every state may go to CLOSED at once."""

    CONNECTING = "connecting"  # to the upstream server
    OPEN = "open"
    LINGERING = "lingering"  # cut: our FINs are out, what still comes is discarded
    CLOSED = "closed"  # nothing more to do but release()


class Link:
    """One proxied connection: the accepted socket, the dialled one, and the two flows between them."""

    def __init__(
        self,
        client: socket.socket,
        server: socket.socket,
        faults: Mapping[DirectionName, Faults],
        totals: Mapping[DirectionName, Totals],
    ) -> None:
        self.client = client
        self.server = server
        self.to_server = Flow(client, server, faults["to_server"], totals["to_server"])
        self.to_client = Flow(server, client, faults["to_client"], totals["to_client"])
        self.state = LinkState.CONNECTING
        self.linger_until = 0.0

    def dial(self, address: tuple[object, ...]) -> None:
        """Begin to connect to the upstream server; what comes of it shows in `handle`."""
        if self.server.connect_ex(address) not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self.abort()

    def interest(self, sock: socket.socket) -> int:
        """The selector events to wait for on one of the two sockets."""
        if self.state is LinkState.CONNECTING:
            return selectors.EVENT_WRITE if sock is self.server else 0
        incoming, outgoing = self._around(sock)
        if self.state is LinkState.LINGERING:
            return selectors.EVENT_READ if incoming.heard is None else 0
        if self.state is LinkState.CLOSED:
            return 0
        readable = selectors.EVENT_READ if incoming.wants_input() else 0
        return readable | (selectors.EVENT_WRITE if outgoing.blocked else 0)

    def handle(self, sock: socket.socket, events: int) -> None:
        """Act on what the selector saw; `pump` has to follow."""
        if self.state is LinkState.CONNECTING:
            if self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()  # the client is connected already: a reset is all we can tell it
            else:
                self.state = LinkState.OPEN
            return
        if self.state is LinkState.CLOSED:
            return  # ended earlier in this turn
        incoming, outgoing = self._around(sock)
        if events & selectors.EVENT_READ:
            incoming.read()
        if events & selectors.EVENT_WRITE:
            outgoing.blocked = False

    def pump(self, now: float) -> None:
        """Forward what may be forwarded and go through the endings that are due."""
        if self.state is LinkState.OPEN:
            for flow, opposite in ((self.to_server, self.to_client), (self.to_client, self.to_server)):
                ending = flow.write(now)
                if flow.sink_gone:
                    opposite.heard = Ending.RESET  # that sink is the other flow's source
                if ending is Ending.RESET:
                    self.abort()
                    return
                if ending is Ending.FIN:
                    self.cut(now)
                    return
            if self.to_server.finished and self.to_client.finished:
                self.state = LinkState.CLOSED
        elif self.state is LinkState.LINGERING and now >= self._linger_until():
            self.state = LinkState.CLOSED

    def wants_turn_at(self) -> float | None:
        """The monotonic time of the next `pump` that no socket event will cause; None: no such time."""
        if self.state is LinkState.LINGERING:
            return self._linger_until()
        if self.state is not LinkState.OPEN:
            return None
        times = (self.to_server.wants_turn_at(), self.to_client.wants_turn_at())
        return min((time for time in times if time is not None), default=None)

    def cut(self, now: float) -> None:
        """Send FIN to both peers, and linger: closing with bytes unread would send RST instead."""
        if self.state in (LinkState.LINGERING, LinkState.CLOSED):
            return
        self.state = LinkState.LINGERING
        self.linger_until = now + LINGER
        for flow in (self.to_server, self.to_client):
            flow.configure(Faults(mode="blackhole"))
            with contextlib.suppress(OSError):  # not connected yet, or gone already
                flow.sink.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Have release() send RST to both peers."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.state = LinkState.CLOSED

    def release(self) -> None:
        """Close both sockets; they must be in no selector any more."""
        self.state = LinkState.CLOSED
        self.client.close()
        self.server.close()

    def _linger_until(self) -> float:
        heard_both = self.to_server.heard is not None and self.to_client.heard is not None
        return 0.0 if heard_both else self.linger_until

    def _around(self, sock: socket.socket) -> tuple[Flow, Flow]:
        """The flow that reads from this socket, and the one that writes to it."""
        return (self.to_server, self.to_client) if sock is self.client else (self.to_client, self.to_server)
