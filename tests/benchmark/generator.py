"""The load generator: ``load.c`` where there is a compiler, else ``load_picows``, used alike.

The C program has TLS where it can be compiled and linked with OpenSSL (Debian: libssl-dev), and permessage-deflate
where it can with zlib (zlib1g-dev); without, and with ``load_picows``, those rows are left out.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sync_ws.testing.certificates import make_certificates
from tests.benchmark.processes import Child, MeasureError, run_once

SOURCE = Path(__file__).with_name("load.c")

Figures = dict[str, float]


@dataclass(frozen=True)
class Generator:
    """A command that drives servers, and serves echoes to clients."""

    command: tuple[str, ...]
    description: str
    cpus: frozenset[int]
    features: frozenset[str] = frozenset()  # "tls", "deflate"

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


def make_pem(scratch: Path) -> Path:
    """A throwaway certificate and its key in one file, for all servers."""
    made = make_certificates(scratch)
    pem = scratch / "benchmark.pem"
    pem.write_bytes(made.server_key.read_bytes() + made.server_cert.read_bytes())
    return pem


def find_generator(kind: str, scratch: Path, cpus: frozenset[int]) -> Generator:
    """``kind``: "c", "picows", or "auto" for the first that works here. SystemExit when none does."""
    if kind in ("auto", "c") and (compiled := _compile(scratch)) is not None:
        answer = json.loads(run_once([str(compiled), "features"], cpus=cpus, timeout=10))
        features = frozenset(name for name, there in answer.items() if there)
        if shutil.which("openssl") is None:  # no certificate for the servers either
            features -= {"tls"}
        return Generator((str(compiled),), "C, epoll (load.c)", cpus, features)
    if kind in ("auto", "picows") and importlib.util.find_spec("picows"):
        return Generator((sys.executable, "-m", "tests.benchmark.load_picows"), "picows (load_picows.py)", cpus)
    raise SystemExit("no load generator: neither a C compiler (cc) that compiles load.c, nor the package picows")


def _compile(scratch: Path) -> Path | None:
    """With TLS and compression where OpenSSL and zlib can be compiled and linked with, else without."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    target = scratch / "load"
    tls, deflate = ("-lssl", "-lcrypto"), ("-lz",)
    without_tls, without_deflate = ("-DWITHOUT_TLS",), ("-DWITHOUT_DEFLATE",)
    for extras in (tls + deflate, tls + without_deflate, without_tls + deflate, without_tls + without_deflate):
        done = subprocess.run(
            [compiler, "-O3", "-pthread", "-o", str(target), str(SOURCE), *extras],
            check=False,
            capture_output=True,
            timeout=120,
        )
        if done.returncode == 0:
            return target
    return None
