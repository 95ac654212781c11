"""The load generator: ``load.c`` where there is a compiler, else ``load_picows``, used alike."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.processes import Child, MeasureError, run_once

SOURCE = Path(__file__).with_name("load.c")

Figures = dict[str, float]


@dataclass(frozen=True)
class Generator:
    """A command that drives servers, and serves echoes to clients."""

    command: tuple[str, ...]
    description: str
    cpus: frozenset[int]

    def run(self, mode: str, port: int, arguments: Sequence[str], seconds: float) -> Figures:
        """One bounded run against a server; ``seconds`` is how long it takes at least."""
        command = [*self.command, mode, "--port", str(port), *arguments]
        figures = json.loads(run_once(command, cpus=self.cpus, timeout=seconds + 40))
        if "error" in figures:
            raise MeasureError(figures["error"])
        if figures["stalled"]:
            raise MeasureError("blocked")
        return {name: float(value) for name, value in figures.items() if isinstance(value, (int, float))}

    def start(self, mode: str, arguments: Sequence[str]) -> Child:
        """``idle`` or ``serve``: runs until it is stopped."""
        return Child([*self.command, mode, *arguments], cpus=self.cpus)


def find_generator(kind: str, scratch: Path, cpus: frozenset[int]) -> Generator:
    """``kind``: "c", "picows", or "auto" for the first that works here. SystemExit when none does."""
    if kind in ("auto", "c") and (compiled := _compile(scratch)) is not None:
        return Generator((str(compiled),), "C, epoll (load.c)", cpus)
    if kind in ("auto", "picows") and importlib.util.find_spec("picows"):
        return Generator((sys.executable, "-m", "tests.benchmark.load_picows"), "picows (load_picows.py)", cpus)
    raise SystemExit("no load generator: neither a C compiler (cc) that compiles load.c, nor the package picows")


def _compile(scratch: Path) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    target = scratch / "load"
    done = subprocess.run(
        [compiler, "-O3", "-pthread", "-o", str(target), str(SOURCE)],
        check=False,
        capture_output=True,
        timeout=120,
    )
    return target if done.returncode == 0 else None
