"""Damage of a known size: one weight of a real model file, moved until its vectors differ by what the test asks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import numpy_helper

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.bundle.hashes import sha256_of_file
from mmalign_runtime.spec import SPEC_NAME, Modality, encode_spec

# Small enough that vectors move in proportion, large enough that float32 sees it.
_TRIED_STEP = 1e-2


def move_one_weight(path: Path, step: float) -> None:
    """Move one number of the largest projection: the smallest damage a file can take and still load."""
    model = onnx.load(path)
    tensor = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and "proj" in t.name),
        key=lambda t: np.prod(t.dims),
    )
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += step
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def reseal(folder: Path) -> None:
    """Give a changed bundle the hashes of its changed files: only a comparison of vectors can find the change."""
    spec = open_bundle(folder, check_hashes=False).spec
    files = {name: sha256_of_file(folder / name) for name in spec.files}
    (folder / SPEC_NAME).write_bytes(encode_spec(msgspec.structs.replace(spec, files=files)))


def largest_difference(folder: Path, kind: Modality) -> float:
    """Return how far a component is from PyTorch's, at most, over the golden cases of one tower."""
    golden = load_golden(open_bundle(folder))
    with Embedder.load(folder, provider="cpu", verify=None) as embedder:
        if kind == "image":
            found = embedder.encode_image([folder / case.file for case in golden.images])
            expected = [case.embedding for case in golden.images]
        else:
            found = embedder.encode_text([case.text for case in golden.texts])
            expected = [case.embedding for case in golden.texts]
    return float(np.abs(found - np.array(expected)).max())


def step_for(bundle: Path, kind: Modality, difference: float, scratch: Path) -> float:
    """Return the step of one weight that moves a component by `difference`, at most, over the golden cases."""
    tried = moved_bundle(bundle, kind, _TRIED_STEP, scratch / f"tried_{kind}")
    return _TRIED_STEP * difference / largest_difference(tried, kind)


def moved_bundle(bundle: Path, kind: Modality, step: float, out: Path) -> Path:
    """Return a sealed copy of a bundle in which one weight of a tower is moved."""
    shutil.copytree(bundle, out)
    move_one_weight(out / open_bundle(bundle).spec.artifact(kind).file, step)
    reseal(out)
    return out
