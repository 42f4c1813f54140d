"""Fewer bits within a budget: quantize a bundle's towers, keep the fastest that loses little, prove and add it."""

from mmalign_export.quantize.budget import Budget, parse_budget
from mmalign_export.quantize.report import QuantizationReport, Trial
from mmalign_export.quantize.run import quantize_bundle

__all__ = ["Budget", "QuantizationReport", "Trial", "parse_budget", "quantize_bundle"]
