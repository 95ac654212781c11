"""Callbacks that do not keep their object alive.

Why so: who hands its own method to what it owns is in a circle with it.  Then both wait for the garbage collector,
which programs that mind its pauses turn off, and whatever a closed connection held stays for good.

Threading: a ``Weakly`` may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar
from weakref import ref

__all__ = ["Weakly"]

P = ParamSpec("P")
R = TypeVar("R")


class Weakly(Generic[P, R]):
    """Calls the bound ``method``, for something that does not outlive its object in use, else ReferenceError.

    An object, for it is smaller than a closure, and each connection has some.
    """

    __slots__ = ("_function", "_reference")

    def __init__(self, method: Callable[P, R]) -> None:
        self._reference = ref(method.__self__)  # type: ignore[attr-defined]
        self._function = method.__func__  # type: ignore[attr-defined]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        found = self._reference()
        if found is None:
            raise ReferenceError("what this belongs to is gone")
        return self._function(found, *args, **kwargs)  # type: ignore[no-any-return]
