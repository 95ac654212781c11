"""Attempts to open a connection: what comes of one, or why it failed.

Threading: a case belongs to its test's thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from sync_ws import HandshakeError
from sync_ws.client.address import parse_url
from sync_ws.client.dial import Dial, Established
from sync_ws.testing import LedgerTestCase

__all__ = ["SOON", "DialTestCase"]

SOON = 3.0  # seconds: an upper bound for "at once", on a machine with other things to do


class DialTestCase(LedgerTestCase):
    def dial(self, url: str, **options: Any) -> Established:
        opened = Dial(parse_url(url), **{"timeout": 10.0, **options}).run()
        self.addCleanup(opened.sock.close)
        return opened

    def fail_to_dial(self, url: str, **options: Any) -> HandshakeError:
        with self.assertRaises(HandshakeError) as caught:
            self.dial(url, **options)
        return caught.exception

    @contextlib.contextmanager
    def running(self, dial: Dial) -> Iterator[list[Any]]:
        """``dial.run()`` in a thread; its outcome is in the list at the end of the block."""
        outcome: list[Any] = []

        def run() -> None:
            try:
                outcome.append(dial.run())
            except HandshakeError as exc:
                outcome.append(exc)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield outcome
        thread.join(SOON)
        self.assertFalse(thread.is_alive(), "the dial went on")
