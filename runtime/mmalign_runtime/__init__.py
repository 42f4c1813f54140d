"""Embed images and texts with an mmalign bundle, without PyTorch.

Names are loaded when first used, so that `import mmalign_runtime` costs next to nothing and never loads onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmalign_runtime.bundle import Bundle, open_bundle
    from mmalign_runtime.embedder import Embedder
    from mmalign_runtime.errors import (
        BundleError,
        InputError,
        ItemError,
        MmalignError,
        ProviderError,
        SpaceMismatchError,
    )
    from mmalign_runtime.ranking import search
    from mmalign_runtime.saved import SavedVectors, load_vectors
    from mmalign_runtime.streaming import PartialBatch, StreamedItem

_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "Embedder": "embedder",
    "InputError": "errors",
    "ItemError": "errors",
    "MmalignError": "errors",
    "PartialBatch": "streaming",
    "ProviderError": "errors",
    "SavedVectors": "saved",
    "SpaceMismatchError": "errors",
    "StreamedItem": "streaming",
    "load_vectors": "saved",
    "open_bundle": "bundle",
    "search": "ranking",
}

__all__ = [
    "Bundle",
    "BundleError",
    "Embedder",
    "InputError",
    "ItemError",
    "MmalignError",
    "PartialBatch",
    "ProviderError",
    "SavedVectors",
    "SpaceMismatchError",
    "StreamedItem",
    "load_vectors",
    "open_bundle",
    "search",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
