"""Small drawings for the report: plain SVG text, no script, colours from the page's variables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from weft.results.pages import Phrases

W = 640


def intervals(rows: Sequence[dict[str, Any]], percent: bool, label: str) -> str:
    """A dot and its 95 % interval a row; ``rows``: title, value, low, high, ours."""
    finite = [r for r in rows if r["value"] == r["value"]]
    low, high = min(r["low"] for r in finite), max(r["high"] for r in finite)
    pad = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    left, right, step = 250, W - 70, 30
    height = step * len(finite) + 34

    def x(v: float) -> float:
        return left + (v - low) / (high - low) * (right - left)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 26}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{_number(tick, percent)}</text>'
        )
    for place, row in enumerate(finite):
        y = 18 + place * step
        kind = "ours" if row["ours"] else "other"
        parts.append(
            f'<text class="name {kind}" x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(_cut(row["title"], 36))}</text>'
        )
        parts.append(
            f'<line class="range {kind}" x1="{x(row["low"]):.1f}" x2="{x(row["high"]):.1f}" y1="{y}" y2="{y}"/>'
        )
        parts.append(f'<circle class="{kind}" cx="{x(row["value"]):.1f}" cy="{y}" r="5"/>')
        parts.append(f'<text class="value" x="{right + 10}" y="{y + 4}">{_number(row["value"], percent)}</text>')
    return _svg(height, label, parts)


def reliability(points: Sequence[dict[str, float]], label: str, t: Phrases) -> str:
    """Stated against true share of right answers; the diagonal is honesty."""
    size, left, top = 260, 60, 12
    low = min(0.5, *(p["stated"] for p in points), *(p["right"] for p in points))

    def at(v: float) -> float:
        return (v - low) / (1 - low) * size

    most = max(p["rows"] for p in points)
    parts = [f'<line class="grid" x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}"/>']
    for tick in (low, (low + 1) / 2, 1.0):
        parts.append(
            f'<text class="tick" x="{left + at(tick):.0f}" y="{top + size + 18}" text-anchor="middle">{tick:.0%}</text>'
        )
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{top + size - at(tick) + 4:.0f}" text-anchor="end">{tick:.0%}</text>'
        )
    dots = [(left + at(p["stated"]), top + size - at(p["right"]), 3 + 9 * (p["rows"] / most) ** 0.5) for p in points]
    parts.append('<polyline class="line" points="' + " ".join(f"{a:.1f},{b:.1f}" for a, b, _ in dots) + '"/>')
    parts += [f'<circle class="ours" cx="{a:.1f}" cy="{b:.1f}" r="{r:.1f}" fill-opacity="0.7"/>' for a, b, r in dots]
    parts.append(
        f'<text class="tick" x="{left + size / 2}" y="{top + size + 38}" text-anchor="middle">{t("how sure the model said it was")}</text>'
    )
    parts.append(
        f'<text class="tick" x="{left + size + 14}" y="{top + size / 2}">{t("← how often it was right")}</text>'
    )
    return _svg(top + size + 48, label, parts, left + size + 190)


def risk_coverage(points: Sequence[dict[str, float]], at: float, label: str) -> str:
    """Share of wrong answers (up) among the surest rows, for growing shares of them (across); ``at``: where it stands."""
    wide, high, left, top = 420, 200, 70, 12
    most = max(p["risk"] for p in points) or 0.01

    def place(p: dict[str, float]) -> tuple[float, float]:
        return left + p["coverage"] * wide, top + high - p["risk"] / most * high

    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<text class="tick" x="{left + tick * wide:.0f}" y="{top + high + 18}" text-anchor="middle">{tick:.0%}</text>'
        )
    for tick in (0.0, most / 2, most):
        y = top + high - tick / most * high
        parts.append(f'<line class="grid" x1="{left}" x2="{left + wide}" y1="{y:.0f}" y2="{y:.0f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{tick:.1%}</text>')
    parts.append(
        '<polyline class="line" points="' + " ".join("{:.1f},{:.1f}".format(*place(p)) for p in points) + '"/>'
    )
    here = min(points, key=lambda p: abs(p["coverage"] - at))
    parts.append('<circle class="ours" cx="{:.1f}" cy="{:.1f}" r="5"/>'.format(*place(here)))
    parts.append(
        f'<text class="tick" x="{left + wide / 2}" y="{top + high + 38}" text-anchor="middle">share of the rows answered</text>'
    )
    parts.append(
        f'<text class="tick" x="{left + wide + 12}" y="{top + high / 2}">← share of answers that are wrong</text>'
    )
    return _svg(top + high + 48, label, parts, left + wide + 230)


def scatter(points: Sequence[Sequence[float]], label: str, t: Phrases) -> str:
    """True (across) against predicted (up); the diagonal is right."""
    size, left, top = 300, 70, 12
    values = [v for p in points for v in p]
    low, high = min(values), max(values)
    span = (high - low) or 1.0

    def at(v: float) -> float:
        return (v - low) / span * size

    parts = [f'<line class="grid" x1="{left}" y1="{top + size}" x2="{left + size}" y2="{top}"/>']
    for tick in _ticks(low, high):
        parts.append(
            f'<text class="tick" x="{left + at(tick):.0f}" y="{top + size + 18}" text-anchor="middle">{_number(tick, False)}</text>'
        )
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{top + size - at(tick) + 4:.0f}" text-anchor="end">{_number(tick, False)}</text>'
        )
    parts += [
        f'<circle class="ours" cx="{left + at(a):.1f}" cy="{top + size - at(b):.1f}" r="3" fill-opacity="0.45"/>'
        for a, b in points
    ]
    parts.append(
        f'<text class="tick" x="{left + size / 2}" y="{top + size + 38}" text-anchor="middle">{t("true")}</text>'
    )
    parts.append(f'<text class="tick" x="{left + size + 12}" y="{top + size / 2}">{t("← predicted")}</text>')
    return _svg(top + size + 48, label, parts, left + size + 110)


def effect(points: Sequence[Sequence[float]], line: Sequence[Sequence[float]], across: str, up: str, label: str) -> str:
    """What a number adds (up) against its value (across): a dot a row, and the line of their means."""
    width, height, left, top = 420, 180, 56, 16
    xs, ys = [p[0] for p in points], [*(p[1] for p in points), 0.0]
    low_x, span_x = min(xs), (max(xs) - min(xs)) or 1.0
    low_y, span_y = min(ys), (max(ys) - min(ys)) or 1.0

    def x(v: float) -> float:
        return left + (v - low_x) / span_x * width

    def y(v: float) -> float:
        return top + (low_y + span_y - v) / span_y * height

    parts = [f'<line class="grid" x1="{left}" x2="{left + width}" y1="{y(0):.1f}" y2="{y(0):.1f}"/>']
    for tick in _ticks(low_y, low_y + span_y):
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    for tick in _ticks(low_x, low_x + span_x):
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{top + height + 18}" text-anchor="middle">{_short(tick)}</text>'
        )
    parts += [f'<circle class="other" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill-opacity="0.5"/>' for a, b in points]
    parts.append('<polyline class="curve ours" points="' + " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line) + '"/>')
    parts.append(
        f'<text class="name" x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">{escape(across)}</text>'
    )
    if up:
        parts.append(f'<text class="tick" x="{left}" y="11">↑ {escape(_cut(up, 60))}</text>')
    return _svg(top + height + 48, label, parts, left + width + 24)


def learning(lines: Sequence[dict[str, Any]], across: str, label: str) -> str:
    """Losses (up) over what was read (across); ``lines``: title, ours, points [[x, y], ...], the last to the right.

    The first steep fall is left out at the top: what is beyond the highest value after 5 % of the way.
    """
    width, height, left, top, right = 480, 250, 46, 14, 14
    points = [p for line in lines for p in line["points"]]
    far = max(x for x, _ in points) or 1.0
    kept = [y for x, y in points if x >= 0.05 * far]
    low, high = min(kept), max(kept)
    pad = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad

    def x(v: float) -> float:
        return left + v / far * (width - left - right)

    def y(v: float) -> float:
        return top + (high - v) / (high - low) * height

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_number(tick, False)}</text>'
        )
    for tick in _ticks(0.0, far):
        anchor = "start" if not tick else "end" if x(tick) > width - 40 else "middle"
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{top + height + 18}" text-anchor="{anchor}">{_short(tick)}</text>'
        )
    for place, line in enumerate(lines):
        kind = "ours" if line["ours"] else "other"
        shown = [(a, b) for a, b in line["points"] if b <= high]
        dots = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in shown)
        parts.append(f'<polyline class="curve {kind}" points="{dots}"/>')
        spot = top + 12 + 20 * place
        parts.append(f'<line class="curve {kind}" x1="{width - 190}" x2="{width - 166}" y1="{spot}" y2="{spot}"/>')
        parts.append(f'<text class="name" x="{width - 158}" y="{spot + 4}">{escape(line["title"])}</text>')
    parts.append(f'<text class="tick" x="{left}" y="{top + height + 38}">{escape(across)}</text>')
    return _svg(top + height + 46, label, parts, width)


def _short(value: float) -> str:
    """15000 as 15k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _svg(height: float, label: str, parts: Sequence[str], width: float = W) -> str:
    body = "".join(parts)
    return f'<svg role="img" aria-label="{escape(label, quote=True)}" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">{body}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers inside the range."""
    span = high - low
    unit = 10.0 ** len(f"{int(span)}") if span >= 1 else 1.0
    while unit * 2.5 > span:
        for part in (0.5, 0.2, 0.1):
            if span / (unit * part) >= 2.5:
                unit *= part
                break
        else:
            unit /= 10
            continue
        break
    first = -(-low // unit)
    return [round((first + k) * unit, 12) for k in range(int((high - first * unit) / unit) + 1)]


def _number(value: float, percent: bool) -> str:
    return f"{100 * value:.1f} %" if percent else f"{value:.4g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
