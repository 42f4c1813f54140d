from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mmalign_export.errors import QuantizationError
from mmalign_export.quantization.half import to_half
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import Modality


def run(model: ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def feeds_of(tower: Modality, model: ModelProto) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    if tower == "image":
        shape = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim][1:]
        return {model.graph.input[0].name: random.standard_normal((3, *shape), np.float32)}
    ids = random.integers(5, 50, (3, 9))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0  # padding: its scores are beyond what float16 holds
    return dict(zip((given.name for given in model.graph.input), (ids, mask), strict=True))


@pytest.mark.parametrize("tower", ["image", "text"])
def test_vectors_are_near_and_of_unit_length_and_the_file_is_half(bundle_dir: Path, tower: Modality) -> None:
    model = onnx.load(bundle_dir / open_bundle(bundle_dir).spec.artifact(tower).file)
    before = model.SerializeToString()
    halved = to_half(model)
    assert model.SerializeToString() == before
    feeds = feeds_of(tower, model)
    expected, found = run(model, feeds), run(halved, feeds)
    assert found.dtype == np.float32
    assert (expected * found).sum(axis=1).min() > 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=0, atol=1e-6)  # normalised in float32
    assert not np.array_equal(found, expected)
    assert halved.ByteSize() < 0.7 * model.ByteSize()


def test_a_mask_of_the_least_float32_stays_a_number() -> None:
    lowest = numpy_helper.from_array(np.full((2, 2), np.finfo(np.float32).min, np.float32), "mask")
    weights = numpy_helper.from_array(np.eye(2, dtype=np.float32), "weights")
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["masked"], name="add"),
        helper.make_node("Softmax", ["masked"], ["shares"], name="softmax"),
        helper.make_node("MatMul", ["shares", "weights"], ["y"], name="product"),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "masked", tensors[:1], tensors[1:], [lowest, weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    assert np.isfinite(run(to_half(model), {"x": np.zeros((2, 2), np.float32)})).all()


def test_a_model_without_products_is_refused() -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "none", tensors[:1], tensors[1:])
    with pytest.raises(QuantizationError, match="nothing to halve"):
        to_half(helper.make_model(graph))
