"""Train image-text dual encoders by contrastive learning, and evaluate them.

Names are loaded when first used, so that the command line answers before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign.config import Config, load_config
    from mmalign.dual_model import DualModel, ImageModelTower, ModelOrigin, TextModelTower
    from mmalign.errors import CheckpointError, ConfigError, ModelError, TrainingError, WeightsError
    from mmalign.evaluation import evaluate
    from mmalign.evaluation.of_bundle import evaluate_bundle
    from mmalign.figures.scores import BundleScores, Evaluation
    from mmalign.space import space_id
    from mmalign.training import TrainResult, train
    from mmalign_runtime.spec import Similarity

_HOMES = {
    "BundleScores": "figures.scores",
    "CheckpointError": "errors",
    "Config": "config",
    "ConfigError": "errors",
    "DualModel": "dual_model",
    "Evaluation": "figures.scores",
    "ImageModelTower": "dual_model",
    "ModelError": "errors",
    "ModelOrigin": "dual_model",
    "Similarity": "dual_model",
    "TextModelTower": "dual_model",
    "TrainResult": "training",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "evaluate": "evaluation",
    "evaluate_bundle": "evaluation.of_bundle",
    "load_config": "config",
    "space_id": "space",
    "train": "training",
}

__all__ = [
    "BundleScores",
    "CheckpointError",
    "Config",
    "ConfigError",
    "DualModel",
    "Evaluation",
    "ImageModelTower",
    "ModelError",
    "ModelOrigin",
    "Similarity",
    "TextModelTower",
    "TrainResult",
    "TrainingError",
    "WeightsError",
    "evaluate",
    "evaluate_bundle",
    "load_config",
    "space_id",
    "train",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
