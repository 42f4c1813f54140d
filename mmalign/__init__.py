"""Train image-text dual encoders by contrastive learning.

Names are loaded when first used, so that the command line answers before torch is imported. Training and evaluation
are `mmalign.train.train` and `mmalign.evaluate.evaluate`: their modules bear the plain names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
