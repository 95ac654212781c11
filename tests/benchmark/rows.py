"""What is measured: one row each, its contenders, and the targets it has to meet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tests.benchmark.measures import Client, Idle, Import, Load, Measure, Reconnect


@dataclass(frozen=True)
class Target:
    """A bound for a figure of ``ours``: as a ratio to the same figure of ``theirs``, or by itself."""

    ours: str
    theirs: str | None
    op: Literal[">=", "<="]
    bound: float
    metric: str = "per_second"


@dataclass(frozen=True)
class Row:
    """One line of the benchmark. ``--quick``: rows with targets, contenders in targets."""

    key: str
    title: str
    unit: str
    contenders: tuple[str, ...]
    measure: Measure
    targets: tuple[Target, ...] = ()
    metric: str = "per_second"
    rounds: int | None = None  # where fewer (never more) than usual are enough
    split: bool = False  # server and generator on a core each


EVERYONE = (
    "sync_ws",
    "websockets",
    "simple-websocket",
    "aiohttp",
    "aiohttp-uvloop",
    "picows",
    "socket",
    "limit",
)
GROWING = ("sync_ws", "websockets", "simple-websocket", "aiohttp", "aiohttp-uvloop", "picows", "socket")
TLS = ("sync_ws", "websockets", "aiohttp", "aiohttp-uvloop", "picows", "limit")
DEFLATE = ("sync_ws", "websockets", "aiohttp", "aiohttp-uvloop")
LARGE = (
    "sync_ws-numpy",
    "sync_ws-no-numpy",
    "websockets",
    "simple-websocket",
    "aiohttp",
    "aiohttp-uvloop",
    "picows",
    "socket",
    "limit",
)
MANY = 200  # clients in one process
CONNECTIONS = (1, 10, 100, 1000)
SIZES = (10, 100, 1024, 10 * 1024, 100 * 1024, 1024 * 1024)


def rows(quick: bool) -> list[Row]:
    """All rows, or the headline ones with the contenders they are held against."""
    if not quick:
        return [
            *_servers(),
            *_tls(),
            *_deflate(),
            *_idle(5000),
            *_clients(),
            *_many_clients(),
            *_others(),
            *_on_a_core_each(),
            *_growth(),
        ]
    short = [*_servers(), *_tls(), *_deflate(), *_idle(1000), *_clients(), *_many_clients(), *_others()]
    return [_in_targets(row) for row in short if row.targets]


def _in_targets(row: Row) -> Row:
    wanted = {key for target in row.targets for key in (target.ours, target.theirs)}
    return replace(row, contenders=tuple(key for key in row.contenders if key in wanted))


def _servers() -> list[Row]:
    per_second = "messages/s"
    silent = ("sync_ws", "sync_ws-silent", "websockets-silent")
    return [
        Row(
            "ping-pong",
            "ping-pong, 1 connection, 100 B text",
            per_second,
            EVERYONE,
            Load(),
            (
                Target("sync_ws", "websockets", ">=", 3.0),
                Target("sync_ws", "simple-websocket", ">=", 3.0),
                Target("sync_ws", "aiohttp", ">=", 1.0),
                Target("sync_ws", "picows", ">=", 0.9),
            ),
        ),
        Row(
            "connections-100",
            "ping-pong, 100 connections, 100 B text",
            per_second,
            EVERYONE,
            Load(connections=100),
            (Target("sync_ws", "websockets", ">=", 3.0), Target("sync_ws", "socket", ">=", 0.9)),
        ),
        Row(
            "pipelined",
            "pipelined, 64 in flight, 1 connection, 100 B text",
            per_second,
            ("sync_ws", "sync_ws-batch", *EVERYONE[1:]),
            Load(in_flight=64),
            (Target("sync_ws", "websockets", ">=", 2.0), Target("sync_ws-batch", "websockets", ">=", 5.0)),
        ),
        Row(
            "size-64k",
            "ping-pong, 1 connection, 64 KiB binary",
            per_second,
            LARGE,
            Load(size=65536, binary=True),
            (
                Target("sync_ws-numpy", "websockets", ">=", 1.0),
                Target("sync_ws-no-numpy", "websockets", ">=", 0.6),
            ),
        ),
        Row(
            "size-1m",
            "ping-pong, 1 connection, 1 MiB binary",
            per_second,
            LARGE,
            Load(size=1 << 20, binary=True),
            (
                Target("sync_ws-numpy", "websockets", ">=", 1.0),
                Target("sync_ws-no-numpy", "websockets", ">=", 0.6),
            ),
        ),
        Row(
            "size-64k-text",
            "ping-pong, 1 connection, 64 KiB text",
            per_second,
            LARGE,
            Load(size=65536),
            rounds=3,
        ),
        Row(
            "broadcast",
            "broadcast to 300 connections, 1 KiB text",
            "broadcasts/s",
            (
                "sync_ws",
                "websockets",
                "websockets-broadcast",
                "simple-websocket",
                "aiohttp",
                "aiohttp-uvloop",
                "picows",
            ),
            Load("broadcast", "broadcast", 300, size=1024),
            (Target("sync_ws", "websockets", ">=", 2.0),),
        ),
        Row(
            "broadcast-silent",
            "broadcast, until 299 others have it",
            "median us",
            silent,
            Load("broadcast", "broadcast", 300, size=1024),
            (Target("sync_ws-silent", "sync_ws", "<=", 1.2, "p50_us"),),
            "p50_us",
        ),
        Row(
            "handshakes",
            "opening handshakes (connect, upgrade, close)",
            "handshakes/s",
            (*GROWING, "limit"),
            Load("handshake"),
            (Target("sync_ws", "websockets", ">=", 1.3),),
        ),
    ]


def _tls() -> list[Row]:
    return [
        Row(
            "tls-100",
            "TLS, ping-pong, 1 connection, 100 B text",
            "messages/s",
            TLS,
            Load(tls=True),
            (Target("sync_ws", "websockets", ">=", 1.5),),
        ),
        Row(
            "tls-64k",
            "TLS, ping-pong, 1 connection, 64 KiB binary",
            "messages/s",
            TLS,
            Load(size=65536, binary=True, tls=True),
            (Target("sync_ws", "websockets", ">=", 1.0),),
        ),
    ]


def _deflate() -> list[Row]:
    """The window, level and memory are each package's own; what comes of them is shown in bytes."""
    return [
        Row(
            "deflate-1k",
            "permessage-deflate, 1 connection, 1 KiB JSON",
            "messages/s",
            DEFLATE,
            Load(role="deflate", size=1024),
            (Target("sync_ws", "websockets", ">=", 1.0),),
        ),
        Row(
            "deflate-64k",
            "permessage-deflate, 1 connection, 64 KiB JSON",
            "messages/s",
            DEFLATE,
            Load(role="deflate", size=65536),
            rounds=3,
        ),
    ]


def _on_a_core_each() -> list[Row]:
    """The placing decides who looks well: event loops and threads gain and lose in different rows."""
    both = {
        "ping-pong": EVERYONE,
        "connections-100": EVERYONE,
        "pipelined": ("sync_ws", "sync_ws-batch", *EVERYONE[1:]),
        "size-64k": ("sync_ws-numpy", *LARGE[2:]),
        "broadcast": ("sync_ws", "websockets", "websockets-broadcast", "simple-websocket", "aiohttp-uvloop", "picows"),
        "handshakes": (*GROWING, "limit"),
    }
    return [
        replace(
            row,
            key=f"split-{row.key}",
            title=f"a core each: {row.title}",
            contenders=both[row.key],
            targets=(),
            rounds=3,
            split=True,
        )
        for row in _servers()
        if row.key in both
    ]


def _idle(ours: int) -> list[Row]:
    return [
        Row(
            "idle",
            f"idle connections ({ours} with sync_ws, 1000 with the others)",
            "KiB resident each",
            GROWING,
            Idle(ours, 1000),
            (
                Target("sync_ws", None, "<=", 45.0, "kib"),
                Target("sync_ws", None, "<=", 1.0, "threads"),
                Target("sync_ws", None, ">=", float(ours), "held"),
            ),
            "kib",
            rounds=1,
        )
    ]


def _clients() -> list[Row]:
    large = (
        "client-sync_ws-numpy",
        "client-sync_ws-no-numpy",
        "client-websockets",
        "client-websocket-client",
        "client-websocket-client-wsaccel",
        "client-picows",
    )
    target = (Target("client-sync_ws-numpy", "client-websockets", ">=", 1.0),)
    return [
        Row(
            "client-100",
            "client ping-pong, 100 B text",
            "messages/s",
            (
                "client-sync_ws",
                "client-sync_ws-callbacks",
                "client-websockets",
                "client-websocket-client",
                "client-websocket-client-wsaccel",
                "client-picows",
            ),
            Client(),
            (
                Target("client-sync_ws", "client-websockets", ">=", 2.5),
                Target("client-sync_ws", "client-websocket-client", ">=", 1.5),
            ),
        ),
        Row("client-64k", "client ping-pong, 64 KiB binary", "messages/s", large, Client(65536, True), target),
        Row("client-1m", "client ping-pong, 1 MiB binary", "messages/s", large, Client(1 << 20, True), target),
    ]


def _many_clients() -> list[Row]:
    contenders = (
        "client-sync_ws",
        "client-websockets",
        "client-websocket-client",
        "client-websocket-client-wsaccel",
        "client-picows",
    )
    many = Client(clients=MANY)
    return [
        Row(
            "clients-many",
            f"{MANY} clients in one process, ping-pong on each, 100 B text",
            "messages/s",
            contenders,
            many,
            (Target("client-sync_ws", "client-websockets", ">=", 1.3),),
        ),
        Row(
            "clients-idle",
            f"{MANY} clients in one process that keep still",
            "KiB resident each",
            contenders,
            replace(many, share=0.1),
            metric="kib",
            rounds=3,
        ),
    ]


def _others() -> list[Row]:
    return [
        Row(
            "reconnect",
            "reconnect: server back, client open, beyond the delay",
            "ms",
            ("client-sync_ws",),
            Reconnect(),
            (Target("client-sync_ws", None, "<=", 10.0, "ms"),),
            "ms",
            rounds=3,
        ),
        Row(
            "import",
            "import time",
            "ms",
            ("import-sync_ws", "import-packages"),
            Import(),
            (Target("import-sync_ws", "import-packages", "<=", 1.3, "ms"),),
            "ms",
        ),
    ]


def _growth() -> list[Row]:
    over_connections = [
        Row(
            f"growth-connections-{count}",
            f"growth: {count} connection{'s' if count > 1 else ''}, 100 B text",
            "messages/s",
            GROWING,
            Load(connections=count, share=0.67),
            rounds=3,
        )
        for count in CONNECTIONS
    ]
    over_size = [
        Row(
            f"growth-size-{size}",
            f"growth: 1 connection, {_size(size)} binary",
            "messages/s",
            GROWING,
            Load(size=size, binary=True, share=0.67),
            rounds=3,
        )
        for size in SIZES
    ]
    return over_connections + over_size


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB" if count >= 1 << 10 else f"{count} B"
