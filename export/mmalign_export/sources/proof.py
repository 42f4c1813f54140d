"""The proof of an import, in four stages: token ids, pixels, towers, and the bundle from file bytes to vector.

Eager PyTorch on the imported model is held to the library's own pipeline, and the bundle to the library. What the two
read by different conventions is listed with its cosine, and is no failure; everything else is. Each tower has to give
the library's vectors on the library's own inputs, within 1e-4, or ten times what rounding to float32 moves it,
whichever is more. The golden vectors are the library's own wherever the conventions agree.
Shapes: N images, M texts, B batch, D embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.dual_model import Arrays, DualModel, ModelTower, TextModelTower, Vectors
from mmalign_export.errors import ProofError
from mmalign_export.golden import GoldenFile, cases_of, with_vectors
from mmalign_export.parity import ABS_BOUND, COSINE_BOUND, AbsBound, Artifact
from mmalign_export.sources.proof_pixels import prove_pixels
from mmalign_export.sources.proof_texts import PROOF_TEXTS, prove_tokens
from mmalign_export.sources.protocol import Imported, Original
from mmalign_export.sources.reference import CheckedReference
from mmalign_export.sources.refusals import check_spread, check_vectors
from mmalign_export.to_onnx import OnnxBackbone
from mmalign_runtime.bundle.golden import Golden
from mmalign_runtime.spec import ImportDifference, ImportRecord, Modality, Parity, ProofStage

_TIMES_ROUNDING = 10
_SHOWN = 40
# What the vector of a picture keeps where each of its pixels may be off by two levels, and by how much a component of
# it can then move: the square root of 2 (1 - cosine).
IMAGE_COSINE_BOUND = 0.9999
IMAGE_ABS_BOUND = 0.0142
_COSINE_BOUNDS: dict[Modality, float] = {"image": IMAGE_COSINE_BOUND, "text": COSINE_BOUND}
_BATCH = 8
_NO_VECTOR = "the library gives an empty text no vector"


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


class Reference(msgspec.Struct, frozen=True):
    """The library's unit vectors of the golden images (N, D) and texts (M, D), and the stages that passed so far.

    `differing` holds, by tower and case, the convention for which its vector is not taken as golden.
    """

    vectors: dict[Modality, Vectors]
    differing: dict[Modality, dict[str, str]]
    stages: tuple[ProofStage, ...]


def prove_model(
    model: DualModel, original: Original, files: Sequence[GoldenFile], golden: Golden, resized_as_stored: bool = False
) -> Reference:
    """Hold eager PyTorch to the library: token ids, pixels, and each tower on the library's own inputs.

    Raises ProofError naming the stage, the case and the figures, and SourceError for vectors that prove nothing.
    """
    original = CheckedReference(original)
    texts = [case.text for case in golden.texts]
    differing, ids = prove_tokens(model.text, original, [*texts, *PROOF_TEXTS])
    pixels = prove_pixels(model.image, original, files, resized_as_stored)
    image_vectors = np.concatenate(
        [
            original.image_vectors(np.concatenate(pixels.values[at : at + _BATCH]))
            for at in range(0, len(pixels.values), _BATCH)
        ]
    )
    text_vectors = original.text_vectors(texts)
    check_vectors(image_vectors, (len(files), model.embed_dim), "image")
    check_vectors(text_vectors, (len(texts), model.embed_dim), "text", may_be_zero=[not text for text in texts])
    found: dict[Modality, Vectors] = {"image": unit(image_vectors), "text": unit(text_vectors)}
    for name, vectors in found.items():
        check_spread(vectors, name)
    named = {case.name: "other token ids" for case in golden.texts if case.text in differing}
    named |= {case.name: _NO_VECTOR for case, row in zip(golden.texts, text_vectors, strict=True) if not row.any()}
    inputs = {
        case.name: {model.image.input_names[0]: each} for case, each in zip(golden.images, pixels.values, strict=True)
    }
    image = prove_tower("image", model.image, inputs, found["image"], original.library)
    same = [at for at, case in enumerate(golden.texts) if case.name not in named]
    tokens = {golden.texts[at].name: model.text.prepare([texts[at]]) for at in same}
    text = prove_tower("text", model.text, tokens, found["text"][same], original.library)
    check_beside(model.text, [texts[at] for at in same], found["text"][same], text.bound)
    return Reference(found, {"image": pixels.differing, "text": named}, (ids, pixels.stage, image, text))


def check_golden(golden: Golden) -> None:
    """Raise SourceError where the golden vectors of a tower hardly differ, so that nothing could be proven of it."""
    for name, of_tower in cases_of(golden).items():
        check_spread(np.array([case.embedding for case in of_tower], np.float32), name)


def prove_bundle(
    imported: Imported, reference: Reference, artifact: Artifact, golden: Golden, folder: Path
) -> tuple[Golden, ImportRecord]:
    """Hold the bundle, from file bytes and texts to vectors, to the library.

    Return the golden cases with the library's vectors, and what the bundle records. Raises ProofError.
    """
    assert imported.original is not None, "there is nothing else to prove a bundle against"
    ours: dict[Modality, Vectors] = {
        "image": np.concatenate([artifact.embed_images([folder / case.file]) for case in golden.images]),
        "text": np.concatenate([artifact.embed_texts([case.text]) for case in golden.texts]),
    }
    cases = cases_of(golden)
    stages, differences = list(reference.stages), []
    for name, expected in reference.vectors.items():
        names, apart = [case.name for case in cases[name]], reference.differing[name]
        cosines = dict(zip(names, cosine(ours[name], expected).tolist(), strict=True))
        moved = dict(zip(names, np.abs(ours[name] - expected).max(axis=1).tolist(), strict=True))
        bound = IMAGE_ABS_BOUND if name == "image" else _tower_bound(reference)
        stages.append(_file_stage(name, [each for each in names if each not in apart], cosines, moved, bound))
        differences += [
            ImportDifference(case=case, tower=name, why=why, cosine=cosines[case]) for case, why in apart.items()
        ]
    record = ImportRecord(
        reference=imported.original.library,
        choices=imported.choices,
        stages=tuple(stages),
        differences=tuple(differences),
    )
    return with_vectors(golden, reference.vectors, reference.differing), record


def golden_bounds(measured: Parity, record: ImportRecord, tower: Modality) -> Parity:
    """Return what `verify` holds a tower to, its golden vectors being the library's: the figures of the last stage."""
    (stage,) = (each for each in record.stages if (each.stage, each.tower) == ("file to vector", tower))
    return msgspec.structs.replace(
        measured,
        min_cosine=min(measured.min_cosine, stage.lowest_cosine or -1.0),
        max_abs_difference=max(measured.max_abs_difference, stage.largest),
        cosine_bound=_COSINE_BOUNDS[tower],
        abs_bound=stage.bound,
    )


def golden_rounding(model: DualModel, golden: Golden, folder: Path) -> AbsBound:
    """Return what the graph of an imported tower may move a golden vector by: its depth and width are not ours."""
    images = {case.name: folder / case.file for case in golden.images}
    texts = {case.name: case.text for case in golden.texts}

    def bound(tower: Modality, case: str) -> float:
        inputs = model.image.prepare([images[case]]) if tower == "image" else model.text.prepare([texts[case]])
        return rounding_bound(model.towers[tower], inputs)

    return bound


def _tower_bound(reference: Reference) -> float:
    """Return what a text's vector may move by: its tokens are the library's, so that only the tower is between them."""
    return max(stage.bound for stage in reference.stages if (stage.stage, stage.tower) == ("tower", "text"))


def _file_stage(
    tower: Modality, names: Sequence[str], cosines: Mapping[str, float], moved: Mapping[str, float], bound: float
) -> ProofStage:
    lowest, farthest = min(names, key=lambda name: cosines[name]), max(names, key=lambda name: moved[name])
    if cosines[lowest] < _COSINE_BOUNDS[tower] or moved[farthest] > bound:
        raise ProofError(
            f"file to vector: {tower} case {lowest!r} has cosine {cosines[lowest]:.6f} to the library's vector (at "
            f"least {_COSINE_BOUNDS[tower]}), and {farthest!r} differs by {moved[farthest]:.1e} (at most {bound:g}). "
            "Tokens, pixels and the towers agree: the graph is wrong."
        )
    return ProofStage(
        stage="file to vector",
        tower=tower,
        num_cases=len(names),
        largest=moved[farthest],
        bound=bound,
        lowest_cosine=cosines[lowest],
    )
