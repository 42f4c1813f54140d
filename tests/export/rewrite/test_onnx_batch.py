from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmalign_export.rewrite.onnx_batch import loop_over_batch


def _one_item(opset: int) -> onnx.ModelProto:
    """(1, 2, 3) -> (1, 4), with the batch of one in a Reshape, as an export without dynamic axes has it."""
    weights = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([1, 6]), "shape")]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_each_item_comes_out_as_by_itself(opset: int, batch: int, tmp_path: Path) -> None:
    model = _one_item(opset)
    looped = onnx_ir.from_proto(model)
    loop_over_batch(looped)
    onnx_ir.save(looped, tmp_path / "looped.onnx")
    onnx.checker.check_model(tmp_path / "looped.onnx")
    items = np.random.default_rng(1).standard_normal((batch, 2, 3)).astype(np.float32)
    alone = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.concatenate([alone.run(None, {"x": item[None]})[0] for item in items])
    session = onnxruntime.InferenceSession(tmp_path / "looped.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": items})[0]
    assert found.shape == (batch, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_weights_stay_where_readers_of_the_file_look_for_them() -> None:
    looped = onnx_ir.from_proto(_one_item(17))
    loop_over_batch(looped)
    written = onnx_ir.to_proto(looped).graph
    assert "weights" in {tensor.name for tensor in written.initializer}
    assert [node.op_type for node in written.node] == ["Scan"]
    (body,) = (attribute.g for attribute in written.node[0].attribute if attribute.name == "body")
    assert len(body.initializer) == 0
