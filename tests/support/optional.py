"""Tests that need a package which the library itself does not: skipped without it, unless all peers are required."""

from __future__ import annotations

import importlib
import os
import unittest
from collections.abc import Callable
from typing import TypeVar

__all__ = ["needs"]

T = TypeVar("T", bound=Callable[..., object])


def needs(*modules: str) -> Callable[[T], T]:
    """Skip a test (or class) where one of ``modules`` cannot be imported; with SYNC_WS_REQUIRE_PEERS=1 it fails."""
    missing = []
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(module)
    if not missing or os.environ.get("SYNC_WS_REQUIRE_PEERS") == "1":
        return lambda test: test
    return unittest.skip(f"not installed: {', '.join(missing)}")
