"""Evaluation of a run on concepts it never saw: retrieval both ways and zero-shot classes.

Beside each stand chance and a closed-form linear map from the pretrained towers, the bar that training must clear.
Shapes: N images, M captions, P prompts, F image features, G text features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import torch
from torch import Tensor

from mmalign.device import evaluation_device
from mmalign.errors import ConfigError
from mmalign.linear_map import LinearMap, fit_linear_map
from mmalign.pairs import SourcePairs, load_sources
from mmalign.pool import Captions, Pool, build_pool
from mmalign.retrieval import Recall, chance_recall, recall
from mmalign.run import Checkpoint, Run, initial_model, load_run
from mmalign.towers import Towers
from mmalign.truncation import report_truncated
from mmalign.zero_shot import class_prompts, class_vectors, zero_shot_accuracy
from mmalign_runtime.atomic import replacing

SplitName = Literal["val", "test"]


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


class _Task(msgspec.Struct, frozen=True):
    """What is asked of one source: to search its pool both ways, and to tell its classes apart."""

    source: SourcePairs
    pool: Pool
    classes: tuple[str, ...]
    prompts: tuple[str, ...]


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
    tasks = [_task(source, split, run) for source in sources]
    report_truncated((pair for task in tasks for pair in task.pool.pairs), run.text_tokenizer())
    device = evaluation_device(config.train)
    trained = start = Towers(run, device, is_training=False)
    if not (config.image_tower.frozen and config.text_tower.frozen):
        start = Towers(msgspec.structs.replace(run, model=initial_model(config).eval()), device, is_training=False)
    linear_map = _fit_map(sources, start, config.evaluate.captions)
    scores = tuple(_score(task, run, trained, start, linear_map) for task in tasks)
    evaluation = Evaluation(split, checkpoint, config.evaluate.captions, linear_map.strength, scores)
    with replacing(run.folder.file("evaluation.json")) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
    return evaluation


def _task(source: SourcePairs, split: SplitName, run: Run) -> _Task:
    pairs = source.splits.test if split == "test" else source.splits.val
    if not pairs:
        raise ConfigError(f"source {source.name} has no pairs in the {split} split. Raise data.split.{split}.")
    classes = tuple(sorted({pair.group for pair in pairs if pair.group is not None}))
    prompts = class_prompts(classes, run.config.evaluate.templates)
    return _Task(source, build_pool(pairs, run.config.evaluate.captions), classes, tuple(prompts))


def _fit_map(sources: Sequence[SourcePairs], towers: Towers, captions: Captions) -> LinearMap:
    """Fit on the training pairs and their first captions; pick the regularisation on the validation pairs."""
    sides = [source.splits for source in sources if not source.is_held_out]
    pairs = [pair for side in sides for pair in side.train]
    val = build_pool([pair for side in sides for pair in side.val], captions)
    images = towers.image_features(pairs, "training")
    texts = towers.text_features([pair.captions[0] for pair in pairs], "first captions of training")
    val_images = towers.image_features(val.pairs, "validation")
    val_texts = towers.text_features(val.texts, "validation")

    def score(linear_map: LinearMap) -> float:
        similarity = linear_map.embed_image(val_images) @ linear_map.embed_text(val_texts).T
        return recall(similarity, val.relevant).mean() + recall(similarity.T, val.relevant.T).mean()

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
        chance=Scored(chance_recall(pool.relevant), chance_recall(pool.relevant.T), guess),
    )


def _features(task: _Task, towers: Towers) -> _Features:
    name = task.source.name
    return _Features(
        images=towers.image_features(task.pool.pairs, name),
        texts=towers.text_features(task.pool.texts, f"{name} captions"),
        prompts=towers.text_features(task.prompts, f"{name} classes") if task.prompts else torch.empty(0),
    )


def _score_method(task: _Task, features: _Features, embed_image: Embed, embed_text: Embed) -> Scored:
    images = embed_image(features.images)  # (N, D)
    similarity = images @ embed_text(features.texts).T  # (N, M)
    accuracy = None
    if task.classes:
        weights = class_vectors(embed_text(features.prompts), len(task.classes))  # (C, D)
        accuracy = zero_shot_accuracy(images, weights, [pair.group for pair in task.pool.pairs], task.classes)
    relevant = task.pool.relevant
    return Scored(recall(similarity, relevant), recall(similarity.T, relevant.T), accuracy)
