"""A file of weights: its tensors by the names that the model has for them. No code in it is run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import check_plain, check_weight_file, load_state
from mmalign_export.sources.torchscript import read_torchscript

# What training loops call the weights in their checkpoints, and what wrappers put before each name.
_NESTED = ("state_dict", "model_state_dict", "model")
_WRAPPERS = re.compile(r"((module|_orig_mod)\.)+")
# What OpenAI's archives hold beside weights.
_NUMBERS = ("input_resolution", "context_length", "vocab_size")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by the names that the model has for them. Raises SourceError."""
    check_weight_file(path)
    if path.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(path))
    state: Mapping[str, object] = read_torchscript(path) if _is_torchscript(path) else load_state(path)
    found = {str(name): _named_tensors(each) for name, each in state.items() if isinstance(each, dict)}
    nested = next((name for name in _NESTED if found.get(name)), None)
    tensors = _named_tensors(state) if nested is None else found.pop(nested)
    if not tensors:
        raise SourceError(
            f"{path} holds {', '.join(sorted(map(str, state))[:5]) or 'nothing'}, and no tensors by name: expected the "
            "state dict of a model, or a checkpoint with one."
        )
    check_plain(str(path), tensors)
    bare = {name[_wrapped(name) :]: value for name, value in tensors.items()}
    if len(bare) < len(tensors):
        raise SourceError(f"{path} holds tensors both with and without `module.` before their names. Keep one of each.")
    if again := [name for name, each in found.items() if bare.keys() & {key[_wrapped(key) :] for key in each}]:
        raise SourceError(
            f"{path} holds the weights of several models ({', '.join(filter(None, [nested, *again]))}), and does not "
            "say which was meant. Save the state dict of one of them."
        )
    return bare


def _named_tensors(state: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a dictionary by their names, without OpenAI's numbers."""
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor) and name not in _NUMBERS
    }


def _is_torchscript(path: Path) -> bool:
    """Say whether a zip holds code of TorchScript, which a file of torch.save does not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())


def _wrapped(name: str) -> int:
    """Return how many characters of a name are a wrapper's."""
    found = _WRAPPERS.match(name)
    return 0 if found is None else found.end()
