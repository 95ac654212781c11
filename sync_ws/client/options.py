"""A client's options: checked when the client is made, and turned into attempts to connect.

Why so: a bad address or header is an error in the line that has it, not a reason to try for ever.  What may be a
function (``url``, ``headers``, ``subprotocols``, ``origin``, ``cookie``, ``proxy``) is called, and its result checked
in the same way, before every attempt: tokens expire, and proxies change with the network.

Threading: frozen; ``make_dial`` calls the application's functions in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..channel.limits import Limits
from ..checks import check_flag, check_seconds, check_strings, check_token, check_value
from ..endings import Reason
from ..timing import Clock
from .address import Target, check_headers, environment_proxy, parse_proxy, parse_url
from .backoff import Backoff
from .dial import Dial
from .heartbeat import Heartbeat
from .outbox import Offline

__all__ = ["ClientOptions", "HeaderFields", "NotUsable"]

HeaderFields = Mapping[str, str] | Iterable[tuple[str, str]]
T = TypeVar("T")
TWO_COOKIES = "a cookie is given by the option cookie and by headers: expected one of them"


class NotUsable(Exception):
    """A function among the options gave something that cannot be used; trying again will not help."""


@dataclass(frozen=True)
class ClientOptions:
    """See the README's table.  ValueError or TypeError for an option out of its bounds."""

    url: str | Callable[[], str]
    headers: HeaderFields | Callable[[], HeaderFields] | None
    subprotocols: Iterable[str] | Callable[[], Iterable[str]]
    origin: str | Callable[[], str | None] | None
    cookie: str | Callable[[], str | None] | None
    proxy: str | Callable[[], str | None] | None
    ssl_context: Any
    compression: bool
    open_timeout: float
    limits: Limits
    heartbeat: Heartbeat | None
    backoff: Backoff | None
    should_reconnect: Callable[[Reason], bool]
    offline: Offline | None
    clock: Clock

    def __post_init__(self) -> None:
        if not callable(self.url):
            parse_url(self.url)
        if not callable(self.headers):
            headers = check_headers(self.headers)
            object.__setattr__(self, "headers", headers)
            if self.cookie is not None and _cookie_in(headers) is not None:
                raise ValueError(TWO_COOKIES)
        if not callable(self.subprotocols):
            object.__setattr__(self, "subprotocols", _check_subprotocols(self.subprotocols))
        for name, value in (("origin", self.origin), ("cookie", self.cookie)):
            if not callable(value):
                _check_optional(name, value)
        if not callable(self.proxy) and self.proxy is not None and self.proxy != "environment":
            parse_proxy(self.proxy)
        check_seconds("open_timeout", self.open_timeout)
        _check_context(self.ssl_context)
        check_flag("compression", self.compression)
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
        url, given, proxy = _now(self.url), _now(self.headers), _now(self.proxy)
        origin, cookie, subprotocols = _now(self.origin), _now(self.cookie), _now(self.subprotocols)
        try:
            target = parse_url(url)
            headers = check_headers(given)
            given_cookie = _cookie_in(headers)
            if cookie is not None and given_cookie is not None:
                raise ValueError(TWO_COOKIES)
            if target.basic_auth and not any(name.lower() == "authorization" for name, _ in headers):
                headers.append(("Authorization", f"Basic {target.basic_auth}"))
            return Dial(
                target,
                headers=[(name, value) for name, value in headers if name.lower() != "cookie"],
                subprotocols=_check_subprotocols(subprotocols),
                origin=_check_optional("origin", origin),
                cookie=_check_optional("cookie", cookie if given_cookie is None else given_cookie),
                proxy=_proxy_for(target, proxy),
                ssl_context=self.ssl_context,
                compression=self.compression,
                timeout=self.open_timeout,
            )
        except (TypeError, ValueError) as exc:
            raise NotUsable(str(exc)) from exc


def _now(option: T | Callable[[], T]) -> T:
    """An option, or what its function says now."""
    return option() if callable(option) else option


def _proxy_for(target: Target, proxy: str | None) -> Target | None:
    if proxy is None:
        return None
    return environment_proxy(target) if proxy == "environment" else parse_proxy(proxy)


def _check_optional(name: str, value: str | None) -> str | None:
    return None if value is None else check_value(name, value)


def _check_subprotocols(subprotocols: Iterable[str]) -> list[str]:
    return [check_token("a subprotocol", item) for item in check_strings("subprotocols", subprotocols, '["chat"]')]


def _cookie_in(headers: Iterable[tuple[str, str]]) -> str | None:
    """The cookie among header fields, None where there is none; several become one, as RFC 6265 section 5.4 has it."""
    given = [value for name, value in headers if name.lower() == "cookie"]
    return "; ".join(given) if given else None


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
