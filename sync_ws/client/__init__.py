"""The client: one conversation over as many connections as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import names_on_demand

if TYPE_CHECKING:
    from .client import Client

__all__ = ["Client"]

__getattr__ = names_on_demand(__name__, {"Client": "client"})
