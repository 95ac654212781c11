"""The package sync_ws.testing as a whole: its example runs, and `__all__` is what the modules define."""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import tempfile
import textwrap
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

from sync_ws import testing

PUBLIC = ("certificates", "clock", "ledger", "proxy", "serving")


class Example(unittest.TestCase):
    def test_the_example_of_the_docstring_passes(self) -> None:
        names = run_example(testing)
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(names["FeedTest"])
        result = unittest.TestResult()
        suite.run(result)
        self.assertTrue(result.wasSuccessful(), "".join(text for _, text in result.errors + result.failures))
        self.assertEqual(result.testsRun, 1)


class Names(unittest.TestCase):
    def test_every_module_lists_what_it_defines_for_others(self) -> None:
        for info in pkgutil.iter_modules(testing.__path__, testing.__name__ + "."):
            with self.subTest(info.name):
                module = importlib.import_module(info.name)
                defined = {
                    name
                    for name, value in vars(module).items()
                    if not name.startswith("_")
                    and getattr(value, "__module__", None) == info.name
                    and isinstance(value, type) | callable(value)
                }
                self.assertLessEqual(set(module.__all__), set(vars(module)))
                self.assertLessEqual(defined - {"T"}, set(module.__all__))
                self.assertTrue(module.__doc__ and "hreading" in module.__doc__, "says who may call it")

    def test_the_package_offers_everything_public(self) -> None:
        modules = [importlib.import_module(f"sync_ws.testing.{name}") for name in PUBLIC]
        names = [name for module in modules for name in module.__all__]
        self.assertEqual(sorted(testing.__all__), sorted(names))
        self.assertEqual([name for name in testing.__all__ if not hasattr(testing, name)], [])


def run_example(module: ModuleType) -> dict[str, Any]:
    """Execute the indented block of a docstring; the names it defines."""
    lines = (module.__doc__ or "").splitlines()
    code = "\n".join(line for line in lines if line.startswith("    ") or not line.strip())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.py"
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return runpy.run_path(str(path))


if __name__ == "__main__":
    unittest.main()
