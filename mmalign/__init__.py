"""Train image-text dual encoders by contrastive learning.

Names are loaded when first used, so that the command line answers before torch is imported. Training and evaluation
are `mmalign.train.train` and `mmalign.evaluate.evaluate`: their modules bear the plain names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign.config import Config, load_config
    from mmalign.errors import CheckpointError, ConfigError, TrainingError, WeightsError
    from mmalign.evaluate import Evaluation
    from mmalign.fingerprint import space_id
    from mmalign.model import DualEncoder
    from mmalign.run import Run, load_run
    from mmalign.train import TrainResult

_HOMES = {
    "CheckpointError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "DualEncoder": "model",
    "Evaluation": "evaluate",
    "Run": "run",
    "TrainResult": "train",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "load_config": "config",
    "load_run": "run",
    "space_id": "fingerprint",
}

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "DualEncoder",
    "Evaluation",
    "Run",
    "TrainResult",
    "TrainingError",
    "WeightsError",
    "load_config",
    "load_run",
    "space_id",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
