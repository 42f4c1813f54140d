"""What a run measures of itself: recall on concepts that are not trained on, and the log of every step.

The log is metrics.csv always, TensorBoard when it is installed.
Shapes: N images, M captions, D embedding.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from mmalign.config import EvaluateConfig
from mmalign.data import Pair
from mmalign.errors import TrainingError
from mmalign.features import ModelFeatures
from mmalign.features.embedded_pairs import EmbeddedPairs
from mmalign.figures.retrieval import is_finite, recall_both_ways
from mmalign.figures.retrieval_set import build_retrieval_set
from mmalign.model import DualEncoder
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Validation(msgspec.Struct, frozen=True):
    """Recall on the validation pairs, both directions; `score` is the mean of all six."""

    image_to_text_at_1: float
    text_to_image_at_1: float
    score: float


class MetricsRow(msgspec.Struct, frozen=True):
    """One step: its loss, the scale of cosines, the largest learning rate.

    The bias of a logit is there for a loss that has one; the gradient's norm, before clipping, when the step ended an
    update; validation, when there was one.
    """

    step: int
    epoch: int
    loss: float
    logit_scale: float
    learning_rate: float
    gradient_norm: float | None = None
    logit_bias: float | None = None
    val: Validation | None = None

    def cells(self) -> dict[str, str]:
        """Return the row's cells by column; floats with every digit, so that two runs can be compared exactly."""
        flat = {name: getattr(self, name) for name in _STEP_COLUMNS}
        if self.val is not None:
            flat |= {f"val_{name}": getattr(self.val, name) for name in Validation.__struct_fields__}
        return {name: repr(value) for name, value in flat.items() if value is not None}


_FIX = "Make room on the disk, then go on with `mmalign train ... --resume` from the last checkpoint."
_STEP_COLUMNS = tuple(name for name in MetricsRow.__struct_fields__ if name != "val")
COLUMNS = (*_STEP_COLUMNS, *(f"val_{name}" for name in Validation.__struct_fields__))


class Validator:
    """Scores a model on the validation pairs, all sources together."""

    def __init__(
        self, model: DualEncoder, config: EvaluateConfig, pairs: Sequence[Pair], features: ModelFeatures
    ) -> None:
        self._items = build_retrieval_set(pairs, config.captions)
        self._embedded = EmbeddedPairs(model, features, self._items.pairs, self._items.texts, "validation")

    def validate(self) -> Validation:
        """Return the recalls of the model as it stands. Raises TrainingError when its vectors are not finite."""
        image_embeds, text_embeds = self._embedded.embed()  # (N, D), (M, D)
        if not (is_finite(image_embeds) and is_finite(text_embeds)):
            raise TrainingError(
                "vectors of validation pairs are not finite, so the model is not saved. Lower the learning rates in "
                "optim, or look for images and captions that are out of the ordinary."
            )
        to_text, to_image = recall_both_ways(image_embeds, text_embeds, self._items.relevant)
        return Validation(to_text.at_1, to_image.at_1, (to_text.mean() + to_image.mean()) / 2)


class MetricsLog:
    """Appends rows to metrics.csv, each flushed at once. On resume, rows after `keep_steps` are dropped first.

    Raises CheckpointError, when it is made, written to or closed, where the folder cannot be written to.
    """

    def __init__(self, folder: Path, keep_steps: int) -> None:
        self._path = path = folder / "metrics.csv"
        kept = [row for row in read_metrics(path) if int(row["step"]) <= keep_steps] if path.exists() else []
        with named_writes(path, _FIX):
            with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(kept)
            self._file = path.open("a", newline="", encoding="utf-8")
            self._writer = csv.DictWriter(self._file, COLUMNS, lineterminator="\n")
            self._tensorboard = _tensorboard_writer(folder / "tensorboard", keep_steps)

    def write(self, row: MetricsRow) -> None:
        """Add one row."""
        cells = row.cells()
        with named_writes(self._path, _FIX):
            self._writer.writerow(cells)
            self._file.flush()
            if self._tensorboard is not None:
                for name, value in cells.items():
                    self._tensorboard.add_scalar(name, float(value), row.step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with named_writes(self._path, _FIX):
            try:
                self._file.close()  # what could not be written before is tried once more
            finally:
                if self._tensorboard is not None:
                    self._tensorboard.close()


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Return the rows of a metrics.csv by column; a last line cut off by a kill is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))


def _tensorboard_writer(folder: Path, keep_steps: int) -> SummaryWriter | None:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=keep_steps + 1)
