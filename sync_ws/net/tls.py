"""A TLS socket of which the kernel sees little: ciphertext is read and written in large pieces, through memory.

Why so: ``ssl.SSLSocket`` lets OpenSSL call the kernel: two reads and one write for each record of 16 KiB, so that a
message of 64 KiB costs some fifteen system calls, and as many changes between Python and C.  Over memory (``wrap_bio``)
it costs one read and one write.  And what the kernel is asked is up to us: reading can block without a lock.

What an ``SSLSocket`` does for an opening handshake this one does too: blocking, with a timeout, or, without waiting,
raising ``SSLWantReadError`` or ``SSLWantWriteError``.  The transport then takes over ``tls`` and the two ends of it.

Threading: as a socket of the standard library, by one thread at a time; ``socket.shutdown`` by any.
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any, cast

__all__ = ["CIPHERTEXT", "TlsSocket"]

# bytes of ciphertext asked for at once: a message of 64 KiB in five records, and less than what malloc would map from
# the kernel each time (128 KiB)
CIPHERTEXT = 80 * 1024


class _Beneath:
    """What a transport takes for a socket: a ``TlsSocket``, but for the operations that it has replaced."""

    def __init__(self, sock: TlsSocket) -> None:
        beneath = cast(socket.socket, super(TlsSocket, sock))
        self.recv, self.recv_into, self.send = beneath.recv, beneath.recv_into, beneath.send
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class TlsSocket(socket.socket):
    """Takes the descriptor of ``sock``, which is closed thereby; the handshake is to be asked for."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )
        if sock.fileno() < 0:
            raise OSError(errno.EBADF, "the socket is closed")
        timeout = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.settimeout(timeout)
        self._unsent: memoryview = memoryview(b"")  # ciphertext that the kernel has not taken yet

    def do_handshake(self) -> None:
        """May be called again after SSLWantReadError and SSLWantWriteError."""
        while True:
            self._write_out()
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._write_out()
                self._read_in()
                continue
            except ssl.SSLError:
                self._try_to_write_out()  # the alert that says what is wrong
                raise
            self._write_out()
            return

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Plaintext; b"" at the end of the stream, with or without TLS having said so."""
        while True:
            self._try_to_write_out()
            try:
                return self.tls.read(size)
            except ssl.SSLWantReadError:
                self._read_in()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:  # type: ignore[override]
        """Returns how much of it is encrypted; what the kernel does not take goes out before anything else."""
        self._write_out()
        size = self.tls.write(data)
        self._try_to_write_out()
        return size

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:  # type: ignore[override]
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                at += self.send(view[at:])
        self._write_out()

    def raw(self) -> socket.socket:
        """The socket beneath, for ciphertext; not to be kept longer than this one."""
        return cast(socket.socket, _Beneath(self))

    def take_unsent(self) -> bytes:
        """For the transport, which writes it first."""
        unsent, self._unsent = self._unsent, memoryview(b"")
        return bytes(unsent)

    def take_unread(self, size: int) -> bytes:
        """What came and is no TLS: of that what OpenSSL has not looked at, or else what is there now."""
        return self.incoming.read(size) or super().recv(size)

    def _read_in(self) -> None:
        try:
            data = super().recv(CIPHERTEXT)
        except BlockingIOError:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing there to read") from None
        except InterruptedError:
            return  # TLS will ask again
        if data:
            self.incoming.write(data)
        else:
            self.incoming.write_eof()

    def _write_out(self) -> None:
        while self._unsent or self.outgoing.pending:
            self._unsent = self._unsent or memoryview(self.outgoing.read())
            try:
                sent = super().send(self._unsent)
            except BlockingIOError:
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "no room to write") from None
            except InterruptedError:
                continue
            self._unsent = self._unsent[sent:]

    def _try_to_write_out(self) -> None:
        try:
            self._write_out()
        except OSError:
            return  # reading tells more; and what there was no room for goes out next time
