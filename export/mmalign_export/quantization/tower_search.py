"""The search over a bundle's towers: what each is fed and judged by, its ladder, and every trial."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from mmalign.figures.retrieval import Recall
from mmalign_export.quantization.budget import Budget
from mmalign_export.quantization.data import Data
from mmalign_export.quantization.packaged import PACKAGED
from mmalign_export.quantization.recipe import Recipe
from mmalign_export.quantization.recipes import eight_bit_recipes, half_recipes
from mmalign_export.quantization.report import Trial
from mmalign_export.quantization.resident import resident_mb
from mmalign_export.quantization.search import Found, Tower, pair_recalls, search
from mmalign_export.quantization.tower_inputs import batches_of, bounds_of, golden_of, items_of, scanned_of
from mmalign_export.quantization.trial import first_items, run_all
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.spec import Modality
from mmalign_runtime.streaming import Vectors

logger = logging.getLogger(__name__)

Reduced = Literal["int8", "fp16"]

_NOTHING_TO_ROUND = "has nothing to round: no convolution, and no product by weights over tokens or places"
# In float16, kernels that a GPU chooses by the batch's size round to three digits.
_HALF_INVARIANCE = 1e-3


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
        self._golden = golden_of(embedder)
        self._batches = batches_of(embedder, data.questions)
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
            timed=(first_items(batches[0], 1), batches[0]),
            scanned=batches[0] if examples is None else scanned_of(self._embedder, kind, examples),
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
            return half_recipes(model)
        items = items_of(self._embedder, kind, self._data.examples)
        recipes = eight_bit_recipes(model, items, bounds_of(self._embedder, kind))
        if kind == "image" and self._data.calibration == PACKAGED:
            # The photograph that gives fixed ranges also judges them: others were seen to lose ten times as much.
            return tuple(recipe for recipe in recipes if not recipe.fixes_products)
        return recipes
