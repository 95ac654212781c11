"""The description of the machine that goes with the figures: what places them, and nothing personal."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import os
import platform
import ssl
import zlib
from pathlib import Path
from typing import Any

PACKAGES = (
    "sync-ws",
    "simple-websocket",
    "websocket-client",
    "wsproto",
    "websockets",
    "aiohttp",
    "picows",
    "aiofastnet",
    "uvloop",
    "wsaccel",
    "numpy",
)
# what the packages fall back from without a word: a figure made without them says little
COMPILED = ("websockets.speedups", "aiohttp._websocket.mask", "aiohttp._websocket.reader_c", "picows.picows")


def describe() -> dict[str, Any]:
    """CPU, memory, kernel, Python and package versions."""
    return {
        "cpu": _proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int((_proc("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "virtual": "hypervisor" in (_proc("/proc/cpuinfo", "flags") or "").split(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "libraries": [ssl.OPENSSL_VERSION, f"zlib {zlib.ZLIB_RUNTIME_VERSION}", " ".join(platform.libc_ver())],
        "compiled": {name: _importable(name) for name in COMPILED if _importable(name.partition(".")[0])},
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.date.today().isoformat(),
    }


def one_line(machine: dict[str, Any]) -> str:
    """For the head of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    kind = ", virtual machine" if machine["virtual"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{kind}, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}, {machine['python']}, {', '.join(machine.get('libraries', []))}; {versions}"
    )


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _proc(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
