from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, helper

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor
from tests.export.quantization.tiny_models import graph_model, observe


def packed() -> ModelProto:
    """x (B, 2) -> x @ [left | right] -> y (B, 4); the halves are joined by a node, as fusion leaves them."""
    halves = {name: np.full((2, 2), value, np.float32) for name, value in (("left", 1), ("right", 2))}
    nodes = [
        helper.make_node("Concat", ["left", "right"], ["weight"], axis=1),
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("Identity", ["y"], ["unread"]),
    ]
    return graph_model(nodes, dict(halves), {"x": ["B", 2], "y": ["B", 4]})


def test_joined_constants_are_one_constant_and_no_node() -> None:
    editor = GraphEditor(packed())
    np.testing.assert_array_equal(editor.value("weight"), [[1, 1, 2, 2]] * 2)
    assert [node.op_type for node in editor.nodes] == ["MatMul", "Identity"]
    assert editor.is_constant("weight")
    assert not editor.is_constant("x")


def test_uses_count_nodes_and_outputs() -> None:
    editor = GraphEditor(packed())
    assert (editor.num_uses("y"), editor.num_uses("x"), editor.num_uses("unread")) == (2, 1, 0)


def test_what_nobody_reads_goes_and_the_rest_runs() -> None:
    editor = GraphEditor(packed())
    for node in editor.nodes:
        editor.keep(node)
    editor.constant("nobody", np.float32(7))
    model = editor.build()
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["weight"]
    (found,) = observe(model, ["y"], {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[2, 2, 4, 4]])


def test_a_new_node_takes_the_place_of_the_old_and_the_source_stays_as_it_is() -> None:
    source = packed()
    before = source.SerializeToString()
    editor = GraphEditor(source)
    doubled = editor.constant("doubled", editor.value("weight") * 2)
    node = editor.nodes[0]
    node.input[1] = doubled  # in place, as a rewriting may
    editor.keep(node)
    model = editor.build()
    (found,) = observe(model, ["y"], {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[4, 4, 8, 8]])
    assert MICROSOFT in {entry.domain for entry in model.opset_import}
    assert source.SerializeToString() == before


def test_an_added_node_has_its_attributes_and_domain() -> None:
    editor = GraphEditor(packed())
    editor.add("Elu", ["x"], "y", alpha=2.0)
    (node,) = editor.build().graph.node
    assert (node.name, node.domain, helper.get_attribute_value(node.attribute[0])) == ("y", "", 2.0)
