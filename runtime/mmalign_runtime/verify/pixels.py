"""Does the engine that serves give the same pixels? The preprocessing graph, run where the towers run.

The runtime itself prepares pictures with onnxruntime; who serves a bundle in another program may not.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from mmalign_runtime.base_embedder import BaseEmbedder
from mmalign_runtime.bundle import Bundle
from mmalign_runtime.config import DEFAULT_ENGINE
from mmalign_runtime.engine.session import Model
from mmalign_runtime.image import decode_image
from mmalign_runtime.image_encoder import INPUT_NAME
from mmalign_runtime.spec import ImageTower
from mmalign_runtime.verify.golden_cases import ImageOutcome
from mmalign_runtime.verify.report import CheckResult

# What rounding in float32 may add to a level.
_ROUNDING = 1.001
# Graphs of older bundles are of this operator, which engines compute in ways of their own: they are for onnxruntime.
_UNPORTABLE = b"Resize"


def can_check_pixels(embedder: BaseEmbedder) -> bool:
    """Say whether the engine is another one than prepares the pictures, and reads this bundle's graph."""
    is_other = embedder.engine.name != DEFAULT_ENGINE and embedder.engine.runs_onnx
    return is_other and _UNPORTABLE not in embedder.bundle.read(_graph(embedder.bundle))


def check_pixels(embedder: BaseEmbedder, images: Sequence[ImageOutcome]) -> CheckResult:
    """Prepare all images with the engine of the towers: no value is more than a level of 255 from onnxruntime's."""
    bundle, spec = embedder.bundle, embedder.image.spec
    session = embedder.engine.open(_model(bundle), msgspec.structs.replace(embedder.options, cache=False))
    moved = 0.0
    for outcome in images:
        found = session.run({INPUT_NAME: decode_image(bundle.source(outcome.case.file), spec)})  # (1, 3, S, S)
        moved = max(moved, float(np.abs(found - outcome.pixel_values).max()))
    session.close()
    limit = _ROUNDING / 255 / min(spec.std)
    detail = f"{len(images)} images prepared by {embedder.engine.name} and by {DEFAULT_ENGINE}; a level is the limit"
    return CheckResult(name="pixels", passed=moved <= limit, max_abs_difference=moved, bound=limit, detail=detail)


def _graph(bundle: Bundle) -> str:
    return bundle.spec.tower("image", ImageTower).preprocess


def _model(bundle: Bundle) -> Model:
    name = _graph(bundle)
    return Model(bundle.source(name), f"{bundle.path / name}", (INPUT_NAME,), sha256=bundle.spec.files[name])
