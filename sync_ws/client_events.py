"""What a client's event functions are given: see ``sync_ws.client.events``, whose public name this is.

Threading: values; share them freely.
"""

from __future__ import annotations

from .client.events import (
    EVENTS,
    Closed,
    Error,
    Event,
    GaveUp,
    HeartbeatAnswered,
    Opened,
    Reconnected,
    Reconnecting,
)

__all__ = ["EVENTS", "Closed", "Error", "Event", "GaveUp", "HeartbeatAnswered", "Opened", "Reconnected", "Reconnecting"]
