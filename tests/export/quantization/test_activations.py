from __future__ import annotations

import numpy as np

from mmalign_export.quantization.activations import Activations, record_activations, smoothing_scales
from tests.export.quantization.conftest import INPUTS, TinyBert
from tests.export.quantization.tiny_models import observe
from tests.tolerances import FEATURES


def test_extremes_are_of_all_tokens_and_of_no_padding(bert: TinyBert) -> None:
    name = bert.named("up").source
    rows = []
    for batch in bert.batches:
        feeds = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        (values,) = observe(bert.fused, [name], feeds)
        rows.append(values[batch.attention_mask.astype(bool)])
    tokens = np.concatenate(rows)
    found = bert.activations[name]
    np.testing.assert_allclose(found.low, tokens.min(axis=0), atol=FEATURES.bound, rtol=0)
    np.testing.assert_allclose(found.high, tokens.max(axis=0), atol=FEATURES.bound, rtol=0)
    np.testing.assert_allclose(found.rows, tokens, atol=FEATURES.bound, rtol=0)


def test_padding_to_any_length_records_the_same(bert: TinyBert) -> None:
    name = bert.named("qkv").source
    short = bert.batches[1]
    wider = type(short)(
        np.pad(short.input_ids, ((0, 0), (0, 4))), np.pad(short.attention_mask, ((0, 0), (0, 4))), short.truncated
    )
    left, right = (record_activations(bert.fused, [name], [batch], INPUTS)[name] for batch in (short, wider))
    np.testing.assert_allclose(left.rows, right.rows, atol=FEATURES.bound, rtol=0)


def test_the_sample_is_bounded_and_the_extremes_are_not(bert: TinyBert) -> None:
    name = bert.named("qkv").source
    num_tokens = int(sum(batch.attention_mask.sum() for batch in bert.batches))
    found = record_activations(bert.fused, [name], bert.batches * 30, INPUTS)[name]
    assert num_tokens * 30 > len(found.rows) == 1024
    np.testing.assert_allclose(found.high, bert.activations[name].high, atol=FEATURES.bound, rtol=0)


def test_reach_is_the_larger_magnitude() -> None:
    low, high = np.array([-3, 1], np.float32), np.array([2, 5], np.float32)
    np.testing.assert_array_equal(Activations(low, high, np.zeros((0, 2), np.float32)).reach(), [3, 5])


def test_smoothing_by_hand() -> None:
    # reach 100 and 1, weights of at most 1: sqrt(100) and sqrt(1), their geometric mean sqrt(10) taken out.
    weight = np.array([[1, -0.5], [0.25, 1]], np.float32)
    scales = smoothing_scales(np.array([100, 1], np.float32), weight, 0.5)
    np.testing.assert_allclose(scales, [10 / 10**0.5, 1 / 10**0.5], rtol=1e-6)
    np.testing.assert_allclose(smoothing_scales(np.array([0, 0], np.float32), weight, 0.5), [1, 1], rtol=1e-6)
