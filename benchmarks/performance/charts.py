"""The page's chart as SVG: speed against peers. The same results give the same file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.against.models import ARCHITECTURES, REFERENCE
from benchmarks.against.results import Case, Results, items_per_s
from benchmarks.harness.markdown import number

# Okabe and Ito's colours, told apart with every kind of colour vision. Ours are the dark ones.
_OURS = ("#0072B2", "#003B5C", "#009E73", "#7A4FA3")
_PEERS = ("#E69F00", "#F0C060", "#56B4E9", "#D55E00", "#E8906A", "#CC79A7", "#999999")
_INK, _MUTED, _GRID = "#222222", "#6b6b6b", "#e4e4e4"
_GROUP_WIDTH = 0.84
_HASH_SALT = "mmalign"
Panels: TypeAlias = list[Axes]


def draw_comparison(results: Results, path: Path) -> None:
    """Draw items/s of everyone on every set of the reference architecture, images above texts."""
    kinds = [(kind, _batches(results, kind)) for kind in ("image", "text")]
    with _figure(path, len(kinds), 1, (9.2, 3.1 * len(kinds))) as (figure, panels):
        for axes, (kind, cases) in zip(panels, kinds, strict=True):
            _draw_bars(axes, results, cases)
            architecture = ARCHITECTURES[REFERENCE].split(" and ")[kind == "text"]
            axes.set_title(f"{architecture}: {kind}s a second", loc="left", fontweight="bold", fontsize=11)
        _legend(figure, panels)


def _batches(results: Results, kind: str) -> list[Case]:
    key = (REFERENCE, kind, "batch")
    return [case for case in results.cases if (case.model, case.kind, case.mode) == key and case.seconds]


def _draw_bars(axes: Axes, results: Results, cases: list[Case]) -> None:
    names = [name for name in results.labels if any(name in case.seconds for case in cases)]
    colours = _colours(results)
    width = _GROUP_WIDTH / max(len(names), 1)
    for position, name in enumerate(names):
        having = [(group, items_per_s(case, name)) for group, case in enumerate(cases) if name in case.seconds]
        centres = [group - _GROUP_WIDTH / 2 + width * (position + 0.5) for group, _ in having]
        heights = [found.p50 for _, found in having]
        spread = ([found.p50 - found.p10 for _, found in having], [found.p90 - found.p50 for _, found in having])
        label = results.labels[name]
        axes.bar(centres, heights, width * 0.92, color=colours[name], yerr=spread, label=label, error_kw={"lw": 0.8})
        for centre, (_, found) in zip(centres, having, strict=True):
            at = (centre, found.p90)
            text = number(found.p50)
            axes.annotate(text, at, (0, 3), textcoords="offset points", ha="center", fontsize=6.5, rotation=90)
    axes.set_xticks(range(len(cases)), [case.set_name for case in cases])
    axes.margins(y=0.16)
    _plain(axes)


def _colours(results: Results) -> dict[str, str]:
    peers = [name for name in results.labels if name not in results.ours]
    return {
        **{name: _OURS[position % len(_OURS)] for position, name in enumerate(results.ours)},
        **{name: _PEERS[position % len(_PEERS)] for position, name in enumerate(peers)},
    }


def _legend(figure: Figure, panels: Panels) -> None:
    known: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=4, frameon=False, fontsize=8)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


@contextmanager
def _figure(path: Path, num_rows: int, num_columns: int, size: tuple[float, float]) -> Iterator[tuple[Figure, Panels]]:
    with plt.rc_context({"svg.hashsalt": _HASH_SALT, "svg.fonttype": "none", "font.size": 9, "text.color": _INK}):
        figure, panels = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False, layout="constrained")
        yield figure, list(panels.flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        plt.close(figure)
