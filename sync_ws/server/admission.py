"""From an accepted socket to an open connection: TLS, opening handshake, place and name; or a refusal.

Why so: everything here happens to strangers.  It runs under one deadline, in the connection's own thread, and leaves
nothing behind when the stranger leaves; at shutdown, whoever is still on the doorstep is cut off.

Threading: ``receive`` in the connection's thread; everything else from any thread.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any, Callable, NamedTuple, Sequence

from ..channel.limits import Limits
from ..errors import Refusal
from ..timing import Deadline
from .connection import Connection
from .registry import Claim, NameTaken, NoPlace, Registry
from .upgrade import Upgrade, UpgradeHandler, UpgradePolicy

__all__ = ["NO_THREAD", "Admitted", "Reception"]

RETRY_AFTER = 5  # seconds, in the 503 of a full server
FULL = "the server is full, try again later"
# for a connection that gets no thread, in which its request could be read
NO_THREAD = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    f"Retry-After: {RETRY_AFTER}\r\nContent-Length: {len(FULL) + 1}\r\nConnection: close\r\n\r\n{FULL}\n"
).encode()


class Admitted(NamedTuple):
    """An open connection, and the claim to its place and name."""

    connection: Connection
    claim: Claim[Connection]


class Reception:
    """See the module.  ``timeout``: seconds for TLS and the opening handshake together."""

    def __init__(
        self,
        policy: UpgradePolicy,
        registry: Registry[Connection],
        *,
        ssl_context: ssl.SSLContext | None,
        timeout: float,
        subprotocols: Sequence[str],
        compression: bool,
        limits: Limits,
        on_heart_beat: Callable[[Connection, str], None],
    ) -> None:
        self._policy = policy
        self._registry = registry
        self._ssl_context = ssl_context
        self._timeout = timeout
        self._subprotocols = subprotocols
        self._compression = compression
        self._limits = limits
        self._on_heart_beat = on_heart_beat
        # guards the two below; any thread, for set operations and assignments only
        self._lock = threading.Lock()
        self._pending: set[socket.socket] = set()
        self._closed = False

    @property
    def pending(self) -> int:
        """How many are in their opening handshake."""
        return len(self._pending)

    def expect(self, sock: socket.socket) -> None:
        """``sock`` is about to be received."""
        with self._lock:
            self._pending.add(sock)

    def forget(self, sock: socket.socket) -> None:
        """It will not be."""
        with self._lock:
            self._pending.discard(sock)

    def close(self) -> None:
        """Receive nobody any more, and cut off those who are being received."""
        with self._lock:
            self._closed = True
            pending = list(self._pending)
        for sock in pending:
            try:
                # not SSLSocket.shutdown: that one drops the SSL object under the feet of the other thread
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                continue  # it is not connected any more

    def receive(self, sock: socket.socket, peer: Any) -> Admitted | None:
        """TLS and the opening handshake; None when it was answered with a refusal.  OSError when the peer left.

        Takes the socket over: it is closed unless the connection is returned.
        """
        deadline = Deadline(self._timeout)
        if self._ssl_context is not None:
            sock = self._wrap(sock, self._ssl_context)
        try:
            if self._closed:  # then close() may have found the plain socket only
                raise ConnectionAbortedError("the server is shutting down")
            if isinstance(sock, ssl.SSLSocket):
                sock.settimeout(deadline.remaining())
                sock.do_handshake()
            handler = UpgradeHandler(sock, peer, self._policy, deadline, secure=self._ssl_context is not None)
            admitted = None if handler.upgrade is None else self._admit(sock, handler, handler.upgrade, deadline)
        except BaseException:
            sock.close()
            raise
        finally:
            self.forget(sock)
        if admitted is None:
            sock.close()
        return admitted

    def _wrap(self, sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """The TLS socket, not shaken hands with yet; wrapping detaches the plain one, and close() must find either."""
        with self._lock:
            secure = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._pending.discard(sock)
            self._pending.add(secure)
        return secure

    def _admit(
        self, sock: socket.socket, handler: UpgradeHandler, upgrade: Upgrade, deadline: Deadline
    ) -> Admitted | None:
        """Give an accepted request its place and its name, and answer it with 101; or refuse it."""
        try:
            if self._closed:
                raise NoPlace("the server is shutting down")
            claim = self._registry.claim(upgrade.name)
        except NoPlace:
            handler.refuse(Refusal(503, FULL, {"Retry-After": str(RETRY_AFTER)}))
            return None
        except NameTaken:
            handler.refuse(Refusal(409, "expected a name that is not in use"))
            return None
        try:
            connection = Connection(
                sock,
                upgrade.request,
                name=upgrade.name,
                identity=upgrade.identity,
                subprotocols=self._subprotocols,
                compression=self._compression,
                limits=self._limits,
                deadline=deadline,
                early=upgrade.early,
                on_heart_beat=self._on_heart_beat,
                # the name is free as soon as the connection has ended, though its handler may still be at work
                on_end=lambda conn, reason: self._registry.release(claim),
            )
        except BaseException:
            self._registry.release(claim)
            raise
        return Admitted(connection, claim)
