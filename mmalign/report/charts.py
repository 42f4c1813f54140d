"""Charts as inline SVG, by hand: they take their colours from the page. Coordinates are those of the viewBox."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mmalign.figures.calibration import Calibration

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440.0, 230.0, 54.0, 14.0, 12.0, 30.0
_MOST_POINTS = 400  # of a line: a pixel or so each


def line_chart(points: Sequence[tuple[float, float]], title: str) -> str:
    """Draw a line over training steps, its highest and lowest values at the side."""
    thinned = points[:: max(1, len(points) // _MOST_POINTS)]
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    place = [(_across(x, first, last), _up(y, low, high)) for x, y in (*thinned, points[-1])]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    values = sorted({low, (low + high) / 2, high})
    parts = [_grid(_up(value, low, high), f"{value:.3g}") for value in values]
    parts += [_below(_across(x, first, last), f"{x:,.0f}", is_last=x == last) for x in sorted({first, last})]
    return _svg(title, [*parts, f'<polyline class="line" points="{path}"/>'])


def reliability_chart(found: Calibration, title: str) -> str:
    """Draw each bin's accuracy over its confidence; on the diagonal answers are right as often as they say."""
    parts = [_grid(_up(value, 0, 1), f"{value:.0%}") for value in (0, 0.5, 1)]
    parts += [_below(_across(value, 0, 1), f"{value:.0%}", is_last=value == 1) for value in (0, 0.5, 1)]
    ends = f'x1="{_across(0, 0, 1)}" y1="{_up(0, 0, 1)}" x2="{_across(1, 0, 1)}" y2="{_up(1, 0, 1)}"'
    dots = [
        f'<circle class="dot" r="4.5" cx="{_across(b.confidence, 0, 1):.1f}" cy="{_up(b.accuracy, 0, 1):.1f}">'
        f"<title>{b.num_queries} answers, confidence {b.confidence:.1%}, right {b.accuracy:.1%}</title></circle>"
        for b in found.bins
    ]
    return _svg(title, [*parts, f'<line class="diagonal" {ends}/>', *dots])


def _across(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / ((high - low) or 1) * (_WIDTH - _LEFT - _RIGHT)


def _up(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - _BOTTOM - _TOP)


def _grid(y: float, words: str) -> str:
    line = f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return f'{line}<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>'


def _below(x: float, words: str, *, is_last: bool) -> str:
    return f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="{"end" if is_last else "middle"}">{words}</text>'


def _svg(title: str, parts: Sequence[str]) -> str:
    label = escape(title)
    return f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
