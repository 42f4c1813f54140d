"""The second stage of a bundle: its golden cases, and its graphs held to eager PyTorch.

Every image case is looked at by a few texts, and keeps the token of one region: of another in each case, so that all
cases together cover the grid. Shapes: B batch, T texts, I images, N regions, D embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign.dual_model import DualModel, ModelAttention
from mmalign_export.errors import ParityError
from mmalign_export.golden import shortest
from mmalign_export.parity import ABS_BOUND, BATCH_SIZES, COSINE_BOUND
from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.bundle.golden import AttentionCase, AttentionGolden, Golden
from mmalign_runtime.spec import REGIONS, SCORES, Parity

logger = logging.getLogger(__name__)

# Texts that look at every image: the first of the golden texts that say something, and the last, the model's own.
_NUM_TEXTS = 4


def attention_golden(model: DualModel, attention: ModelAttention, golden: Golden, folder: Path) -> Golden:
    """Return the golden cases with those of the second stage, by eager PyTorch."""
    said = [case for case in golden.texts if case.text.strip()]
    texts = said[: _NUM_TEXTS // 2] + said[-(_NUM_TEXTS // 2) :]
    text_embeds = np.array([case.embedding for case in texts], np.float32)  # (T, D)
    cases = []
    for number, image in enumerate(golden.images):
        tokens = attention.regions.run(_pixel_values(model, folder / image.file))  # (1, 1 + N, D)
        attended = attention.scores.run(text_embeds, tokens)[:, 0]  # (T, 1 + N)
        region = number % (attention.spec.num_tokens - 1)
        rows = tuple(shortest(row) for row in attended)
        cases.append(
            AttentionCase(image=image.name, region=region, token=shortest(tokens[0, 1 + region]), attended=rows)
        )
    found = AttentionGolden(texts=tuple(case.name for case in texts), images=tuple(cases))
    return msgspec.structs.replace(golden, attention=found)


def check_attention(
    model: DualModel, attention: ModelAttention, embedder: BaseEmbedder, golden: Golden
) -> dict[str, Parity]:
    """Compare both graphs, as the runtime serves them, with eager PyTorch, in batches of 1, 3 and 17 images.

    Raises ParityError, naming the graph and the figures, when one is outside the bounds of the towers.
    """
    folder = embedder.bundle.path
    texts = np.array([case.embedding for case in golden.texts], np.float32)  # (T, D)
    differences: dict[str, list[tuple[float, float]]] = {REGIONS: [], SCORES: []}
    for batch in _batches([folder / case.file for case in golden.images]):
        expected = attention.regions.run(np.concatenate([_pixel_values(model, path) for path in batch]))
        tokens = embedder.attention.encode_regions(batch)  # (B, 1 + N, D)
        differences[REGIONS].append(_compare(tokens, expected))
        seen = embedder.attention.attend(texts, expected).scores_and_weights()  # (T, B, 1 + N)
        differences[SCORES].append(_compare(seen, attention.scores.run(texts, expected)))
    return {name: _parity(name, found, len(golden.images)) for name, found in differences.items()}


def _pixel_values(model: DualModel, path: Path) -> NDArray[np.float32]:
    return np.asarray(model.image.prepare([path])[model.image.input_names[0]], np.float32)


def _batches(paths: Sequence[Path]) -> Iterator[list[Path]]:
    for batch_size in BATCH_SIZES:
        yield from (list(paths[start : start + batch_size]) for start in range(0, len(paths), batch_size))


def _compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Return the lowest cosine, and the largest difference of a component."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return -1.0, float("inf")
    one, other = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float(((one * other).sum(-1) / norms).min()), float(np.abs(one - other).max())


def _parity(name: str, found: Sequence[tuple[float, float]], num_cases: int) -> Parity:
    cosine, max_abs = min(lowest for lowest, _ in found), max(largest for _, largest in found)
    if cosine < COSINE_BOUND or max_abs > ABS_BOUND:
        raise ParityError(
            f"the graph of {name} differs from eager PyTorch: cosine {cosine:.7f} (at least {COSINE_BOUND}), max abs "
            f"{max_abs:.2e} (at most {ABS_BOUND:g}). No bundle was written."
        )
    logger.info(
        "parity: onnx, %s, over %d golden cases, lowest cosine %.8f, largest difference %.1e",
        *(name, num_cases, cosine, max_abs),
    )
    return Parity(
        num_cases=num_cases,
        min_cosine=cosine,
        max_abs_difference=max_abs,
        cosine_bound=COSINE_BOUND,
        abs_bound=ABS_BOUND,
    )
