"""immich's configurations, which are open_clip's, and what immich makes of pictures and texts by them.

Pictures become RGB first, without their alpha, and are resized by Pillow; texts get single spaces.
Shapes: H and W image sides.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Regex, Tokenizer, normalizers

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.refusals import checked_pictures, read_json
from mmalign_runtime.spec import ImageSpec

_WHITESPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+"  # str.split's
# Python lowers a sigma that ends a word to another letter than one inside it; `Lowercase` knows one lower sigma.
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
_FINAL_SIGMA = normalizers.Replace(Regex(f"(?<={_CASED})\u03a3(?!{_CASED})"), "\u03c2")
_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """visual/preprocess_cfg.json, in open_clip's terms."""

    size: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"]
    resize_mode: Literal["shortest", "squash"] = "shortest"

    @property
    def side(self) -> int:
        """Return the side of the square that comes out; immich takes the first of two."""
        return self.size if isinstance(self.size, int) else self.size[0]


def read_preprocessing(folder: Path) -> Preprocessing:
    """Return what says how pixels are made. Raises SourceError, also for what immich does not do."""
    path = folder / "preprocess_cfg.json"
    try:
        return msgspec.convert(read_json(path), Preprocessing, strict=False)
    except msgspec.ValidationError as error:
        raise SourceError(
            f"{path} asks for what immich does not do: {error}. Import the model from open_clip, which made it."
        ) from error


def immich_image_spec(found: Preprocessing, options: SourceOptions) -> ImageSpec:
    """Return the image spec of immich's way: sides and offsets rounded down."""
    spec = ImageSpec(
        size=found.side,
        resize="squash" if found.resize_mode == "squash" else "shortest_edge",
        shortest_edge=found.side,
        side_rounding="floor",
        crop_rounding="floor",
        interpolation=found.interpolation,
        mean=found.mean,
        std=found.std,
        orientation="ignored" if options.orientation == "source" else "applied",
        alpha="dropped" if options.alpha == "source" else "composited",
        jpeg_oversampling=options.jpeg_oversampling,
    )
    return checked_pictures(spec)


def immich_pixels(found: Preprocessing) -> Callable[[Image.Image], NDArray[np.float32]]:
    """Return immich's way from a picture to pixels (1, 3, H, W)."""

    def pixels(image: Image.Image) -> NDArray[np.float32]:
        side, rgb = found.side, image.convert("RGB")
        sides = (side, side)
        if found.resize_mode == "shortest":
            short = min(rgb.size)
            sides = (int(rgb.width / short * side), int(rgb.height / short * side))
        resized = rgb.resize(sides, _FILTERS[found.interpolation])
        left, top = int(resized.width / 2 - side / 2), int(resized.height / 2 - side / 2)
        values = np.asarray(resized.crop((left, top, left + side, top + side)), np.float32) / 255  # (H, W, 3)
        scaled = (values - np.array(found.mean, np.float32)) / np.array(found.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])  # (1, 3, H, W)

    return pixels


def cleans_canonically(text_config: Mapping[str, object]) -> bool:
    """Say whether open_clip's configuration asks for texts without punctuation and capitals."""
    options = text_config.get("tokenizer_kwargs")
    return isinstance(options, Mapping) and options.get("clean") == "canonicalize"


def clean(text: str, *, canonical: bool) -> str:
    """Return a text as immich gives it to its tokenizer."""
    spaced = " ".join(text.split())
    return spaced.translate(str.maketrans("", "", string.punctuation)).lower() if canonical else spaced


def with_cleaning(tokenizer: Tokenizer, *, canonical: bool) -> Tokenizer:
    """Return the tokenizer with `clean` as the first part of its normalizer."""
    found = Tokenizer.from_str(tokenizer.to_str())
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(_WHITESPACE), " "), normalizers.Strip()]
    if canonical:
        steps += [normalizers.Replace(Regex(_PUNCTUATION), ""), _FINAL_SIGMA, normalizers.Lowercase()]
    if tokenizer.normalizer is not None:
        steps.append(tokenizer.normalizer)
    found.normalizer = normalizers.Sequence(steps)
    return found
