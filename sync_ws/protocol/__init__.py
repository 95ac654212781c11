"""RFC 6455 as values: no socket, no thread, no lock and no clock in it."""

__all__: list[str] = []
