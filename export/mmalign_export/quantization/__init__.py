"""Fewer bits within a budget: quantize a bundle's towers, keep the fastest that loses little, prove and add it.

Names are loaded when first used: the process that measures a model's memory holds no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign_export.quantization.budget import Budget, parse_budget
    from mmalign_export.quantization.report import QuantizationReport, Trial
    from mmalign_export.quantization.run import quantize

_HOMES = {
    "Budget": "budget",
    "QuantizationReport": "report",
    "Trial": "report",
    "parse_budget": "budget",
    "quantize": "run",
}

__all__ = ["Budget", "QuantizationReport", "Trial", "parse_budget", "quantize"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
