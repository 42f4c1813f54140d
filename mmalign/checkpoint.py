"""Where training stands: written in one file and one rename, so that a kill at any moment leaves a whole checkpoint.

All randomness of training is drawn from (seed, step), so weights, optimizer and step are all there is to resume.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from mmalign.errors import CheckpointError
from mmalign.model import DualEncoder
from mmalign.state import copy_state, learned_state
from mmalign.tensors import TensorFile, read_tensors, write_tensors

_OPTIMIZER = "optimizer."
_PROGRESS = "progress"


class Progress(msgspec.Struct, frozen=True):
    """The number of steps done, the best validation score so far with its step, and which pairs they were made on.

    `gradient_scale` and `gradient_growth` are the state of fp16's gradient scaler.
    """

    step: int = 0
    best_score: float = -1.0
    best_step: int = 0
    data_id: str = ""
    gradient_scale: float = 0.0
    gradient_growth: int = 0


def save_last(path: Path, model: DualEncoder, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write what learns, the optimizer's state and the progress."""
    tensors = dict(learned_state(model))
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}.{name}": tensor for name, tensor in state.items()}
    write_tensors(path, tensors, {_PROGRESS: msgspec.json.encode(progress).decode()})


def save_best(path: Path, model: DualEncoder, progress: Progress) -> None:
    """Write what learns, alone."""
    write_tensors(path, learned_state(model), {_PROGRESS: msgspec.json.encode(progress).decode()})


def restore(path: Path, model: DualEncoder, optimizer: torch.optim.Optimizer) -> Progress:
    """Load a checkpoint into model and optimizer. Raises CheckpointError when it is damaged or does not fit."""
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
