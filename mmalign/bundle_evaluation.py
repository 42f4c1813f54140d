"""Evaluation of a bundle on pairs: retrieval both ways and zero-shot classes, by the vectors that the runtime serves.

It needs no run, and knows nothing of what the model was trained on. Shapes: N images, M captions, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from mmalign.config import EvaluateConfig
from mmalign.data import DataSource, Pair, read_pairs
from mmalign.retrieval import chance_recall, recall_both_ways
from mmalign.retrieval_set import build_retrieval_set
from mmalign.scores import BundleScores, Scored
from mmalign.zero_shot import class_prompts, class_vectors, zero_shot_accuracy
from mmalign_runtime.config import RuntimeFields
from mmalign_runtime.embedder import Embedder

_BATCH = 32
_DEFAULT = EvaluateConfig()


def evaluate_bundle(
    bundle: str | Path,
    pairs: str | Path | DataSource,
    config: EvaluateConfig = _DEFAULT,
    **fields: Unpack[RuntimeFields],
) -> BundleScores:
    """Evaluate a bundle, of a run or imported, on pairs of images and captions.

    Args:
        bundle: A folder or a .mmalign file.
        pairs: What `data.sources` may name: a table, a folder, shards; or such a source with its columns, of which
            `group_column` gives the classes. All of its pairs are asked.
        config: Which captions count, and the templates of zero-shot classification.
        fields: How the bundle is loaded (precision, engine, provider), as `Embedder.load` takes it.

    Returns:
        Recall at 1, 5 and 10 (shares, 0..1) both ways, zero-shot accuracy where pairs carry a class, and chance.

    Raises:
        BundleError: The bundle cannot be used.
        DataError: The pairs cannot be read, or there are none.
        ItemError: An image or a caption cannot be embedded.

    Example:
        >>> evaluate_bundle("bundle", "pairs.csv").model.text_to_image.at_10  # doctest: +SKIP
        0.83
    """
    source = pairs if isinstance(pairs, DataSource) else DataSource(path=str(pairs))
    read = read_pairs(source).pairs
    with Embedder.load(bundle, **fields) as embedder:
        return _score(embedder, read, config)


def _score(embedder: Embedder, pairs: Sequence[Pair], config: EvaluateConfig) -> BundleScores:
    items = build_retrieval_set(pairs, config.captions)
    images = torch.from_numpy(embedder.encode_image([pair.image for pair in items.pairs], batch_size=_BATCH))  # (N, D)
    texts = _text_vectors(embedder, items.texts)  # (M, D)
    classes = tuple(sorted({name for own in items.groups for name in own}))
    accuracy = None
    if classes:
        weights = class_vectors(_text_vectors(embedder, class_prompts(classes, config.templates)), len(classes))
        accuracy = zero_shot_accuracy(images, weights, items.groups, classes)
    info = embedder.info()
    return BundleScores(
        space_id=info.space_id,
        precision=embedder.precision,
        num_images=len(items.pairs),
        num_captions=len(items.texts),
        num_classes=len(classes),
        model=Scored(*recall_both_ways(images, texts, items.relevant), accuracy),
        chance=Scored(
            chance_recall(items.relevant),
            chance_recall(items.relevant.reversed()),
            1 / len(classes) if classes else None,
        ),
    )


def _text_vectors(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(embedder.encode_text(texts, batch_size=_BATCH))
