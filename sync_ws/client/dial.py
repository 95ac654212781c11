"""Opening a connection: address, proxy, TLS and opening handshake, under one deadline, and cancellable throughout.

Why so: websocket-client does the WebSocket part of the opening handshake, over a stream of ours.  Left to itself it
has a timeout per read (a server that sends a byte now and then holds it for ever), no bound on the response, a
cookie jar shared by all hosts of the process, and cannot be told to stop.  So the socket is opened here, without
blocking; every wait is for the socket and for a Waker that ``cancel`` wakes.  What cannot be interrupted (name
resolution, a SOCKS library) runs aside in a thread whose late result is thrown away.

Threading: ``run`` once, in one thread; ``cancel`` from any, and from a signal handler.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import websocket

from ..endings import Reason
from ..errors import CertificateError, HandshakeError, HandshakeRejected, HandshakeTimeout
from ..net.waiting import READABLE, WRITABLE, Waker, wait
from ..protocol import deflate, handshake
from ..protocol.http_head import Headers
from ..timing import Deadline
from .address import Target
from .handshake_stream import HandshakeStream, Io

__all__ = ["Dial", "Established"]

log = logging.getLogger("sync_ws.client")
T = TypeVar("T")
RETRY_STATUS = frozenset({408, 425, 429})  # and every 5xx
CANCELLED = Reason("cancelled", by_us=True)
MAX_RETRY_AFTER = 3600.0  # seconds: a server may not put us off for longer


@dataclass(frozen=True)
class Established:
    """An open connection, not read from yet."""

    sock: socket.socket
    early: bytes  # bytes that came behind the response
    subprotocol: str | None
    headers: Headers
    deflate: deflate.Negotiation | None


class Dial(Io):
    """One attempt to open a connection.  ``run`` returns it, or raises HandshakeError or a subclass of it."""

    def __init__(
        self,
        target: Target,
        *,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        cookie: str | None = None,
        proxy: Target | None = None,
        ssl_context: ssl.SSLContext | None = None,
        compression: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self._target = target
        self._headers = headers
        self._subprotocols = tuple(subprotocols)
        self._origin = origin
        self._cookie = cookie
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._compression = compression
        self._timeout = timeout
        self._deadline = Deadline(timeout)
        self._cancelled = False
        self._waker: Waker | None = None  # made by run: an attempt that was never made holds no descriptor

    @property
    def target(self) -> Target:
        """Where to; it may hold secrets."""
        return self._target

    def cancel(self) -> None:
        """Make ``run`` raise at once."""
        self._cancelled = True
        if self._waker is not None:
            self._waker.wake()

    def run(self) -> Established:
        """Open the connection, within the timeout counted from now."""
        self._deadline = Deadline(self._timeout)
        sock: socket.socket | None = None
        try:
            self._waker = Waker()
            if self._cancelled:  # before there was a Waker to wake
                raise HandshakeError(CANCELLED)
            sock = self._connect()
            if self._target.secure:
                sock = self._start_tls(sock)
            return self._shake_hands(sock)
        except HandshakeError:
            _close(sock)
            raise
        except ssl.SSLError as exc:
            _close(sock)
            raise HandshakeError(Reason(f"TLS failed: {exc.reason or exc}", error=exc)) from exc
        except ValueError as exc:  # a host name that cannot be one, for the resolver, TLS or a proxy
            _close(sock)
            text = f"{self._target.place} is no address to connect to: {exc}"
            raise HandshakeError(Reason(text, permanent=True, error=exc)) from exc
        except OSError as exc:
            _close(sock)
            text = f"no connection to {self._target.place}: {exc.strerror or exc}"
            raise HandshakeError(Reason(text, error=exc)) from exc
        except BaseException:
            _close(sock)
            raise
        finally:
            if self._waker is not None:
                self._waker.close()

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait(self, sock: socket.socket | Waker, events: int, share: Deadline | None = None) -> None:
        """Until ``sock`` has one of ``events``; HandshakeTimeout past the deadline, HandshakeError when cancelled.

        ``share``: a nearer deadline for this wait; TimeoutError past that one.
        """
        ready = wait(sock.fileno(), events, (share or self._deadline).remaining(), self._waker)
        if self._cancelled:
            raise HandshakeError(CANCELLED)
        if self._deadline.passed or (not ready and share is None):
            raise self._too_late()
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, "this address does not answer")

    def _too_late(self) -> HandshakeTimeout:
        return HandshakeTimeout(f"no open connection to {self._target.place} within {self._timeout:g} s")

    def _aside(self, function: Callable[[], T], discard: Callable[[T], object]) -> T:
        """The result of something that cannot be interrupted; ``discard`` gets one that comes too late."""
        # guards the two below: exactly one of the two threads disposes of the outcome
        lock = threading.Lock()
        outcome: list[tuple[bool, Any]] = []
        abandoned = False
        done = Waker()  # the thread may outlive it

        def work() -> None:
            try:
                result: tuple[bool, Any] = (True, function())
            except Exception as exc:
                result = (False, exc)
            with lock:
                outcome.append(result)
                late = abandoned
            done.wake()
            if late and result[0]:
                discard(result[1])

        try:
            threading.Thread(target=work, name="sync_ws-aside", daemon=True).start()
        except RuntimeError as exc:
            done.close()
            raise HandshakeError(Reason(f"no thread to resolve a name: {exc}", error=exc)) from exc
        try:
            self.wait(done, READABLE)
        except BaseException:
            with lock:
                abandoned = True
                unwanted = outcome[:]
            for succeeded, value in unwanted:
                if succeeded:
                    discard(value)
            raise
        finally:
            done.close()
        ((succeeded, value),) = outcome
        if not succeeded:
            raise value
        return value  # type: ignore[no-any-return]

    # -- TCP, proxy, TLS ------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        proxy = self._proxy
        if proxy is None:
            return self._connect_to(self._target.host, self._target.port)
        if proxy.scheme.startswith("socks"):
            return self._through_socks(proxy)
        sock = self._connect_to(proxy.host, proxy.port)
        try:
            HandshakeStream(sock, self).tunnel(self._target.place, proxy.basic_auth)
        except BaseException:
            sock.close()
            raise
        return sock

    def _through_socks(self, proxy: Target) -> socket.socket:
        try:
            from python_socks.sync import Proxy
        except ImportError:
            text = "a SOCKS proxy needs the package python-socks: pip install sync-ws[socks]"
            raise HandshakeError(Reason(text, permanent=True)) from None
        resolves = proxy.scheme in ("socks4a", "socks5h")  # the proxy, not we; python-socks has no names for these
        through = Proxy.from_url(proxy.text.replace(proxy.scheme, proxy.scheme.rstrip("ah"), 1), rdns=resolves)
        target, timeout = self._target, self._deadline.remaining()

        def connect() -> socket.socket:
            sock: socket.socket = through.connect(target.host, target.port, timeout=timeout)
            return sock

        try:
            sock = self._aside(connect, lambda late: late.close())
        except (HandshakeError, OSError):
            raise
        except Exception as exc:  # python-socks has a tree of its own
            raise HandshakeError(Reason(f"the proxy {proxy.place} refused: {exc}", error=exc)) from exc
        sock.setblocking(False)
        return sock

    def _addresses(self, host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            found = self._aside(lambda: socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM), lambda late: None)
        else:
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        return [(int(family), address) for family, _, _, _, address in found]

    def _connect_to(self, host: str, port: int) -> socket.socket:
        """TCP to the first address that answers; each gets its share of the time that is left."""
        addresses = self._addresses(host, port)
        error: Exception | None = None
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses):
            remaining = self._deadline.remaining()
            share = Deadline(None if remaining is None else remaining / left)
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                self._connect_one(sock, address, share)
                return sock
            except OSError as exc:
                sock.close()
                error = exc
            except BaseException:
                sock.close()
                raise
        raise error or OSError(f"{host} has no address")

    def _connect_one(self, sock: socket.socket, address: tuple[Any, ...], share: Deadline) -> None:
        sock.setblocking(False)
        if sock.connect_ex(address) == 0:
            return
        self.wait(sock, WRITABLE, share)
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))

    def _start_tls(self, sock: socket.socket) -> ssl.SSLSocket:
        context = self._ssl_context or ssl.create_default_context()
        try:
            secure = context.wrap_socket(sock, server_hostname=self._target.host, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise
        try:
            while True:
                try:
                    secure.do_handshake()
                    return secure
                except ssl.SSLWantReadError:
                    self.wait(secure, READABLE)
                except ssl.SSLWantWriteError:
                    self.wait(secure, WRITABLE)
        except ssl.SSLCertVerificationError as exc:
            secure.close()
            text = f"the certificate of {self._target.place} was not accepted: {exc.verify_message}"
            raise CertificateError(Reason(text, permanent=True, error=exc)) from exc
        except BaseException:
            secure.close()
            raise

    # -- the WebSocket part ---------------------------------------------------------------------------------------

    def _shake_hands(self, sock: socket.socket) -> Established:
        """RFC 6455 section 4.1, by websocket-client, over a stream that bounds and checks what it reads."""
        stream = HandshakeStream(sock, self, cookie=self._cookie)
        header = [f"{name}: {value}" for name, value in self._headers if name.lower() != "host"]
        if self._subprotocols:  # as a header: websocket-client insists on one being chosen, RFC 6455 does not
            header.append(f"Sec-WebSocket-Protocol: {', '.join(self._subprotocols)}")
        if self._compression:
            header.append(f"Sec-WebSocket-Extensions: {deflate.OFFER}")
        given_host = [value for name, value in self._headers if name.lower() == "host"]
        options: dict[str, Any] = {
            "socket": stream,
            "header": header,
            "host": given_host[0] if given_host else self._target.host_header,
            "cookie": self._cookie,
            "redirect_limit": 0,
        }
        options.update({"origin": self._origin} if self._origin else {"suppress_origin": True})
        try:
            websocket.WebSocket().connect(self._target.text, **options)  # type: ignore[no-untyped-call]
        except (websocket.WebSocketException, ValueError, OSError, HandshakeError) as exc:
            refused = self._refused(stream, exc)
            if refused is None:
                raise
            raise refused from exc
        assert stream.response is not None
        try:
            agreed = handshake.verify(stream.response, stream.key, self._subprotocols, self._compression)
        except ValueError as exc:
            raise HandshakeError(Reason(f"not a valid opening handshake: {exc}", permanent=True)) from exc
        return Established(sock, stream.rest(), agreed.subprotocol, stream.response.headers, agreed.deflate)

    def _refused(self, stream: HandshakeStream, exc: Exception) -> HandshakeError | None:
        """What ``exc`` means, None when it says so itself."""
        status = stream.status
        if self._cancelled:
            return None if isinstance(exc, HandshakeError) else HandshakeError(CANCELLED)
        if status is None or status == 101:
            if isinstance(exc, websocket.WebSocketTimeoutException):  # our deadline, as websocket-client has it
                return self._too_late()
            if isinstance(exc, (OSError, HandshakeError)):
                return None
            return HandshakeError(Reason(f"not a valid opening handshake: {exc}", permanent=status == 101, error=exc))
        body = getattr(exc, "resp_body", None) or b""
        headers = stream.response.headers if stream.response is not None else Headers()
        again = status in RETRY_STATUS or status >= 500
        line = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        reason = Reason(
            f"the server answered {status}" + (f": {ascii(line)[1:-1]}" if line else ""),
            status=status,
            retry_after=_retry_after(headers.get("Retry-After", "")),
            permanent=not again,
            error=exc,
        )
        return HandshakeRejected(reason, headers, body)


def _retry_after(value: str) -> float | None:
    """Seconds from a Retry-After header; the form with a date is not used by anything that we talk to."""
    return min(float(value), MAX_RETRY_AFTER) if value.isascii() and value.isdigit() else None


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()
