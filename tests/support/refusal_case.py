"""Requests that a server refuses: the answer as it must be, and a server that is none the worse.

Threading: a case belongs to its test's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from sync_ws import Request, Server
from tests.support.raw import RawClient, Response
from tests.support.server_case import ServerTestCase, wait_until

__all__ = ["RefusalTestCase", "noting"]


class RefusalTestCase(ServerTestCase):
    def ask(self, server: Server, data: bytes) -> Response:
        """The answer to a request, which ends its connection."""
        with RawClient(server.port) as client:
            answer = client.request(data)
            self.assertEqual(client.read_to_end(), b"", "nothing may follow a refusal")
            return answer

    def assert_refused(self, answer: Response, status: int, says: str = "expected ") -> None:
        self.assertEqual(answer.status, status, answer.body)
        self.assertIn(says, answer.line)
        self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(answer.headers["connection"], "close")
        self.assertEqual(answer.headers["server"], "sync_ws")

    def assert_unharmed(self, server: Server) -> None:
        """No traceback, no registry entry, no thread held; and a good client gets in."""
        self.assertEqual(self.log.tracebacks, [])
        wait_until(lambda: server.stats()["threads"] == 0, message="a thread is held")
        self.assertEqual(server.connections, frozenset())
        with RawClient(server.port) as client:
            client.upgrade().send_text("hello")
            self.assertEqual(client.read_text(), "hello")


def noting(asked: list[Request]) -> Callable[[Request], bool]:
    """An authenticate hook that lets everyone in and notes whom."""

    def authenticate(request: Request) -> bool:
        asked.append(request)
        return True

    return authenticate
