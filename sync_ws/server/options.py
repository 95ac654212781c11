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
from ..checks import check_count, check_function, check_seconds, shown
from ..protocol.handshake import Policy
from .pages import Pages, check_pages
from .policy import Authenticate, check_hosts, make_policy
from .registry import POLICIES

__all__ = ["HubOptions", "ServerOptions", "check_address"]


@dataclass(frozen=True)
class HubOptions:
    """What conversations are bound by.  ValueError or TypeError for an option out of its bounds."""

    name_policy: str
    max_connections: int
    max_message: int
    max_fragments: int
    max_frame: int | None
    send_timeout: float
    close_timeout: float
    ping_interval: float | None
    ping_timeout: float

    def __post_init__(self) -> None:
        if self.name_policy not in POLICIES:
            error = ValueError if isinstance(self.name_policy, str) else TypeError
            raise error(f"name_policy is one of {', '.join(POLICIES)}, not {shown(self.name_policy)}")
        for name in ("max_connections", "max_message", "max_fragments"):
            check_count(name, getattr(self, name))
        if self.max_frame is not None:
            check_count("max_frame", self.max_frame)
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
            max_frame=self.max_frame,
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
    hosts: Collection[str] | None
    authenticate: Authenticate | None
    subprotocols: Iterable[str]
    compression: bool
    pages: str | Path | Mapping[str, str | Path] | None
    handshake_timeout: float
    policy: Policy = field(init=False)  # of an opening handshake, from the above, but for the hosts
    host_names: frozenset[str] | None = field(init=False)  # ``hosts``, checked
    site: Pages | None = field(init=False)  # ``pages``, checked

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seconds("handshake_timeout", self.handshake_timeout)
        if self.ssl_context is not None:
            _check_context(self.ssl_context)
        if self.authenticate is not None:
            check_function("authenticate", self.authenticate, "the request")
        policy = make_policy(
            self.path,
            origins=self.origins,
            require_name=self.require_name,
            subprotocols=self.subprotocols,
            compression=self.compression,
        )
        object.__setattr__(self, "policy", policy)
        object.__setattr__(self, "host_names", check_hosts(self.hosts))
        object.__setattr__(self, "site", check_pages(self.pages, self.path))


def check_address(host: str, port: int) -> None:
    """TypeError or ValueError for what cannot be listened on, whatever the system says of the rest."""
    if not isinstance(host, str):
        raise TypeError(f"host is a string, such as '127.0.0.1' or '::1', not {shown(host)}")
    if host.startswith("[") or host.count(":") == 1 or "/" in host:
        text = "host is a name or an address without port, brackets and scheme, such as '127.0.0.1' or '::1'"
        raise ValueError(f"{text}, not {shown(host)}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is a whole number, not {shown(port)}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port is from 1 to 65535, or 0 for any free one, not {shown(port)}")


def _check_context(context: ssl.SSLContext) -> None:
    how = "ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), then load_cert_chain(certificate, key)"
    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}: {how}")
    if context.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError(f"ssl_context is one for clients, expected one for servers: {how}")
