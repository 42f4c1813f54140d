"""The page's chart as SVG: speed against peers. The same results give the same file."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from benchmarks.against.models import REFERENCE, tower_name
from benchmarks.against.results import Case, Results, items_per_s
from benchmarks.harness.markdown import number
from benchmarks.performance.comparison import cases_of

# Okabe and Ito's colours, told apart with every kind of colour vision. Ours are the dark ones.
_OURS = ("#0072B2", "#003B5C", "#009E73", "#7A4FA3")
_PEERS = ("#E69F00", "#F0C060", "#56B4E9", "#D55E00", "#E8906A", "#CC79A7", "#999999")
_MUTED, _GRID = "#6b6b6b", "#e4e4e4"
_GROUP_WIDTH = 0.84


def draw_comparison(results: Results, path: Path) -> None:
    """Draw items/s of everyone on every set of the reference architecture, images above texts."""
    peers = [name for name in results.labels if name not in results.ours]
    colours = {
        name: among[position % len(among)]
        for among, names in ((_OURS, results.ours), (_PEERS, peers))
        for position, name in enumerate(names)
    }
    known: dict[str, Artist] = {}
    with plt.rc_context({"svg.hashsalt": "mmalign", "svg.fonttype": "none", "font.size": 9, "text.color": "#222222"}):
        figure, panels = plt.subplots(2, 1, figsize=(9.2, 6.2), layout="constrained")
        for axes, kind in zip(panels, ("image", "text"), strict=True):
            _draw_bars(axes, results, cases_of(results, REFERENCE, kind, "batch"), colours)
            title = f"{tower_name(REFERENCE, kind)}: {kind}s a second"
            axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
            handles, labels = axes.get_legend_handles_labels()
            known |= dict(zip(labels, handles, strict=True))
        figure.legend(list(known.values()), list(known), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})
        plt.close(figure)


def _draw_bars(axes: Axes, results: Results, cases: list[Case], colours: Mapping[str, str]) -> None:
    names = [name for name in results.labels if any(name in case.seconds for case in cases)]
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
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, labelcolor=_MUTED)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
