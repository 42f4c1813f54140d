"""Embed images and texts with an mmalign bundle, without PyTorch.

Names are loaded when first used, so that `import mmalign_runtime` costs next to nothing and never loads onnxruntime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmalign_runtime.lazy import lazy_names

if TYPE_CHECKING:
    from mmalign_runtime.bundle import Bundle, open_bundle
    from mmalign_runtime.config import RuntimeConfig
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
    from mmalign_runtime.spaces import compat, similarity
    from mmalign_runtime.spec import ImageLimits
    from mmalign_runtime.streaming import PartialBatch, StreamedItem
    from mmalign_runtime.verify import verify_bundle

_HOMES = {
    "Bundle": "bundle",
    "BundleError": "errors",
    "Embedder": "embedder",
    "ImageLimits": "spec",
    "InputError": "errors",
    "ItemError": "errors",
    "MmalignError": "errors",
    "PartialBatch": "streaming",
    "ProviderError": "errors",
    "RuntimeConfig": "config",
    "SavedVectors": "saved",
    "SpaceMismatchError": "errors",
    "StreamedItem": "streaming",
    "compat": "spaces",
    "load_vectors": "saved",
    "open_bundle": "bundle",
    "search": "ranking",
    "similarity": "spaces",
    "verify_bundle": "verify",
}

__all__ = [
    "Bundle",
    "BundleError",
    "Embedder",
    "ImageLimits",
    "InputError",
    "ItemError",
    "MmalignError",
    "PartialBatch",
    "ProviderError",
    "RuntimeConfig",
    "SavedVectors",
    "SpaceMismatchError",
    "StreamedItem",
    "compat",
    "load_vectors",
    "open_bundle",
    "search",
    "similarity",
    "verify_bundle",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
