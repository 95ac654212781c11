"""From an accepted socket to an open connection: TLS, opening handshake, place and name; or a refusal.

Why so: everything here happens to strangers.  It runs under one deadline, in the connection's own thread, and leaves
nothing behind when the stranger leaves; at shutdown, whoever is still on the doorstep is cut off.

Threading: ``receive`` in the connection's thread; everything else from any thread.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

from ..errors import Refusal
from ..forking import close_fully, close_in_child, no_fork
from ..net.tls import TlsSocket
from ..protocol.handshake import Policy
from ..timing import Deadline
from . import voice
from .answers import capped
from .connection import Connection
from .hub import Hub
from .options import ServerOptions
from .upgrade import Upgrade, UpgradeHandler

__all__ = ["Reception"]


class Reception:
    """See the module; whoever gets in is the hub's guest."""

    def __init__(self, options: ServerOptions, policy: Policy, hub: Hub) -> None:
        self._options = options
        self._policy = policy
        self._hub = hub
        self._pending: set[socket.socket] = set()
        self._closed = False
        self._make_lock()

    def _make_lock(self) -> None:
        # guards the two above; any thread, for set operations and assignments only.  Reentrant: a signal's handler
        # that calls close may have interrupted the thread that holds it
        self._lock = threading.RLock()

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
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is not connected any more

    def forget_in_child(self) -> None:
        """After fork: those who are being received are the parent's."""
        self._make_lock()
        self._pending = set()

    def receive(self, sock: socket.socket, peer: Any) -> Connection | None:
        """TLS and the opening handshake; None when it was answered with a refusal.  OSError when the peer left.

        Takes the socket over: it is closed unless the connection is returned.
        """
        deadline = Deadline(self._options.handshake_timeout)
        connection = None
        try:
            if self._options.ssl_context is not None:
                sock = self._wrap(sock, self._options.ssl_context)
            if self._closed:  # close() may have come before expect(), or have found the socket without its descriptor
                raise ConnectionAbortedError("the server is shutting down")
            if isinstance(sock, TlsSocket):
                self._shake_hands(sock, peer, deadline)
            handler = UpgradeHandler(
                sock,
                peer,
                self._policy,
                deadline,
                secure=self._options.ssl_context is not None,
                authenticate=self._options.authenticate,
                pages=self._options.site,
            )
            handler.handle()
            if handler.upgrade is not None:
                connection = self._admit(sock, handler, handler.upgrade)
        finally:
            self.forget(sock)
            if connection is None:
                close_fully(sock)
        return connection

    def _shake_hands(self, sock: TlsSocket, peer: Any, deadline: Deadline) -> None:
        """TLS; whoever fails in it is told of as refused, whoever leaves in it is not."""
        sock.settimeout(capped(deadline.remaining()))
        try:
            sock.do_handshake()
        except ssl.SSLError as exc:
            if not isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
                plain = exc.reason == "HTTP_REQUEST"
                voice.refused(peer, "TLS", "-", "expected TLS, got plain HTTP: use wss://" if plain else str(exc))
            raise

    def _wrap(self, sock: socket.socket, context: ssl.SSLContext) -> TlsSocket:
        """The TLS socket, not shaken hands with yet.

        Wrapping moves the descriptor from one object to the other; while it does, close() finds neither, which is why
        whoever comes from here looks at ``_closed`` once more.
        """
        with no_fork():
            secure = TlsSocket(sock, context, server_side=True)
            close_in_child(secure)
        with self._lock:
            self._pending.discard(sock)
            self._pending.add(secure)
        return secure

    def _admit(self, sock: socket.socket, handler: UpgradeHandler, upgrade: Upgrade) -> Connection | None:
        """Give an accepted request its place and its name, answer it with 101 and make the connection; or refuse it."""
        try:
            claim = self._hub.admit(upgrade.accepted.name)
        except Refusal as refusal:
            handler.refuse(refusal)
            return None
        try:
            handler.switch()
        except BaseException:
            self._hub.withdraw(claim)
            raise
        return self._hub.connect(
            claim,
            sock,
            upgrade.request,
            identity=upgrade.identity,
            subprotocols=self._policy.subprotocols,
            agreed=upgrade.accepted.agreed,
            early=upgrade.early,
        )
