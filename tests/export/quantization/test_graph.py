from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import ModelProto, helper

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor, array_of, is_constant, num_uses
from tests.export.quantization.tiny_models import graph_model, observe


def product() -> ModelProto:
    """x (B, 2) -> x @ weight -> y (B, 4), and a node that nobody reads."""
    weight = np.array([[1, 1, 2, 2]] * 2, np.float32)
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Identity", ["y"], ["unread"])]
    return graph_model(nodes, {"weight": weight}, {"x": ["B", 2], "y": ["B", 4]})


def named(editor: GraphEditor, name: str) -> ir.Value:
    return ir.convenience.create_value_mapping(editor.graph)[name]


def test_uses_count_nodes_and_outputs() -> None:
    editor = GraphEditor(product())
    assert [num_uses(named(editor, name)) for name in ("y", "x", "unread")] == [2, 1, 0]


def test_what_nobody_reads_goes_and_the_rest_runs() -> None:
    editor = GraphEditor(product())
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
    y, weight = named(editor, "y"), named(editor, "weight")
    assert is_constant(weight)
    assert not is_constant(y)
    doubled = editor.constant("doubled", array_of(weight) * 2)
    editor.replace(y, editor.add("MatMul", [named(editor, "x"), doubled], "y"))
    model = editor.build()
    onnx.checker.check_model(model, full_check=True)
    (found,) = observe(model, ["y"], {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[4, 4, 8, 8]])
    assert [tensor.name for tensor in model.graph.initializer] == ["doubled"]
    assert MICROSOFT in {entry.domain for entry in model.opset_import}
    assert source.SerializeToString() == before


def test_a_constant_is_added_once() -> None:
    editor = GraphEditor(product())
    assert editor.constant("one", np.float32(1)) is editor.constant("one", np.float32(1))


@pytest.mark.parametrize(("opset_version", "num_inputs"), [(13, 1), (18, 2)])
@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_the_largest_of_the_last_axis_is_written_as_the_opset_has_it(
    domain: str, opset_version: int, num_inputs: int
) -> None:
    source = product()
    source.opset_import[0].version, source.opset_import[0].domain = opset_version, domain
    editor = GraphEditor(source)
    editor.at = editor.graph[-1]
    largest = editor.largest_of_last_axis(named(editor, "y"), "largest")
    editor.graph.outputs[0] = largest
    largest.type = ir.TensorType(ir.DataType.FLOAT)
    model = editor.build()
    assert len(model.graph.node[1].input) == num_inputs
    (found,) = observe(model, ["largest"], {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(found, [[4]])


def test_an_added_node_has_its_attributes_and_domain() -> None:
    editor = GraphEditor(product())
    editor.replace(named(editor, "y"), editor.add("Elu", [named(editor, "x")], "y", alpha=2.0))
    (node,) = editor.build().graph.node
    assert (node.name, node.domain, helper.get_attribute_value(node.attribute[0])) == ("y", "", 2.0)
