"""The bundle's format: the typed contents of bundle.json, and how they are read and written.

`image` and `text` say what becomes of an item, `towers` and `artifacts` what computes its vector, `bundle` holds them
together, `reading` turns them into bytes and back, and `version1` reads what was written before.
"""

from __future__ import annotations

from mmalign_runtime.spec.artifacts import (
    AOTINDUCTOR,
    LEAST_GOLDEN_COSINE,
    ONNX,
    REGIONS,
    SCORES,
    TORCH_COMPILE,
    Artifact,
    Attention,
    Parity,
    Precision,
    Quantization,
)
from mmalign_runtime.spec.bundle import (
    FORMAT_VERSION,
    SPEC_NAME,
    BundleSpec,
    Modality,
    Provenance,
    Similarity,
    Source,
    SourceFile,
)
from mmalign_runtime.spec.image import ImageLimits, ImageSpec, Interpolation, Resize, Rounding
from mmalign_runtime.spec.imports import Choice, ImportDifference, ImportRecord, ProofStage
from mmalign_runtime.spec.reading import decode_spec, encode_spec, read_format, seal_of
from mmalign_runtime.spec.text import Cleaning, TextSpec
from mmalign_runtime.spec.towers import ImageInputs, ImageTower, TextInputs, TextTower, Tower

__all__ = [
    "AOTINDUCTOR",
    "FORMAT_VERSION",
    "LEAST_GOLDEN_COSINE",
    "ONNX",
    "REGIONS",
    "SCORES",
    "SPEC_NAME",
    "TORCH_COMPILE",
    "Artifact",
    "Attention",
    "BundleSpec",
    "Choice",
    "Cleaning",
    "ImageInputs",
    "ImageLimits",
    "ImageSpec",
    "ImageTower",
    "ImportDifference",
    "ImportRecord",
    "Interpolation",
    "Modality",
    "Parity",
    "Precision",
    "ProofStage",
    "Provenance",
    "Quantization",
    "Resize",
    "Rounding",
    "Similarity",
    "Source",
    "SourceFile",
    "TextInputs",
    "TextSpec",
    "TextTower",
    "Tower",
    "decode_spec",
    "encode_spec",
    "read_format",
    "seal_of",
]
