"""A base for tests of what a server or a client does by itself every so often: it does it more often here.

Why so: a quarter of a second is little to wait for, and a minute when hundreds of tests do.  What depends on the length
of that time, as the README's promises do, sets ``tick`` to what it really is.

Threading: for the test's own thread.
"""

from __future__ import annotations

from typing import ClassVar
from unittest import mock

from sync_ws.testing import LedgerTestCase

__all__ = ["QuickTestCase"]


class QuickTestCase(LedgerTestCase):
    """See the module."""

    tick: ClassVar[float] = 0.05
    """Seconds between two rounds of a housekeeper, or two looks of a client's thread."""

    def setUp(self) -> None:
        super().setUp()
        for module in ("sync_ws.channel.housekeeper", "sync_ws.client.thread"):
            ticking = mock.patch(f"{module}.TICK", self.tick)
            ticking.start()
            self.addCleanup(ticking.stop)
