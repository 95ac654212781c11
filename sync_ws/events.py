"""The event bus: names, functions, and calling them in order.

Why so: handlers are called from a snapshot, outside the lock, so a handler may subscribe, unsubscribe or emit; one
that raises does not stop the rest.  What it raised goes to ``on_error`` with its traceback, never to standard error.

Threading: every method may be called from any thread.  ``emit`` calls the handlers in the calling thread; keeping
the events of one connection in order is the caller's business.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .forking import ToldOfForks

__all__ = ["EventBus"]

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)


class EventBus:
    """Subscribe with ``on`` / ``once``, leave with ``off``, call with ``emit``.

    ``names``: the events there are; any other name is a ValueError that lists them.  None allows every name.
    ``on_error(event, args, exception)`` is told what a handler raised; without it, ``emit`` raises the first
    such exception after all handlers have run.
    """

    def __init__(
        self,
        names: Iterable[str] | None = None,
        on_error: Callable[[str, tuple[Any, ...], Exception], None] | None = None,
    ) -> None:
        self._names = None if names is None else tuple(names)
        self.on_error = on_error  # may be replaced
        # guards _handlers; held for list operations only, by any thread, never while a handler runs
        self._lock = threading.RLock()
        self._handlers: dict[str, tuple[tuple[Handler, bool], ...]] = {}
        _buses.add(self)

    def on(self, event: str, handler: H) -> H:
        """Call ``handler`` at every ``event``; returns it, so that it can be a decorator's last step."""
        self._add(event, handler, once=False)
        return handler

    def once(self, event: str, handler: H) -> H:
        """Call ``handler`` at the next ``event`` only."""
        self._add(event, handler, once=True)
        return handler

    def off(self, event: str, handler: Handler) -> bool:
        """Forget the latest subscription of ``handler`` to ``event``; whether there was one."""
        self._check(event)
        with self._lock:
            entries = self._handlers.get(event, ())
            for index in range(len(entries) - 1, -1, -1):
                if entries[index][0] == handler:
                    self._handlers[event] = entries[:index] + entries[index + 1 :]
                    return True
        return False

    def has(self, event: str) -> bool:
        """Whether anybody listens to ``event``."""
        return bool(self._handlers.get(event))

    def emit(self, event: str, *args: Any) -> int:
        """Call the handlers of ``event`` in the order of their subscription; how many there were."""
        entries = self._handlers.get(event, ())
        if not entries:
            self._check(event)
            return 0
        if any(once for _, once in entries):
            entries = self._claim(event)
        first: Exception | None = None
        for handler, _ in entries:
            try:
                handler(*args)
            except Exception as exc:
                if self.on_error is None:
                    first = first or exc
                else:
                    self.on_error(event, args, exc)
        if first is not None:
            raise first
        return len(entries)

    def _claim(self, event: str) -> tuple[tuple[Handler, bool], ...]:
        """The handlers to call now, the ``once`` ones taken out so that no other thread calls them too."""
        with self._lock:
            entries = self._handlers.get(event, ())
            self._handlers[event] = tuple(entry for entry in entries if not entry[1])
        return entries

    def _add(self, event: str, handler: Handler, once: bool) -> None:
        self._check(event)
        if not callable(handler):
            raise TypeError(f"an event handler is a callable, not {handler!r}")
        with self._lock:
            self._handlers[event] = (*self._handlers.get(event, ()), (handler, once))

    def _check(self, event: str) -> None:
        if self._names is not None and event not in self._names:
            raise ValueError(f"no event {event!r}; there are: {', '.join(self._names)}")

    def _forget_in_child(self) -> None:
        """After fork: the lock may be held by a thread that is not here."""
        self._lock = threading.RLock()


_buses: ToldOfForks[EventBus] = ToldOfForks()
