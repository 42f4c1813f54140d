"""Evaluation of a run on concepts it never saw: retrieval both ways and zero-shot classes, each beside chance and beside
a closed-form linear map from the same pretrained towers, the bar that training must clear.

Shapes: N images, M captions, C classes, D embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.data import Pair
from mmalign.errors import TrainingError
from mmalign.features import FeatureCache, ImageFeatures, TextFeatures
from mmalign.linear_map import LinearMap, fit_linear_map
from mmalign.pairs import SourcePairs, load_sources
from mmalign.pool import Captions, Pool, build_pool
from mmalign.retrieval import Recall, chance_recall, recall
from mmalign.run import Checkpoint, Run, initial_model, load_run
from mmalign.train import choose_device
from mmalign_runtime.atomic import replacing

logger = logging.getLogger(__name__)

SplitName = Literal["val", "test"]
Scores = Callable[[Tensor, Tensor], Tensor]


class Scored(msgspec.Struct, frozen=True):
    """One method on one source: retrieval both ways; zero-shot accuracy where pairs carry a class."""

    image_to_text: Recall
    text_to_image: Recall
    zero_shot_accuracy: float | None = None


class SourceScores(msgspec.Struct, frozen=True):
    """One source's figures: the trained model, the linear map and chance on the same images and captions."""

    source: str
    is_held_out: bool
    num_images: int
    num_captions: int
    num_classes: int
    model: Scored
    linear_map: Scored
    chance: Scored


class Evaluation(msgspec.Struct, frozen=True):
    """What `mmalign evaluate` writes to run/evaluation.json."""

    split: SplitName
    checkpoint: Checkpoint
    captions: Captions
    linear_map_strength: float
    sources: tuple[SourceScores, ...]


class _Embedded(msgspec.Struct, frozen=True):
    """The features that one side's towers gave for a pool and its class prompts: (N, F), (M, G), (C x templates, G)."""

    images: Tensor
    texts: Tensor
    prompts: Tensor


def evaluate(run_dir: Path, *, split: SplitName = "test", checkpoint: Checkpoint = "best") -> Evaluation:
    """Evaluate a run and write evaluation.json beside it. Raises CheckpointError, DataError or WeightsError."""
    run = load_run(run_dir, checkpoint)
    sources = load_sources(run.config.data)
    extractor = _Extractor(run)
    linear_map = _fit_map(run, sources, extractor)
    scores = [_score_source(source, split, run, extractor, linear_map) for source in sources]
    evaluation = Evaluation(split, checkpoint, run.config.evaluate.captions, linear_map.strength, tuple(scores))
    with replacing(run.folder.file("evaluation.json")) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
    return evaluation


class _Extractor:
    """Features of the run's towers and of the pretrained ones it started from; the same when both are frozen."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._cache = FeatureCache(Path(run.config.train.cache_dir))
        device = choose_device(run.config.train)
        learns = not (run.config.image_tower.frozen and run.config.text_tower.frozen)
        start = initial_model(run.config).eval() if learns else run.model
        preprocess, tokenizer = run.preprocessor(), run.text_tokenizer()
        self._images = {
            is_start: ImageFeatures(model.image_tower, preprocess, run.config.image, device)
            for is_start, model in ((False, run.model), (True, start))
        }
        self._texts = {
            is_start: TextFeatures(model.text_tower, tokenizer, device)
            for is_start, model in ((False, run.model), (True, start))
        }

    def images(self, pairs: Sequence[Pair], name: str, *, start: bool) -> Tensor:
        """Return image features (N, F) of the trained towers, or of those that training started from."""
        features = self._images[start]
        key = features.key(pairs, "clean")
        return self._cache.get(key, lambda: features.compute(pairs, f"image features, {name}").numpy())

    def texts(self, texts: Sequence[str], name: str, *, start: bool) -> Tensor:
        """Return text features (M, G), likewise."""
        features = self._texts[start]
        key = features.key(texts, self._run.tokenizer.to_str())
        return self._cache.get(key, lambda: features.compute(texts, f"text features, {name}").numpy())


def _fit_map(run: Run, sources: Sequence[SourcePairs], extractor: _Extractor) -> LinearMap:
    """Fit on the training pairs and their first captions; pick the regularisation on the validation pairs."""
    trained = [source.splits for source in sources if not source.is_held_out]
    pairs = [pair for side in trained for pair in side.train]
    val = build_pool([pair for side in trained for pair in side.val], run.config.evaluate.captions)
    images = extractor.images(pairs, "training pairs", start=True)
    texts = extractor.texts([pair.captions[0] for pair in pairs], "training captions", start=True)
    val_images = extractor.images(val.pairs, "validation", start=True)
    val_texts = extractor.texts(val.texts, "validation captions", start=True)

    def score(linear_map: LinearMap) -> float:
        similarity = linear_map.embed_image(val_images) @ linear_map.embed_text(val_texts).T
        return recall(similarity, val.relevant).mean() + recall(similarity.T, val.relevant.T).mean()

    return fit_linear_map(images, texts, score)


def _score_source(
    source: SourcePairs, split: SplitName, run: Run, extractor: _Extractor, linear_map: LinearMap
) -> SourceScores:
    pairs = source.splits.test if split == "test" else source.splits.val
    if not pairs:
        raise TrainingError(f"source {source.name} has no pairs in the {split} split. Raise data.split.{split}.")
    pool = build_pool(pairs, run.config.evaluate.captions)
    classes = tuple(sorted({pair.group for pair in pairs if pair.group is not None}))
    templates = run.config.evaluate.templates
    prompts = [template.format(name) for name in classes for template in templates]

    def embed(*, start: bool) -> _Embedded:
        return _Embedded(
            extractor.images(pool.pairs, source.name, start=start),
            extractor.texts(pool.texts, f"{source.name} captions", start=start),
            extractor.texts(prompts, f"{source.name} classes", start=start) if prompts else torch.empty(0),
        )

    trained, pretrained = embed(start=False), embed(start=True)
    with torch.inference_mode():
        model = run.model.cpu()
        model_scored = _score(trained, pool, classes, model.project_image, model.project_text)
        map_scored = _score(pretrained, pool, classes, linear_map.embed_image, linear_map.embed_text)
    return SourceScores(
        source=source.name,
        is_held_out=source.is_held_out,
        num_images=len(pool.pairs),
        num_captions=len(pool.texts),
        num_classes=len(classes),
        model=model_scored,
        linear_map=map_scored,
        chance=Scored(
            chance_recall(pool.relevant),
            chance_recall(pool.relevant.T),
            1 / len(classes) if classes else None,
        ),
    )


def _score(
    embedded: _Embedded,
    pool: Pool,
    classes: tuple[str, ...],
    embed_image: Callable[[Tensor], Tensor],
    embed_text: Callable[[Tensor], Tensor],
) -> Scored:
    images = embed_image(embedded.images)  # (N, D)
    similarity = images @ embed_text(embedded.texts).T  # (N, M)
    accuracy = None
    if classes:
        weights = class_vectors(embed_text(embedded.prompts), len(classes))  # (C, D)
        accuracy = zero_shot_accuracy(images, weights, [pair.group for pair in pool.pairs], classes)
    return Scored(recall(similarity, pool.relevant), recall(similarity.T, pool.relevant.T), accuracy)


def class_vectors(prompt_embeds: Tensor, num_classes: int) -> Tensor:
    """Return one unit vector a class, (C, D), from its prompts', (C x templates, D): their mean (CLIP, section 3.1.4)."""
    means = prompt_embeds.reshape(num_classes, -1, prompt_embeds.shape[-1]).mean(dim=1)  # (C, D)
    return functional.normalize(means, dim=-1)


def zero_shot_accuracy(
    images: Tensor, weights: Tensor, groups: Sequence[str | None], classes: Sequence[str]
) -> float:
    """Return the share of labelled images, 0..1, whose nearest class vector is their own."""
    rows = [row for row, group in enumerate(groups) if group is not None]
    labels = torch.tensor([classes.index(group) for group in groups if group is not None])
    nearest = (images[rows] @ weights.T).argmax(dim=1)
    return float((nearest == labels).double().mean())
