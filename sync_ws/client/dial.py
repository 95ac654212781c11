"""Opening a connection: address, proxy, TLS and opening handshake, under one deadline, and cancellable throughout.

Why so: websocket-client does the WebSocket part of the opening handshake, over a stream of ours.  Left to itself it
has a timeout per read (a server that sends a byte now and then holds it for ever), no bound on the response, a
cookie jar shared by all hosts of the process, and cannot be told to stop.  So the socket is opened here, without
blocking; every wait is for the socket and for a Waker that ``cancel`` wakes.  What cannot be interrupted (name
resolution, a SOCKS library) runs aside in a thread whose late result is thrown away.

What comes of a failure is a HandshakeError that names the place, what happened there, and what mends it.  A fault of
this process (no descriptor, no memory) is never taken for one of the server's.

Threading: ``run`` once, in one thread; ``cancel`` from any, and from a signal handler.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import websocket

from ..endings import Reason
from ..errors import HandshakeError, HandshakeTimeout
from ..forking import close_fully, close_in_child, no_fork
from ..headers import Headers
from ..net.tls import TlsSocket
from ..net.waiting import READABLE, WRITABLE, Waker, wait
from ..protocol import deflate, handshake
from ..protocol.http_head import TlsInstead
from ..timing import Deadline
from . import faults, refusal, tls
from .address import Target
from .handshake_stream import HandshakeStream, Io, Refused

__all__ = ["Dial", "Established"]

T = TypeVar("T")
UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})  # what a connect says that is not over
CANCELLED = Reason("cancelled", by_us=True)


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
        self._place = target.place  # where it is going: the server, or the proxy before it
        self._missing = ""  # what has not come, should the deadline pass now
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
        self._sock: socket.socket | None = None  # the present one, to be closed when the attempt fails

    @property
    def target(self) -> Target:
        """Where to; it may hold secrets."""
        return self._target

    def cancel(self) -> None:
        """Make ``run`` raise at once."""
        self._cancelled = True
        if self._waker is not None:
            self._waker.wake()

    @property
    def held_here(self) -> bool:
        """Whether the caller interrupted ``cancel`` in its own thread: ``run`` cannot end before that goes on."""
        return self._waker is not None and self._waker.held_here

    def run(self) -> Established:
        """Open the connection, within the timeout counted from now."""
        self._deadline = Deadline(self._timeout)
        try:
            self._waker = Waker()
            if self._cancelled:  # before there was a Waker to wake
                raise HandshakeError(CANCELLED)
            self._sock = self._connect()
            if self._target.secure:
                self._sock = self._start_tls(self._sock)
            return self._shake_hands(self._sock)
        except BaseException as exc:
            if self._sock is not None:
                close_fully(self._sock)
            told = self._told(exc)
            if told is exc:
                raise
            raise told from exc
        finally:
            if self._waker is not None:
                self._waker.close()

    def _told(self, exc: BaseException) -> BaseException:
        """What is raised for it: HandshakeError, or what it is if that is nobody's business here."""
        if isinstance(exc, HandshakeError):
            return exc
        if isinstance(exc, ssl.SSLError):
            exc = tls.fault(exc, self._target)
        if isinstance(exc, (OSError, MemoryError)):
            return HandshakeError(faults.of_system(exc, self._place))
        if isinstance(exc, ValueError):  # a host name that cannot be one, for the resolver, TLS or a proxy
            text = f"{self._place} is no address to connect to: {exc}"
            return HandshakeError(Reason(text, permanent=True, error=exc))
        return exc

    # -- waiting --------------------------------------------------------------------------------------------------

    def wait(self, sock: socket.socket | Waker, events: int, share: Deadline | None = None) -> None:
        """Until ``sock`` has one of ``events``; HandshakeTimeout past the deadline, HandshakeError when cancelled.

        ``share``: a nearer deadline for this wait; TimeoutError past that one.
        """
        ready = wait(sock.fileno(), events, (share or self._deadline).remaining(), self._waker)
        if self._cancelled:
            raise HandshakeError(CANCELLED)
        if self._deadline.passed or (not ready and share is None):
            raise self.too_late()
        if not ready:
            raise TimeoutError(errno.ETIMEDOUT, "this address does not answer")

    def too_late(self) -> HandshakeTimeout:
        """What is raised when the deadline has passed."""
        text = f"no open connection to {self._target.place} within {self._timeout:g} s"
        return HandshakeTimeout(f"{text}: {self._missing}" if self._missing else text)

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
            return self._connect_to(self._target)
        self._place = f"the proxy {proxy.place}"
        if proxy.scheme.startswith("socks"):
            sock = self._through_socks(proxy)
        else:
            sock = self._connect_to(proxy)
            self._missing = f"no answer of {self._place}"
            try:
                HandshakeStream(sock, self).tunnel(self._target.place, proxy.basic_auth)
            except EOFError as exc:
                raise HandshakeError(Reason(f"{self._place} ended the connection", error=exc)) from exc
        self._place = f"{self._target.place} (through {self._place})"
        return sock

    def _through_socks(self, proxy: Target) -> socket.socket:
        try:
            from python_socks.sync import Proxy
        except ImportError:
            if short := faults.exhausted():  # an import finds nothing then
                raise short from None
            text = "a SOCKS proxy needs the package python-socks: pip install sync-ws[socks]"
            raise HandshakeError(Reason(text, permanent=True)) from None
        resolves = proxy.scheme in ("socks4a", "socks5h")  # the proxy, not we; python-socks has no names for these
        through = Proxy.from_url(proxy.text.replace(proxy.scheme, proxy.scheme.rstrip("ah"), 1), rdns=resolves)
        target, timeout = self._target, self._deadline.remaining()

        def connect() -> socket.socket:
            sock: socket.socket = through.connect(target.host, target.port, timeout=timeout)
            with no_fork():  # python-socks made it, so it was not known until now
                close_in_child(sock)
            return sock

        self._missing = f"no answer of {self._place}"
        try:
            sock = self._aside(connect, close_fully)
        except (HandshakeError, OSError, MemoryError):
            raise
        except Exception as exc:  # python-socks has a tree of its own
            raise HandshakeError(Reason(f"the proxy {proxy.place} refused: {exc}", error=exc)) from exc
        self._sock = sock
        sock.setblocking(False)
        return sock

    def _addresses(self, goal: Target) -> list[tuple[int, tuple[Any, ...]]]:
        host, port = goal.lookup, goal.port
        try:
            ipaddress.ip_address(goal.host)
        except ValueError:
            self._missing = f"the name {host} is not resolved"
            found = self._aside(lambda: faults.resolve(host, port), lambda late: None)
        else:
            found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        return [(int(family), address) for family, _, _, _, address in found]

    def _connect_to(self, goal: Target) -> socket.socket:
        """TCP to the first address that answers; each gets its share of the time that is left."""
        addresses = self._addresses(goal)
        self._missing = f"nothing answers at {goal.place}"
        error: Exception | None = None
        for left, (family, address) in zip(range(len(addresses), 0, -1), addresses):
            remaining = self._deadline.remaining()
            share = Deadline(None if remaining is None else remaining / left)
            with no_fork():
                self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
                close_in_child(sock)
            try:
                self._connect_one(sock, address, share)
                return sock
            except OSError as exc:
                close_fully(sock)
                error = exc
        raise error or OSError(f"{goal.host} has no address")

    def _connect_one(self, sock: socket.socket, address: tuple[Any, ...], share: Deadline) -> None:
        sock.setblocking(False)
        refused = sock.connect_ex(address)
        if refused == 0:
            return
        if refused not in UNDER_WAY:  # no route, say
            raise OSError(refused, os.strerror(refused))
        self.wait(sock, WRITABLE, share)
        failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))

    def _start_tls(self, sock: socket.socket) -> TlsSocket:
        self._missing = "no answer to the TLS handshake; if the server has no TLS there, use ws://"
        self._sock = secure = tls.wrap(sock, self._ssl_context or tls.default_context(), self._target)
        tls.shake_hands(secure, self._target, self, self._deadline.remaining() or 0.0)
        return secure

    # -- the WebSocket part ---------------------------------------------------------------------------------------

    def _shake_hands(self, sock: socket.socket) -> Established:
        """RFC 6455 section 4.1, by websocket-client, over a stream that bounds and checks what it reads."""
        self._missing = "no answer to the opening handshake"
        stream = HandshakeStream(sock, self, self._target.resource, self._cookie)
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
        }
        options.update({"origin": self._origin} if self._origin else {"suppress_origin": True})
        handshaker = websocket.WebSocket()
        try:
            handshaker.connect(self._target.text, **options)  # type: ignore[no-untyped-call]
        except (websocket.WebSocketException, Refused, HandshakeError, ValueError, OSError, EOFError) as exc:
            raise self._explain(stream, stream.failure or exc) from exc
        finally:
            vars(handshaker).clear()  # it and its buffer hold on to each other, and to the stream
        assert stream.response is not None
        try:
            agreed = handshake.verify(stream.response, stream.key, self._subprotocols, self._compression)
        except ValueError as exc:
            text = f"not a valid opening handshake by {self._place}: {exc}"
            raise HandshakeError(Reason(text, permanent=True, error=exc)) from exc
        return Established(sock, stream.rest(), agreed.subprotocol, stream.response.headers, agreed.deflate)

    def _explain(self, stream: HandshakeStream, exc: Exception) -> BaseException:
        """What it means that websocket-client has not come to an end."""
        if self._cancelled:
            return HandshakeError(CANCELLED)
        if stream.status not in (None, 101):
            assert stream.status is not None
            head = stream.response
            names = {name.lower() for name, _ in self._headers}
            authorized = "authorization" in names or self._cookie is not None
            asked = refusal.Asked(self._target, self._origin, self._subprotocols, authorized)
            body = stream.read_body() if isinstance(exc, Refused) else b""
            phrase, headers = (head.phrase, head.headers) if head is not None else ("", Headers())
            return refusal.rejected(stream.status, phrase, headers, body, asked)
        if isinstance(exc, TlsInstead):
            text = f"{self._place} speaks TLS: use wss:// instead of ws:// there"
            return HandshakeError(Reason(text, permanent=True, error=exc))
        if isinstance(exc, ssl.SSLError):  # an alert, say: TLS 1.3 tells only now what it thinks of a certificate
            exc = tls.fault(exc, self._target)
        if isinstance(exc, (EOFError, ConnectionError)):
            return self._lost(stream, exc)
        if isinstance(exc, (HandshakeError, OSError)):
            return self._told(exc)
        text = f"not a valid opening handshake by {self._place}: {exc}"
        return HandshakeError(Reason(text, permanent=stream.status == 101, error=exc))

    def _lost(self, stream: HandshakeStream, exc: EOFError | ConnectionError) -> HandshakeError:
        how = exc.strerror if isinstance(exc, OSError) and exc.strerror else "ended by the server"
        text = f"the connection to {self._place} was lost during the opening handshake: {how}"
        if not stream.heard and not self._target.secure:  # many a server does so that hears HTTP where it wants TLS
            text += ", without an answer; if it speaks TLS there, use wss://"
        return HandshakeError(Reason(text, error=exc))
