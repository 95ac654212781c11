"""TLS for a connection that is being opened: the shared default context, the handshake, and what its failures mean.

Why so: a default context takes 20 ms and a megabyte, for it holds all authorities of the system; so there is one a
process.  It is made again when the system's certificates have changed (and once a day, where that cannot be seen), and
in a forked child: a lock in it may have been held by a thread that is not there.

The first bytes that come tell whether the other end speaks TLS at all.  OpenSSL has read five of them then, the head of
a record, so what it is instead is seen from those behind.  A server without TLS may also wait for the end of a request
that never comes: shortly before the deadline, when nothing has come yet, it gets two line ends, which make it answer.
They spoil a TLS handshake, but that one was too late anyway.

Final is what another attempt would only repeat: no TLS there, a certificate that was not accepted, on either side.  A
certificate that is not yet valid is not final: the clocks of small machines are late after a start.

Threading: ``default_context`` from any thread; the rest by the one thread that dials.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from ..endings import Reason
from ..errors import CertificateError, HandshakeError, HandshakeTimeout
from ..forking import close_in_child, no_fork
from ..net.tls import TlsSocket
from ..net.waiting import READABLE, WRITABLE
from ..protocol.shown_head import escaped
from ..timing import Deadline
from .address import Target
from .faults import PASSING, exhausted
from .handshake_stream import Io

__all__ = ["default_context", "fault", "shake_hands", "wrap"]

MAX_AGE = 24 * 3600.0  # seconds for which a default context is used at most
LAST_SHARE = 0.1  # of the time left: for an answer to the line ends,
LAST_SECONDS = 0.5  # and at most so much of it
REST_PATIENCE = 0.2  # seconds for what comes behind the first bytes
# what OpenSSL's versions call a record that is none
_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "BAD_RECORD_TYPE"}
)
_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_NO_ISSUER = (2, 19, 20, 21)  # X509_V_ERR_*: an authority was not found, or is not trusted
_SELF_SIGNED = 18

# what is said of an alert, by words of its name, and whether it is final
_OUR_CERTIFICATE = "the server did not accept the client's certificate; see ssl_context.load_cert_chain(...)"
_ALERTS: tuple[tuple[str, str, bool], ...] = (
    ("certificate required", "the server wants a client certificate: ssl_context.load_cert_chain(...)", True),
    ("bad certificate", _OUR_CERTIFICATE, True),
    ("unsupported certificate", _OUR_CERTIFICATE, True),
    ("certificate revoked", _OUR_CERTIFICATE, True),
    ("certificate expired", _OUR_CERTIFICATE, True),
    ("certificate unknown", _OUR_CERTIFICATE, True),
    ("unknown ca", _OUR_CERTIFICATE, True),
    ("access denied", _OUR_CERTIFICATE, True),
    ("handshake failure", "the server shares no TLS version or cipher with us, or wants a client certificate", False),
    ("insufficient security", "the server wants stronger ciphers than ours", False),
    ("protocol version", "the server does not speak the TLS versions that this side allows", False),
    ("unrecognized name", "the server has no certificate for this host name", False),
)

# what the default context was made of, when, and the context; replaced as a whole
_shared: tuple[list[Any], float, ssl.SSLContext] | None = None
_left_to_parent: list[ssl.SSLContext] = []  # freeing one takes its locks, which nobody in this process gives back


def default_context(monotonic: Callable[[], float] = time.monotonic) -> ssl.SSLContext:
    """The context of those who gave none: the system's certificates, verified, with the host's name.

    OSError when they could not be read; that is tried anew at the next call.  Two threads that find it missing make one
    each, and the later one stays.
    """
    global _shared
    made_of = _certificates()
    if _shared is not None:
        before, made_at, kept = _shared
        if before == made_of and monotonic() - made_at < MAX_AGE:
            return kept
        if before[0] != made_of[0]:
            _left_to_parent.append(kept)
    context = ssl.create_default_context()
    file = ssl.get_default_verify_paths().cafile
    if file is not None and not context.cert_store_stats()["x509"]:
        try:  # OpenSSL does not say why it has read nothing
            context.load_verify_locations(file)
        except ssl.SSLError:  # there is nothing in it
            pass
    _shared = (made_of, monotonic(), context)
    return context


def _certificates() -> list[Any]:
    """What a default context is made of: another list when another process or other files are."""
    paths = ssl.get_default_verify_paths()
    seen: list[Any] = [os.getpid()]
    for path in (paths.cafile, paths.capath):
        try:
            found = os.stat(path) if path else None
        except OSError:  # gone since
            found = None
        seen.append((path, found and (found.st_mtime_ns, found.st_size, found.st_ino)))
    return seen


def wrap(sock: socket.socket, context: ssl.SSLContext, target: Target) -> TlsSocket:
    """``sock`` with TLS that has not begun; it takes the descriptor over."""
    with no_fork():
        secure = TlsSocket(sock, context, server_hostname=target.host.rstrip("."))
        close_in_child(secure)
    return secure


def shake_hands(secure: TlsSocket, target: Target, io: Io, left: float) -> None:
    """The TLS handshake, within ``left`` seconds: HandshakeError, or OSError when the line broke."""
    # None: something has come, or was asked for
    silence: Deadline | None = Deadline(left - min(LAST_SECONDS, left * LAST_SHARE))
    prompted = False
    while True:
        try:
            secure.do_handshake()
            break
        except ssl.SSLWantReadError:
            events = READABLE
        except ssl.SSLWantWriteError:
            events = WRITABLE
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError) as exc:
            text = f"{target.place} ended the connection in the TLS handshake; if it has no TLS there, use ws://"
            raise HandshakeError(Reason(text, error=exc)) from exc
        except ssl.SSLError as exc:
            if exc.reason in _NO_TLS:
                raise _without_tls(_rest(secure, io), target) from exc
            if prompted:
                break
            raise fault(exc, target) from exc
        if silence is None or events == WRITABLE:
            io.wait(secure, events)
        else:
            prompted = not _answers(secure, io, silence)
            silence = None
    if prompted:
        raise io.too_late()


def _answers(secure: TlsSocket, io: Io, silence: Deadline) -> bool:
    """Whether something comes; where nothing does, it is asked for with two line ends."""
    try:
        io.wait(secure, READABLE, silence)
    except HandshakeTimeout:
        raise
    except TimeoutError:
        socket.socket.send(secure, b"\r\n\r\n")
        return False
    return True


def _rest(secure: TlsSocket, io: Io) -> bytes:
    """What came behind the first five bytes."""
    try:
        if not secure.incoming.pending:
            io.wait(secure, READABLE, Deadline(REST_PATIENCE))
        return secure.take_unread(40)
    except OSError:  # TimeoutError among them
        return b""


def _without_tls(rest: bytes, target: Target) -> HandshakeError:
    if rest.startswith((b"1.1 ", b"1.0 ", b"TYPE", b"type")):  # HTTP/, and <!DOC of a page without a head
        text = f"{target.place} speaks plain HTTP, not TLS: use ws:// instead of wss:// there"
        return HandshakeError(Reason(text, permanent=True))
    said = f" (it said: ...{escaped(rest.decode('latin-1'))})" if rest else ""
    return HandshakeError(f"{target.place} does not speak TLS{said}; without TLS the address begins with ws://")


def fault(exc: ssl.SSLError, target: Target) -> Exception:
    """What a failure of TLS means; OSError for a line that broke."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _certificate_fault(exc, target.place)
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return ConnectionResetError(0, "the server ended the connection")
    if exc.errno in PASSING or "MALLOC" in (exc.reason or ""):
        return OSError(exc.errno, exc.strerror or "out of memory")
    # some versions of Python have no name for some alerts, but OpenSSL has a text
    name = (exc.reason or str(exc)).replace("_", " ").lower()
    for words, meaning, final in _ALERTS:
        if words in name and ("alert" in name or words == "unrecognized name"):
            return HandshakeError(Reason(f"{target.place}: {meaning} ({name})", permanent=final, error=exc))
    return HandshakeError(Reason(f"TLS failed with {target.place}: {name}", error=exc))


def _certificate_fault(exc: ssl.SSLCertVerificationError, place: str) -> Exception:
    if exc.verify_code in _NO_ISSUER and (short := exhausted()):  # the authority's file could not be opened
        return short
    text = f"the certificate of {place} was not accepted: {exc.verify_message}"
    if exc.verify_code in (*_NO_ISSUER, _SELF_SIGNED):
        text += "; to trust it: ssl_context=ssl.create_default_context(cafile=...)"
    if exc.verify_code == _NOT_YET_VALID:
        text += "; is the clock of this machine right?"
    return CertificateError(Reason(text, permanent=exc.verify_code != _NOT_YET_VALID, error=exc))
