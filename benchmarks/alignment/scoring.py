"""Recall of a trained run on concepts that it never saw, in styles that it saw and in one that it did not.

Guarded figures leave out queries that training nearly saw: concepts whose label is too much like a label of training.
Shapes: N images, M captions, D embedding.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.features import ModelFeatures, TextFeatures
from mmalign.features.near_synonyms import without_near_synonyms
from mmalign.figures.retrieval import best_ranks
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.model import DualEncoder
from mmalign.run import initial_model, load_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import SourcePairs, load_sources, merged_splits

# Cosine of two labels by the frozen text tower, above which one says nearly what the other says.
MAX_CAPTION_SIMILARITY = 0.8
KS = (1, 10)


class Figures(msgspec.Struct, frozen=True):
    """Shares of queries with a right answer among the first 1 and 10, and the number of queries."""

    image_to_text: tuple[float, float]
    text_to_image: tuple[float, float]
    num_queries: int


class StyleScores(msgspec.Struct, frozen=True):
    """One style's figures: all queries, and those that the guard lets through; and recall@10 of shorter vectors."""

    style: str
    is_held_out: bool
    every: Figures
    guarded: Figures
    at_10_by_dim: dict[str, float]


class Done(msgspec.Struct, frozen=True):
    """One run: its recipe, seed, seconds of training, validation score and figures on the test split."""

    recipe: str
    seed: int
    train_s: float
    num_steps: int
    val_score: float
    styles: tuple[StyleScores, ...]


def score_run(run_dir: Path, dims: Sequence[int]) -> tuple[StyleScores, ...]:
    """Return the figures of a run's best checkpoint on the test split. Raises what reading the run raises."""
    run = load_run(run_dir)
    config = run.config
    sources = load_sources(config.data, config.image, config.text)
    features = ModelFeatures(dual_model(run), Path(config.train.cache_dir), torch.device("cpu"), is_training=False)
    # Near-synonyms are told by the tower as training began with it, so that recipes are asked the same queries.
    start = dual_model(msgspec.structs.replace(run, model=initial_model(config).eval()))
    judge = ModelFeatures(start, Path(config.train.cache_dir), torch.device("cpu"), is_training=False).texts
    limit = config.data.split.max_caption_similarity
    splits = without_near_synonyms(merged_splits(sources), sources, limit, judge)
    labels = sorted({pair.captions[0] for pair in splits.train})
    trained = judge.of(labels, "labels of training")
    return tuple(_score(run.model, features, judge, trained, source, dims) for source in sources if source.is_evaluated)


def _score(
    model: DualEncoder,
    features: ModelFeatures,
    judge: TextFeatures,
    trained: Tensor,
    source: SourcePairs,
    dims: Sequence[int],
) -> StyleScores:
    items = build_retrieval_set(source.splits.test, "first")
    texts = features.texts.of(items.texts, source.name)
    with torch.inference_mode():
        images = model.project_image(features.images.of(items.pairs, source.name))  # (N, D)
        vectors = model.project_text(texts)  # (M, D)
    unit = partial(functional.normalize, dim=-1)
    cosines = unit(judge.of(items.texts, source.name)) @ unit(trained).T
    is_far = cosines.amax(dim=1) < MAX_CAPTION_SIMILARITY  # (M,)
    far_texts = {text for text, far in zip(items.texts, is_far.tolist(), strict=True) if far}
    is_far_image = torch.tensor([pair.captions[0] in far_texts for pair in items.pairs])  # (N,)
    forth = best_ranks(images, vectors, items.relevant)  # (N,)
    back = best_ranks(vectors, images, items.relevant.reversed())  # (M,)
    return StyleScores(
        style=source.name,
        is_held_out=source.is_held_out,
        every=Figures(_shares(forth), _shares(back), len(forth)),
        guarded=Figures(_shares(forth[is_far_image]), _shares(back[is_far]), int(is_far_image.sum())),
        at_10_by_dim={
            str(dim): _shares(best_ranks(unit(images[:, :dim]), unit(vectors[:, :dim]), items.relevant))[1]
            for dim in dims
        },
    )


def _shares(ranks: Tensor) -> tuple[float, float]:
    return float((ranks <= KS[0]).double().mean()), float((ranks <= KS[1]).double().mean())
