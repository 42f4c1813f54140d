"""The report's pictures as inline SVG, by hand: they take their colours from the page, so both colour schemes work.

Coordinates are in the units of each picture's viewBox.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

_BOX_WIDTH, _BOX_HEIGHT = 148.0, 58.0
_GAP = 30.0

# The way of the data, in words: what each box is and what is done there. The two lanes meet in one space.
_IMAGE_LANE = (
    ("drawing", "72 × 72 WebP"),
    ("preprocess", "an ONNX graph"),
    ("EfficientNet-Lite0", "frozen, 1280 wide"),
    ("projection", "trained here"),
)
_TEXT_LANE = (("words", "a name, a keyword"), ("tokenize", "tokenizer.json"), ("MiniLM-L6", "frozen, 384 wide"), ("projection", "trained here"))  # fmt: skip  # noqa: E501
_TRAINED_STAGE = 3


def flow(embed_dim: int, *, is_tall: bool) -> str:
    """Draw the way from a drawing and from words to one space, from left to right, or tall for a phone."""
    step = (_BOX_HEIGHT if is_tall else _BOX_WIDTH) + _GAP
    across = (_BOX_WIDTH if is_tall else _BOX_HEIGHT) + 22
    parts = []

    def place(stage: float, lane: float) -> tuple[float, float]:
        return (12 + lane * across, 12 + stage * step) if is_tall else (12 + stage * step, 12 + lane * across)

    for lane, boxes in enumerate((_IMAGE_LANE, _TEXT_LANE)):
        for stage, (title, note) in enumerate(boxes):
            x, y = place(stage, lane)
            parts.append(_box(x, y, title, note, "box trained" if stage == _TRAINED_STAGE else "box"))
            end = place(stage + 1, 0.5 if stage == _TRAINED_STAGE else lane)
            parts.append(_arrow(x, y, *end, is_tall=is_tall))
    x, y = place(len(_IMAGE_LANE), 0.5)
    parts.append(_box(x, y, "one space", f"{embed_dim} dimensions", "box space"))
    width, height = x + _BOX_WIDTH + 12, y + _BOX_HEIGHT + 12
    if is_tall:
        width = 24 + across + _BOX_WIDTH
    else:
        height = 24 + across + _BOX_HEIGHT
    label = (
        "Drawings and words each pass a frozen tower and a trained projection, and meet in one space of unit vectors."
    )
    return _svg(width, height, "".join(parts), label, "flow narrow" if is_tall else "flow wide")


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]], title: str, best_x: float, *, is_percent: bool
) -> str:
    """Draw lines over training steps, y from 0, each by the class that colours it; a mark at the kept `best_x`."""
    width, height, left, bottom, top = 460.0, 250.0, 42.0, 28.0, 12.0
    last_x = max(x for points in lines.values() for x, _ in points)
    highest = max(y for points in lines.values() for _, y in points)
    tick = _tick(highest)
    ceiling = math.ceil(highest / tick - 1e-9) * tick

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / last_x * (width - left - 12), height - bottom - y / ceiling * (height - bottom - top)

    parts = []
    for number in range(round(ceiling / tick) + 1):
        value = number * tick
        y = at(0, value)[1]
        words = f"{value:.0%}" if is_percent else f"{value:g}"
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{words}</text>')
    for x in (0.0, last_x / 2, last_x):
        anchor = "end" if x == last_x else "middle"
        parts.append(
            f'<text class="tick" x="{at(x, 0)[0]:.1f}" y="{height - 8}" text-anchor="{anchor}">{x:,.0f}</text>'
        )
    parts.append(_best_mark(at(best_x, 0)[0], f"kept: step {best_x:.0f}", (top, height - bottom), best_x > last_x / 2))
    for css_class, points in lines.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline class="line {css_class}" points="{path}"/>')
    return _svg(width, height, "".join(parts), title, "chart")


def strip(values: Sequence[float], bound: float, title: str, *, is_narrow: bool) -> str:
    """Draw each value as a dot on a logarithmic axis, with the bound that all of them must stay below."""
    width, height, side, middle = (380.0 if is_narrow else 940.0), 96.0, 24.0, 40.0
    floor = 10.0 ** math.floor(math.log10(max(min(values), 1e-9)))
    roof = 10.0 ** math.ceil(math.log10(max(bound, min(max(values), 1.0))) + 0.3)

    def at(value: float) -> float:
        share = math.log10(min(max(value, floor), roof) / floor) / math.log10(roof / floor)
        return side + share * (width - 2 * side)

    x = at(bound)
    parts = [f'<rect class="outside" x="{x:.1f}" y="10" width="{width - side - x:.1f}" height="60" rx="4"/>']
    for exponent in range(round(math.log10(floor)), round(math.log10(roof)) + 1):
        tick = at(10.0**exponent)
        parts.append(f'<line class="grid" x1="{tick:.1f}" x2="{tick:.1f}" y1="10" y2="70"/>')
        parts.append(f'<text class="tick" x="{tick:.1f}" y="88" text-anchor="middle">1e{exponent}</text>')
    parts.append(f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="70"/>')
    parts.append(f'<text class="tick strong" x="{x - 8:.1f}" y="22" text-anchor="end">bound {bound:g}</text>')
    for index, value in enumerate(sorted(values)):  # spread over three heights, so that equal ones can be told apart
        parts.append(f'<circle class="dot" cx="{at(value):.1f}" cy="{middle + (index % 3 - 1) * 13:.1f}" r="4.5"/>')
    return _svg(width, height, "".join(parts), title, "chart narrow" if is_narrow else "chart wide")


def _tick(highest: float) -> float:
    """Return a round distance that divides 0..highest in three to six."""
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return min((1, 2, 2.5, 5, 10), key=lambda step: abs(step * power - rough)) * power


def _best_mark(x: float, words: str, span: tuple[float, float], is_left: bool) -> str:
    anchor, text_x = ("end", x - 6) if is_left else ("start", x + 6)
    line = f'<line class="best" x1="{x:.1f}" x2="{x:.1f}" y1="{span[0]}" y2="{span[1]}"/>'
    return f'{line}<text class="tick" x="{text_x:.1f}" y="{span[1] - 8}" text-anchor="{anchor}">{words}</text>'


def _box(x: float, y: float, title: str, note: str, css_class: str) -> str:
    centre, size = x + _BOX_WIDTH / 2, f'width="{_BOX_WIDTH:.0f}" height="{_BOX_HEIGHT:.0f}"'
    return (
        f'<rect class="{css_class}" x="{x:.0f}" y="{y:.0f}" {size} rx="9"/>'
        f'<text class="title" x="{centre:.0f}" y="{y + 25:.0f}" text-anchor="middle">{escape(title)}</text>'
        f'<text class="note" x="{centre:.0f}" y="{y + 43:.0f}" text-anchor="middle">{escape(note)}</text>'
    )


def _arrow(x: float, y: float, end_x: float, end_y: float, *, is_tall: bool) -> str:
    """Draw the way out of the box at (x, y) into the box at (end_x, end_y), each given by its upper left corner."""
    if is_tall:
        x1, y1, x2, y2 = x + _BOX_WIDTH / 2, y + _BOX_HEIGHT + 3, end_x + _BOX_WIDTH / 2, end_y - 4
        bend, head = f"C{x1},{y1 + 14} {x2},{y2 - 16} {x2},{y2}", f"M{x2 - 4},{y2 - 6}L{x2},{y2}L{x2 + 4},{y2 - 6}"
    else:
        x1, y1, x2, y2 = x + _BOX_WIDTH + 3, y + _BOX_HEIGHT / 2, end_x - 4, end_y + _BOX_HEIGHT / 2
        bend, head = f"C{x1 + 14},{y1} {x2 - 16},{y2} {x2},{y2}", f"M{x2 - 6},{y2 - 4}L{x2},{y2}L{x2 - 6},{y2 + 4}"
    return f'<path class="arrow" d="M{x1},{y1}{bend}"/><path class="arrow" d="{head}"/>'


def _svg(width: float, height: float, body: str, label: str, css_class: str) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg class="{css_class}" {box} role="img" aria-label="{escape(label, quote=True)}">{body}</svg>'
