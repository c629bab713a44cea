"""Small drawings for the report: plain SVG text, no script, colours from the page's variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import count
from typing import Any

from weft.results.pages import Phrases

W = 640
Points = Iterable[Sequence[float]]


class _Axes:
    """A drawing with a rectangle whose places are values: ``across`` and ``up`` are the least and the largest."""

    def __init__(
        self, width: float, height: float, across: tuple[float, float], up: tuple[float, float], left: float = 60,
        top: float = 12,
    ):  # fmt: skip
        self.width, self.height, self.left, self.top, self.across, self.up = width, height, left, top, across, up
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + (value - low) / ((high - low) or 1.0) * self.width

    def y(self, value: float) -> float:
        low, high = self.up
        return self.top + (high - value) / ((high - low) or 1.0) * self.height

    def text(self, x: float, y: float, words: str, kind: str = "tick", anchor: str = "start") -> None:
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, x: tuple[float, float], y: tuple[float, float], kind: str = "grid") -> None:
        ends = f'x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"'
        self.parts.append(f'<line class="{kind}" {ends}/>')

    def dots(self, points: Points, kind: str = "ours", size: float = 5, opacity: float = 1) -> None:
        """Circles at values; a third number of a point is its own size."""
        for x, y, *own in points:
            r = own[0] if own else size
            place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{r:.1f}"'
            self.parts.append(f'<circle class="{kind}" {place} fill-opacity="{opacity:g}"/>')

    def curve(self, points: Points, kind: str = "line") -> None:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y, *_ in points)
        self.parts.append(f'<polyline class="{kind}" points="{places}"/>')

    def diagonal(self) -> None:
        self.line((self.left, self.left + self.width), (self.top + self.height, self.top))

    def ticks_across(self, values: Iterable[float], form: Callable[[float], str]) -> None:
        for tick in values:
            self.text(self.x(tick), self.top + self.height + 18, form(tick), anchor="middle")

    def ticks_up(self, values: Iterable[float], form: Callable[[float], str], grid: bool = False) -> None:
        for tick in values:
            if grid:
                self.line((self.left, self.left + self.width), (self.y(tick), self.y(tick)))
            self.text(self.left - 8, self.y(tick) + 4, form(tick), anchor="end")

    def name_across(self, words: str, kind: str = "tick") -> None:
        self.text(self.left + self.width / 2, self.top + self.height + 38, words, kind, "middle")

    def name_right(self, words: str) -> None:
        self.text(self.left + self.width + 12, self.top + self.height / 2, words)

    def svg(self, label: str, right: float, below: float = 48) -> str:
        """The drawing, so much wider and higher than the rectangle."""
        wide, high = f"{self.left + self.width + right:.0f}", f"{self.top + self.height + below:.0f}"
        said = f'role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {wide} {high}" width="{wide}"'
        return f"<svg {said}>{''.join(self.parts)}</svg>"


def intervals(rows: Sequence[dict[str, Any]], percent: bool, label: str) -> str:
    """A dot and its 95 % interval a row; ``rows``: title, value, low, high, ours."""
    finite = [r for r in rows if r["value"] == r["value"]]
    low, high = min(r["low"] for r in finite), max(r["high"] for r in finite)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high, step = low - pad, high + pad, 30
    height = step * len(finite)
    draw = _Axes(W - 320, height, (low, high), (height, 0), 250, 4)
    for tick in _ticks(low, high):
        draw.line((draw.x(tick), draw.x(tick)), (4, height + 8))
        draw.text(draw.x(tick), height + 24, _number(tick, percent), anchor="middle")
    for place, row in enumerate(finite):
        at = 14 + place * step
        kind, y = "ours" if row["ours"] else "other", draw.y(at)
        draw.text(draw.left - 12, y + 4, _cut(row["title"], 36), f"name {kind}", "end")
        draw.line((draw.x(row["low"]), draw.x(row["high"])), (y, y), f"range {kind}")
        draw.dots([(row["value"], at)], kind)
        draw.text(draw.left + draw.width + 10, y + 4, _number(row["value"], percent), "value")
    return draw.svg(label, 70, 30)


def reliability(points: Sequence[dict[str, float]], label: str, t: Phrases) -> str:
    """Stated against true share of right answers; the diagonal is honesty."""
    low = min(0.5, *(p["stated"] for p in points), *(p["right"] for p in points))
    most = max(p["rows"] for p in points)
    draw = _Axes(260, 260, (low, 1), (low, 1))
    draw.diagonal()
    ticks = (low, (low + 1) / 2, 1.0)
    draw.ticks_across(ticks, "{:.0%}".format)
    draw.ticks_up(ticks, "{:.0%}".format)
    dots = [(p["stated"], p["right"], 3 + 9 * (p["rows"] / most) ** 0.5) for p in points]
    draw.curve(dots)
    draw.dots(dots, opacity=0.7)
    draw.name_across(t("how sure the model said it was"))
    draw.name_right(t("← how often it was right"))
    return draw.svg(label, 190)


def risk_coverage(points: Sequence[dict[str, float]], at: float, label: str) -> str:
    """Share of wrong answers (up) among the surest rows, for growing shares of them (across); ``at``: its share."""
    most = max(p["risk"] for p in points) or 0.01
    draw = _Axes(420, 200, (0, 1), (0, most), 70)
    draw.ticks_across((0.0, 0.25, 0.5, 0.75, 1.0), "{:.0%}".format)
    draw.ticks_up((0.0, most / 2, most), "{:.1%}".format, grid=True)
    draw.curve((p["coverage"], p["risk"]) for p in points)
    here = min(points, key=lambda p: abs(p["coverage"] - at))
    draw.dots([(here["coverage"], here["risk"])])
    draw.name_across("share of the rows answered")
    draw.name_right("← share of answers that are wrong")
    return draw.svg(label, 230)


def scatter(points: Sequence[Sequence[float]], label: str, t: Phrases) -> str:
    """True (across) against predicted (up); the diagonal is right."""
    values = [v for p in points for v in p]
    ends = min(values), max(values)
    draw = _Axes(300, 300, ends, ends, 70)
    draw.diagonal()
    draw.ticks_across(_ticks(*ends), "{:.4g}".format)
    draw.ticks_up(_ticks(*ends), "{:.4g}".format)
    draw.dots(points, size=3, opacity=0.45)
    draw.name_across(t("true"))
    draw.name_right(t("← predicted"))
    return draw.svg(label, 110)


def effect(points: Sequence[Sequence[float]], line: Sequence[Sequence[float]], across: str, up: str, label: str) -> str:
    """What a number adds (up) against its value (across): a dot a row, and the line of their means."""
    xs, ys = [p[0] for p in points], [*(p[1] for p in points), 0.0]
    draw = _Axes(420, 180, (min(xs), max(xs)), (min(ys), max(ys)), 56, 16)
    draw.line((draw.left, draw.left + draw.width), (draw.y(0), draw.y(0)))
    draw.ticks_up(_ticks(min(ys), max(ys)), "{:.3g}".format)
    draw.ticks_across(_ticks(min(xs), max(xs)), _short)
    draw.dots(points, "other", 3, 0.5)
    draw.curve(line, "curve ours")
    draw.name_across(across, "name")
    if up:
        draw.text(draw.left, 11, f"↑ {_cut(up, 60)}")
    return draw.svg(label, 24)


def patches(source: str, marks: Sequence[tuple[str, float]], label: str) -> str:
    """A picture (a data address) with its patches marked, row by row: the side of each (for, against, looked) and how
    strongly, 0 to 1."""
    side = round(len(marks) ** 0.5)
    cell, rects = 28, []
    for place, (kind, strength) in enumerate(marks):
        if strength:
            x, y = place % side * cell + 2, place // side * cell + 2
            rects.append(
                f'<rect class="patch {kind}" x="{x}" y="{y}" width="{cell - 4}" height="{cell - 4}" '
                f'style="--strength:{strength:.2f}"/>'
            )
    size = side * cell
    image = f'<image href="{escape(source)}" width="{size}" height="{size}" preserveAspectRatio="none"/>'
    return (
        f'<svg class="patches" viewBox="0 0 {size} {size}" width="{size}" height="{size}" role="img" '
        f'aria-label="{escape(label)}">{image}{"".join(rects)}</svg>'
    )


def learning(lines: Sequence[dict[str, Any]], across: str, label: str) -> str:
    """Losses (up) over what was read (across); ``lines``: title, ours, points [[x, y], ...], the last to the right.

    The first steep fall is left out at the top: what is beyond the highest value after 5 % of the way.
    """
    points = [p for line in lines for p in line["points"]]
    far = max(x for x, _ in points) or 1.0
    kept = [y for x, y in points if x >= 0.05 * far]
    low, high = min(kept), max(kept)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    draw = _Axes(420, 250, (0, far), (low, high), 46, 14)
    draw.ticks_up(_ticks(low, high), "{:.4g}".format, grid=True)
    draw.ticks_across(_ticks(0.0, far), _short)
    for place, line in enumerate(lines):
        kind = "curve ours" if line["ours"] else "curve other"
        draw.curve((p for p in line["points"] if p[1] <= high), kind)
        spot, edge = draw.top + 12 + 20 * place, draw.left + draw.width
        draw.line((edge - 176, edge - 152), (spot, spot), kind)
        draw.text(edge - 144, spot + 4, line["title"], "name")
    draw.text(draw.left, draw.top + draw.height + 38, across)
    return draw.svg(label, 30)


def _short(value: float) -> str:
    """15000 as 15k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers inside the range."""
    span = (high - low) or 1.0
    steps = (part * 10.0**power for power in count(len(f"{int(span)}"), -1) for part in (0.5, 0.2, 0.1))
    unit = next(step for step in steps if span / step >= 2.5)
    first = -(-low // unit)
    return [round((first + k) * unit, 12) for k in range(int((high - first * unit) / unit) + 1)]


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
