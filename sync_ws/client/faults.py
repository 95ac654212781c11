"""What keeps a connection from being opened, in words: faults of this process, of the network, of names.

Why so: some libraries hide that there was no descriptor left behind another fault: OpenSSL finds no certificate, the
resolver no name, an import no module.  Such a verdict would be final, and wrong: it is asked here whether files can be
opened at all before it is believed, and where it was made, before anything is closed.

Threading: pure functions.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from ..endings import Reason

__all__ = ["PASSING", "exhausted", "of_system", "resolve"]

# of this process or machine, and over when others have given something back
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
MARGIN = 4  # files: a resolver has more than one open at a time


def exhausted() -> OSError | None:
    """Why this process cannot open a few files at present; None when it can."""
    opened = []
    try:
        for _ in range(MARGIN):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        return exc if exc.errno in PASSING else None
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return None


def resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    """``getaddrinfo`` for TCP; OSError of another kind than gaierror when there was no descriptor for it."""
    try:
        return list(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
    except socket.gaierror:
        short = exhausted()
        if short is None:
            raise
        raise short from None  # the name may well exist


def of_system(exc: OSError | MemoryError, place: str) -> Reason:
    """Why there is no connection to ``place``, by what the system said; always worth another attempt."""
    if isinstance(exc, MemoryError):
        said, ours = "out of memory", True
    else:
        said, ours = exc.strerror or str(exc), exc.errno in PASSING
    return Reason(f"no connection to {place}: {said}{' (in this process or machine)' if ours else ''}", error=exc)
