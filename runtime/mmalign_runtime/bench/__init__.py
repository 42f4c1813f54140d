"""Measuring a bundle on the machine at hand, a module for each part.

stages: where the time of a batch goes. bulk: items a second, many at a time. closed_loop: what callers see who wait for
each answer. cold_start, memory: what a process costs. quiet: whether the machine let any of it be measured. compare:
engines and precisions. Names are loaded when first used: a fresh process that `cold_start` times imports this too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign_runtime.bench.environment import Environment
    from mmalign_runtime.bench.run import BenchPlan, BenchReport, run_bench
    from mmalign_runtime.bench.stages import StageTiming
    from mmalign_runtime.bench.workload import golden_images, golden_texts

_HOMES = {
    "BenchPlan": "run",
    "BenchReport": "run",
    "Environment": "environment",
    "StageTiming": "stages",
    "golden_images": "workload",
    "golden_texts": "workload",
    "run_bench": "run",
}

__all__ = [
    "BenchPlan",
    "BenchReport",
    "Environment",
    "StageTiming",
    "golden_images",
    "golden_texts",
    "run_bench",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
