"""The features of a run's towers as training and evaluation take them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mmalign.features import ModelFeatures
from mmalign.run import Run
from mmalign.run.model import dual_model
from mmalign.training.inputs import Features, SideInputs


def features_of(run: Run, *, is_training: bool) -> ModelFeatures:
    """Return the features of a run's towers, computed on the CPU, kept where its configuration says."""
    cache_dir, device = Path(run.config.train.cache_dir), torch.device("cpu")
    return ModelFeatures(dual_model(run), cache_dir, device, is_training=is_training)


def tensors_of(side: SideInputs) -> tuple[Tensor, ...]:
    """Return what one side of a step is made of, features or a tower's inputs."""
    return (side.values,) if isinstance(side, Features) else side.tensors
