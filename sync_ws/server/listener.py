"""Accepting connections, and surviving what goes wrong there.

Why so: ``http.server``'s loop spins at full speed when the process is out of descriptors, because ``accept`` fails at
once and the connection stays in the backlog.  Here a failing ``accept`` is followed by a pause, and a connection that
gets no thread is refused.

Threading: one daemon thread; ``stop`` from any thread, and from a signal's handler whatever it interrupted here.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from ..forking import ToldOfForks, close_fully, close_in_child, no_fork
from ..interrupts import Flag
from ..net.waiting import NOT_NOW, READABLE, Waker, wait
from ..timing import Deadline
from . import voice
from .joining import join

__all__ = ["Listener"]

log = logging.getLogger("sync_ws.server")
BACKLOG = 128
PAUSE = 0.25  # seconds, after accept failed or no thread was to be had


class Listener:
    """A listening socket and its accepting thread.

    ``accepted(sock, peer)`` is called in that thread and must not block; False from it means that the connection is
    one too many, RuntimeError that there is no thread for it.  Then ``refusal`` is sent (nothing, if it is empty).
    ``stopped()`` is called in it when it was told to stop, before the socket is closed.  OSError when the address
    cannot be bound.
    """

    def __init__(
        self,
        host: str,
        port: int,
        accepted: Callable[[socket.socket, Any], bool],
        refusal: bytes = b"",
        stopped: Callable[[], object] = lambda: None,
    ) -> None:
        self._accepted = accepted
        self._refusal = refusal
        self._stopped = stopped
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=False)
        self._sock.setblocking(False)
        name = self._sock.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        self._waker: Waker | None = None  # made by start: a listener that was never started holds the socket only
        self._trouble = voice.Sparing()
        self._stopping = Flag()
        self._thread: threading.Thread | None = None
        self._begun = False
        _listeners.add(self)

    def start(self, name: str, owner: object = None) -> None:
        """Begin to accept; nothing after ``stop``.  RuntimeError when the system has no thread to give.

        ``owner``: what is to live as long as the thread, whether or not anybody else holds on to it.
        """
        if self._stopping.is_set():
            return
        self._begun = True
        self._waker = Waker()
        self._thread = threading.Thread(target=self._run, args=(owner,), name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            raise

    def stop(self, deadline: Deadline) -> None:
        """Stop accepting, close the socket and join the thread.  Idempotent."""
        self._stopping.set()
        if self._waker is not None:
            self._waker.wake()
        thread = self._thread
        if thread is None or thread.ident is None:  # if it is being started, it finds _stopping set
            self._close()
        else:
            join([thread], deadline)

    def _close(self) -> None:
        """Any number of times, by any thread: both of them close once."""
        close_fully(self._sock)
        if self._waker is not None:
            self._waker.close()

    def _forget_in_child(self) -> None:
        """After fork: a copy of the socket would keep the port open after the parent has closed it.  A listener that
        was not started yet is left alone: the child may be meant to start it."""
        if self._begun:
            self._stopping.set()
            self._close()

    def _run(self, owner: object) -> None:
        try:
            while not self._stopping.is_set():
                wait(self._sock.fileno(), READABLE, None, self._waker)
                if not self._stopping.is_set():
                    self._accept_one()  # and wait again: to be told that nobody else is there costs more
            self._stopped()
        finally:
            self._close()

    def _accept_one(self) -> None:
        """Accept one connection, if it still waits."""
        try:
            with no_fork():
                sock, peer = self._sock.accept()
                close_in_child(sock)
        except NOT_NOW:
            return
        except (OSError, MemoryError) as exc:  # out of descriptors or memory, or the peer has left already
            if not self._stopping.is_set():
                voice.accept_trouble(f"accept failed, next try in {PAUSE:g} s", exc, self._trouble)
                self._stopping.wait(PAUSE)
            return
        try:
            if not self._accepted(sock, peer):
                voice.refused(peer, 503, "-", "too many connections (the option max_connections), or shutting down")
                self._refuse(sock, 0.0)
        except (RuntimeError, MemoryError) as exc:
            voice.accept_trouble(f"refused 503: {voice.place(peer)}, no thread for it", exc, self._trouble)
            self._refuse(sock, PAUSE)

    def _refuse(self, sock: socket.socket, pause: float) -> None:
        """Answer and close.  The pause is spent reading what the peer sent: left unread, it would make the close a
        reset, and the answer might be lost in it."""
        deadline = Deadline(pause)
        try:
            sock.settimeout(0.0)
            if self._refusal:
                sock.send(self._refusal)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(deadline.remaining())
            while sock.recv(65536) and not deadline.passed:
                sock.settimeout(deadline.remaining())
        except OSError as exc:
            log.debug("a refused connection: %s", exc)
        finally:
            close_fully(sock)
        self._stopping.wait(deadline.remaining())


_listeners: ToldOfForks[Listener] = ToldOfForks()
