"""Messages that the library takes itself: how they are recognised among those of the application.

Why so: what both sides of this library say to each other (heartbeats; acknowledgements, one day) travels as ordinary
messages, because a page in a browser can send nothing else.  Each kind is one entry of a table: the reader sorts
them out, and the channel's table says what is done with each.

Threading: pure functions and constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..envelope import HEART_BEAT_MARK, is_heart_beat

__all__ = ["HEART_BEAT", "HEART_BEAT_HEADER", "MAX_LENGTH", "Intercept"]

HEART_BEAT_HEADER = "Sync-WS"  # in our response: what it says is answered here, ModeCode.HEART_BEAT
MAX_LENGTH = 1024  # characters, or bytes of a binary message: what has as many is a message, whatever it contains


class Intercept(NamedTuple):
    """One kind.

    ``mark``: a text that each of them contains, a cheap test before ``recognise`` looks at the whole; empty where there
    is none, and then all are looked at.  ``recognise`` is given text, that of a binary message too, or (``verbatim``)
    the message as it came.
    """

    name: str
    mark: str
    recognise: Callable[[Any], bool]
    verbatim: bool = False


HEART_BEAT = Intercept("heart_beat", HEART_BEAT_MARK, is_heart_beat)
