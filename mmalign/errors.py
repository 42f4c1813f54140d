"""Every error that training raises on purpose; the readers' own stand in mmalign.data.errors.

MmalignError (mmalign_runtime)
├── ConfigError         a configuration has an unknown key, an impossible value, or parts that do not go together
├── WeightsError        pretrained weights are not here and could not be fetched, or are not the ones recorded
├── ModelError          parts of a model do not go together, or its towers give no vectors
├── CheckpointError     a run's files are missing, damaged, or belong to another model
└── TrainingError       training cannot go on (too few pairs, a model that is not finite)
    ├── NonFiniteError  a loss, a gradient or the weights after it are not finite
    └── OtherProcessError  another process of the same run has ended
"""

from __future__ import annotations

from collections.abc import Sequence

from mmalign_runtime.errors import MmalignError


class ConfigError(MmalignError):
    """A configuration has an unknown key, an impossible value, or parts that do not go together."""


class WeightsError(MmalignError):
    """Pretrained weights are not here and could not be fetched, or are not the ones recorded."""


class ModelError(MmalignError):
    """Parts of a model do not go together, or its towers give no vectors."""


class CheckpointError(MmalignError):
    """A run's files are missing, damaged, or belong to another model."""


class TrainingError(MmalignError):
    """Training cannot go on."""


class NonFiniteError(TrainingError):
    """A loss, a gradient or the weights after it are not finite. `rows` are the pairs it came from, as far as known."""

    def __init__(self, what: str, step: int, rows: Sequence[int]) -> None:
        super().__init__(f"{what} at step {step} is not finite")
        self.rows = tuple(rows)


class OtherProcessError(TrainingError):
    """Another process of the same run has ended, or could not be reached."""
