"""Where training stands: written in one file and one rename, so that a kill at any moment leaves a whole checkpoint.

All randomness of training is drawn from (seed, step), so weights, optimizer and step are all there is to resume. Frozen
towers are written once a run, what learns at each checkpoint. Of a tower that learns by what was added to it, as
adapters are, only that is written then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
import torch

from mmalign.checkpoints.tensors import TensorFile, read_tensors, write_tensors
from mmalign.errors import CheckpointError
from mmalign.model import DualEncoder
from mmalign.towers.additions import is_added, learning_names

_OPTIMIZER = "optimizer."
KEPT = "kept."
_PROGRESS = "progress"


class Progress(msgspec.Struct, frozen=True):
    """The number of steps done, the best validation score so far with its step, and which pairs they were made on.

    `teacher_id` is the space of a distillation's teacher, `gradient_scale` and `gradient_growth` are the state of
    fp16's gradient scaler.
    """

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    data_id: str = ""
    teacher_id: str = ""
    gradient_scale: float = 0.0
    gradient_growth: int = 0


def save_last(
    path: Path,
    model: DualEncoder,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    kept: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> None:
    """Write what learns, the optimizer's state, the progress, and other tensors to be kept by name."""
    tensors = learned_state(model) | {f"{KEPT}{name}": tensor for name, tensor in kept.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": tensor for name, tensor in state.items()}
    write_tensors(path, tensors, {_PROGRESS: msgspec.json.encode(progress).decode()})


def save_best(path: Path, model: DualEncoder, progress: Progress) -> None:
    """Write what learns, alone."""
    write_tensors(path, learned_state(model), {_PROGRESS: msgspec.json.encode(progress).decode()})


def restore(
    path: Path, model: DualEncoder, optimizer: torch.optim.Optimizer, kept: dict[str, torch.Tensor] | None = None
) -> Progress:
    """Load a checkpoint into model and optimizer, and what else it holds into `kept`.

    Raises CheckpointError when it is damaged or does not fit.
    """
    file = read_tensors(path)
    progress = _decode_progress(path, file)
    copy_state(file, learned_state(model), path)
    states: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in file.tensors.items():
        if name.startswith(_OPTIMIZER):
            index, _, field = name.removeprefix(_OPTIMIZER).partition(".")
            if not (index.isdecimal() and field):
                raise CheckpointError(f"{path} has a tensor {name!r} that no optimizer wrote. Restore it.")
            states.setdefault(int(index), {})[field] = tensor
        elif name.startswith(KEPT) and kept is not None:
            kept[name.removeprefix(KEPT)] = tensor
    # fp16's scaler leaves out updates that overflow, the first ones perhaps: then there is no state yet.
    if progress.step and not states and not progress.gradient_scale:
        raise CheckpointError(
            f"{path} holds no state of the optimizer, as best.safetensors does not: training cannot go on from it to "
            "the same numbers. Restore last.safetensors, or train again."
        )
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def _decode_progress(path: Path, file: TensorFile) -> Progress:
    try:
        return msgspec.json.decode(file.metadata[_PROGRESS], type=Progress)
    except (KeyError, msgspec.DecodeError) as error:
        reason = f"{path} does not say where training stood ({error!r}). Restore it, or train again."
        raise CheckpointError(reason) from error


def frozen_state(model: DualEncoder) -> dict[str, torch.Tensor]:
    """Return the tensors of towers that do not learn, but for what was added to them and does."""
    frozen = _frozen_names(model)
    return {name: tensor for name, tensor in model.state_dict().items() if name in frozen}


def learned_state(model: DualEncoder) -> dict[str, torch.Tensor]:
    """Return all other tensors: learning towers with their batch statistics, what was added to towers, projections,
    what the loss learns.

    The loss's are named without "loss.": runs have had `logit_scale` from the first version on.
    """
    frozen = _frozen_names(model)
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}
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


def _frozen_names(model: DualEncoder) -> set[str]:
    found: set[str] = set()
    for prefix, tower in {"image_tower.": model.image_tower, "text_tower.": model.text_tower}.items():
        learning = set(learning_names(tower))
        if all(map(is_added, learning)):
            found |= {f"{prefix}{name}" for name in tower.state_dict() if name not in learning}
    return found
