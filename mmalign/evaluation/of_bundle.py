"""Evaluation of a bundle on pairs: retrieval both ways and zero-shot classes, by the vectors that the runtime serves.

It needs no run, and knows nothing of what the model was trained on. Shapes: N images, M captions, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

import torch
from torch import Tensor

from mmalign.config import EvaluateConfig
from mmalign.data import DataSource, read_pairs
from mmalign.errors import ModelError
from mmalign.evaluation.scoring import Shown
from mmalign.figures.answers import Vectors, answer, diagnosis, scored
from mmalign.figures.prefixes import check_dims
from mmalign.figures.retrieval import chance_recall
from mmalign.figures.retrieval_set import RetrievalSet, build_retrieval_set
from mmalign.figures.scores import BundleScores, Scored
from mmalign.figures.zero_shot import class_prompts, class_vectors
from mmalign.memory import within_memory
from mmalign_runtime.config import RuntimeFields
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.spec import ImageTower

_BATCH = 32
_DEFAULT = EvaluateConfig()


@within_memory("the evaluation", "Evaluate fewer pairs at a time.", ModelError)
def evaluate_bundle(
    bundle: str | Path,
    pairs: str | Path | DataSource,
    config: EvaluateConfig = _DEFAULT,
    show: Callable[[Shown], None] = lambda shown: None,
    **fields: Unpack[RuntimeFields],
) -> BundleScores:
    """Evaluate a bundle, of a run or imported, on pairs of images and captions.

    Args:
        bundle: A folder or a .mmalign file.
        pairs: What `data.sources` may name: a table, a folder, shards; or such a source with its columns, of which
            `group_column` gives the classes. All of its pairs are asked.
        config: Which captions count, the templates of zero-shot classification, and prefixes to try.
        show: Is given what there is to see of the pairs: items, vectors, and what each query came to.
        fields: How the bundle is loaded (precision, engine, provider), as `Embedder.load` takes it.

    Returns:
        Recall at 1, 5 and 10 (shares, 0..1) both ways, MRR, nDCG and mean average precision with their intervals,
        zero-shot accuracy where pairs carry a class, calibration, geometry, recall of prefixes and of each language;
        and chance.

    Raises:
        BundleError: The bundle cannot be used.
        DataError: The pairs cannot be read, or there are none.
        ItemError: An image or a caption cannot be embedded.
        ModelError: It needs more memory than there is.

    Example:
        >>> evaluate_bundle("bundle", "pairs.csv").model.text_to_image.at_10  # doctest: +SKIP
        0.83
    """
    source = pairs if isinstance(pairs, DataSource) else DataSource(path=str(pairs))
    items = build_retrieval_set(read_pairs(source).pairs, config.captions)
    classes = tuple(sorted({name for own in items.groups for name in own}))
    with Embedder.load(bundle, **fields) as embedder:
        check_dims(config.dims, embedder.embed_dim)  # before all is embedded
        vectors = _vectors(embedder, items, classes, config.templates)
        answers = answer(items, classes, vectors, embedder.similarity)
        show(Shown(source.path, embedder.bundle.spec.tower("image", ImageTower).spec, items, vectors, answers))
        return BundleScores(
            space_id=embedder.space_id,
            precision=embedder.precision,
            num_images=len(items.pairs),
            num_captions=len(items.texts),
            num_classes=len(classes),
            model=scored(items, answers),
            chance=_chance(items, len(classes)),
            diagnosis=diagnosis(items, answers, vectors, declared=embedder.bundle.spec.prefix_dims, asked=config.dims),
        )


def _chance(items: RetrievalSet, num_classes: int) -> Scored:
    both = chance_recall(items.relevant), chance_recall(items.relevant.reversed())
    return Scored(*both, 1 / num_classes if num_classes else None)


def _vectors(embedder: Embedder, items: RetrievalSet, classes: Sequence[str], templates: Sequence[str]) -> Vectors:
    prompts = class_prompts(classes, templates)
    return Vectors(
        images=torch.from_numpy(embedder.encode_image([pair.image for pair in items.pairs], batch_size=_BATCH)),
        texts=_text_vectors(embedder, items.texts),
        classes=class_vectors(_text_vectors(embedder, prompts), len(classes)) if classes else None,
    )


def _text_vectors(embedder: Embedder, texts: Sequence[str]) -> Tensor:
    return torch.from_numpy(embedder.encode_text(texts, batch_size=_BATCH))
