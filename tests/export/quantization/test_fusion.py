from __future__ import annotations

from collections import Counter

import numpy as np
from onnx import helper, numpy_helper

from mmalign_export.quantization.constants import with_folded_constants
from tests.export.quantization.conftest import TinyBert
from tests.export.quantization.tiny_models import constant, graph_model, observe
from tests.tolerances import REWRITTEN


def test_every_layer_is_fused_and_gives_the_same_vectors(bert: TinyBert) -> None:
    found = Counter(node.op_type for node in bert.fused.graph.node)
    assert (found["Attention"], found["BiasGelu"], found["SkipLayerNormalization"]) == (2, 2, 4)
    fused, exported = (observe(model, ["text_embeds"], bert.feeds)[0] for model in (bert.fused, bert.exported))
    np.testing.assert_allclose(fused, exported, atol=REWRITTEN.bound, rtol=0)


def test_the_exported_model_stays_in_standard_operators(bert: TinyBert) -> None:
    assert {node.domain for node in bert.exported.graph.node} == {""}


def test_packed_weights_that_the_graph_splits_become_constants() -> None:
    weight = np.arange(24, dtype=np.float32).reshape(6, 4)
    nodes = [
        helper.make_node("Constant", [], ["packed"], value=numpy_helper.from_array(weight)),
        helper.make_node("Split", ["packed"], ["first", "second"], axis=0, num_outputs=2),
        helper.make_node("Transpose", ["second"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    model = graph_model(nodes, {}, {"x": ["n", 4], "y": ["n", 3]})
    folded = with_folded_constants(model)
    assert [node.op_type for node in folded.graph.node] == ["MatMul"]
    np.testing.assert_array_equal(constant(folded, "turned"), weight[3:].T)
    feeds = {"x": np.eye(4, dtype=np.float32)}
    np.testing.assert_array_equal(observe(folded, ["y"], feeds)[0], observe(model, ["y"], feeds)[0])
