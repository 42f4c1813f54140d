"""The tensors of TorchScript archives (OpenAI's CLIP), read from their pickle alone: nothing in the file is run.

`torch.jit.load` compiles an archive's code and runs its `__setstate__`; here an object of the archive is only the
attributes that were saved of it, and no name of the pickle is looked up outside a short list.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import LIBRARY_ERRORS, first_sentence

# Of the storages in a TorchScript archive.
_DTYPES = {
    **{"DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16},
    **{"BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32},
    **{"ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool},
}


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive, by the names that its modules have for them. Raises SourceError."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (each for each in archive.namelist() if each.count("/") == 1 and each.endswith("/data.pkl"))
            return dict(_saved_tensors(_Unpickler(archive, name).load(), ""))
    except (pickle.UnpicklingError, zipfile.BadZipFile, EOFError, *LIBRARY_ERRORS) as error:  # on bytes of any kind
        raise SourceError(
            f"{path} is not a TorchScript archive of weights: {first_sentence(error)}. Fetch it again, or save its "
            "state dict as safetensors where it was made."
        ) from error


class _Saved:
    """An object of the archive's own code: what was saved of it, and none of its code."""

    def __setstate__(self, state: object) -> None:
        self.state = state


def _rebuilt(
    storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object, **__: object
) -> Tensor:
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _listed(values: list[object]) -> list[object]:
    return values


_NAMES: dict[tuple[str, str], object] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{("torch.jit._pickle", f"build_{kind}list"): _listed for kind in ("int", "tensor", "double", "bool")},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        super().__init__(io.BytesIO(archive.read(name)))
        self._archive, self._folder = archive, name.removesuffix("data.pkl")

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return _Saved
        if (module, name) not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not of weights")
        return _NAMES[module, name]

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        _, dtype, key, _, num_elements = pid
        raw = self._archive.read(f"{self._folder}data/{key}")
        if not num_elements:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(raw), dtype=dtype, count=num_elements)


def _saved_tensors(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors below a saved object, by their dotted names."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, _Saved) and isinstance(value.state, dict):
        for key, inner in cast("dict[str, object]", value.state).items():
            yield from _saved_tensors(inner, f"{name}.{key}" if name else key)
