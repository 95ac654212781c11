"""Messages that the library takes itself: how they are recognised among those of the application.

Why so: what both sides of this library say to each other (heartbeats; acknowledgements, one day) travels as ordinary
messages, because a page in a browser can send nothing else.  Each kind is one entry of a table: the reader sorts
them out, and the channel's table says what is done with each.

Threading: pure functions and constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..envelope import HEART_BEAT_MARK, is_heart_beat

__all__ = ["HEART_BEAT", "Intercept"]


class Intercept(NamedTuple):
    """One kind.  ``mark``: a text that each of them contains, a cheap test before ``recognise`` looks at the whole."""

    name: str
    mark: str
    recognise: Callable[[str], bool]


HEART_BEAT = Intercept("heart_beat", HEART_BEAT_MARK, is_heart_beat)
