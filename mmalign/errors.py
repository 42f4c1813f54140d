"""Every error that training raises on purpose; the readers' own stand in mmalign.data.errors.

MmalignError (mmalign_runtime)
├── ConfigError       a configuration has an unknown key or a value of the wrong type
├── WeightsError      pretrained weights are not here and could not be fetched, or are not the ones recorded
├── CheckpointError   a run's files are missing, or belong to another model
└── TrainingError     training cannot go on (a loss that is not finite, too few pairs)
"""

from __future__ import annotations

from mmalign_runtime.errors import MmalignError


class ConfigError(MmalignError):
    """A configuration has an unknown key, or a value of the wrong type."""


class WeightsError(MmalignError):
    """Pretrained weights are not here and could not be fetched, or are not the ones recorded."""


class CheckpointError(MmalignError):
    """A run's files are missing, damaged, or belong to another model."""


class TrainingError(MmalignError):
    """Training cannot go on."""
