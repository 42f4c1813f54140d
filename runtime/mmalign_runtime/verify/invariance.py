"""Invariance: the same items alone, in batches, beside long texts, and from many threads give the same vectors."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.spec import Parity
from mmalign_runtime.verify.difference import difference
from mmalign_runtime.verify.golden_cases import ImageOutcome, TextOutcome
from mmalign_runtime.verify.report import CheckResult

NUM_CALLERS = 8
# Items of each kind that every caller embeds.
_NUM_CONCURRENT = 2

# Float32 sums in another order: unit vectors of some hundred components were seen to move by 4e-7.
_FLOAT32_ON_CPU = 1e-6


def bound(embedder: BaseEmbedder, parity: Parity) -> float:
    """Return how far other items of a batch, or other threads, may move a component of a vector.

    On other providers than the CPU, libraries choose a kernel by the shape of the batch, and kernels differ as machines
    do; quantized files round. There the bound is the one that holds the files to the reference.
    """
    is_exact = embedder.options.provider == "cpu" and embedder.precision == "fp32"
    return _FLOAT32_ON_CPU if is_exact else parity.abs_bound


def check_image_batch(embedder: BaseEmbedder, images: Sequence[ImageOutcome], limit: float) -> CheckResult:
    """Embed all images, of every size and shape, in batches as large as the tower is ever given."""
    alone = np.concatenate([outcome.vector for outcome in images])  # (N, D)
    together = embedder.image.vectors([outcome.pixel_values for outcome in images])  # (N, D)
    moved = difference(together, alone).max_abs
    return _result("image batch", moved, limit, f"{len(images)} images alone and in batches")


def check_text_batch(embedder: BaseEmbedder, texts: Sequence[TextOutcome], limit: float) -> CheckResult:
    """Embed all texts, short ones beside one of full length, in one batch."""
    alone = np.concatenate([outcome.vector for outcome in texts])  # (N, D)
    together = embedder.text.vectors([outcome.case.text for outcome in texts])  # (N, D)
    moved = difference(together, alone).max_abs
    return _result("text batch", moved, limit, f"{len(texts)} texts alone and padded to the longest")


def check_concurrency(
    embedder: BaseEmbedder, images: Sequence[ImageOutcome], texts: Sequence[TextOutcome], limit: float
) -> CheckResult:
    """Embed the cheapest items from eight threads at once, each in another order."""
    images = sorted(images, key=lambda outcome: outcome.case.height * outcome.case.width)[:_NUM_CONCURRENT]
    texts = sorted(texts, key=lambda outcome: len(outcome.case.input_ids))[:_NUM_CONCURRENT]
    start = threading.Barrier(NUM_CALLERS)

    def call(number: int) -> float:
        start.wait()
        moved = 0.0
        if images:
            mine = [*images[number % len(images) :], *images[: number % len(images)]]
            found = embedder.encode_image([embedder.bundle.source(outcome.case.file) for outcome in mine])
            moved = difference(found, np.concatenate([outcome.vector for outcome in mine])).max_abs
        if texts:
            found = embedder.encode_text([outcome.case.text for outcome in texts])
            moved = max(moved, difference(found, np.concatenate([outcome.vector for outcome in texts])).max_abs)
        return moved

    with ThreadPoolExecutor(NUM_CALLERS) as pool:
        moved = max(pool.map(call, range(NUM_CALLERS)))
    detail = f"{len(images)} images and {len(texts)} texts from {NUM_CALLERS} threads at once"
    return _result("concurrency", moved, limit, detail)


def _result(name: str, moved: float, limit: float, detail: str) -> CheckResult:
    return CheckResult(name=name, passed=moved <= limit, max_abs_difference=moved, bound=limit, detail=detail)
