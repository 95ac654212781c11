"""The chart: bars for the headline rows, lines for growth over connections and sizes. SVG written by hand.

No plotting package: the file is small, reads well in a README, and looks the same wherever it is made. White
background, so that it can be read on a dark page, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from tests.benchmark.report import Document, RowDocument, median

WIDTH, MARGIN, GAP = 960, 24, 36
PANEL_WIDTH, PANEL_HEIGHT = (WIDTH - 2 * MARGIN - GAP) // 2, 300
TOP = 92
INK, MUTED, GRID = "#1f2933", "#6b7785", "#e3e8ee"
OURS = "#0b5fd8"
COLOURS = {
    "sync_ws": OURS,
    "websockets": "#d9730d",
    "simple-websocket": "#a0479f",
    "aiohttp": "#2f9e62",
    "aiohttp-uvloop": "#82b81a",
    "picows": "#c92a3f",
    "socket": "#8a94a0",
}
BARS = (
    "ping-pong",
    "pipelined",
    "connections-100",
    "broadcast",
    "handshakes",
    "client-100",
    "clients-many",
    "tls-100",
    "tls-64k",
)

Point = tuple[float, float]


def draw(document: Document) -> str:
    """The whole SVG document; panels of rows that were not measured are left out."""
    found = {row["key"]: row for row in document["rows"]}
    panels: list[Callable[[], str]] = []
    for key in BARS:
        if key in found and any(median(found[key], one, found[key]["metric"]) for one in found[key]["figures"]):
            panels.append(lambda row=found[key]: _bars(document, row))  # type: ignore[misc]
    for prefix, name, ticks in (
        ("growth-connections-", "connections", _count),
        ("growth-size-", "bytes a message", _bytes),
    ):
        series = [(float(key.removeprefix(prefix)), row) for key, row in found.items() if key.startswith(prefix)]
        if len(series) > 1:
            panels.append(lambda s=series, n=name, t=ticks: _throughput(s, n, t))  # type: ignore[misc]
            panels.append(lambda s=series, n=name, t=ticks: _latency(s, n, t))  # type: ignore[misc]
    body = [_head(document)]
    for index, panel in enumerate(panels):
        x = MARGIN + index % 2 * (PANEL_WIDTH + GAP)
        y = TOP + index // 2 * (PANEL_HEIGHT + GAP)
        body.append(f'<g transform="translate({x} {y})">{panel()}</g>')
    height = TOP + (len(panels) + 1) // 2 * (PANEL_HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _head(document: Document) -> str:
    machine = document["machine"]
    where = f"{machine['cpu']}, {machine['kernel']}, {machine['python']}, {machine['date']}"
    legend, x = [], MARGIN
    for key in ("sync_ws", "websockets", "simple-websocket", "aiohttp", "aiohttp-uvloop", "picows", "socket"):
        label = document["labels"][key]
        legend.append(f'<circle cx="{x + 5}" cy="66" r="5" fill="{COLOURS[key]}"/>' + _text(x + 15, 70, label, 12))
        x += 30 + round(6.4 * len(label))
    return (
        _text(MARGIN, 28, "sync_ws and others: echo over a loopback connection", 18, weight=600)
        + _text(MARGIN, 47, where + "; server and load generator " + _pinning(document), 11.5, MUTED)
        + "".join(legend)
    )


def _pinning(document: Document) -> str:
    pinning: str = document["settings"]["pinning"]
    return "on one core" if "same" in pinning else "on a core each" if "each" in pinning else "not pinned"


# ---- bars --------------------------------------------------------------------------------------------------


def _bars(document: Document, row: RowDocument) -> str:
    """Horizontal, the contenders in the order of the table, each with its figure."""
    shown = [(key, value) for key in row["figures"] if (value := median(row, key, row["metric"])) is not None]
    top = max(value for _, value in shown)
    left, step = 205, min(34.0, (PANEL_HEIGHT - 50) / len(shown))
    room = PANEL_WIDTH - left - 62
    parts = [_title(row["title"], row["unit"])]
    for index, (key, value) in enumerate(shown):
        y = 44 + index * step
        ours = "sync_ws" in key
        width = max(1.0, room * value / top)
        parts.append(
            _text(
                left - 8,
                y + step / 2 + 4,
                document["labels"][key],
                12,
                INK if ours else MUTED,
                "end",
                600 if ours else 400,
            )
        )
        parts.append(
            f'<rect x="{left}" y="{y + step * 0.16:.1f}" width="{width:.1f}" height="{step * 0.68:.1f}" '
            f'rx="2" '
            f'fill="{_colour(key)}" fill-opacity="{1 if ours else 0.75}"/>'
        )
        parts.append(_text(left + width + 6, y + step / 2 + 4, f"{value:,.0f}", 12, INK if ours else MUTED))
    return "".join(parts)


def _colour(key: str) -> str:
    name = key.removeprefix("client-")
    if name.startswith("sync_ws"):
        return OURS
    fitting = [known for known in COLOURS if name == known or name.startswith(known + "-")]
    return COLOURS[max(fitting, key=len)] if fitting else MUTED


# ---- lines -------------------------------------------------------------------------------------------------


class Axes:
    """A panel with two logarithmic axes."""

    left, bottom, top, right = 52, PANEL_HEIGHT - 44, 44, PANEL_WIDTH - 8

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self._x = (math.log10(min(xs)), math.log10(max(xs)))
        # Whole decades would waste space: the axis ends at the next 1, 2 or 5.
        self._y = (math.log10(_nice(min(ys), down=True)), math.log10(_nice(max(ys), down=False)))

    def at(self, x: float, y: float) -> Point:
        across = (math.log10(x) - self._x[0]) / ((self._x[1] - self._x[0]) or 1)
        up = (math.log10(y) - self._y[0]) / ((self._y[1] - self._y[0]) or 1)
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)

    def draw(
        self, xs: Sequence[float], name: str, x_tick: Callable[[float], str], y_tick: Callable[[float], str]
    ) -> str:
        parts = []
        for decade in range(math.floor(self._y[0]), math.ceil(self._y[1]) + 1):
            for digit in (1, 2, 5) if self._y[1] - self._y[0] < 1.7 else (1,):
                value = digit * 10.0**decade
                if not self._y[0] - 1e-9 <= math.log10(value) <= self._y[1] + 1e-9:
                    continue
                y = self.at(10 ** self._x[0], value)[1]
                parts.append(f'<line x1="{self.left}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID}"/>')
                parts.append(_text(self.left - 6, y + 4, y_tick(value), 11, MUTED, "end"))
        for value in xs:
            x = self.at(value, 10 ** self._y[0])[0]
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom}" y2="{self.bottom + 4}" stroke="{MUTED}"/>'
            )
            parts.append(_text(x, self.bottom + 17, x_tick(value), 11, MUTED, "middle"))
        parts.append(_text((self.left + self.right) / 2, self.bottom + 35, name, 11, MUTED, "middle"))
        return "".join(parts)

    def line(self, points: Sequence[Point], colour: str, ours: bool, dashed: bool = False) -> str:
        placed = [self.at(x, y) for x, y in points]
        path = "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)
        width = (3.0 if ours else 1.8) * (0.6 if dashed else 1.0)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        dots = (
            ""
            if dashed
            else "".join(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{3.5 if ours else 2.5}" fill="{colour}"/>' for x, y in placed
            )
        )
        return (
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" '
            f'stroke-linejoin="round"{dash}/>' + dots
        )


def _throughput(series: list[tuple[float, RowDocument]], name: str, tick: Callable[[float], str]) -> str:
    return _panel(series, name, tick, _title(f"throughput over {name}", "messages/s"), ("per_second",), _count)


def _latency(series: list[tuple[float, RowDocument]], name: str, tick: Callable[[float], str]) -> str:
    return _panel(
        series,
        name,
        tick,
        _title(f"latency over {name}", "p50 solid, p99 dashed"),
        ("p50_us", "p99_us"),
        _time,
    )


def _panel(
    series: list[tuple[float, RowDocument]],
    name: str,
    x_tick: Callable[[float], str],
    title: str,
    metrics: Sequence[str],
    y_tick: Callable[[float], str],
) -> str:
    series = sorted(series, key=lambda pair: pair[0])
    curves: dict[tuple[str, str], list[Point]] = {}
    for x, row in series:
        for key in row["figures"]:
            for metric in metrics:
                if value := median(row, key, metric):
                    curves.setdefault((key, metric), []).append((x, value))
    xs = [x for x, _ in series]
    axes = Axes(xs, [y for points in curves.values() for _, y in points])
    ordered = sorted(curves.items(), key=lambda item: item[0][0] == "sync_ws")  # ours on top
    drawn = [axes.line(points, _colour(key), key == "sync_ws", metric == "p99_us") for (key, metric), points in ordered]
    return title + axes.draw(xs, name, x_tick, y_tick) + "".join(drawn)


# ---- text and numbers --------------------------------------------------------------------------------------


def _title(text: str, unit: str) -> str:
    return _text(0, 14, text, 13.5, weight=600) + _text(0, 31, unit, 11.5, MUTED)


def _text(x: float, y: float, text: str, size: float, fill: str = INK, anchor: str = "start", weight: int = 400) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _nice(value: float, down: bool) -> float:
    decade = 10.0 ** math.floor(math.log10(value))
    steps = [step * decade for step in (1, 2, 5, 10)]
    return max(step for step in steps if step <= value) if down else min(step for step in steps if step >= value)


def _count(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _bytes(value: float) -> str:
    return f"{value / 2**20:g} MiB" if value >= 2**20 else f"{value / 1024:g} KiB" if value >= 1024 else f"{value:g} B"


def _time(microseconds: float) -> str:
    return f"{microseconds / 1e3:g} ms" if microseconds >= 1e3 else f"{microseconds:g} us"
