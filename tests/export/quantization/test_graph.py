from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor
from tests.export.quantization.tiny_models import graph_model, observe


def product() -> ModelProto:
    """x (B, 2) -> x @ weight -> y (B, 4), and a node that nobody reads."""
    weight = np.array([[1, 1, 2, 2]] * 2, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Identity", ["y"], ["unread"])]
    return graph_model(nodes, {"weight": weight}, {"x": ["B", 2], "y": ["B", 4]})


def test_uses_count_nodes_and_outputs() -> None:
    editor = GraphEditor(product())
    assert (editor.num_uses("y"), editor.num_uses("x"), editor.num_uses("unread")) == (2, 1, 0)


def test_what_nobody_reads_goes_and_the_rest_runs() -> None:
    editor = GraphEditor(product())
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
    source = product()
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


@pytest.mark.parametrize(("opset_version", "num_inputs"), [(13, 1), (18, 2)])
def test_the_largest_of_the_last_axis_is_written_as_the_opset_has_it(opset_version: int, num_inputs: int) -> None:
    source = product()
    source.opset_import[0].version = opset_version
    source.graph.output[0].name = "largest"
    editor = GraphEditor(source)
    editor.keep(editor.nodes[0])
    editor.largest_of_last_axis("y", "largest")
    model = editor.build()
    assert len(model.graph.node[1].input) == num_inputs
    (found,) = observe(model, ["largest"], {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[4]])


def test_an_added_node_has_its_attributes_and_domain() -> None:
    editor = GraphEditor(product())
    editor.add("Elu", ["x"], "y", alpha=2.0)
    (node,) = editor.build().graph.node
    assert (node.name, node.domain, helper.get_attribute_value(node.attribute[0])) == ("y", "", 2.0)
