"""The life of a server, and of a hub.

Why so: "shutting down" and "shut down" differ for a connection that comes late: the first still says goodbye to it
(1001), after the second nobody would look after it any more, so it is cut off.

A life only goes forward, and where it is follows from what has been reached.  So a step that a signal's handler
interrupts, to shut everything down, cannot take back what the handler has done when it goes on afterwards.

Threading: whoever reads may be anyone; whoever decides by what is read, and then goes on, holds the owner's lock.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["Life", "ServerState"]


class ServerState(Enum):
    """Where a server or a hub is in its life, in this order; states may be left out."""

    NEW = "new"  # made; no thread runs for it, and a fork's copy is as good as the original
    RUNNING = "running"
    STOPPING = "stopping"  # shutdown was called: nobody new, 1001 to everybody
    STOPPED = "stopped"  # whoever is left is cut off; over for good

    __hash__ = object.__hash__  # an Enum's own is Python code, and every connection asks several times


_BACKWARDS = (ServerState.STOPPED, ServerState.STOPPING, ServerState.RUNNING)


class Life:
    """See the module."""

    __slots__ = ("_reached",)

    def __init__(self) -> None:
        self._reached: set[ServerState] = set()

    @property
    def state(self) -> ServerState:
        """The last state of those reached."""
        for state in _BACKWARDS:
            if state in self._reached:
                return state
        return ServerState.NEW

    def reach(self, state: ServerState) -> None:
        """It has come as far as ``state``, or had come further."""
        self._reached.add(state)
