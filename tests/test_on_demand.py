"""Names that are loaded when they are first asked for: only then, only once, and only those there are."""

from __future__ import annotations

import subprocess
import sys
import threading
import types
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from sync_ws.on_demand import names_on_demand
from tests.support.wire import join

ROOT = Path(__file__).parent.parent


class OnDemandTest(unittest.TestCase):
    def setUp(self) -> None:
        """A package that has ``Thing`` in its module ``room``."""
        self.package, self.room = types.ModuleType("made_up"), types.ModuleType("made_up.room")
        self.thing = self.room.__dict__["Thing"] = object()
        modules = mock.patch.dict(sys.modules, {"made_up": self.package})
        modules.start()
        self.addCleanup(modules.stop)
        self.imported = mock.Mock(return_value=self.room)
        importing = mock.patch("sync_ws.on_demand.import_module", self.imported)
        importing.start()
        self.addCleanup(importing.stop)
        self.package.__dict__["__getattr__"] = names_on_demand("made_up", {"Thing": "room"})

    def get(self) -> Any:
        return self.package.Thing

    def test_nothing_is_loaded_before_it_is_asked_for(self) -> None:
        self.imported.assert_not_called()
        self.assertIs(self.get(), self.thing)
        self.imported.assert_called_once_with("made_up.room")

    def test_the_second_time_it_is_simply_there(self) -> None:
        self.get()
        self.get()
        self.imported.assert_called_once()
        self.assertIn("Thing", vars(self.package))

    def test_any_other_name_is_an_attribute_error_that_names_it(self) -> None:
        with self.assertRaisesRegex(AttributeError, "module 'made_up' has no attribute 'Other'"):
            _ = self.package.Other
        self.assertFalse(hasattr(self.package, "__path__"))
        self.imported.assert_not_called()

    def test_two_that_ask_at_once_get_the_same(self) -> None:
        at_once = threading.Barrier(2)
        self.imported.side_effect = lambda name: (at_once.wait(10) and None) or self.room
        got: list[Any] = []
        threads = [threading.Thread(target=lambda: got.append(self.get())) for _ in range(2)]
        for thread in threads:
            thread.start()
        join(*threads)
        self.assertEqual(got, [self.thing, self.thing])

    def test_a_program_with_a_client_alone_loads_no_server_and_the_other_way_round(self) -> None:
        for name, other in (("Client", "sync_ws.server.server"), ("Server", "sync_ws.client.client")):
            code = f"import sys, sync_ws; sync_ws.{name}; print({other!r} in sys.modules)"
            done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
            self.assertEqual((done.stdout.strip(), done.returncode), ("False", 0), done.stderr)


if __name__ == "__main__":
    unittest.main()
