"""Stage 3 of the proof: each tower gives the library's vectors on the library's own inputs.

The bound is 1e-4, or ten times what rounding to float32 moves this tower, whichever is more.
Shapes: B batch, D embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.dual_model import Arrays, ModelTower, TextModelTower
from mmalign_export.errors import ProofError
from mmalign_export.onnx_backbone import OnnxBackbone
from mmalign_export.parity import ABS_BOUND, COSINE_BOUND
from mmalign_runtime.spec import Modality, ProofStage

Vectors = NDArray[np.float32]

_TIMES_ROUNDING = 10
_SHOWN = 40


def prove_tower(
    name: Modality, tower: ModelTower, inputs: Mapping[str, Arrays], expected: Vectors, library: str
) -> ProofStage:
    """Hold a tower, on inputs by case, to the library's unit vectors (B, D). Raises ProofError."""
    cases = list(inputs)
    ours = tower.run_each(list(inputs.values()))
    moved = np.abs(ours - expected).max(axis=1)
    cosines = cosine(ours, expected)
    worst = int(moved.argmax())
    bound = ABS_BOUND if moved[worst] <= ABS_BOUND else rounding_bound(tower, inputs[cases[worst]])
    if moved[worst] > bound or cosines.min() < COSINE_BOUND:
        lowest = int(cosines.argmin())
        raise ProofError(
            f"tower: the {name} tower gives other vectors than {library} on the same inputs: case {cases[lowest]!r} "
            f"has cosine {cosines[lowest]:.7f} (at least {COSINE_BOUND}), case {cases[worst]!r} differs by "
            f"{moved[worst]:.2e} (at most {bound:.1e}). An activation, a pooling or a mask is not the library's."
        )
    return ProofStage(
        stage="tower",
        tower=name,
        num_cases=len(cases),
        largest=float(moved[worst]),
        bound=bound,
        lowest_cosine=float(cosines.min()),
    )


def check_beside(tower: TextModelTower, texts: Sequence[str], alone: Vectors, bound: float) -> None:
    """Raise ProofError where short texts have other vectors beside the longest than alone, (N, D): padding is seen."""
    *_, longest = by_length = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    tried = [*by_length[:2], longest]
    moved = np.abs(tower.embed([texts[at] for at in tried]) - alone[tried]).max(axis=1)
    worst = int(moved.argmax())
    if moved[worst] > bound:
        raise ProofError(
            f"tower: the vector of {texts[tried[worst]][:_SHOWN]!r} moves by {moved[worst]:.1e} (at most {bound:.1e}) "
            "beside longer texts: the text tower sees the padding, and nothing says how much of it there has to be. "
            "Export it with an attention mask, or for one length."
        )


def cosine(found: Vectors, expected: Vectors) -> NDArray[np.float64]:
    """Return the cosine of each row (B,), 0 beside a vector of length zero."""
    left, right = found.astype(np.float64), expected.astype(np.float64)
    products = (left * right).sum(axis=1)
    lengths = _lengths(left) * _lengths(right)
    cosines: NDArray[np.float64] = products / lengths
    return cosines


def unit(vectors: Vectors) -> Vectors:
    """Return vectors (B, D) divided by their length; one of length zero stays."""
    found: Vectors = (vectors / _lengths(vectors.astype(np.float64))[:, None]).astype(np.float32)
    return found


def _lengths(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.linalg.norm(vectors, axis=1)
    return np.where(found == 0, 1.0, found)


def rounding_bound(tower: ModelTower, inputs: Arrays) -> float:
    """Return what a tower's vectors may move by: 1e-4, or ten times the distance of its own in float32 and float64.

    1e-4 for a tower that is an ONNX graph: onnxruntime has no float64 of most operators.
    """
    if isinstance(tower.backbone, OnnxBackbone):
        return ABS_BOUND
    exact = copy.deepcopy(tower.module).double()
    wide = [each.double() if each.is_floating_point() else each for each in tower.tensors(inputs)]
    with torch.inference_mode():
        features = exact.projection(exact.backbone(*wide))
        expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    return max(ABS_BOUND, _TIMES_ROUNDING * float(np.abs(tower.run(inputs) - expected).max()))
