"""A client's options: checked when the client is made, and turned into attempts to connect.

Why so: a bad address or header is an error in the line that has it, not a reason to try for ever.  What may be a
function (``url``, ``headers``) is called, and its result checked, before every attempt: tokens expire.

Threading: frozen; ``make_dial`` calls the application's functions in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..channel.limits import Limits
from ..checks import check_flag, check_seconds, check_strings, check_token, check_value
from ..endings import Reason
from ..timing import Clock
from .address import Target, check_headers, environment_proxy, parse_proxy, parse_url
from .backoff import Backoff
from .dial import Dial
from .heartbeat import Heartbeat

__all__ = ["ClientOptions", "HeaderFields", "NotUsable"]

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]


class NotUsable(Exception):
    """The function for ``url`` or ``headers`` gave something that cannot be used; trying again will not help."""


@dataclass(frozen=True)
class ClientOptions:
    """See the README's table.  ValueError or TypeError for an option out of its bounds."""

    url: str | Callable[[], str]
    headers: HeaderFields | Callable[[], HeaderFields] | None
    subprotocols: Iterable[str]
    origin: str | None
    cookie: str | None
    proxy: str | None
    ssl_context: Any
    compression: bool
    open_timeout: float
    limits: Limits
    heartbeat: Heartbeat | None
    backoff: Backoff | None
    should_reconnect: Callable[[Reason], bool]
    offline: str
    clock: Clock

    def __post_init__(self) -> None:
        if not isinstance(self.offline, str) or self.offline not in ("queue", "raise"):
            raise ValueError(f'offline is "queue" or "raise", not {self.offline!r}')
        subprotocols = check_strings("subprotocols", self.subprotocols)
        object.__setattr__(self, "subprotocols", [check_token("a subprotocol", item) for item in subprotocols])
        if not callable(self.url):
            parse_url(self.url)
        if not callable(self.headers):
            object.__setattr__(self, "headers", check_headers(self.headers))
        for name, value in (("origin", self.origin), ("cookie", self.cookie)):
            if value is not None:
                check_value(name, value)
        if self.proxy is not None and self.proxy != "environment":
            parse_proxy(self.proxy)
        check_seconds("open_timeout", self.open_timeout)
        _check_context(self.ssl_context)
        check_flag("compression", self.compression)
        if not isinstance(self.heartbeat, (Heartbeat, type(None))):
            raise TypeError(f"heartbeat is a sync_ws.Heartbeat or None, not {self.heartbeat!r}")
        if not callable(self.should_reconnect):
            raise TypeError(f"should_reconnect is a function of a Reason, not {self.should_reconnect!r}")
        if not callable(getattr(self.clock, "monotonic", None)) or not callable(getattr(self.clock, "timer", None)):
            raise TypeError(f"clock has the methods monotonic() and timer(delay, function), not {self.clock!r}")

    @property
    def shown_url(self) -> str:
        """The address for people: no query, no credentials."""
        return "(callable)" if callable(self.url) else parse_url(self.url).shown

    def make_dial(self) -> Dial:
        """The next attempt.  Whatever the functions raise; NotUsable for a result that cannot be used."""
        url = self.url() if callable(self.url) else self.url
        given = self.headers() if callable(self.headers) else self.headers
        try:
            target = parse_url(url)
            headers = check_headers(given)
        except (TypeError, ValueError) as exc:
            raise NotUsable(str(exc)) from exc
        if target.basic_auth and not any(name.lower() == "authorization" for name, _ in headers):
            headers.append(("Authorization", f"Basic {target.basic_auth}"))
        return Dial(
            target,
            headers=headers,
            subprotocols=list(self.subprotocols),
            origin=self.origin,
            cookie=self.cookie,
            proxy=self._proxy_for(target),
            ssl_context=self.ssl_context,
            compression=self.compression,
            timeout=self.open_timeout,
        )

    def _proxy_for(self, target: Target) -> Target | None:
        if self.proxy is None:
            return None
        if self.proxy == "environment":
            return environment_proxy(target)
        return parse_proxy(self.proxy)


def _check_context(context: Any) -> None:
    """TypeError for anything but an SSLContext or None, and a warning for one that verifies nothing."""
    if context is None:
        return
    import ssl
    import warnings

    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext, not {type(context).__name__}")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        text = "this ssl_context does not verify the server's certificate and host name"
        warnings.warn(text, RuntimeWarning, stacklevel=5)
