"""Which test files are a module's own: those that are named after it.

Why so: ``tests/<room>/test_<module>.py`` and ``tests/<room>/test_<module>_<aspect>.py`` test
``sync_ws/<room>/<module>.py``; of two modules whose names begin a file's name, the longer has it.  So no table can be
out of date.

Threading: none.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["PACKAGE", "ROOT", "modules", "own_tests"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sync_ws"


def modules() -> list[str]:
    """All modules with tests of their own, as ``room/module``; those on the ground have no room."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [str(path.relative_to(PACKAGE).with_suffix("")) for path in paths if path.name != "__init__.py"]


def own_tests(module: str) -> list[str]:
    """The names of the test modules of ``room/module``, the one of its very name first."""
    room, _, name = module.rpartition("/")
    rivals = [other.rpartition("/")[2].strip("_") for other in modules() if other.rpartition("/")[0] == room]
    found = []
    for path in sorted((ROOT / "tests" / room).glob("test_*.py")):
        subject = path.stem.removeprefix("test_")
        fitting = [rival for rival in rivals if subject == rival or subject.startswith(rival + "_")]
        if max(fitting, key=len, default="") == name.strip("_"):
            found.append(path)
    found.sort(key=lambda path: len(path.stem))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]
