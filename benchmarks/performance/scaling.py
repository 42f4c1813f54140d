"""The part of the page about growth: many images, batch size, text length, threads."""

from __future__ import annotations

from benchmarks.against.models import tower_name
from benchmarks.growth.results import Curves, Growth
from benchmarks.harness.markdown import number, table

# Of fifty levels, these are shown.
_SHOWN = (1000, 2000, 5000, 10_000, 20_000, 50_000)


def growth(found: Growth) -> str:
    """Return the table of images/s and memory over the number of images."""
    last = found.levels[-1].num_images
    shown = [level for level in found.levels if level.num_images in (*_SHOWN, last)]
    rows = [[f"{one.num_images:,}", f"{one.images_per_s:.1f}", f"{one.resident_mb:.0f}"] for one in shown]
    return table(("images", "images/s since the first", "resident MB"), rows)


def curves(found: Curves) -> str:
    """Return one small table a curve."""
    parts = []
    for curve in found.curves:
        head = [curve.over, *(str(point.x) for point in curve.points)]
        row = [f"{curve.kind}s/s", *(number(point.items_per_s.p50) for point in curve.points)]
        parts.append(f"{tower_name(curve.model, curve.kind)}:\n\n{table(head, [row])}")
    return "\n\n".join(parts)
