"""What a client says in its log: each thing once, loud where somebody should know of it.

Why so: a client is left alone for months, and whoever comes to look has the log.  An outage is announced once, as a
warning, when it begins (the first attempt that fails, or the connection that ends), and after that there is nothing
but a reminder each hour until it is over; attempts are for whoever asks for DEBUG.  An end that the application asked
for is no news.

Addresses are without query and credentials.  What the other side said is escaped: it must not forge lines.

Threading: for the client's thread alone.
"""

from __future__ import annotations

import logging

from ..endings import Reason
from ..timing import Clock

__all__ = ["REMINDER", "Voice"]

log = logging.getLogger("sync_ws.client")
REMINDER = 3600.0  # seconds between two words about one outage


class Voice:
    """See the module.  ``address``: the server's, for people; it may change with every attempt."""

    def __init__(self, address: str, clock: Clock) -> None:
        self._address = address
        self._clock = clock
        self._since: float | None = None  # when the present outage began, or the first attempt; None while open
        self._said = 0.0  # when it was last spoken of at a level that anybody sees
        self._attempts = 0  # since then
        self._troubled = False  # it is an outage, not just a first attempt
        self._lived_before = False  # there was a connection

    def attempt(self, address: str) -> None:
        """One begins."""
        self._address = address
        self._attempts += 1
        self._begin()
        log.debug("%s: attempt %d", address, self._attempts)

    def trouble(self, reason: Reason, lived: float | None, *, asked: bool = False) -> None:
        """An attempt failed (``lived`` is None) or a connection ended, and there will be another attempt.

        ``asked``: for that is what the application asked for.
        """
        if lived is not None:
            self._ended(reason, lived, asked and reason.by_us)
        elif not asked:
            self._failed(reason)

    def _failed(self, reason: Reason) -> None:
        self._begin()
        since, now = self._since or 0.0, self._clock.monotonic()
        if not self._troubled:
            self._troubled, self._said = True, now
            log.warning("cannot connect to %s yet, will keep trying: %s", self._address, _plain(reason))
        elif now - self._said >= REMINDER:
            self._said = now
            text = "still cannot connect to %s, after %.0f s and %d attempts: %s"
            log.warning(text, self._address, now - since, self._attempts, _plain(reason))
        else:
            log.debug("%s: attempt %d failed: %s", self._address, self._attempts, _plain(reason))

    def opened(self, subprotocol: str | None) -> None:
        """It led to a connection."""
        how = "reconnected" if self._lived_before else "connected"
        detail = f", subprotocol {subprotocol}" if subprotocol else ""
        if self._troubled and self._since is not None:
            took = self._clock.monotonic() - self._since
            log.info("%s to %s after %.1f s, attempts: %d%s", how, self._address, took, self._attempts, detail)
        else:
            log.info("%s to %s%s", how, self._address, detail)
        self._since, self._attempts, self._troubled, self._lived_before = None, 0, False, True

    def _ended(self, reason: Reason, lived: float, own: bool) -> None:
        self._begin()
        if not own:
            self._troubled, self._said = True, self._clock.monotonic()
        level = logging.INFO if own else logging.WARNING
        log.log(level, "the connection to %s ended after %.1f s: %s", self._address, lived, _plain(reason))

    def waiting(self, delay: float) -> None:
        """Until the next attempt."""
        level = logging.DEBUG if self._attempts else logging.INFO
        log.log(level, "%s: reconnecting in %.2f s", self._address, delay)

    def closed(self, reason: Reason) -> None:
        """It is over, by the application."""
        log.info("%s: closed: %s", self._address, _plain(reason))

    def gave_up(self, reason: Reason, why: str) -> None:
        """It is over, not by the application; ``why``: there will be no further attempt."""
        log.warning("gave up %s: %s (no further attempt: %s)", self._address, _plain(reason), why)

    def _begin(self) -> None:
        if self._since is None:
            self._since = self._clock.monotonic()


def _plain(reason: Reason) -> str:
    text = reason.text
    return text if text.isprintable() else ascii(text)[1:-1]
