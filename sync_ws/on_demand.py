"""Names of a package that are loaded when they are first asked for (PEP 562).

Why so: a program that only has a client never pays for an HTTP server, nor for what simple-websocket imports; and a
module that needs one policy of a room does not load the whole room.

Threading: importing is safe from any thread; two that ask at once get the same value.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["names_on_demand"]


def names_on_demand(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``package``; ``modules``: in which of its modules each name is."""

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next time it is simply there
        return value

    return load
