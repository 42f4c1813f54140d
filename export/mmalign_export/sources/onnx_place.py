"""Where the two files of a pair lie, and what says how their inputs are made: the layouts that people have.

transformers.js has both in one folder, immich one folder each, fastembed and Qdrant two models of the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mmalign_export.errors import SourceError
from mmalign_export.sources.folders import model_folder

Layout = Literal["transformers.js", "immich", "two folders"]

# What is fetched of the hub: no quantized siblings.
_WANTED = (
    *("*.json", "*.txt", "*.md", "visual/*", "textual/*", "model.onnx*", "onnx/model.onnx*"),
    *(f"{folder}{side}_model.onnx*" for folder in ("", "onnx/") for side in ("vision", "text")),
)
_OF_IMAGES = ("onnx/vision_model.onnx", "vision_model.onnx", "visual/model.onnx")
_OF_TEXTS = ("onnx/text_model.onnx", "text_model.onnx", "textual/model.onnx")
_ALONE = ("model.onnx", "onnx/model.onnx")


class OnnxPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a pair. `image_folder` and `text_folder` hold the configurations of their inputs."""

    layout: Layout
    image: Path
    text: Path
    image_folder: Path
    text_folder: Path


def find_pair(location: str, text: str) -> OnnxPlace:
    """Return the pair at a place, its text tower at another one where `text` says so. Raises SourceError."""
    if location.endswith(".onnx"):
        raise SourceError(f"{location} is one file. Give the folder that it lies in, with its configurations.")
    folder = model_folder(location, _WANTED)
    if not text:
        image, words = _file(folder, _OF_IMAGES, "images"), _file(folder, _OF_TEXTS, "texts")
        is_immich = image.parent.name == "visual"
        return OnnxPlace(
            layout="immich" if is_immich else "transformers.js",
            image=image,
            text=words,
            image_folder=image.parent if is_immich else folder,
            text_folder=words.parent if words.parent.name == "textual" else folder,
        )
    other = model_folder(text, _WANTED)
    return OnnxPlace(
        layout="two folders",
        image=_file(folder, (*_OF_IMAGES, *_ALONE), "images"),
        text=_file(other, (*_OF_TEXTS, *_ALONE), "texts"),
        image_folder=folder,
        text_folder=other,
    )


def _file(folder: Path, names: Sequence[str], side: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    alone = next((name for name in _ALONE if name in others), None)
    if alone is not None and len(others) == 1:
        fix = f"{alone} is one tower, or both in one graph: give the folder of images, and with --text that of texts"
    else:
        fix = "Names with _quantized, _int8 or _fp16 are not float32, and not taken: fetch the file without"
    raise SourceError(
        f"{folder} has no tower of {side} ({' or '.join(names)}); it holds {', '.join(others[:8]) or 'no .onnx file'}. "
        f"{fix}."
    )
