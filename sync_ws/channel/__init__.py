"""One open WebSocket between threads: its reading and its writing side, its closing handshake, its housekeeper."""

__all__: list[str] = []
