"""Evaluation of a run on concepts it never saw: retrieval both ways and zero-shot classes.

Beside each stand chance and a closed-form linear map from the pretrained towers, the bar that training must clear.
Shapes: N images, M captions, P prompts, F image features, G text features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from mmalign.data import Splits
from mmalign.data.identity import image_identity
from mmalign.device import evaluation_device
from mmalign.errors import ConfigError
from mmalign.linear_map import LinearMap, fit_linear_map
from mmalign.pairs import SourcePairs, load_sources, merged_splits
from mmalign.pool import Captions, Pool, build_pool
from mmalign.retrieval import Recall, chance_recall, recall_both_ways
from mmalign.run import Checkpoint, Run, initial_model, load_run, read_trained_images
from mmalign.towers import Towers
from mmalign.truncation import report_truncated
from mmalign.zero_shot import class_prompts, class_vectors, zero_shot_accuracy
from mmalign_runtime.atomic import replacing

logger = logging.getLogger(__name__)

SplitName = Literal["val", "test"]


class Scored(msgspec.Struct, frozen=True):
    """One method on one source: retrieval both ways; zero-shot accuracy where pairs carry a class."""

    image_to_text: Recall
    text_to_image: Recall
    zero_shot_accuracy: float | None = None


class SourceScores(msgspec.Struct, frozen=True):
    """One source's figures: the trained model, the linear map and chance on the same images and captions.

    `num_trained_on` counts the images, byte for byte, that the run learned from: their figures say nothing; None where
    the run does not know.
    """

    source: str
    is_held_out: bool
    num_images: int
    num_captions: int
    num_classes: int
    model: Scored
    linear_map: Scored
    chance: Scored
    num_trained_on: int | None = None


class Evaluation(msgspec.Struct, frozen=True):
    """What `mmalign evaluate` writes to run/evaluation.json."""

    split: SplitName
    checkpoint: Checkpoint
    captions: Captions
    linear_map_strength: float
    sources: tuple[SourceScores, ...]


class _Task(msgspec.Struct, frozen=True):
    """What is asked of one source: to search its pool both ways, and to tell its classes apart."""

    source: SourcePairs
    pool: Pool
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    num_trained_on: int | None


class _Features(msgspec.Struct, frozen=True):
    """What towers gave for a task: (N, F), (M, G), (P, G)."""

    images: Tensor
    texts: Tensor
    prompts: Tensor


Embed = Callable[[Tensor], Tensor]


def evaluate(run_dir: Path, *, split: SplitName = "test", checkpoint: Checkpoint = "best") -> Evaluation:
    """Evaluate a run and write evaluation.json beside it.

    Raises CheckpointError, DataError, ConfigError for a source with nothing in the split, or WeightsError when towers
    learned and the pretrained ones, which the linear map starts from, are not here.
    """
    run = load_run(run_dir, checkpoint)
    config = run.config
    sources = load_sources(config.data, config.image)
    trained_images = read_trained_images(run.folder)
    tasks = [_task(source, split, run, trained_images) for source in sources]
    report_truncated((pair for task in tasks for pair in task.pool.pairs), run.text_tokenizer())
    device = evaluation_device(config.train)
    trained = start = Towers(run, device, is_training=False)
    if not (config.image_tower.frozen and config.text_tower.frozen):
        start = Towers(msgspec.structs.replace(run, model=initial_model(config).eval()), device, is_training=False)
    linear_map = _fit_map(merged_splits(sources), start, config.evaluate.captions)
    scores = tuple(_score(task, run, trained, start, linear_map) for task in tasks)
    evaluation = Evaluation(split, checkpoint, config.evaluate.captions, linear_map.strength, scores)
    with replacing(run.folder.file("evaluation.json")) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
    return evaluation


def _task(source: SourcePairs, split: SplitName, run: Run, trained_images: frozenset[str] | None) -> _Task:
    pairs = source.splits.test if split == "test" else source.splits.val
    if not pairs:
        raise ConfigError(f"source {source.name} has no pairs in the {split} split. Raise data.split.{split}.")
    classes = tuple(sorted({pair.group for pair in pairs if pair.group is not None}))
    prompts = class_prompts(classes, run.config.evaluate.templates)
    pool = build_pool(pairs, run.config.evaluate.captions)
    return _Task(source, pool, classes, tuple(prompts), _num_trained_on(source.name, pool, trained_images))


def _num_trained_on(name: str, pool: Pool, trained_images: frozenset[str] | None) -> int | None:
    if trained_images is None:
        logger.warning("%s: the run does not say which images it was trained on, so none can be told apart", name)
        return None
    seen = [pair for pair in pool.pairs if image_identity(pair) in trained_images]
    if seen:
        logger.warning(
            "%s: %d of %d images were trained on, so the figures are too high; the first is %s. "
            "Did the data or its split change since the run was trained?",
            *(name, len(seen), len(pool.pairs), seen[0].origin),
        )
    return len(seen)


def _fit_map(splits: Splits, towers: Towers, captions: Captions) -> LinearMap:
    """Fit on the training pairs and their first captions; pick the regularisation on the validation pairs."""
    val = build_pool(splits.val, captions)
    images = towers.image_features(splits.train, "training")
    texts = towers.text_features([pair.captions[0] for pair in splits.train], "first captions of training")
    val_images = towers.image_features(val.pairs, "validation")
    val_texts = towers.text_features(val.texts, "validation")

    def score(linear_map: LinearMap) -> float:
        vectors = linear_map.embed_image(val_images), linear_map.embed_text(val_texts)
        return sum(found.mean() for found in recall_both_ways(*vectors, val.relevant))

    return fit_linear_map(images, texts, score)


def _score(task: _Task, run: Run, trained: Towers, start: Towers, linear_map: LinearMap) -> SourceScores:
    model, pool = run.model, task.pool
    with torch.inference_mode():
        by_model = _score_method(task, _features(task, trained), model.project_image, model.project_text)
        by_map = _score_method(task, _features(task, start), linear_map.embed_image, linear_map.embed_text)
    guess = 1 / len(task.classes) if task.classes else None
    return SourceScores(
        source=task.source.name,
        is_held_out=task.source.is_held_out,
        num_images=len(pool.pairs),
        num_captions=len(pool.texts),
        num_classes=len(task.classes),
        model=by_model,
        linear_map=by_map,
        chance=Scored(chance_recall(pool.relevant), chance_recall(pool.relevant.reversed()), guess),
        num_trained_on=task.num_trained_on,
    )


def _features(task: _Task, towers: Towers) -> _Features:
    name = task.source.name
    return _Features(
        images=towers.image_features(task.pool.pairs, name),
        texts=towers.text_features(task.pool.texts, f"{name} captions"),
        prompts=towers.text_features(task.prompts, f"{name} classes") if task.prompts else torch.empty(0),
    )


def _score_method(task: _Task, features: _Features, embed_image: Embed, embed_text: Embed) -> Scored:
    images, texts = embed_image(features.images), embed_text(features.texts)  # (N, D), (M, D)
    accuracy = None
    if task.classes:
        weights = class_vectors(embed_text(features.prompts), len(task.classes))  # (C, D)
        accuracy = zero_shot_accuracy(images, weights, task.pool.groups, task.classes)
    return Scored(*recall_both_ways(images, texts, task.pool.relevant), accuracy)
