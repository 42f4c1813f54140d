"""How the inputs of a pair are made: the specs of pictures and texts, and what the library itself makes of both.

Texts are read by the tokenizer.json beside a text tower, as its tokenizer_config.json and the graph ask for. immich's
configurations are open_clip's: pictures become RGB first, without their alpha, and are resized by Pillow; texts get
single spaces.
Shapes: H and W image sides.
"""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding, Regex, Tokenizer, normalizers

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.onnx_graph import embedding_rows, fixed_length
from mmalign_export.sources.onnx_place import OnnxPlace
from mmalign_export.sources.refusals import check_padding_side, checked_pictures, first_sentence, read_json
from mmalign_export.sources.transformers import load_processor
from mmalign_export.sources.transformers_images import image_spec
from mmalign_export.sources.transformers_original import processed_pixels
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_runtime.spec import ImageSpec, TextSpec

_WHITESPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+"  # str.split's
# Python lowers a sigma that ends a word to another letter than one inside it; `Lowercase` knows one lower sigma.
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
_FINAL_SIGMA = normalizers.Replace(Regex(f"(?<={_CASED})\u03a3(?!{_CASED})"), "\u03c2")
_PUNCTUATION = f"[{re.escape(string.punctuation)}]"
_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# transformers writes 10**30 where a tokenizer has no limit.
_NO_LIMIT = 1_000_000
_LENGTHS = ("model_max_length", "max_length")

# What transformers keeps an image processor in; the second since release 5, with the tokenizer's options.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


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
    )
    return checked_pictures(spec, options)


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


class OnnxTexts(msgspec.Struct, frozen=True, kw_only=True):
    """What tokenizes a pair's texts."""

    tokenizer: Tokenizer
    spec: TextSpec


def read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder as it is. Raises SourceError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise SourceError(f"{folder} has no tokenizer.json. Fetch the model whole: a graph reads ids, not texts.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises Exception itself
        raise SourceError(f"{path} cannot be read: {first_sentence(error)}. Fetch it again.") from error


def read_texts(
    folder: Path, tokenizer: Tokenizer, lengths: Mapping[str, int | None], padding: Literal["longest", "fixed"]
) -> OnnxTexts:
    """Return a folder's tokenizer with its spec. `lengths` are what limits texts beside its configuration, by name.

    Raises SourceError where nothing says how long a text may be, or what it is padded with.
    """
    config = read_json(folder / "tokenizer_config.json")
    own = [int(each) for name in _LENGTHS if isinstance(each := config.get(name), int | float) and each < _NO_LIMIT]
    limits = [each for each in (*own, *lengths.values()) if each is not None and 0 < each < _NO_LIMIT]
    if not limits:
        raise SourceError(
            f"{folder} does not say how many tokens the text tower reads. Set model_max_length in its "
            "tokenizer_config.json."
        )
    pad_token, pad_token_id = _padding(folder, tokenizer, config)
    check_padding_side(str(config.get("padding_side")), padding)
    spec = TextSpec(
        context_length=min(limits),
        truncation_side="left" if config.get("truncation_side") == "left" else "right",
        padding=padding,
        padding_side="left" if config.get("padding_side") == "left" else "right",
        pad_token=pad_token,
        pad_token_id=pad_token_id,
    )
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return OnnxTexts(tokenizer=plain, spec=spec)


def library_tokens(tokenizer: Tokenizer, spec: TextSpec, *, is_padded: bool) -> Callable[[str], Encoding]:
    """Return how the libraries tokenize a text by itself: tokenizers, which cuts it and pads it."""
    bound = copy.deepcopy(tokenizer)
    bound.enable_truncation(spec.context_length, direction=spec.truncation_side)
    if is_padded:
        bound.enable_padding(
            direction=spec.padding_side, pad_id=spec.pad_token_id, pad_token=spec.pad_token, length=spec.context_length
        )
    else:
        bound.no_padding()
    return bound.encode


def _padding(folder: Path, tokenizer: Tokenizer, config: Mapping[str, object]) -> tuple[str, int]:
    """Return the padding token and its id: as configured, or else as tokenizer.json has it."""
    named = config.get("pad_token")
    if isinstance(named, dict):
        named = named.get("content")
    own = tokenizer.padding
    token = named or (own["pad_token"] if own else None)
    found = None if token is None else tokenizer.token_to_id(cast("str", token))
    if token is None or found is None:
        raise SourceError(
            f"{folder}: the tokenizer's padding token is {token!r}, which has no id. Set pad_token in its "
            "tokenizer_config.json."
        )
    return str(token), found


def picture_inputs(
    place: OnnxPlace, options: SourceOptions
) -> tuple[ImageSpec, Callable[[Image.Image], NDArray[np.float32]]]:
    """Return the image spec, and how the library that the configuration is for makes pixels (1, 3, H, W)."""
    if place.layout == "immich":
        found = read_preprocessing(place.image_folder)
        return immich_image_spec(found, options), immich_pixels(found)
    if not any((place.image_folder / name).is_file() for name in _PROCESSORS):
        raise SourceError(
            f"{place.image_folder} has no {' or '.join(_PROCESSORS)}, so that nothing says how a picture becomes "
            "pixels. Fetch the model whole."
        )
    processor = load_processor(place.image_folder)
    return image_spec(processor.to_dict(), options), lambda image: processed_pixels(processor, [image])


def text_inputs_of(
    place: OnnxPlace, graph: ir.Model, options: SourceOptions
) -> tuple[OnnxTexts, Callable[[str], Encoding]]:
    """Return tokenizer and spec, and how the library tokenizes a text by itself."""
    tokenizer, config = read_tokenizer(place.text_folder), _text_config(place)
    length = fixed_length(graph)
    needs_all = length is not None or place.layout == "immich" or family_of(place.text_folder).startswith("siglip")
    padding: Literal["fixed", "longest"] = "fixed" if needs_all or options.length == "fixed" else "longest"
    name = "context_length" if place.layout == "immich" else "max_position_embeddings"
    limit = config.get(name, 77 if place.layout == "immich" else None)
    lengths = {"the graph": length, name: limit if isinstance(limit, int) else None}
    rows = embedding_rows(graph)
    fitted = tokenizer if rows is None else fitted_tokenizer(tokenizer, rows)
    texts = read_texts(place.text_folder, fitted, lengths, padding)
    said = limit if place.layout == "immich" and isinstance(limit, int) else texts.spec.context_length
    if length not in (None, said):
        raise SourceError(
            f"{place.text} reads texts of {length} tokens, and the configuration beside it makes {said}. They are "
            "not of one model: fetch both again."
        )
    bound = library_tokens(tokenizer, texts.spec, is_padded=needs_all)
    if place.layout != "immich":
        return texts, bound
    canonical = cleans_canonically(config)
    cleaned = msgspec.structs.replace(texts, tokenizer=with_cleaning(texts.tokenizer, canonical=canonical))
    return cleaned, lambda text: bound(clean(text, canonical=canonical))


def family_of(folder: Path) -> str:
    """Return the model_type of a folder's config.json, empty where there is none."""
    path = folder / "config.json"
    return str(read_json(path).get("model_type", "")) if path.is_file() else ""


def _text_config(place: OnnxPlace) -> Mapping[str, object]:
    """Return the part of config.json that is about texts: all of it where it is of a text tower alone."""
    path = (place.text_folder.parent if place.layout == "immich" else place.text_folder) / "config.json"
    if not path.is_file() and place.layout != "immich":
        return {}
    config = read_json(path)
    part = config.get("text_cfg" if place.layout == "immich" else "text_config", config)
    return cast("Mapping[str, object]", part) if isinstance(part, Mapping) else {}
