"""Which files of a folder hold a model's weights, by its library's own order, and what their tensors have to be.

A folder may hold the weights twice: as safetensors and as a pickle, as one file and as shards. Libraries read the first
and ignore the others; here they have to agree, since nobody can say which one was meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import torch
from safetensors import safe_open

from mmalign_export.errors import SourceError
from mmalign_export.sources.refusals import (
    check_plain,
    check_weight_file,
    is_pointer,
    load_state,
    read_json,
)

# torch's, or what a safetensors header says where it is none of a model's.
Dtype = torch.dtype | str

_SAFETENSORS = ".safetensors"
_INDEX = ".index.json"
_FLOATS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
# What positions and counters are saved as: of a tensor that the model does not have by this name.
_COUNTS = frozenset({torch.int64, torch.int32, torch.bool})
# Of a safetensors header, what may be of a model; whatever else it says is not.
_IN_HEADERS = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    **{"I64": torch.int64, "I32": torch.int32, "BOOL": torch.bool},
}
_KINDS_OF_WEIGHTS = ("safetensors", "bin", "pth", "pt", "h5", "msgpack")


def saved_weights(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the files that the first of these names stands for: itself, or the shards of its index.

    Each is whole and without code, and says the same as what the other names stand for. Raises SourceError.
    """
    found = [files for name in names for files in _files(folder, name)]
    if not found:
        held = sorted(path.name for kind in _KINDS_OF_WEIGHTS for path in folder.glob(f"*.{kind}"))
        raise SourceError(
            f"{folder} holds no weights that its library reads ({', '.join(names)}, or the shards of an index); it "
            f"holds {', '.join(held[:8]) or 'none at all'}. Fetch the model whole."
        )
    for path in found[0]:
        if not path.is_symlink() and not path.exists():
            raise SourceError(
                f"the index in {folder} names the file {path.name}, which is not beside it. Fetch the model whole."
            )
        check_weight_file(path)
    if found[0][0].suffix != _SAFETENSORS:
        for path in found[0]:
            load_state(path)
    _check_once(found[0])
    for other in found[1:]:
        check_same(found[0], other)
    return found[0]


def _check_once(shards: Sequence[Path]) -> None:
    """Raise SourceError for a tensor that stands in two shards: which one counts depends on the order of reading."""
    homes: dict[str, str] = {}
    for path in shards if len(shards) > 1 else ():
        for key in dtypes_of([path]):
            if (other := homes.setdefault(key, path.name)) != path.name:
                raise SourceError(
                    f"{path.parent} holds {key} twice, in {other} and in {path.name}. Fetch the model again, or save "
                    "it anew with its library."
                )


def check_same(read: Sequence[Path], other: Sequence[Path]) -> None:
    """Raise SourceError where two forms of the weights differ. A pointer of Git LFS says nothing of them."""
    if any(not path.is_file() or is_pointer(path) for path in other):
        return
    for path in other:
        check_weight_file(path)
    values = dict(_tensors_of(other))  # a pickle, whose tensors stay on the disk
    for key, tensor in _tensors_of(read):
        if key in values and not _equal(tensor, values[key]):
            raise SourceError(
                f"{read[0].parent} holds the weights twice, in {read[0].name} and {other[0].name}, and they differ (in "
                f"{key}). Remove the one that was not meant."
            )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Say whether two tensors are equal, or one is the other in fewer bits."""
    narrow = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
    alike = one.is_floating_point() == other.is_floating_point()
    return alike and torch.equal(one.to(narrow), other.to(narrow))


def check_precision(name: str, dtypes: Mapping[str, Dtype], expected: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError for weights that are not floats where the model's are: quantized, without their scales."""
    wrong = sorted(key for key, dtype in dtypes.items() if not _may_be(dtype, expected.get(key)))
    if wrong:
        kinds = ", ".join(sorted({str(dtypes[key]).removeprefix("torch.") for key in wrong}))
        raise SourceError(
            f"{name}: {len(wrong)} of its tensors are of {kinds} ({', '.join(wrong[:5])}); expected float16, bfloat16, "
            "float32 or float64. Quantized weights are not read: import the original ones, then run `mmalign quantize`."
        )


def dtypes_of(paths: Iterable[Path]) -> dict[str, Dtype]:
    """Return the type of each tensor of files that were checked."""
    found: dict[str, Dtype] = {}
    for path in paths:
        if path.suffix == _SAFETENSORS:
            with safe_open(path, framework="pt") as opened:
                kinds = {key: str(opened.get_slice(key).get_dtype()) for key in opened.keys()}  # noqa: SIM118
            found |= {key: _IN_HEADERS.get(kind, kind) for key, kind in kinds.items()}
        else:
            found |= {key: tensor.dtype for key, tensor in _tensors_of([path])}
    return found


def _may_be(dtype: Dtype, own: torch.Tensor | None) -> bool:
    if own is None:
        return dtype in _FLOATS or dtype in _COUNTS
    return dtype in _FLOATS or not own.is_floating_point()


def _files(folder: Path, name: str) -> list[list[Path]]:
    """Return the file of this name, then the shards of its index: what there is, in the order that libraries look."""
    whole, index = folder / name, folder / f"{name}{_INDEX}"
    found = [[whole]] if whole.is_symlink() or whole.exists() else []
    return [*found, _shards(index)] if index.is_file() else found


def _shards(index: Path) -> list[Path]:
    """Return the files that an index names, none outside of its folder. Raises SourceError."""
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise SourceError(f"{index} says of no tensor in which file it is (weight_map). Fetch it again.")
    names = sorted(set(listed.values()))
    for name in names:
        inside = PurePosixPath(name.replace("\\", "/"))
        if inside.is_absolute() or ".." in inside.parts:
            raise SourceError(
                f"{index} keeps weights at {name!r}, outside of its own folder, which is never read. Fetch the model "
                "again from where it was published."
            )
    return [index.parent / name for name in names]


def _tensors_of(paths: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for path in paths:
        if path.suffix == _SAFETENSORS:
            with safe_open(path, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118  it is no dictionary
                    yield key, opened.get_tensor(key)
        else:
            state = load_state(path)
            check_plain(str(path), state)
            yield from ((key, each) for key, each in state.items() if isinstance(each, torch.Tensor))
