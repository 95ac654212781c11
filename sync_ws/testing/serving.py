"""A real server for the length of a with block, and what tests around it want: a free port, a bounded wait.

Threading: all may be called from any thread.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from ..server.connection import Connection
    from ..server.server import Server

__all__ = ["free_port", "serving", "wait_until"]

T = TypeVar("T")

_POLL = 0.005  # seconds between two looks of wait_until
_HOST = "127.0.0.1"


@contextlib.contextmanager
def serving(
    handler: Callable[[Connection], Any] | None = None, *, shutdown_timeout: float = 5.0, **options: Any
) -> Iterator[Server]:
    """A started `sync_ws.Server` on a free port of 127.0.0.1 (see `server.url`), shut down at the end.

    `handler` and `options` are those of `sync_ws.Server`. AssertionError when threads of the server are still
    alive after `shutdown_timeout` seconds; but an exception from the block takes precedence.
    """
    from ..server.server import Server

    server = Server(_HOST, 0, handler, **options)
    try:
        server.start()
        yield server
    except BaseException:
        server.shutdown(shutdown_timeout)
        raise
    left = server.shutdown(shutdown_timeout)
    if left:
        names = ", ".join(thread.name for thread in left)
        raise AssertionError(f"still alive {shutdown_timeout:g} s after the server's shutdown began: {names}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on: to be refused, or for a server that takes no port 0.

    Only a moment's promise: nothing keeps another process from taking it. Where that matters bind port 0
    oneself, or use FaultProxy.refuse(), which reserves its port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind((_HOST, 0))
        return int(sock.getsockname()[1])


def wait_until(predicate: Callable[[], T], timeout: float = 5.0, message: str = "") -> T:
    """Call the predicate every 5 ms until it returns something true, and return that.

    AssertionError with the message when `timeout` seconds have passed; it is asked once at least. For what
    announces itself by no event: a test that can wait for an event, a queue or a thread does so.
    """
    deadline = time.monotonic() + timeout
    while True:
        result = predicate()
        if result:
            return result
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise AssertionError(f"{message or 'not so'} (waited {timeout:g} s; last: {result!r})")
        time.sleep(min(_POLL, remaining))
