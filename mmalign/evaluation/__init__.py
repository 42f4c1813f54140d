"""Evaluation of a run and of any bundle: the vectors of pairs, and the figures of retrieval over them."""

from __future__ import annotations

from mmalign.evaluation.of_run import EVALUATION, evaluate

__all__ = ["EVALUATION", "evaluate"]
