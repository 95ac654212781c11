"""What the library logs while it is fuzzed.

Threading: as `logging`: records come from any thread, one at a time.
"""

from __future__ import annotations

import logging
from types import TracebackType

__all__ = ["LoggedErrors"]


class LoggedErrors(logging.Handler):
    """Keeps each record of `sync_ws` that is an error or brings a traceback, from `install` to `uninstall`."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self._logger = logging.getLogger("sync_ws")
        self._level = self._logger.level

    def install(self) -> None:
        """Begin; records of every level are made meanwhile."""
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addHandler(self)

    def uninstall(self) -> None:
        """End."""
        self._logger.removeHandler(self)
        self._logger.setLevel(self._level)

    def __enter__(self) -> LoggedErrors:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR or record.exc_info:
            self.lines.append(self.format(record))
