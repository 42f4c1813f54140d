"""A quantized file in OpenVINO: the QDQ form that onnxruntime's quantizer writes, made by hand."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.openvino import OpenVinoSession
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.engine.session import Model, SessionOptions

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None, reason="needs openvino: pip install 'mmalign-runtime[openvino]'"
)

NUM_FEATURES, EMBED_DIM = 64, 32
ACTIVATION_SCALE = 0.02
# Half a step of the activations' grid may fall on either side; a step moves a unit vector by less than this.
INT8_APART = 2e-2


@pytest.fixture
def qdq_path(tmp_path: Path) -> Path:
    """(B, 64) -> QDQ -> MatMul with weights int8 per channel -> (B, 32) of unit length."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-127, 128, (NUM_FEATURES, EMBED_DIM)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, EMBED_DIM).astype(np.float32)
    constants = {
        "scale": np.array(ACTIVATION_SCALE, np.float32),
        "zero": np.array(0, np.int8),
        "weights": weights,
        "scales": scales,
        "zeros": np.zeros(EMBED_DIM, np.int8),
        "last": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["w"], axis=1),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
        helper.make_node("ReduceL2", ["y", "last"], ["length"], keepdims=1),
        helper.make_node("Div", ["y", "length"], ["embeds"]),
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", NUM_FEATURES])],
        [helper.make_tensor_value_info("embeds", TensorProto.FLOAT, ["B", EMBED_DIM])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = tmp_path / "qdq.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_quantized_file_runs_in_integers_and_gives_onnxruntimes_vectors(qdq_path: Path) -> None:
    options = SessionOptions("cpu", thread_pool(2))
    session = OpenVinoSession(Model(qdq_path, "qdq.onnx", ("x",), "int8"), options)
    x = np.random.default_rng(1).standard_normal((9, NUM_FEATURES), dtype=np.float32)
    found = session.run({"x": x})  # (9, 32)
    np.testing.assert_allclose(found, OnnxSession(qdq_path, "qdq.onnx", options).run({"x": x}), atol=INT8_APART, rtol=0)
    np.testing.assert_allclose(found[:1], session.run({"x": x[:1]}), atol=1e-6, rtol=0)
    compiled = session._loaded.get().compiled.get_runtime_model()
    (product,) = (node for node in compiled.get_ops() if node.get_rt_info()["layerType"].value == "FullyConnected")
    assert product.get_rt_info()["runtimePrecision"].value in ("i8", "u8")
