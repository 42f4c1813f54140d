from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmalign_export.rewrite.onnx_interface import divide_by_length, keep_output, name_inputs

_TABLE = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)


def _text_model(opset: int, ids: int) -> onnx.ModelProto:
    """Tokens and their types (B, 3) -> the sum of their rows (B, 4); beside it, every token's, and a tensor with a name
    that a bundle's input has."""
    shape = ["texts", 3]
    axes: dict[str, list[int]] = {} if opset >= 13 else {"axes": [1]}
    summed = helper.make_node("ReduceSum", ["rows", *([] if axes else ["axis"])], ["vector"], keepdims=0, **axes)
    nodes = [
        helper.make_node("Add", ["tokens", "token_types"], ["input_ids"]),
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        summed,
        helper.make_node("Tanh", ["rows"], ["each_token"]),
    ]
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info(name, ids, shape) for name in ("tokens", "token_types")],
        [
            helper.make_tensor_value_info("each_token", TensorProto.FLOAT, [*shape, 4]),
            helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["texts", 4]),
        ],
        [numpy_helper.from_array(_TABLE, "table"), numpy_helper.from_array(np.array([1]), "axis")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
@pytest.mark.parametrize("ids", [TensorProto.INT64, TensorProto.INT32])
def test_vectors_are_those_of_the_graph_divided_by_their_length(opset: int, ids: int, tmp_path: Path) -> None:
    model = onnx_ir.from_proto(_text_model(opset, ids))
    keep_output(model, "vector", 4)
    name_inputs(model, {"tokens": "input_ids", "token_types": "token_type_ids"})
    divide_by_length(model, "text_embeds")
    onnx_ir.save(model, tmp_path / "text.onnx")
    onnx.checker.check_model(tmp_path / "text.onnx", full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    assert [(value.name, value.type, value.shape) for value in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", 3])
    ]
    assert [value.name for value in session.get_outputs()] == ["text_embeds"]
    tokens = np.array([[1, 2, 3], [8, 0, 0]], np.int64)
    expected = _TABLE[tokens].sum(axis=1)
    found = session.run(None, {"input_ids": tokens})[0]
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)


def test_what_other_outputs_alone_need_goes() -> None:
    model = onnx_ir.from_proto(_text_model(17, TensorProto.INT64))
    keep_output(model, "vector", 4)
    assert [node.op_type for node in model.graph] == ["Add", "Gather", "ReduceSum"]


def test_a_vector_of_zeros_stays_one(tmp_path: Path) -> None:
    model = onnx_ir.from_proto(_text_model(17, TensorProto.INT64))
    model.graph.initializers["table"].const_value = onnx_ir.tensor(np.zeros_like(_TABLE), name="table")
    keep_output(model, "vector", 4)
    name_inputs(model, {"tokens": "input_ids", "token_types": "token_type_ids"})
    divide_by_length(model, "text_embeds")
    onnx_ir.save(model, tmp_path / "text.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    assert not session.run(None, {"input_ids": np.ones((1, 3), np.int64)})[0].any()
