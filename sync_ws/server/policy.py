"""What a server asks of strangers, checked when the server is made; and tokens as an answer to who they are.

Why so: a wrong option is an error in the line that has it, not a refusal of everybody later on.  What is compared
with every request is brought into its form for comparison once.

Threading: pure functions; what ``bearer_token`` returns may be called in any thread.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Any

from ..checks import check_token
from ..protocol.handshake import Policy
from ..protocol.http_head import Request

__all__ = ["Authenticate", "bearer_token", "make_policy"]

Authenticate = Callable[[Request], Any]


def make_policy(
    path: str = "/ws/",
    *,
    origins: Iterable[str] | None = None,
    require_name: bool = False,
    subprotocols: Iterable[str] = (),
    compression: bool = False,
) -> Policy:
    """A server's options as a policy; ValueError or TypeError for one that cannot be meant."""
    if not path.startswith("/") or "?" in path or "#" in path:
        raise ValueError(f"path is an absolute path without a query, such as /ws/, not {path!r}")
    if isinstance(origins, str) or isinstance(subprotocols, str):
        raise TypeError("origins and subprotocols are lists of strings, not a string")
    return Policy(
        path,
        None if origins is None else frozenset(origin.lower() for origin in origins),
        require_name,
        tuple(check_token("a subprotocol", item) for item in subprotocols),
        compression,
    )


def bearer_token(*tokens: str, query: str | None = None) -> Authenticate:
    """An ``authenticate`` hook: one of ``tokens`` must come as ``Authorization: Bearer TOKEN``.

    ``query``: a query parameter that may carry it instead, for browsers, which cannot set the header.  Compared in
    constant time.  ValueError without a token, or for an empty one.
    """
    if not tokens or not all(tokens):
        raise ValueError("bearer_token() needs at least one token, and none of them empty")
    accepted = [token.encode() for token in tokens]

    def authenticate(request: Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = request.query.get(query, "") if query else ""
        presented = given.strip().encode(errors="surrogateescape")
        # every token is compared, so that the time taken tells nothing
        return sum(hmac.compare_digest(presented, token) for token in accepted) > 0

    return authenticate
