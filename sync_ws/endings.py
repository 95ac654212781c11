"""The words for the end of a connection: close codes, what a Close frame says, and the reason in words.

Threading: these are values; share them freely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Close", "CloseCode", "Reason", "without_tracebacks"]


class CloseCode:
    """Close codes, RFC 6455 section 7.4.1 and the IANA registry, and the one of our own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never on the wire: the peer's Close frame was empty
    ABNORMAL = 1006  # never on the wire: the connection ended without a Close frame
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    REPLACED = 4009  # private range: a newer connection took this name; permanent

    @staticmethod
    def may_be_sent(code: int) -> bool:
        """Whether a Close frame may carry ``code`` (RFC 6455 section 7.4.2)."""
        return 3000 <= code <= 4999 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))


class Close(NamedTuple):
    """What a Close frame says: its close code and its reason (at most 123 bytes of UTF-8)."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".rstrip()


@dataclass(frozen=True)
class Reason:
    """Why a connection ended, or why an attempt to open one failed.

    ``code``: the close code seen by this side, 1006 when there was no Close frame, None when the connection never
    opened.  ``status``: the HTTP status of a refused opening handshake.  ``retry_after``: seconds the server asked
    to wait, if it did.  ``permanent``: trying again cannot help (a bad certificate, say).  ``error``: what was raised,
    without its traceback, which would keep all alive that was at work then.
    """

    text: str
    code: int | None = None
    status: int | None = None
    retry_after: float | None = None
    permanent: bool = False
    by_us: bool = False
    error: BaseException | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        without_tracebacks(self.error)

    def __str__(self) -> str:
        return self.text


def without_tracebacks(error: BaseException | None) -> None:
    """What is kept of an error keeps no frames, which would keep alive all that was at work, and their callers."""
    if error is None:
        return
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
