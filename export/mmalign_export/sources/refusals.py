"""What no source may be: incomplete, damaged, or so that nothing could be proven of it.

Shapes: B batch, D embedding.
"""

from __future__ import annotations

import json
import math
import pickle
import warnings
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mmalign.pixels.preprocess import check_image_spec
from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_runtime.bundle.archive import ARCHIVE_SUFFIX
from mmalign_runtime.spec import SPEC_NAME, ImageSpec, Modality

# What libraries raise of a model that they cannot read, build or run: there is no common class.
LIBRARY_ERRORS = (
    *(OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError),
    *(ArithmeticError, AssertionError, MemoryError),
)
# Where the vectors of all cases are nearer than this, one case's vector would pass for another's.
MOST_ALIKE = 0.999
_LFS = b"version https://git-lfs.github.com/spec/"
_PICKLE_FIX = "Convert it to safetensors where it was made: code in a file of weights is never run."
_SHOWN = 5
# Where transformers looks for code of a model's own.
_ASKS = "auto_map"
_CONFIGURATIONS = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def check_loaded(
    name: str, *, missing: Iterable[str] = (), surplus: Iterable[str] = (), mismatched: Iterable[str] = ()
) -> None:
    """Raise SourceError unless the file held exactly the tensors of the model: libraries fill the rest at random."""
    found = {"missing": sorted(missing), "surplus": sorted(surplus), "of another shape": sorted(mismatched)}
    wrong = [f"{len(names)} {kind} ({', '.join(names[:_SHOWN])})" for kind, names in found.items() if names]
    if wrong:
        raise SourceError(
            f"{name}: its weights and its configuration disagree: tensors are {'; '.join(wrong)}. The library would "
            "fill what is missing at random and drop the rest. Fetch the model again, or correct its configuration."
        )


def check_finite(name: str, state: Mapping[str, torch.Tensor]) -> None:
    """Raise SourceError, naming the tensor, for weights that are not finite."""
    for key, tensor in state.items():
        # The extremes alone: not one more tensor of each tensor's size. Both are NaN where a value is.
        if (
            tensor.is_floating_point()
            and tensor.numel()
            and not bool(torch.isfinite(torch.stack(tensor.aminmax())).all())
        ):
            raise SourceError(f"{name}: the tensor {key} holds values that are not finite. Fetch the model again.")


def check_plain(name: str, state: Mapping[str, object]) -> None:
    """Raise SourceError, naming the tensor, for one that does not hold its values one after the other."""
    for key, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and (tensor.layout != torch.strided or tensor.is_meta):
            kind = "without values (meta)" if tensor.is_meta else f"of the layout {tensor.layout}"
            raise SourceError(f"{name}: the tensor {key} is {kind}; expected a dense one. Save the model's state dict.")


def check_weight_file(path: Path) -> None:
    """Raise SourceError for weights that are no file, a pointer of Git LFS, empty, truncated, or hold code."""
    if not path.is_file():
        raise SourceError(f"{path} is a folder, or a link to nothing; expected a file of weights. Fetch it again.")
    if is_pointer(path):
        raise SourceError(f"{path} is a pointer of Git LFS, not the weights. Run `git lfs pull` there.")
    if not path.stat().st_size:
        raise SourceError(f"{path} is empty. Fetch it again.")
    if path.suffix == ".safetensors":
        _check_safetensors(path)


def is_pointer(path: Path) -> bool:
    """Say whether a file is what Git LFS puts in the place of one that was not fetched."""
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS


def check_last(ids: Sequence[int], read_at: object) -> None:
    """Raise SourceError unless a text ends with the id that its tower is read at."""
    if not ids or ids[-1] != read_at:
        raise SourceError(
            f"the tokenizer ends a text with id {ids[-1] if ids else None}, and the text tower is read at id "
            f"{read_at}: they are not of one model. Fetch both again."
        )


def check_padding_side(side: str, padding: str) -> None:
    """Raise SourceError for texts of any length that are padded on the left: their positions move with the padding."""
    if side == "left" and padding == "longest":
        raise SourceError(
            "the tokenizer pads on the left, which moves a text's tokens to other positions, so that its vector "
            "depends on the texts beside it. Set padding_side to right in tokenizer_config.json, and padding.direction "
            "in tokenizer.json."
        )


def check_widths(name: str, widths: Mapping[str, int]) -> None:
    """Raise SourceError for towers whose vectors cannot be compared."""
    if len(set(widths.values())) > 1:
        raise SourceError(
            f"{name}: the vectors have {' and '.join(f'{width} ({tower})' for tower, width in widths.items())} "
            "components; expected one number. The towers are not of one model: fetch both again."
        )


def _check_safetensors(path: Path) -> None:
    try:
        with safe_open(path, framework="pt") as opened:
            keys = list(opened.keys())
    except SafetensorError as error:
        raise SourceError(f"{path} is not a whole safetensors file: {error}. Fetch it again.") from error
    if not keys:
        raise SourceError(f"{path} holds no tensor. Fetch it again.")


def read_json(path: Path) -> dict[str, object]:
    """Return a JSON file of a source. Raises SourceError when it is not there, or holds something else."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise SourceError(f"{path} is not there. Fetch the model whole.") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}. Fetch it again.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SourceError(f"{path} is not JSON: {first_sentence(error)}. Fetch it again.") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} holds {type(found).__name__}, expected an object. Fetch it again.")
    return found


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a PyTorch file, by name, without running any code in it. Raises SourceError."""
    check_weight_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it then refuses, and of tensors that are refused here
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:  # torch's own message advises to run the code
        raise SourceError(
            f"{path} cannot be read as weights alone: it holds code, or other objects than tensors. {_PICKLE_FIX}"
        ) from error
    except Exception as error:  # torch raises zip, runtime and end-of-file errors alike
        raise SourceError(
            f"{path} cannot be read as weights alone: {first_sentence(error)}. Fetch it again."
        ) from error
    if not isinstance(state, dict):
        raise SourceError(f"{path} holds {type(state).__name__}, expected tensors by name. {_PICKLE_FIX}")
    return state


def refuse_bundle(path: Path) -> None:
    """Raise SourceError for a bundle: its graphs look like a pair of ONNX files, which would lose all that it says."""
    if (path / SPEC_NAME).is_file() or (path.suffix == ARCHIVE_SUFFIX and path.is_file()):
        raise SourceError(
            f"{path} is a bundle already, which needs no import: verify, embed, evaluate and quantize take it as it "
            "is. Give the model that it was made of to import that anew."
        )


def refuse_remote_code(folder: Path) -> None:
    """Raise SourceError for a folder whose configurations ask for code of its own, at any depth."""
    for name in _CONFIGURATIONS:
        if (folder / name).is_file() and _asks_for_code(read_json(folder / name)):
            raise SourceError(
                f"{folder / name} asks for code that lies beside the weights (auto_map), which is never run here. Load "
                "the model yourself, and give its modules to mmalign_export.import_modules."
            )


def _asks_for_code(value: object) -> bool:
    if isinstance(value, dict):
        return bool(value.get(_ASKS)) or any(map(_asks_for_code, value.values()))
    return isinstance(value, list) and any(map(_asks_for_code, value))


def checked_pictures(spec: ImageSpec, options: SourceOptions, *, composites: bool = False) -> ImageSpec:
    """Return an image spec as asked for, that a preprocessing graph can be made of. Raises SourceError for another.

    A library drops alpha, as Pillow's convert does, but for one whose processor `composites` when it makes RGB.
    """
    spec = msgspec.structs.replace(
        spec,
        orientation="ignored" if options.orientation == "source" else "applied",
        alpha="dropped" if options.alpha == "source" and not composites else "composited",
        jpeg_oversampling=options.jpeg_oversampling,
    )
    try:
        msgspec.convert(msgspec.to_builtins(spec), ImageSpec)  # types and ranges, as a bundle is read
        if not all(map(math.isfinite, (*spec.mean, *spec.std))):
            raise ValueError(f"mean {spec.mean} and std {spec.std} have to be finite")
        check_image_spec(spec)
    except ValueError as error:  # of which msgspec's are
        raise SourceError(
            f"what its configuration makes of pictures cannot be written as a graph: {error}. Correct the "
            "configuration, or fetch it again."
        ) from error
    return spec


def check_vectors(
    vectors: NDArray[np.float32], shape: tuple[int, int], tower: Modality, may_be_zero: Sequence[bool] = ()
) -> None:
    """Raise SourceError unless the library's vectors are (B, D), finite, and of a length above zero where they must."""
    if vectors.shape != shape:
        raise SourceError(
            f"the library's {tower} tower gives an array of shape {vectors.shape}; expected {shape}: one vector an "
            "item. It is not a dual encoder, or not this one."
        )
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    counted = lengths[~np.array(may_be_zero)] if may_be_zero else lengths
    if not np.isfinite(lengths).all() or counted.min() == 0:
        raise SourceError(
            f"the library's {tower} vectors have lengths from {lengths.min()} to {lengths.max()}; expected finite ones "
            "above zero. Look at the weights."
        )


def check_alive(name: str, vectors: NDArray[np.float32]) -> None:
    """Raise SourceError for a tower that gives no number, or the vector of zeros whatever it is given."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all() or lengths.max() == 0:
        raise SourceError(
            f"{name} gives vectors of lengths {lengths.min()} to {lengths.max()}; expected finite ones above zero. "
            "Its weights are not those of a trained model, or its configuration is wrong: fetch both again."
        )


def check_spread(vectors: NDArray[np.float32], tower: Modality) -> None:
    """Raise SourceError for unit vectors that hardly differ from each other: equal ones would prove nothing."""
    alike = float((vectors.astype(np.float64) @ vectors.astype(np.float64).T).min())
    if alike > MOST_ALIKE:
        raise SourceError(
            f"the {tower} vectors of all golden cases are alike (cosine {alike:.6f} between the two farthest, expected "
            f"less than {MOST_ALIKE}), so that nothing could be proven. The weights look untrained, or "
            "the tokenizer or the image processor is not this model's."
        )


def first_sentence(error: BaseException) -> str:
    """Return the first line of an error's text, without its full stop; with the next, where it ends with a colon."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1]).rstrip(".")


def refuse_options(kind: str, options: SourceOptions, read: Collection[str]) -> None:
    """Raise SourceError for an option that was given and that this kind of source does not read."""
    usual = msgspec.structs.asdict(SourceOptions())
    given = [name for name, value in msgspec.structs.asdict(options).items() if value != usual[name]]
    if unread := sorted(set(given) - set(read)):
        raise SourceError(
            f"a source of kind {kind!r} does not read {', '.join(unread)}; it reads {', '.join(sorted(read))}. Leave "
            "the others out."
        )
