"""The first table of the page: what was aimed at, and what came out, with each engine."""

from __future__ import annotations

import numpy as np

from benchmarks.against.cold_start import CACHED, OURS
from benchmarks.against.models import DEMO, REFERENCE
from benchmarks.against.protocol import Kind
from benchmarks.against.results import Mode, Results, times_faster
from benchmarks.harness.markdown import number, table
from benchmarks.performance.ceilings import share
from benchmarks.performance.measured import Measured
from benchmarks.roofline.results import Roofline

_OPENVINO = "openvino"
_ENGINES = ("onnxruntime", _OPENVINO)
_EAGER, _FASTEMBED, _TUNED = "eager", "fastembed", "fastembed-tuned"
# The batch of the roofline that the share of the peak is aimed at.
_SHARE_BATCH = 8
_NONE = "—"


def glance(measured: Measured) -> str:
    """Return the table. Ratios are medians against fastembed's defaults, in brackets against it tuned."""
    against = measured.against
    rows = [
        ["images, mixed, float32, against fastembed", "2", *_ratios(against, "image", "mixed", "fp32")],
        ["images, mixed, int8", "6", *_ratios(against, "image", "mixed", "int8")],
        ["images, phone, int8", "8", *_ratios(against, "image", "phone", "int8")],
        ["texts, mixed, float32", "1.3", *_ratios(against, "text", "mixed", "fp32")],
        ["texts, mixed, int8", "3", *_ratios(against, "text", "mixed", "int8")],
        ["one query, int8", "2.2", *_ratios(against, "text", "queries", "int8", "single")],
        ["images, mixed, int8, against PyTorch eager", "6", *_eager(against, "image")],
        ["texts, mixed, int8, against PyTorch eager", "4", *_eager(against, "text")],
        ["share of the int8 peak, ResNet-50, batch 8", "60%", *_shares(measured.roofline)],
        *_cold_starts(measured),
        ["slowest to fastest of 1,000 to 50,000 images", "0.9", _steadiness(measured), _NONE],
    ]
    return table(("", "aim", *_ENGINES), rows)


def _ratios(against: Results, kind: Kind, set_name: str, precision: str, mode: Mode = "batch") -> list[str]:
    return [
        _ratio(against, kind, set_name, mode, _entry(precision, engine), (_FASTEMBED, _TUNED)) for engine in _ENGINES
    ]


def _eager(against: Results, kind: Kind) -> list[str]:
    return [_ratio(against, kind, "mixed", "batch", _entry("int8", engine), (_EAGER,)) for engine in _ENGINES]


def _ratio(against: Results, kind: Kind, set_name: str, mode: Mode, ours: str, peers: tuple[str, ...]) -> str:
    case = against.case(REFERENCE, kind, set_name, mode)
    if case is None or ours not in case.seconds:
        return _NONE
    first, *others = (number(times_faster(case, ours, peer).p50) for peer in peers)
    return " ".join([first, *(f"({other})" for other in others)])


def _entry(precision: str, engine: str) -> str:
    return f"mmalign-{precision}" + (f"@{engine}" if engine == _OPENVINO else "")


def _shares(roofline: Roofline) -> list[str]:
    found = {
        tower.engine: f"{share(roofline, tower, None):.0%}"
        for tower in roofline.towers
        if (tower.model, tower.tower, tower.precision) == (REFERENCE, "image", "int8")
        and tower.input_shape[0] == _SHARE_BATCH
    }
    return [found.get(engine, _NONE) for engine in _ENGINES]


def _cold_starts(measured: Measured) -> list[list[str]]:
    rows = []
    for case in measured.cold_start.cases:
        if case.model == DEMO:
            seconds = [f"{np.median(case.seconds[name]):.2f}" for name in (OURS, CACHED)]
            rows.append([f"first {case.kind}, demo, s (with the cache)", "0.6", f"{seconds[0]} ({seconds[1]})", _NONE])
            ratios = [number(case.ratio(name).p50) for name in (OURS, CACHED)]
            times = f"{ratios[0]} ({ratios[1]})"
            rows.append([f"first {case.kind}, demo, against fastembed (with the cache)", "2", times, _NONE])
    return rows


def _steadiness(measured: Measured) -> str:
    speeds = [level.images_per_s for level in measured.growth.levels]
    memory = [level.resident_mb for level in measured.growth.levels]
    return f"{min(speeds) / max(speeds):.2f}; {min(memory):.0f} to {max(memory):.0f} MB"
