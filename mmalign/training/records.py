"""What a run leaves in its folder as it goes: a row of metrics a step, checkpoints, and what it says of a bad batch.

Of several processes the first one writes; the others know where training stands and write nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType

import msgspec

from mmalign.checkpoints.checkpoint import Progress, save_best
from mmalign.data import Splits
from mmalign.distributed import World
from mmalign.errors import NonFiniteError
from mmalign.run import Run, record_changes, write_trained_images
from mmalign.run.own_pairs import OWN_PAIRS, keep_own_pairs, unseen, usable_pairs
from mmalign.training.metrics import MetricsLog, MetricsRow, Validation
from mmalign.training.trainer import Trainer
from mmalign.writing import named_writes
from mmalign_runtime.atomic import replacing

logger = logging.getLogger(__name__)

_NUM_NAMED = 5  # pairs named in the message of a loss that is not finite; the file beside the run names all


class Records:
    """Where training stands: all that a process keeps which is not the first."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def keep(self, row: MetricsRow) -> None:
        """Take note of a step that was done."""
        self.progress = msgspec.structs.replace(self.progress, step=row.step)
        if row.val is not None and row.val.score > self.progress.best_score:
            self.progress = msgspec.structs.replace(self.progress, best_score=row.val.score, best_step=row.step)

    def describe(self, error: NonFiniteError, origin: Callable[[int], str]) -> str:
        """Return what to tell of a loss that is not finite; `origin` names the pair of a row."""
        return str(error)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what is open."""


class WrittenRecords(Records):
    """Where training stands, and when it is written: each row, the best model, and the last step to go on from.

    Raises CheckpointError where the folder cannot be written to.
    """

    def __init__(self, run: Run, trainer: Trainer, progress: Progress, splits: Splits) -> None:
        super().__init__(progress)
        self._folder = run.folder
        self._config = run.config.train
        self._trainer = trainer
        self._keep_data(run, splits)
        self._log = MetricsLog(run.folder.path, keep_steps=progress.step)
        self._saved_step = progress.step
        self._saved_at_s = time.monotonic()
        self._is_due = False

    def keep(self, row: MetricsRow) -> None:
        """Write a row, and save after a validation and when the last time is long ago.

        Within an update, at its end. The clock decides when a checkpoint is written, never what is in it: all of them
        lead to the same numbers.
        """
        super().keep(row)
        self._log.write(row)
        if row.val is not None:
            self._keep_best(row, row.val)
        minutes = (time.monotonic() - self._saved_at_s) / 60
        self._is_due |= row.val is not None or minutes >= self._config.checkpoint_minutes
        if self._is_due and self._trainer.schedule.ends_update(row.step - 1):
            self._trainer.save(self._folder.file("last.safetensors"), self.progress)
            self._saved_step, self._saved_at_s, self._is_due = row.step, time.monotonic(), False

    def describe(self, error: NonFiniteError, origin: Callable[[int], str]) -> str:
        """Return what to tell of a loss that is not finite, and write the pairs that may be the cause to a file."""
        origins = [origin(row) for row in error.rows]
        path = self._folder.file("bad_batch.txt")
        with named_writes(path), replacing(path) as temporary:
            temporary.write_text("\n".join(origins) + "\n", encoding="utf-8")
        named = "; ".join(origins[:_NUM_NAMED]) + ("; ..." if len(origins) > _NUM_NAMED else "")
        return (
            f"{error}. Pairs that may be the cause: {named} (all {len(origins)} in {path}). Repair their images and "
            f"captions and go on with --resume, from step {self._saved_step}; or lower the learning rates in optim and "
            "start anew."
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self._log.__exit__(kind, error, trace)

    def _keep_best(self, row: MetricsRow, val: Validation) -> None:
        logger.info(
            "epoch %d of %d: loss %.4f, validation score %.4f (image to text @1 %.4f, text to image @1 %.4f)",
            *(row.epoch, self._config.epochs, row.loss),
            *(val.score, val.image_to_text_at_1, val.text_to_image_at_1),
        )
        if self.progress.best_step == row.step:
            with self._trainer.averaging.applied():
                save_best(self._folder.file("best.safetensors"), self._trainer.model, self.progress)

    def _keep_data(self, run: Run, splits: Splits) -> None:
        """Write what the folder keeps of the data, and settings of a run that goes on that differ."""
        record_changes(run)
        path = run.folder.file(OWN_PAIRS)
        if not path.is_file():
            keep_own_pairs(usable_pairs(unseen(splits), run.config.image, run.config.text), path)
        if splits.train:  # not known of a stream
            write_trained_images(run.folder, splits.train)


def open_records(run: Run, trainer: Trainer, progress: Progress, splits: Splits, world: World) -> Records:
    """Return what this process of the run keeps. Raises CheckpointError where the folder cannot be written to."""
    return WrittenRecords(run, trainer, progress, splits) if world.is_first else Records(progress)
