"""Evaluation of a model on concepts it never saw: retrieval both ways, zero-shot classes, and how its vectors lie.

Beside each stand chance and a closed-form linear map from the pretrained towers, the bar that training must clear.
Shapes: N images, M captions, P prompts, F image features, G text features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
import torch
from torch import Tensor

from mmalign.config import EvaluateConfig
from mmalign.data import Splits
from mmalign.data.identity import image_identity
from mmalign.errors import ConfigError
from mmalign.features import ModelFeatures
from mmalign.figures.answers import Answers, Vectors, answer, diagnosis, differences, scored
from mmalign.figures.linear_map import LinearMap, fit_linear_map
from mmalign.figures.retrieval import chance_recall, recall_both_ways
from mmalign.figures.retrieval_set import Captions, RetrievalSet, build_retrieval_set
from mmalign.figures.scores import Checkpoint, Evaluation, Scored, SourceScores, SplitName
from mmalign.figures.truncation import report_truncated
from mmalign.figures.zero_shot import class_prompts, class_vectors
from mmalign.run.pairs import SourcePairs
from mmalign_runtime.spec import ImageSpec

logger = logging.getLogger(__name__)


class _Task(msgspec.Struct, frozen=True):
    """What is asked of one source: to search its items both ways, and to tell its classes apart."""

    source: SourcePairs
    items: RetrievalSet
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    num_trained_on: int | None


class _Features(msgspec.Struct, frozen=True):
    """What towers gave for a task: (N, F), (M, G), (P, G)."""

    images: Tensor
    texts: Tensor
    prompts: Tensor


class Shown(msgspec.Struct, frozen=True, eq=False):
    """What a report shows of a source beside its figures: the items, their vectors, and what each query came to.

    `image_spec` says how the items' files become pixels.
    """

    name: str
    image_spec: ImageSpec
    items: RetrievalSet
    vectors: Vectors
    answers: Answers


Embed = Callable[[Tensor], Tensor]


def evaluate_model(
    trained: ModelFeatures,
    start: ModelFeatures,
    sources: Sequence[SourcePairs],
    config: EvaluateConfig,
    *,
    splits: Splits,
    split: SplitName,
    checkpoint: Checkpoint | None = None,
    trained_images: frozenset[str] | None = None,
    show: Callable[[Shown], None] = lambda shown: None,
) -> Evaluation:
    """Evaluate a model on the sources' pairs of one split.

    `trained` are the features of its towers, `start` those that the linear map is fitted to, on the training pairs of
    `splits`, which are those that the model had. `trained_images` are the identities of the images that it learned
    from, None where that is not known. `show` is given what there is to see of each source. Raises ConfigError for a
    source with nothing in the split, and ItemError.
    """
    tasks = [_task(source, split, config, trained_images) for source in sources if source.is_evaluated]
    report_truncated((pair for task in tasks for pair in task.items.pairs), trained.model.text.bound_tokenizer)
    linear_map = _fit_map(splits, start, config.captions)
    scores = tuple(_score(task, trained, start, linear_map, config.dims, show) for task in tasks)
    return Evaluation(split, checkpoint, config.captions, linear_map.strength, scores)


def _task(
    source: SourcePairs, split: SplitName, config: EvaluateConfig, trained_images: frozenset[str] | None
) -> _Task:
    pairs = source.splits.test if split == "test" else source.splits.val
    if not pairs:
        raise ConfigError(f"source {source.name} has no pairs in the {split} split. Raise data.split.{split}.")
    classes = tuple(sorted({pair.group for pair in pairs if pair.group is not None}))
    prompts = class_prompts(classes, config.templates)
    items = build_retrieval_set(pairs, config.captions)
    return _Task(source, items, classes, tuple(prompts), _num_trained_on(source.name, items, trained_images))


def _num_trained_on(name: str, items: RetrievalSet, trained_images: frozenset[str] | None) -> int | None:
    if trained_images is None:
        logger.warning("%s: the model does not say which images it was trained on, so none can be told apart", name)
        return None
    seen = [pair for pair in items.pairs if image_identity(pair) in trained_images]
    if seen:
        logger.warning(
            "%s: %d of %d images were trained on, so the figures are too high; the first is %s. "
            "Did the data or its split change since the model was trained?",
            *(name, len(seen), len(items.pairs), seen[0].origin),
        )
    return len(seen)


def _fit_map(splits: Splits, features: ModelFeatures, captions: Captions) -> LinearMap:
    """Fit on the training pairs and their first captions; pick the regularisation on the validation pairs."""
    val = build_retrieval_set(splits.val, captions)
    images = features.images.of(splits.train, "training")
    texts = features.texts.of([pair.captions[0] for pair in splits.train], "first captions of training")
    val_images = features.images.of(val.pairs, "validation")
    val_texts = features.texts.of(val.texts, "validation")

    def score(linear_map: LinearMap) -> float:
        vectors = linear_map.embed_image(val_images), linear_map.embed_text(val_texts)
        return sum(found.mean() for found in recall_both_ways(*vectors, val.relevant))

    return fit_linear_map(images, texts, score)


def _score(
    task: _Task,
    trained: ModelFeatures,
    start: ModelFeatures,
    linear_map: LinearMap,
    dims: Sequence[int],
    show: Callable[[Shown], None],
) -> SourceScores:
    items, model = task.items, trained.model
    with torch.inference_mode():
        vectors = _vectors(task, _features(task, trained), model.image.module.project, model.text.module.project)
        by_model = answer(items, task.classes, vectors, model.similarity)
        of_map = _vectors(task, _features(task, start), linear_map.embed_image, linear_map.embed_text)
        by_map = answer(items, task.classes, of_map)
        diagnosed = diagnosis(items, by_model, vectors, declared=model.prefix_dims, asked=dims)
        show(Shown(task.source.name, model.image.spec, items, vectors, by_model))
    guess = 1 / len(task.classes) if task.classes else None
    return SourceScores(
        source=task.source.name,
        is_held_out=task.source.is_held_out,
        num_images=len(items.pairs),
        num_captions=len(items.texts),
        num_classes=len(task.classes),
        model=scored(items, by_model),
        linear_map=scored(items, by_map),
        chance=Scored(chance_recall(items.relevant), chance_recall(items.relevant.reversed()), guess),
        num_trained_on=task.num_trained_on,
        differences=differences(items, by_model, by_map),
        diagnosis=diagnosed,
    )


def _features(task: _Task, features: ModelFeatures) -> _Features:
    name = task.source.name
    return _Features(
        images=features.images.of(task.items.pairs, name),
        texts=features.texts.of(task.items.texts, f"{name} captions"),
        prompts=features.texts.of(task.prompts, f"{name} classes") if task.prompts else torch.empty(0),
    )


def _vectors(task: _Task, features: _Features, embed_image: Embed, embed_text: Embed) -> Vectors:
    classes = class_vectors(embed_text(features.prompts), len(task.classes)) if task.classes else None  # (C, D)
    return Vectors(embed_image(features.images), embed_text(features.texts), classes)
