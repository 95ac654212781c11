"""The stateful model of server, registry and clients, shortly and always with the same sequences."""

from __future__ import annotations

import os
import unittest

from sync_ws.testing import LedgerTestCase

try:
    from tests.fuzz.model import run_model
except ImportError as exc:
    if exc.name is None or exc.name.partition(".")[0] != "hypothesis" or os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        raise
    raise unittest.SkipTest("hypothesis is not installed") from exc


class ModelTest(LedgerTestCase):
    """Real servers and clients against the model."""

    timeout = 120.0

    def test_server_registry_and_clients_agree_with_the_model_after_every_step(self) -> None:
        run_model(examples=40, steps=30)


if __name__ == "__main__":
    unittest.main()
