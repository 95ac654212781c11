"""A server's options and a hub's: checked when it is made, all in one place.

Why so: whatever is out of its bounds is an error in the line that has it, before anything is bound or started.

Threading: frozen.
"""

from __future__ import annotations

import ssl
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..channel.limits import Limits
from ..checks import check_count, check_seconds
from ..protocol.handshake import Policy
from .pages import Pages, check_pages
from .policy import Authenticate, make_policy
from .registry import POLICIES

__all__ = ["HubOptions", "ServerOptions"]


@dataclass(frozen=True)
class HubOptions:
    """What conversations are bound by.  ValueError or TypeError for an option out of its bounds."""

    name_policy: str
    max_connections: int
    max_message: int
    max_fragments: int
    send_timeout: float
    close_timeout: float
    ping_interval: float | None
    ping_timeout: float

    def __post_init__(self) -> None:
        if self.name_policy not in POLICIES:
            raise ValueError(f"name_policy is one of {', '.join(POLICIES)}, not {self.name_policy!r}")
        for name in ("max_connections", "max_message", "max_fragments"):
            check_count(name, getattr(self, name))
        for name in ("send_timeout", "close_timeout", "ping_timeout"):
            check_seconds(name, getattr(self, name))
        if self.ping_interval is not None:
            check_seconds("ping_interval", self.ping_interval)

    @property
    def limits(self) -> Limits:
        """The bounds of each connection."""
        return Limits(
            max_message=self.max_message,
            max_fragments=self.max_fragments,
            send_timeout=self.send_timeout,
            close_timeout=self.close_timeout,
        )


@dataclass(frozen=True)
class ServerOptions(HubOptions):
    """See the README's table.  ValueError or TypeError for an option out of its bounds."""

    path: str
    ssl_context: ssl.SSLContext | None
    require_name: bool
    origins: Collection[str] | None
    authenticate: Authenticate | None
    subprotocols: Iterable[str]
    compression: bool
    pages: str | Path | Mapping[str, str | Path] | None
    handshake_timeout: float
    policy: Policy = field(init=False)  # of an opening handshake, from the above
    site: Pages | None = field(init=False)  # ``pages``, checked

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seconds("handshake_timeout", self.handshake_timeout)
        policy = make_policy(
            self.path,
            origins=self.origins,
            require_name=self.require_name,
            subprotocols=self.subprotocols,
            compression=self.compression,
        )
        object.__setattr__(self, "policy", policy)
        object.__setattr__(self, "site", check_pages(self.pages))
