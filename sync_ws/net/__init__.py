"""Sockets, and all that differs between systems."""

__all__: list[str] = []
