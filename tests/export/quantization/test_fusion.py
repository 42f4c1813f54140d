from __future__ import annotations

from collections import Counter

import numpy as np

from tests.export.quantization.conftest import TinyBert
from tests.export.quantization.tiny_models import observe
from tests.tolerances import REWRITTEN


def test_every_layer_is_fused_and_gives_the_same_vectors(bert: TinyBert) -> None:
    found = Counter(node.op_type for node in bert.fused.graph.node)
    assert (found["Attention"], found["BiasGelu"], found["SkipLayerNormalization"]) == (2, 2, 4)
    fused, exported = (observe(model, ["text_embeds"], bert.feeds)[0] for model in (bert.fused, bert.exported))
    np.testing.assert_allclose(fused, exported, atol=REWRITTEN.bound, rtol=0)


def test_the_exported_model_stays_in_standard_operators(bert: TinyBert) -> None:
    assert {node.domain for node in bert.exported.graph.node} == {""}
