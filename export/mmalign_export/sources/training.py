"""Imports as training starts from them: the entry point of the group "mmalign.sources"."""

from __future__ import annotations

from mmalign.dual_model import DualModel
from mmalign_export.errors import SourceError
from mmalign_export.sources import read_source
from mmalign_export.sources.detect import detect_source


def read_model(place: str) -> DualModel:
    """Return the model at a place, in the words of `mmalign import`. Raises an MmalignError that says what is wrong."""
    kind, location = detect_source(place)
    if kind == "onnx_pair":
        raise SourceError(
            f"{place} is a pair of ONNX files, which have no gradients and cannot be exported again. Train from the "
            "model that they were exported from; `mmalign import` makes a bundle of the files as they are."
        )
    return read_source(kind, location).model
