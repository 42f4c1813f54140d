from __future__ import annotations

import numpy as np
import pytest

from mmalign_export.quantization.activations import Activations, Item, record_activations, smoothing_scales, text_items
from mmalign_runtime.spec import TextInputs
from mmalign_runtime.tokenizer import TokenBatch
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
    expected = record_activations(bert.fused, [name], text_items([short], INPUTS, is_padded=False))[name]
    for is_padded in (False, True):  # the tower has a mask: nobody sees its padding
        found = record_activations(bert.fused, [name], text_items([wider], INPUTS, is_padded=is_padded))[name]
        np.testing.assert_allclose(found.rows, expected.rows, atol=FEATURES.bound, rtol=0)
        assert found.most_rows == expected.most_rows


def test_padding_counts_where_a_tower_takes_no_mask_and_its_whole_context() -> None:
    batch = TokenBatch(np.array([[5, 6, 1, 1]]), np.array([[1, 1, 0, 0]]), np.zeros(1, np.bool_))
    values = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    (attended,) = text_items([batch], TextInputs(), is_padded=True)
    assert list(attended.feeds) == ["input_ids"]
    np.testing.assert_array_equal(attended.counted(values), values[0])
    (masked,) = text_items([batch], INPUTS, is_padded=True)
    np.testing.assert_array_equal(masked.feeds["input_ids"], batch.input_ids)
    np.testing.assert_array_equal(masked.counted(values), values[0, :2])
    (cut,) = text_items([batch], TextInputs(), is_padded=False)
    np.testing.assert_array_equal(cut.feeds["input_ids"], [[5, 6]])


def test_padding_on_the_left_is_cut_off_there() -> None:
    batch = TokenBatch(np.array([[1, 1, 5, 6]]), np.array([[0, 0, 1, 1]]), np.zeros(1, np.bool_))
    (item,) = text_items([batch], INPUTS, is_padded=False)
    np.testing.assert_array_equal(item.feeds["input_ids"], [[5, 6]])


@pytest.mark.parametrize("shape", [(1, 4, 2), (4, 1, 2), (4, 2), (1, 2, 2, 2)])
def test_rows_are_counted_in_any_layout(shape: tuple[int, ...]) -> None:
    item = Item({}, np.array([True, False, True, False]))
    assert item.counted(np.zeros(shape, np.float32)).shape == (2, 2)
    assert item.counted(np.zeros((1, 2), np.float32)).shape == (1, 2)  # pooled: no row is of a token


def test_the_sample_is_bounded_is_of_all_items_and_the_extremes_are_not_bounded(bert: TinyBert) -> None:
    name = bert.named("qkv").source
    items = text_items(bert.batches, INPUTS, is_padded=False)
    found = record_activations(bert.fused, [name], items * 200)[name]
    assert len(items) * 200 <= len(found.rows) <= 2 * 1024
    np.testing.assert_allclose(found.high, bert.activations[name].high, atol=FEATURES.bound, rtol=0)


def test_reach_is_the_larger_magnitude() -> None:
    low, high = np.array([-3, 1], np.float32), np.array([2, 5], np.float32)
    np.testing.assert_array_equal(Activations(low, high, np.zeros((0, 2), np.float32), 0).reach(), [3, 5])


def test_smoothing_by_hand() -> None:
    # reach 100 and 1, weights of at most 1: sqrt(100) and sqrt(1), their geometric mean sqrt(10) taken out.
    weight = np.array([[1, -0.5], [0.25, 1]], np.float32)
    scales = smoothing_scales(np.array([100, 1], np.float32), weight, 0.5)
    np.testing.assert_allclose(scales, [10 / 10**0.5, 1 / 10**0.5], rtol=1e-6)
    np.testing.assert_allclose(smoothing_scales(np.array([0, 0], np.float32), weight, 0.5), [1, 1], rtol=1e-6)
