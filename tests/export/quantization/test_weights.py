from __future__ import annotations

import numpy as np
import pytest

from mmalign_export.quantization.trial import cosines, largest_move, open_model
from mmalign_export.quantization.weights import quantize_weights
from tests.export.quantization.conftest import INPUT_NAMES, TinyBert
from tests.export.quantization.tiny_models import OPTIONS, observe
from tests.tolerances import BATCH_MATES, FOUR_BITS_COSINE, INTEGER_COSINE

MATRICES = 12  # of two layers, six each


@pytest.mark.parametrize(("bits", "least"), [(8, INTEGER_COSINE.bound), (4, FOUR_BITS_COSINE.bound)])
def test_every_constant_matrix_is_packed_and_vectors_stay_near(bert: TinyBert, bits: int, least: float) -> None:
    before = bert.exported.SerializeToString()
    model = quantize_weights(bert.exported, bits, frozenset())  # type: ignore[arg-type]
    assert sum(node.op_type == "MatMulNBits" for node in model.graph.node) == MATRICES
    vectors, expected = (observe(each, ["text_embeds"], bert.feeds)[0] for each in (model, bert.exported))
    assert cosines(vectors, expected).min() >= least
    assert not np.array_equal(vectors, expected)
    assert bert.exported.SerializeToString() == before
    session = open_model(model.SerializeToString(), INPUT_NAMES, OPTIONS)
    assert largest_move(session, bert.feeds) <= BATCH_MATES.bound


def test_an_excluded_matrix_stays_as_it_is(bert: TinyBert) -> None:
    left = next(node for node in bert.exported.graph.node if node.op_type == "MatMul")
    model = quantize_weights(bert.exported, 8, frozenset({left.name}))
    assert sum(node.op_type == "MatMulNBits" for node in model.graph.node) == MATRICES - 1
    assert left in list(model.graph.node)
