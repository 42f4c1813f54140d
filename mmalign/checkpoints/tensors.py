"""Named tensors on disk: safetensors, written whole or not at all, with a few words of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmalign.errors import CheckpointError
from mmalign_runtime.atomic import replacing

# What other tools look for. Without any metadata a file of no tensors could not be read again (safetensors 0.8).
_FORMAT = {"format": "pt"}


class TensorFile(msgspec.Struct, frozen=True):
    """What a file held."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors; a reader sees the old file or the new one, never a part.

    Raises CheckpointError when the place cannot be written to, a full disk above all.
    """
    try:
        with replacing(path) as temporary:
            save_file(_apart(tensors), temporary, metadata=_FORMAT | metadata)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}. What was there is as it was. Make room on the disk, then go on with "
            "`mmalign train ... --resume`."
        ) from error


def read_tensors(path: Path) -> TensorFile:
    """Read tensors to the CPU. Raises CheckpointError when the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return TensorFile({name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {}))  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Restore it, or train again.") from error


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return CPU tensors that share no memory: safetensors refuses tied weights, so each name gets its own copy."""
    apart: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        whole = tensor.detach().cpu().contiguous()
        apart[name] = whole.clone() if whole.untyped_storage().data_ptr() in seen else whole
        seen.add(whole.untyped_storage().data_ptr())
    return apart
