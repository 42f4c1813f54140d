"""The search over a bundle's towers: what each is fed and judged by, its ladder, every trial, and the pair of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec
import numpy as np
import onnx

from mmalign.figures.retrieval import Recall, Relevance
from mmalign_export.golden import cases_of
from mmalign_export.quantization.activations import Item, image_items, text_items
from mmalign_export.quantization.budget import Budget, lost_points
from mmalign_export.quantization.convolutions import Bounds
from mmalign_export.quantization.data import PACKAGED, Calibration, Data, Questions, prepared_images
from mmalign_export.quantization.half import to_half
from mmalign_export.quantization.recipes import Recipe, eight_bit_recipes
from mmalign_export.quantization.report import Trial
from mmalign_export.quantization.search import Found, GoldenFeeds, Tower, pair_recalls, search
from mmalign_export.quantization.trial import open_model, resident_mb, run_all
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.session import Feeds
from mmalign_runtime.spec import ImageSpec, Modality
from mmalign_runtime.streaming import Vectors
from mmalign_runtime.tokenizer import TokenBatch

logger = logging.getLogger(__name__)

Reduced = Literal["int8", "fp16"]

_NOTHING_TO_ROUND = "has nothing to round: no convolution, and no product by weights over tokens or places"
# In float16, kernels that a GPU chooses by the batch's size round to three digits.
_HALF_INVARIANCE = 1e-3
_IMAGE_BATCH, _NUM_SCANNED = 8, 16


class TowerSearch:
    """Towers under search, and what was found on the way: the trials; of float32 the vectors, sizes and memory;
    `untried` says why a tower has no trial."""

    def __init__(self, embedder: Embedder, data: Data, precision: Reduced) -> None:
        self.precision = precision
        self.asks_for_speed = precision == "int8" or embedder.options.provider != "cpu"
        self.towers: dict[Modality, Tower] = {}
        self.trials: list[Trial] = []
        self.sizes: dict[Modality, int] = {}
        self.resident: dict[Modality, float | None] = {}
        self.untried: dict[Modality, str] = {}
        self._embedder = embedder
        self._data = data
        self._golden = _golden_feeds(embedder)
        self._batches = _batches_of(embedder, data.questions)
        self._sessions = {"image": embedder.image.session, "text": embedder.text.session}
        self.float32: dict[Modality, Vectors] = {
            kind: run_all(self._sessions[kind], batches) for kind, batches in self._batches.items()
        }

    def offered(self, kind: Modality, budget: Budget) -> list[Found]:
        """Try the ladder of a tower, and return what could be chosen, fastest first."""
        tower = self.towers[kind] = self._tower(kind)
        contents = self._embedder.bundle.read(self._embedder.bundle.spec.artifact(kind).file)
        self.sizes[kind] = len(contents)
        self.resident[kind] = resident_mb(contents, tower.timed[0], tower.options)
        with TemporaryDirectory() as folder:
            model = Path(folder) / f"{kind}.onnx"
            model.write_bytes(contents)
            recipes = self._recipes(kind, model)
            trials, offered = search(tower, recipes, budget)
        if not trials:
            ran_none = f"has {len(recipes)} candidates, and {tower.options.engine} ran none (see the warnings)"
            self.untried[kind] = ran_none if recipes else _NOTHING_TO_ROUND
            logger.warning("quantize: %s stays float32: %s", kind, self.untried[kind])
        self.trials += trials
        return offered

    def _tower(self, kind: Modality) -> Tower:
        batches, examples = self._batches[kind], self._data.examples
        rules: dict[str, float] = {} if self.asks_for_speed else {"least_speedup": 0.0}
        if self.precision == "fp16":
            rules["invariance_bound"] = _HALF_INVARIANCE
        return Tower(
            kind=kind,
            input_names=tuple(batches[0]),
            batches=batches,
            timed=({name: values[:1] for name, values in batches[0].items()}, batches[0]),
            scanned=batches[0] if examples is None else _scanned_of(self._embedder, kind, examples),
            float32=self._sessions[kind],
            reference=self.float32[kind],
            golden=self._golden[kind],
            recalls=None if self._data.questions.relevant is None else partial(self._recalls, kind),
            options=self._sessions[kind].options,
            **rules,
        )

    def _recalls(self, kind: Modality, vectors: Vectors) -> tuple[Recall, Recall]:
        relevant = self._data.questions.relevant
        assert relevant is not None
        found = {**self.float32, kind: vectors}
        return pair_recalls(found["image"], found["text"], relevant)

    def _recipes(self, kind: Modality, model: Path) -> tuple[Recipe, ...]:
        if self._data.examples is None:
            return (Recipe("float16", lambda _: to_half(onnx.load(model))),)
        items = items_of(self._embedder, kind, self._data.examples)
        recipes = eight_bit_recipes(model, items, _bounds_of(self._embedder, kind))
        if kind == "image" and self._data.calibration == PACKAGED:
            # The photograph that gives fixed ranges also judges them: others were seen to lose ten times as much.
            return tuple(recipe for recipe in recipes if not recipe.fixes_products)
        return recipes


class PairOfTowers(msgspec.Struct):
    """Both towers' vectors in float32 and as chosen; `relevant` is None where no recall can be measured."""

    float32: dict[Modality, Vectors]
    relevant: Relevance | None
    vectors: dict[Modality, Vectors]
    chosen: dict[Modality, Found]

    def recalls(self) -> tuple[tuple[Recall, Recall], tuple[Recall, Recall]] | None:
        """Return recall of float32 and of the chosen pair, each (image to text, text to image)."""
        if self.relevant is None:
            return None
        before, after = (
            pair_recalls(each["image"], each["text"], self.relevant) for each in (self.float32, self.vectors)
        )
        return before, after


def choose_pair(
    towers: Mapping[Modality, Tower],
    offered: Mapping[Modality, Sequence[Found]],
    float32: dict[Modality, Vectors],
    relevant: Relevance | None,
    budget: Budget,
) -> PairOfTowers:
    """Take the fastest of each tower; while the pair loses too much, step back where the next one costs least."""
    pair = PairOfTowers(float32, relevant, dict(float32), {})
    left = {kind: list(candidates) for kind, candidates in offered.items() if candidates}
    while left:
        for kind, candidates in left.items():
            session = open_model(candidates[0].contents, towers[kind].input_names, towers[kind].options)
            pair.vectors[kind] = run_all(session, towers[kind].batches)
            session.close()
        recalls = pair.recalls()
        if recalls is None or budget.allows(lost_points(*recalls), 1.0):
            break
        slowest = min(left, key=lambda kind: _step(left[kind]))
        left[slowest].pop(0)
        if not left[slowest]:
            del left[slowest]
            pair.vectors[slowest] = float32[slowest]
    pair.chosen = {kind: candidates[0] for kind, candidates in left.items()}
    return pair


def _step(candidates: Sequence[Found]) -> float:
    """Return how many times slower the next candidate is."""
    following = candidates[1].trial.speedup() if len(candidates) > 1 else 1.0
    return candidates[0].trial.speedup() / following


def items_of(embedder: Embedder, kind: Modality, examples: Calibration | Questions) -> tuple[Item, ...]:
    """Return the images or the texts of a sample as single items."""
    if kind == "image":
        return image_items(examples.images, embedder.image.inputs.pixel_values)
    is_padded = embedder.text.tokenizer.spec.padding == "fixed"
    return text_items(examples.tokens, embedder.text.inputs, is_padded=is_padded)


def _batches_of(embedder: Embedder, questions: Questions) -> dict[Modality, tuple[Feeds, ...]]:
    """Return the images and the texts to judge by, in batches."""
    name, images = embedder.image.inputs.pixel_values, questions.images
    starts = range(0, len(images), _IMAGE_BATCH)
    return {
        "image": tuple({name: np.concatenate(images[start : start + _IMAGE_BATCH])} for start in starts),
        "text": tuple(_text_feeds(embedder, tokens) for tokens in questions.tokens),
    }


def _bounds_of(embedder: Embedder, kind: Modality) -> dict[str, Bounds]:
    """Return what a tower's inputs hold at most, by name: what the darkest and the lightest pixel become.

    Patches hold their places beside pixels, and no such tower has convolutions, which these bounds are for.
    """
    spec: ImageSpec = embedder.image.spec
    if kind != "image" or spec.resize == "naflex":
        return {}
    ends = [(value - mean) / std for mean, std in zip(spec.mean, spec.std, strict=True) for value in (0.0, 1.0)]
    return {embedder.image.inputs.pixel_values: (min(ends), max(ends))}


def _scanned_of(embedder: Embedder, kind: Modality, examples: Calibration) -> Feeds:
    """Return a small batch of the calibration for the sensitivity scan."""
    if kind == "image":  # from one end to the other: the golden photographs stand last
        every = max(1, len(examples.images) // _NUM_SCANNED)
        return {embedder.image.inputs.pixel_values: np.concatenate(examples.images[::every][:_NUM_SCANNED])}
    return _text_feeds(embedder, examples.tokens[0])


def _golden_feeds(embedder: Embedder) -> Mapping[Modality, GoldenFeeds]:
    """Return the golden cases of both towers, each alone, and PyTorch's vectors."""
    golden = load_golden(embedder.bundle)
    images = prepared_images([embedder.bundle.source(case.file) for case in golden.images], embedder)
    tokens = [embedder.text.tokenizer.encode([case.text]) for case in golden.texts]
    feeds: dict[Modality, tuple[Feeds, ...]] = {
        "image": tuple({embedder.image.inputs.pixel_values: image} for image in images),
        "text": tuple(_text_feeds(embedder, each) for each in tokens),
    }
    return {
        kind: GoldenFeeds(
            tuple(case.name for case in cases), feeds[kind], np.array([case.embedding for case in cases], np.float32)
        )
        for kind, cases in cases_of(golden).items()
    }


def _text_feeds(embedder: Embedder, tokens: TokenBatch) -> Feeds:
    return embedder.text.inputs.feeds(tokens.input_ids, tokens.attention_mask)
