"""How the inputs of a pair are made: the specs of pictures and texts, and what the library itself makes of both.

Shapes: H and W image sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding

from mmalign_export.errors import SourceError
from mmalign_export.sources import SourceOptions
from mmalign_export.sources.onnx_graph import embedding_rows, fixed_length
from mmalign_export.sources.onnx_immich import (
    clean,
    cleans_canonically,
    immich_image_spec,
    immich_pixels,
    read_preprocessing,
    with_cleaning,
)
from mmalign_export.sources.onnx_place import OnnxPlace
from mmalign_export.sources.onnx_texts import OnnxTexts, library_tokens, read_texts, read_tokenizer
from mmalign_export.sources.refusals import read_json
from mmalign_export.sources.transformers_images import image_spec
from mmalign_export.sources.transformers_loading import load_processor
from mmalign_export.sources.transformers_original import processed_pixels
from mmalign_export.sources.vocabulary import fitted_tokenizer
from mmalign_runtime.spec import ImageSpec

# From a picture to pixels (1, 3, H, W).
Pixels = Callable[[Image.Image], NDArray[np.float32]]
Tokens = Callable[[str], Encoding]

# What transformers keeps an image processor in; the second since release 5, with the tokenizer's options.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def picture_inputs(place: OnnxPlace, options: SourceOptions) -> tuple[ImageSpec, Pixels]:
    """Return the image spec, and how the library that the configuration is for makes pixels."""
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
