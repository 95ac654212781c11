"""The house rules that a machine can check: what is public, who imports whom, no asyncio, tests for each module."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import unittest
from pathlib import Path
from types import ModuleType

import sync_ws

ROOT = Path(sync_ws.__file__).parent
TESTS = Path(__file__).parent
MAX_TEST_LINES = 700  # beyond it a file tests more than one thing
# the rooms of the house, and the rooms that each may import from: never upwards, never in a circle
GROUND = {
    "errors",
    "endings",
    "messages",
    "envelope",
    "events",
    "timing",
    "checks",
    "forking",
    "headers",
    "interrupts",
    "on_demand",
    "weak",
}
MAY_IMPORT = {
    "ground": set(),
    "protocol": {"ground"},
    "net": {"ground"},
    "channel": {"protocol", "net", "ground"},
    "client": {"channel", "protocol", "net", "ground"},
    "server": {"channel", "protocol", "net", "ground"},
    "testing": {"server", "client", "channel", "protocol", "net", "ground", "face"},
    "face": {"client", "server", "protocol", "ground"},  # __init__, __main__, client_events
}
SYSTEM = {"socket", "ssl", "threading", "select", "selectors", "time"}


def module_names() -> list[str]:
    names = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def room_of(name: str) -> str:
    parts = name.split(".")
    if len(parts) > 1 and parts[1] in MAY_IMPORT:
        return parts[1]
    return "ground" if len(parts) > 1 and parts[1] in GROUND else "face"


def modules() -> list[ModuleType]:
    return [importlib.import_module(name) for name in module_names() if not name.endswith("__main__")]


def tree(name: str) -> ast.Module:
    path = ROOT.parent.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(name: str) -> set[str]:
    """The modules of this package that one imports, in functions and under TYPE_CHECKING too."""
    package = name if ROOT.parent.joinpath(*name.split(".")).is_dir() else name.rpartition(".")[0]
    known, found = set(module_names()), set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return (found & known) - {name}


class Exports(unittest.TestCase):
    def test_everything_in_all_exists_once(self) -> None:
        for module in modules():
            with self.subTest(module.__name__):
                names = module.__all__
                self.assertEqual(len(names), len(set(names)))
                self.assertEqual([name for name in names if name.startswith("_")], [])
                for name in names:
                    self.assertTrue(hasattr(module, name), name)

    def test_every_public_class_and_function_is_in_all_of_its_module(self) -> None:
        for module in modules():
            public = {
                name
                for name, value in vars(module).items()
                if not name.startswith("_")
                and (inspect.isclass(value) or inspect.isfunction(value))
                and value.__module__ == module.__name__
            }
            with self.subTest(module.__name__):
                self.assertEqual(public - set(module.__all__), set())

    def test_what_is_imported_from_another_module_is_in_all_of_that(self) -> None:
        for name in module_names():
            for node in ast.walk(tree(name)):
                if not isinstance(node, ast.ImportFrom) or not node.level or name.startswith("sync_ws.testing"):
                    continue
                package = name if ROOT.parent.joinpath(*name.split(".")).is_dir() else name.rpartition(".")[0]
                source = importlib.import_module("." * node.level + (node.module or ""), package)
                for alias in node.names:
                    value = getattr(source, alias.name, None)
                    if inspect.isclass(value) or inspect.isfunction(value):
                        with self.subTest(f"{name} imports {alias.name}"):
                            self.assertIn(alias.name, source.__all__)

    def test_a_star_import_gives_all_of_the_package(self) -> None:
        namespace: dict[str, object] = {}
        exec("from sync_ws import *", namespace)
        self.assertEqual(set(sync_ws.__all__) - set(namespace), set())
        for name in sync_ws.__all__:
            self.assertIs(namespace[name], getattr(sync_ws, name))

    def test_every_error_there_is_can_be_imported_from_the_package(self) -> None:
        from sync_ws import errors

        self.assertEqual(set(errors.__all__) - set(sync_ws.__all__), set())

    def test_every_module_and_every_public_name_has_a_docstring(self) -> None:
        for module in modules():
            with self.subTest(module.__name__):
                self.assertGreater(len((module.__doc__ or "").strip()), 20)
            for name in module.__all__:
                value = getattr(module, name)
                if (inspect.isclass(value) or inspect.isfunction(value)) and not hasattr(value, "__origin__"):
                    with self.subTest(f"{module.__name__}.{name}"):
                        self.assertTrue((value.__doc__ or "").strip())

    def test_the_package_is_marked_as_typed(self) -> None:
        self.assertTrue((ROOT / "py.typed").is_file())


class Imports(unittest.TestCase):
    def test_each_room_imports_from_the_rooms_below_it(self) -> None:
        for name in module_names():
            room = room_of(name)
            with self.subTest(name):
                upwards = {other for other in imported(name) if room_of(other) not in MAY_IMPORT[room] | {room}}
                # a room's name stands for its __init__, which imports nothing but what it is asked for
                self.assertEqual(upwards - ({"sync_ws"} if room == "face" else set()), set())

    def test_the_table_of_rooms_has_no_circle(self) -> None:
        done: list[str] = []
        while ready := [room for room, below in MAY_IMPORT.items() if room not in done and below <= set(done)]:
            done += ready
        self.assertEqual(set(MAY_IMPORT) - set(done), set())

    def test_the_protocol_knows_no_socket_thread_lock_or_clock(self) -> None:
        for name in module_names():
            if room_of(name) == "protocol":
                for node in ast.walk(tree(name)):
                    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                    names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                    with self.subTest(name):
                        self.assertEqual(
                            set(names) & {"socket", "ssl", "threading", "select", "selectors", "time"}, set()
                        )

    def test_there_are_no_cycles_not_even_hidden_ones(self) -> None:
        edges = {name: imported(name) for name in module_names() if not name.startswith("sync_ws.testing")}
        done: list[str] = []
        while ready := [name for name in edges if name not in done and edges[name] <= set(done)]:
            done += ready
        self.assertEqual(set(edges) - set(done), set())

    def test_the_core_does_without_what_is_for_tests(self) -> None:
        for name in module_names():
            if not name.startswith("sync_ws.testing"):
                with self.subTest(name):
                    self.assertEqual({used for used in imported(name) if used.startswith("sync_ws.testing")}, set())

    def test_one_module_waits_and_wakes_and_one_knows_the_flags_of_a_socket_call(self) -> None:
        homes = {"select": "net.waiting", "selectors": "net.waiting", "pipe": "net.waiting", "pipe2": "net.waiting"}
        homes |= {"socketpair": "net.waiting", "MSG_": "net.transport"}
        for name in module_names():
            if name.startswith("sync_ws.testing"):
                continue
            used = set()
            for node in ast.walk(tree(name)):
                if isinstance(node, ast.Import):
                    used |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    used |= {node.module or "", *(alias.name for alias in node.names)}
                elif isinstance(node, ast.Attribute):
                    used.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    used.add(node.value)  # of getattr
            used |= {"MSG_" for word in used if word.startswith("MSG_")}
            with self.subTest(name):
                strangers = {word for word in used & set(homes) if name != f"sync_ws.{homes[word]}"}
                self.assertEqual(strangers, set())

    def test_no_asyncio_anywhere(self) -> None:
        for path in ROOT.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                with self.subTest(path.name):
                    self.assertEqual([name for name in names if name.split(".")[0] == "asyncio"], [])
                    self.assertNotIsInstance(node, (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith))

    def test_importing_the_package_does_not_import_asyncio_or_numpy(self) -> None:
        code = "import sys, sync_ws\nprint([n for n in ('asyncio', 'numpy', 'sync_ws.testing') if n in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.stdout.strip(), done.returncode), ("[]", 0), done.stderr)


class Tests(unittest.TestCase):
    def test_every_module_has_its_test_file_found_by_its_name(self) -> None:
        for path in sorted(ROOT.rglob("*.py")):
            module = path.relative_to(ROOT)
            if module.name == "__init__.py":  # what is in them is a face, tested above
                continue
            expected = TESTS / module.parent / f"test_{module.stem.strip('_')}.py"
            with self.subTest(str(module)):
                self.assertTrue(expected.is_file(), f"no {expected.relative_to(TESTS.parent)}")

    def test_every_test_file_is_one_that_can_be_read(self) -> None:
        for path in sorted(TESTS.rglob("test_*.py")):
            with self.subTest(str(path.relative_to(TESTS))):
                self.assertLessEqual(len(path.read_text(encoding="utf-8").splitlines()), MAX_TEST_LINES)


if __name__ == "__main__":
    unittest.main()
