"""From an accepted socket to an open connection: TLS, opening handshake, place and name; or a refusal.

Why so: everything here happens to strangers.  It runs under one deadline, in the connection's own thread, and leaves
nothing behind when the stranger leaves; at shutdown, whoever is still on the doorstep is cut off.

Threading: ``receive`` in the connection's thread; everything else from any thread.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from ..channel.limits import Limits
from ..errors import Refusal
from ..protocol.handshake import Policy
from ..timing import Deadline
from .answers import FULL
from .connection import Connection
from .pages import Pages
from .policy import Authenticate
from .registry import Claim, NameTaken, NoPlace, Registry
from .upgrade import Upgrade, UpgradeHandler

__all__ = ["Admitted", "Reception"]


class Admitted(NamedTuple):
    """An open connection, and the claim to its place and name."""

    connection: Connection
    claim: Claim[Connection]


class Reception:
    """See the module.  ``timeout``: seconds for TLS and the opening handshake together."""

    def __init__(
        self,
        policy: Policy,
        registry: Registry[Connection],
        *,
        authenticate: Authenticate | None,
        pages: Pages | None,
        ssl_context: ssl.SSLContext | None,
        timeout: float,
        limits: Limits,
        on_heart_beat: Callable[[Connection, str], None],
    ) -> None:
        self._policy = policy
        self._registry = registry
        self._authenticate = authenticate
        self._pages = pages
        self._ssl_context = ssl_context
        self._timeout = timeout
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
            handler = UpgradeHandler(
                sock,
                peer,
                self._policy,
                deadline,
                secure=self._ssl_context is not None,
                authenticate=self._authenticate,
                pages=self._pages,
            )
            handler.handle()
            admitted = None if handler.upgrade is None else self._admit(sock, handler, handler.upgrade)
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

    def _admit(self, sock: socket.socket, handler: UpgradeHandler, upgrade: Upgrade) -> Admitted | None:
        """Give an accepted request its place and its name, answer it with 101 and make the connection; or refuse it."""
        name = upgrade.accepted.name
        try:
            if self._closed:
                raise NoPlace("the server is shutting down")
            claim = self._registry.claim(name)
        except NoPlace:
            handler.refuse(FULL)
            return None
        except NameTaken:
            handler.refuse(Refusal(409, "expected a name that is not in use"))
            return None
        try:
            handler.switch()
            connection = Connection(
                sock,
                upgrade.request,
                name=name,
                identity=upgrade.identity,
                subprotocols=self._policy.subprotocols,
                agreed=upgrade.accepted.agreed,
                limits=self._limits,
                early=upgrade.early,
                on_heart_beat=self._on_heart_beat,
                # the name is free as soon as the connection has ended, though its handler may still be at work
                on_end=lambda conn, reason: self._registry.release(claim),
            )
        except BaseException:
            self._registry.release(claim)
            raise
        return Admitted(connection, claim)
