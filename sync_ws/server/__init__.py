"""The server: a listening socket, threads, and what they feed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import names_on_demand

if TYPE_CHECKING:
    from .connection import Connection
    from .hub import Hub
    from .server import Server

__all__ = ["Connection", "Hub", "Server"]

__getattr__ = names_on_demand(__name__, {"Connection": "connection", "Hub": "hub", "Server": "server"})
