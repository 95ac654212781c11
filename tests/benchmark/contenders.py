"""Who takes part, and what each one needs to be importable."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field

GENERATOR = "generator"  # not a contender but the limit of what can be measured
NO_NUMPY: Mapping[str, str] = {"SYNC_WS_NO_NUMPY": "1"}


@dataclass(frozen=True)
class Contender:
    """One line of a table: a program, how it is started, and what the load generator is told in addition."""

    key: str
    label: str
    program: str
    needs: tuple[str, ...]
    role: str | None = None  # of a server, where it differs from the one the row asks for
    env: Mapping[str, str] = field(default_factory=dict)
    load: tuple[str, ...] = ()

    def missing(self) -> tuple[str, ...]:
        """The packages it needs that cannot be imported here."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)


_SERVERS = (
    Contender("sync_ws", "sync_ws", "sync_ws", ("sync_ws",)),
    Contender("sync_ws-batch", "sync_ws, conn.batch()", "sync_ws", ("sync_ws",), role="batch"),
    Contender("sync_ws-numpy", "sync_ws, numpy importable", "sync_ws", ("sync_ws", "numpy")),
    Contender("sync_ws-no-numpy", "sync_ws, without numpy", "sync_ws", ("sync_ws",), env=NO_NUMPY),
    Contender("sync_ws-silent", "sync_ws, one not reading", "sync_ws", ("sync_ws",), load=("--silent", "1")),
    Contender("websockets", "websockets.sync", "websockets", ("websockets",)),
    Contender(
        "websockets-broadcast",
        "websockets.sync, its broadcast()",
        "websockets",
        ("websockets",),
        role="broadcast-function",
    ),
    Contender(
        "websockets-silent",
        "websockets.sync, one not reading",
        "websockets",
        ("websockets",),
        load=("--silent", "1", "--patience", "2"),
    ),
    Contender("simple-websocket", "simple-websocket", "simple-websocket", ("simple_websocket",)),
    Contender("aiohttp", "aiohttp", "aiohttp", ("aiohttp",)),
    Contender("aiohttp-uvloop", "aiohttp on uvloop", "aiohttp-uvloop", ("aiohttp", "uvloop")),
    Contender("picows", "picows on uvloop (C)", "picows", ("picows", "uvloop")),
    Contender("socket", "bare socket, no checks", "socket", ()),
    Contender("limit", "the load generator's own echo", GENERATOR, ()),
)

_CLIENTS = (
    Contender("client-sync_ws", "sync_ws.Client", "sync_ws", ("sync_ws",)),
    Contender("client-sync_ws-numpy", "sync_ws.Client, numpy importable", "sync_ws", ("sync_ws", "numpy")),
    Contender("client-sync_ws-no-numpy", "sync_ws.Client, without numpy", "sync_ws", ("sync_ws",), env=NO_NUMPY),
    Contender("client-sync_ws-callbacks", "sync_ws.Client, callbacks", "sync_ws-callbacks", ("sync_ws",)),
    Contender("client-websockets", "websockets.sync.client", "websockets", ("websockets",)),
    Contender("client-websocket-client", "websocket-client", "websocket-client", ("websocket",)),
    Contender(
        "client-websocket-client-wsaccel",
        "websocket-client, wsaccel (C)",
        "websocket-client-wsaccel",
        ("websocket", "wsaccel"),
    ),
    Contender("client-picows", "picows on uvloop (C)", "picows", ("picows", "uvloop")),
)

_IMPORTS = (
    Contender("import-sync_ws", "import sync_ws", "sync_ws", ("sync_ws",)),
    Contender(
        "import-packages",
        "import simple_websocket, websocket",
        "simple_websocket, websocket",
        ("simple_websocket", "websocket"),
    ),
)

CONTENDERS: Mapping[str, Contender] = {one.key: one for one in _SERVERS + _CLIENTS + _IMPORTS}
