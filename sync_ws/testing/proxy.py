"""A TCP proxy on loopback that injects faults: put it between a client and a server and break what they have.

What for: what a network does to a program (silence, a cut in mid-message, RST, flipped bits, a crawl, one
byte a segment) cannot be had from a healthy loopback connection. Each direction is controlled on its own,
`to_server` for the bytes of the client and `to_client` for those of the server. Bytes are never reordered,
and what is not told to be harmed arrives unharmed: FIN and half-closed connections, RST and back pressure are
passed on too.

    with FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.to_client.cut_at(100, scope="next")    # FIN after 100 bytes of the server's
        client = connect(proxy.url("/ws/"))

Offsets count from 0 per connection, in the bytes forwarded. Every setting takes `scope`: "all" connections,
present and future (the default), only the "current" ones, only the "new" ones, or only the "next" one.

Threading: all may be called from any thread. A control hands its work to the proxy's one thread and returns
when it is done: once `stall()` is back, no further byte passes; once `reset_all()` is back, the sockets are
closed.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import cast

from ._faults import DIRECTIONS, DirectionName, Faults, Totals
from ._relay import HOST, Change, Relay, RelayClosed, Scope

__all__ = ["Direction", "FaultProxy", "Scope"]


class Direction:
    """The controls over one direction of a FaultProxy, or over both. After its close(): RuntimeError."""

    def __init__(self, relay: Relay, names: Sequence[DirectionName]) -> None:
        self._relay = relay
        self._names = names

    def stall(self, *, scope: Scope = "all") -> None:
        """Forward nothing and read nothing, not even the end of the stream; nothing is lost."""
        self._change(scope, lambda faults: replace(faults, mode="stall"))

    def blackhole(self, *, scope: Scope = "all") -> None:
        """Read and discard everything; the end of the stream is held back."""
        self._change(scope, lambda faults: replace(faults, mode="blackhole"))

    def resume(self, *, scope: Scope = "all") -> None:
        """Forward again after stall() or blackhole(): what was held back first; the discarded is lost."""
        self._change(scope, lambda faults: replace(faults, mode="forward"))

    def cut_at(self, n: int | None, *, scope: Scope = "all") -> None:
        """Once n >= 0 bytes have been forwarded (now, if they have), send FIN both ways and discard the rest.

        The sockets are closed when both peers have closed theirs, or after 1 s. None takes it back.
        """
        _check("n", n, 0)
        self._change(scope, lambda faults: replace(faults, cut_at=n))

    def reset_at(self, n: int | None, *, scope: Scope = "all") -> None:
        """As cut_at(), but with RST both ways: the peers may lose what they have not read yet."""
        _check("n", n, 0)
        self._change(scope, lambda faults: replace(faults, reset_at=n))

    def corrupt(self, at: int, xor: int = 0x01, *, scope: Scope = "all") -> None:
        """XOR the byte at offset `at` >= 0 with `xor`, 1 to 255. Further calls add bytes, until clear()."""
        _check("at", at, 0)
        if not 1 <= xor <= 255:
            raise ValueError(f"xor must be from 1 to 255, not {xor!r}")
        self._change(scope, lambda faults: replace(faults, flips=(*faults.flips, (at, xor))))

    def throttle(self, bytes_per_second: float | None, *, scope: Scope = "all") -> None:
        """Forward no faster than this, in pieces of 0.05 s of it or of one byte. None takes it back."""
        if bytes_per_second is not None and not bytes_per_second > 0:
            raise ValueError(f"bytes_per_second must be above 0 (there is stall()), not {bytes_per_second!r}")
        self._change(scope, lambda faults: replace(faults, rate=bytes_per_second))

    def split(self, size: int | None, *, scope: Scope = "all") -> None:
        """Forward in pieces of at most `size` >= 1 bytes, each a send of its own. None takes it back.

        Nagle's delay is off, but a slow receiver may find several at once: throttle() keeps them apart.
        """
        _check("size", size, 1)
        self._change(scope, lambda faults: replace(faults, piece=size))

    def clear(self, *, scope: Scope = "all") -> None:
        """Take back every setting of this direction."""
        self._change(scope, lambda _: Faults())

    @property
    def received(self) -> int:
        """Bytes read from the sender, over all connections."""
        return self._total(lambda totals: totals.received)

    @property
    def forwarded(self) -> int:
        """Bytes passed on, over all connections."""
        return self._total(lambda totals: totals.forwarded)

    @property
    def discarded(self) -> int:
        """Bytes read and thrown away: by blackhole(), behind a cut, or for a receiver that was gone."""
        return self._total(lambda totals: totals.discarded)

    def _total(self, count: Callable[[Totals], int]) -> int:
        def add() -> int:
            return sum(count(self._relay.totals[name]) for name in self._names)

        try:
            return cast(int, self._relay.call(add))  # there: between two events, so none is counted by half
        except RelayClosed:
            return add()

    def _change(self, scope: Scope, change: Change) -> None:
        if scope not in ("all", "current", "new", "next"):
            raise ValueError(f'scope must be "all", "current", "new" or "next", not {scope!r}')
        self._relay.call(lambda: self._relay.configure(self._names, scope, change))


class FaultProxy(contextlib.AbstractContextManager["FaultProxy"]):
    """Carries connections to 127.0.0.1:port on to the upstream server, with the faults it is told to inject.

    It runs once constructed: close() it, or use it as a context manager. OSError when the upstream name does
    not resolve or no port is free. The upstream is dialled anew for each connection; a client whose upstream
    connection fails gets RST, which its connect() may report already. The proxy holds one thread, four
    descriptors, and two more for each connection.
    """

    def __init__(self, upstream_host: str, upstream_port: int) -> None:
        found = socket.getaddrinfo(upstream_host, upstream_port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        self._upstream = f"{upstream_host}:{upstream_port}"
        self._relay = Relay(family, address)
        self.to_server = Direction(self._relay, ("to_server",))
        self.to_client = Direction(self._relay, ("to_client",))
        self.both = Direction(self._relay, DIRECTIONS)

    @property
    def port(self) -> int:
        """The port on 127.0.0.1, the same for life."""
        return self._relay.port

    def url(self, path: str = "/ws/", *, scheme: str = "ws") -> str:
        """The proxy's URL with a path (and query) of the upstream server."""
        return f"{scheme}://{HOST}:{self.port}{path}"

    @property
    def connections(self) -> int:
        """How many connections have been accepted since the start."""
        return self._relay.accepted

    @property
    def open_connections(self) -> int:
        """How many connections are neither closed nor cut; 0 after close()."""
        with contextlib.suppress(RelayClosed):
            return cast(int, self._relay.call(self._relay.count_open))
        return 0

    def cut_all(self) -> None:
        """Send FIN to both peers of all present connections, now; else as Direction.cut_at()."""
        self._relay.call(self._relay.cut_all)

    def reset_all(self) -> None:
        """Send RST to both peers of all present connections, now."""
        self._relay.call(self._relay.reset_all)

    def refuse(self) -> None:
        """Have new connections refused (ECONNREFUSED), as if no process listened; the port stays reserved.

        Those present go on, those not accepted yet are reset.
        """
        self._relay.call(self._relay.refuse)

    def accept(self) -> None:
        """Accept new connections again, on the same port."""
        self._relay.call(self._relay.accept)

    def close(self) -> None:
        """Close the port and all connections, join the thread. Idempotent. RuntimeError if it takes 10 s."""
        self._relay.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<FaultProxy {HOST}:{self.port} -> {self._upstream}>"


def _check(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
