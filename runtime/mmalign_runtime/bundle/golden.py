"""Golden cases: real files and texts that travel in the bundle, with what the PyTorch reference made of each."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmalign_runtime.bundle import Bundle
from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.image import Pixels
from mmalign_runtime.spec import ImageTower
from mmalign_runtime.strict_json import JsonError, read_json

# Side of the grid of samples kept of decoded pixels and of pixel_values: enough to say where two machines part and by
# how much, at a few hundred numbers a case instead of 150,528.
_GRID = 12


class ImageCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image file of the bundle and the reference's answer at each stage."""

    name: str
    file: str
    height: Annotated[int, msgspec.Meta(ge=1)]
    width: Annotated[int, msgspec.Meta(ge=1)]
    pixels_sha256: str
    pixels_sample: tuple[int, ...]
    pixel_values_sample: tuple[float, ...]
    embedding: tuple[float, ...]


class TextCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One text and the reference's answer at each stage."""

    name: str
    text: str
    input_ids: tuple[int, ...]
    embedding: tuple[float, ...]


class AttentionCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the second stage's reference made of an image case: the token of one region, and all texts' `attended`.

    `region` numbers it, row after row from 0; `attended` are (1 + N) numbers of each text.
    """

    image: str
    region: Annotated[int, msgspec.Meta(ge=0)]
    token: tuple[float, ...]
    attended: tuple[tuple[float, ...], ...]


class AttentionGolden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The golden cases of the second stage: the names of its text cases, and what they see in each image case."""

    texts: tuple[str, ...]
    images: tuple[AttentionCase, ...]


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """All golden cases of a bundle."""

    images: tuple[ImageCase, ...]
    texts: tuple[TextCase, ...]
    attention: AttentionGolden | None = None


def load_golden(bundle: Bundle, name: str | None = None) -> Golden:
    """Read golden cases of the bundle: those in the file `name`, as an artifact has of its own, or the reference's.

    Raises BundleFormatError, naming the field, when they break the format.
    """
    name = bundle.spec.golden if name is None else name
    path = bundle.path / name
    try:
        golden = read_json(bundle.read(name), Golden)
    except JsonError as error:
        raise BundleFormatError(f"{path}: {error}. Export the bundle again.") from error
    if not golden.images or not golden.texts:
        raise BundleFormatError(f"{path} holds no image or no text case, so nothing could be proven. Export again.")
    _check_lengths(golden, bundle)
    return golden


def _check_lengths(golden: Golden, bundle: Bundle) -> None:
    prepared = np.empty((1, *bundle.spec.tower("image", ImageTower).spec.values_shape), np.float32)
    num_values = sample_pixel_values(prepared).size
    for case in golden.images:
        num_pixels = 3 * len(_grid_lines(case.height)) * len(_grid_lines(case.width))
        if (len(case.pixels_sample), len(case.pixel_values_sample)) != (num_pixels, num_values):
            raise BundleFormatError(f"golden case {case.name!r} keeps other samples than this version. Export again.")
    answers: list[ImageCase | TextCase] = [*golden.images, *golden.texts]
    for answer in answers:
        if len(answer.embedding) != bundle.spec.embed_dim:
            seen = f"a vector of {len(answer.embedding)}, expected {bundle.spec.embed_dim}"
            raise BundleFormatError(f"golden case {answer.name!r} has {seen}. Export the bundle again.")
    if golden.attention is not None:
        _check_attention(golden, golden.attention, bundle)


def _check_attention(golden: Golden, attention: AttentionGolden, bundle: Bundle) -> None:
    """Raise BundleFormatError for cases of the second stage that are of no image or text case, or of another shape."""
    names, texts = {case.name for case in golden.images}, {case.name for case in golden.texts}
    declared = bundle.spec.attention
    num_tokens = 0 if declared is None else declared.num_tokens
    for case in attention.images:
        is_whole = (
            case.image in names
            and texts.issuperset(attention.texts)
            and case.region + 1 < num_tokens
            and len(case.token) == bundle.spec.embed_dim
            and [len(row) for row in case.attended] == [num_tokens] * len(attention.texts)
        )
        if not is_whole:
            raise BundleFormatError(
                f"golden case {case.image!r} of the attention does not fit its texts, its image or the {num_tokens} "
                "tokens that the bundle declares. Export the bundle again."
            )


def sample_pixels(pixels: Pixels) -> NDArray[np.uint8]:
    """Return a grid of samples of (H, W, 3) pixels, flattened."""
    rows, columns = _grid_lines(pixels.shape[0]), _grid_lines(pixels.shape[1])
    return pixels[np.ix_(rows, columns)].ravel()


def sample_pixel_values(pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a grid of samples of one image's (1, 3, H, W), or patches (1, N, 3 P^2 + 2), flattened."""
    rows, columns = _grid_lines(pixel_values.shape[-2]), _grid_lines(pixel_values.shape[-1])
    samples: NDArray[np.float32] = pixel_values[0][..., rows, :][..., columns].ravel()
    return samples


def pixels_sha256(pixels: Pixels) -> str:
    """Return the sha256 of decoded pixels, (H, W, 3) uint8 in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _grid_lines(length: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, _GRID).round().astype(np.int64))
