"""Which of a model's tensors learn and which are frozen, and how those of a file come into a model.

Frozen towers are written once a run, what learns at each checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import torch

from mmalign.errors import CheckpointError
from mmalign.model import DualEncoder, is_frozen
from mmalign.tensors import TensorFile


def frozen_state(model: DualEncoder) -> dict[str, torch.Tensor]:
    """Return the tensors of towers that do not learn."""
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_frozen_prefixes(model))}


def learned_state(model: DualEncoder) -> dict[str, torch.Tensor]:
    """Return all other tensors: learning towers with their batch statistics, projections, what the loss learns.

    The loss's are named without "loss.": runs have had `logit_scale` from the first version on.
    """
    frozen = _frozen_prefixes(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(frozen)}
    return {name.removeprefix("loss."): tensor for name, tensor in state.items()}


def copy_state(file: TensorFile, wanted: dict[str, torch.Tensor], path: Path) -> None:
    """Copy a file's tensors into those of a model; what else it holds (an optimizer's state) is left alone.

    Raises CheckpointError, naming `path`, when one is missing or of another shape; nothing is copied then.
    """
    if missing := [name for name in wanted if name not in file.tensors]:
        raise CheckpointError(f"{path} lacks {len(missing)} tensors ({missing[0]}, ...): it belongs to another model.")
    for name, tensor in wanted.items():
        if (found := file.tensors[name].shape) != tensor.shape:
            shapes = f"{tuple(found)}, the configuration wants {tuple(tensor.shape)}"
            raise CheckpointError(f"{path}: {name} has shape {shapes}. It belongs to another model.")
    for name, tensor in wanted.items():
        tensor.copy_(file.tensors[name])


def _frozen_prefixes(model: DualEncoder) -> tuple[str, ...]:
    towers = {"image_tower.": model.image_tower, "text_tower.": model.text_tower}
    return tuple(prefix for prefix, tower in towers.items() if is_frozen(tower))
