"""What keeps a connection from being opened, in words: faults of this process, of the network, of names.

Why so: some libraries hide that there was no descriptor left behind another fault: OpenSSL finds no certificate, the
resolver no name, an import no module.  Such a verdict would be final, and wrong: it is asked here whether a file can be
opened at all before it is believed.

Threading: pure functions.
"""

from __future__ import annotations

import errno
import os
import socket

from ..endings import Reason

__all__ = ["PASSING", "exhausted", "of_system"]

# of this process or machine, and over when others have given something back
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def exhausted() -> OSError | None:
    """Why this process cannot open a file at present; None when it can."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        return exc if exc.errno in PASSING else None
    return None


def of_system(exc: OSError | MemoryError, place: str) -> Reason:
    """Why there is no connection to ``place``, by what the system said; always worth another attempt."""
    short = exhausted() if isinstance(exc, socket.gaierror) else None
    cause: OSError | MemoryError = short or exc
    if isinstance(cause, MemoryError):
        said, ours = "out of memory", True
    else:
        said, ours = cause.strerror or str(cause), cause.errno in PASSING
    return Reason(f"no connection to {place}: {said}{' (in this process or machine)' if ours else ''}", error=exc)
