"""How much a loaded machine may add to a promise of some seconds before the promise counts as broken.

Threading: a pure function.
"""

from __future__ import annotations

__all__ = ["at_most"]

LEAST = 0.5  # seconds: what the scheduler of a busy machine takes, however short the promise


def at_most(promise: float) -> float:
    """``promise`` seconds, and half as much again, or half a second."""
    return promise + max(LEAST, promise / 2)
