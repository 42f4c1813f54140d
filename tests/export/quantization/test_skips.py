"""A skip and its normalization apart give what they give in one; a bias goes to the product that it belongs to."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import ModelProto, helper

from mmalign_export.quantization.graph import MICROSOFT, GraphEditor
from mmalign_export.quantization.skips import is_simple_skip, take_apart, take_bias
from tests.export.quantization.tiny_models import graph_model, observe
from tests.tolerances import RIGHT_SUMS

BIAS = np.array([0.5, -1, 2, 0], np.float32)
FEEDS = {"x": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)}


def skip_model(outputs: tuple[str, ...] = ("y", "", "", "sum"), *, bias: str = "bias", reads: str = "") -> ModelProto:
    """x (B, L, 4) -> x @ weight, added to x and a bias, normalized -> normal; `reads` is what a node reads besides."""
    rng = np.random.default_rng(1)
    constants = {
        "weight": rng.standard_normal((4, 4)).astype(np.float32),
        "gamma": rng.uniform(0.5, 2, 4).astype(np.float32),
        "beta": rng.standard_normal(4).astype(np.float32),
        "bias": BIAS,
    }
    inputs = ["product", "x", "gamma", "beta", *([bias] if bias else [])]
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Identity", ["bias"], ["computed"]),
        helper.make_node("SkipLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=1e-3),
        helper.make_node("Add", ["y", reads or "x"], ["normal"]),
    ]
    model = graph_model(nodes, constants, {"x": ["B", "L", 4], "normal": ["B", "L", 4]})
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def skip_of(editor: GraphEditor) -> ir.Node:
    return next(node for node in editor.graph if node.op_type == "SkipLayerNormalization")


@pytest.mark.parametrize("bias", ["", "bias", "computed"])
@pytest.mark.parametrize("reads", ["", "sum"])
def test_apart_they_give_the_same(bias: str, reads: str) -> None:
    model = skip_model(bias=bias, reads=reads)
    editor = GraphEditor(model)
    editor.at = skip_of(editor)
    assert is_simple_skip(editor.at)
    take_apart(editor, editor.at)
    apart = editor.build()
    assert "SkipLayerNormalization" not in [node.op_type for node in apart.graph.node]
    (expected,), (found,) = observe(model, ["normal"], FEEDS), observe(apart, ["normal"], FEEDS)
    np.testing.assert_allclose(found, expected, atol=RIGHT_SUMS.bound, rtol=0)


def test_one_whose_deviation_is_read_stays() -> None:
    editor = GraphEditor(skip_model(("y", "mean", "", "sum"), reads="mean"))
    assert not is_simple_skip(skip_of(editor))


def test_a_bias_is_taken_once_by_the_product_that_is_read_by_the_skip_alone() -> None:
    editor = GraphEditor(skip_model())
    product = skip_of(editor).inputs[0]
    assert product is not None
    np.testing.assert_array_equal(take_bias(product), BIAS)
    assert take_bias(product) is None
    assert skip_of(editor).inputs[4] is None


def test_a_product_that_others_read_too_takes_none() -> None:
    editor = GraphEditor(skip_model(reads="product"))
    product = skip_of(editor).inputs[0]
    assert product is not None
    assert take_bias(product) is None
    assert skip_of(editor).inputs[4] is not None


def test_a_bias_that_is_computed_stays_where_it_is() -> None:
    editor = GraphEditor(skip_model(bias="computed"))
    product = skip_of(editor).inputs[0]
    assert product is not None
    assert take_bias(product) is None


def test_what_is_added_to_is_not_the_product_of_the_bias() -> None:
    editor = GraphEditor(skip_model())
    skipped = skip_of(editor).inputs[1]
    assert skipped is not None
    assert take_bias(skipped) is None
