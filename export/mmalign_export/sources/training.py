"""Imports as training starts from them: the entry point of the group "mmalign.sources"."""

from __future__ import annotations

from mmalign.dual_model import DualModel
from mmalign_export.sources import read_source
from mmalign_export.sources.detect import detect_source


def read_model(place: str) -> DualModel:
    """Return the model at a place, in the words of `mmalign import`. Raises an MmalignError that says what is wrong."""
    return read_source(*detect_source(place)).model
