"""Callbacks that do not keep their object alive.

Why so: who hands its own method to what it owns is in a circle with it.  Then both wait for the garbage collector,
which programs that mind its pauses turn off, and whatever a closed connection held stays for good.

Threading: what ``weakly`` returns may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import ref

__all__ = ["weakly"]

P = ParamSpec("P")
R = TypeVar("R")


def weakly(method: Callable[P, R]) -> Callable[P, R]:
    """A function that calls the bound ``method``, for something that does not outlive its object in use.

    ReferenceError when it does.
    """
    reference, function = ref(method.__self__), method.__func__  # type: ignore[attr-defined]

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        found = reference()
        if found is None:
            raise ReferenceError("what this belongs to is gone")
        return function(found, *args, **kwargs)  # type: ignore[no-any-return]

    return call
