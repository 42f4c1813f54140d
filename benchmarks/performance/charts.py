"""The page's charts as SVG: speed against peers, the roofline, growth. The same results give the same files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.against.models import ARCHITECTURES, REFERENCE
from benchmarks.against.results import Case, Results, items_per_s
from benchmarks.growth.results import Curve, Curves, Growth
from benchmarks.harness.markdown import number
from benchmarks.roofline.products import DType
from benchmarks.roofline.results import Roofline, ceiling

# Okabe and Ito's colours, told apart with every kind of colour vision. Ours are the dark ones.
_OURS = ("#0072B2", "#003B5C", "#009E73", "#7A4FA3")
_PEERS = ("#E69F00", "#F0C060", "#56B4E9", "#D55E00", "#E8906A", "#CC79A7", "#999999")
_INK, _MUTED, _GRID = "#222222", "#6b6b6b", "#e4e4e4"
_GROUP_WIDTH = 0.84
_HASH_SALT = "mmalign"
# Curves that span more than this are drawn on a logarithmic axis.
_MANY_TIMES = 10
_DTYPES: dict[DType, str] = {"float32": "#56B4E9", "bfloat16": "#009E73", "int8": "#D55E00"}
_MARKERS = {("reference", "image"): "o", ("reference", "text"): "s", ("demo", "image"): "^", ("demo", "text"): "D"}
Panels: TypeAlias = list[Axes]

_TYPE_OF: dict[str, DType] = {"fp32": "float32", "fp16": "float32", "bf16": "bfloat16", "int8": "int8"}


def draw_comparison(results: Results, path: Path) -> None:
    """Draw items/s of everyone on every set of the reference architecture, images above texts."""
    kinds = [(kind, _batches(results, kind)) for kind in ("image", "text")]
    with _figure(path, len(kinds), 1, (9.2, 3.1 * len(kinds))) as (figure, panels):
        for axes, (kind, cases) in zip(panels, kinds, strict=True):
            _draw_bars(axes, results, cases)
            architecture = ARCHITECTURES[REFERENCE].split(" and ")[kind == "text"]
            axes.set_title(f"{architecture}: {kind}s a second", loc="left", fontweight="bold", fontsize=11)
        _legend(figure, panels, "outside lower center", 4)


def draw_roofline(roofline: Roofline, path: Path) -> None:
    """Draw Gop/s over operations a byte: what memory and each type's peak allow, and where the towers are."""
    threads = max(product.num_threads for product in roofline.products)
    read = max(one.read_gb_s for one in roofline.bandwidth)
    intensity = np.logspace(0, 4, 200)
    with _figure(path, 1, 1, (7.6, 4.6)) as (figure, panels):
        axes = panels[0]
        for dtype, colour in _DTYPES.items():
            peak = ceiling(roofline, dtype, threads).best_gops
            axes.plot(intensity, np.minimum(peak, read * intensity), color=colour, linewidth=2, label=f"{dtype} peak")
            axes.annotate(f"{peak:,.0f}", (intensity[-1], peak), (-2, 4), textcoords="offset points", ha="right")
        for tower in roofline.towers:
            x = tower.gop * 1000 / tower.weight_mb
            image, text = ARCHITECTURES[tower.model].split(" and ")
            name = f"{image if tower.tower == 'image' else text}, {tower.precision}, {tower.engine}"
            marker, colour = _MARKERS[tower.model, tower.tower], _DTYPES[_TYPE_OF[tower.precision]]
            is_default = tower.engine == "onnxruntime"
            face, edge = (colour, _INK) if is_default else ("white", colour)
            axes.scatter(x, tower.gops, marker=marker, color=face, edgecolor=edge, zorder=3, label=name)
            axes.annotate(str(tower.input_shape[0]), (x, tower.gops), (5, -3), textcoords="offset points", fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="operations a byte of weights", ylabel="Gop/s")
        _legend(figure, panels, "outside right upper", 1)
        _plain(axes)


def draw_growth(growth: Growth, path: Path) -> None:
    """Draw images/s and resident memory over the number of images."""
    counts = [level.num_images for level in growth.levels]
    with _figure(path, 1, 2, (9.2, 3.0)) as (_, panels):
        speeds = [level.images_per_s for level in growth.levels]
        memory = [level.resident_mb for level in growth.levels]
        for axes, values, label in zip(panels, (speeds, memory), ("images/s", "resident MB"), strict=True):
            axes.plot(counts, values, color=_OURS[0], marker="." if len(counts) < 20 else None)
            axes.set(xlabel="images", ylim=(0, max(values) * 1.2))
            axes.set_title(label, loc="left", fontweight="bold", fontsize=11)
            axes.xaxis.set_major_formatter("{x:,.0f}")
            _plain(axes)


def draw_curves(curves: Curves, path: Path) -> None:
    """Draw items/s over batch size, tokens and threads: a panel each, a line a tower."""
    kinds = list(dict.fromkeys(curve.over for curve in curves.curves))
    with _figure(path, 1, len(kinds), (3.2 * len(kinds), 3.2)) as (figure, panels):
        for axes, over in zip(panels, kinds, strict=True):
            found = [curve for curve in curves.curves if curve.over == over]
            for curve in found:
                _draw_curve(axes, curve)
            axes.set(xlabel=over, xscale="log")
            speeds = [point.items_per_s.p50 for curve in found for point in curve.points]
            if max(speeds) > _MANY_TIMES * min(speeds):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            else:
                axes.set_ylim(0, max(speeds) * 1.1)
            ticks = sorted({point.x for curve in found for point in curve.points})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.yaxis.set_major_formatter("{x:,.0f}")
            axes.minorticks_off()
            _plain(axes)
        panels[0].set_ylabel("items/s")
        _legend(figure, panels, "outside lower center", 4)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    names = {
        (model, kind): part
        for model in ARCHITECTURES
        for kind, part in zip(("image", "text"), ARCHITECTURES[model].split(" and "), strict=True)
    }
    colours = dict(zip(names, (_OURS[0], _PEERS[0], _PEERS[2], _PEERS[3]), strict=True))
    key = (curve.model, curve.kind)
    speeds = [point.items_per_s.p50 for point in curve.points]
    axes.plot([point.x for point in curve.points], speeds, marker=".", color=colours[key], label=names[key])


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


def _legend(
    figure: Figure, panels: Panels, loc: Literal["outside lower center", "outside right upper"], num_columns: int
) -> None:
    known: dict[str, Artist] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        known |= dict(zip(labels, handles, strict=True))
    figure.legend(list(known.values()), list(known), loc=loc, ncols=num_columns, frameon=False, fontsize=8)


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
