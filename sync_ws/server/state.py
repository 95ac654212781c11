"""The life of a server, and of a hub: its states and the transitions between them.

Why so: "shutting down" and "shut down" differ for a connection that comes late: the first still says goodbye to it
(1001), after the second nobody would look after it any more, so it is cut off.

Threading: pure functions and constants.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["TRANSITIONS", "ServerState", "check_transition"]


class ServerState(Enum):
    """Where a server or a hub is in its life."""

    NEW = "new"  # made; no thread runs for it, and a fork's copy is as good as the original
    RUNNING = "running"
    STOPPING = "stopping"  # shutdown was called: nobody new, 1001 to everybody
    STOPPED = "stopped"  # whoever is left is cut off; over for good


TRANSITIONS: dict[ServerState, frozenset[ServerState]] = {
    ServerState.NEW: frozenset({ServerState.RUNNING, ServerState.STOPPING}),
    # straight to STOPPED: the copy in a forked process, for connections and threads are the parent's
    ServerState.RUNNING: frozenset({ServerState.STOPPING, ServerState.STOPPED}),
    ServerState.STOPPING: frozenset({ServerState.STOPPING, ServerState.STOPPED}),
    ServerState.STOPPED: frozenset({ServerState.STOPPED}),
}


def check_transition(old: ServerState, new: ServerState) -> None:
    """RuntimeError for a transition that is not in the table."""
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"a server does not go from {old.value} to {new.value}")
