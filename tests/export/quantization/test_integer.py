"""A rewriting that excludes everything is float32, one that rounds is near it, and one product is checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from mmalign_export.quantization.activations import smoothing_scales
from mmalign_export.quantization.integer import to_integers
from mmalign_export.quantization.integer_product import IntegerPlan
from mmalign_export.quantization.rounding import Granularity, largest_level
from mmalign_export.quantization.sites import Role
from mmalign_export.quantization.trial import cosines, largest_move, open_model
from tests.export.quantization.conftest import INPUT_NAMES, TinyBert
from tests.export.quantization.tiny_models import OPTIONS, constant, observe
from tests.tolerances import BATCH_MATES, INTEGER_COSINE, ONE_SITE_COSINE, REWRITTEN, RIGHT_SUMS

BY_TOKEN: dict[Role, Granularity] = {"qkv": "token", "mixed": "token", "up": "token", "down": "token"}
PLANS = {
    "static": IntegerPlan(smoothing=0.0),
    "smoothed": IntegerPlan(smoothing=0.5),
    "percentile": IntegerPlan(smoothing=0.7, percentile=99.99),
    "feed-forward by token": IntegerPlan({"down": "token"}, 0.7),
    "by token": IntegerPlan(BY_TOKEN, 0.5),
    "by token, as it is": IntegerPlan(BY_TOKEN, 0.0),
}
GELU_MINIMUM = np.float32(-0.17)


def rewritten(bert: TinyBert, plan: IntegerPlan) -> ModelProto:
    return to_integers(bert.fused, bert.sites, bert.activations, plan)


def embed(bert: TinyBert, model: ModelProto) -> NDArray[np.float32]:
    return observe(model, ["text_embeds"], bert.feeds)[0]


def excluding_all_but(bert: TinyBert, *names: str) -> frozenset[str]:
    return frozenset(site.name for site in bert.sites) - set(names)


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_a_plan_that_excludes_every_site_gives_the_vectors_of_float32(bert: TinyBert, smoothing: float) -> None:
    model = rewritten(bert, IntegerPlan(smoothing=smoothing, excluded=excluding_all_but(bert)))
    assert not any("Integer" in node.op_type or "Quantize" in node.op_type for node in model.graph.node)
    np.testing.assert_allclose(embed(bert, model), embed(bert, bert.exported), atol=REWRITTEN.bound, rtol=0)


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_every_plan_stays_near_float32_and_rounds_every_site(bert: TinyBert, plan: IntegerPlan) -> None:
    model = rewritten(bert, plan)
    products = [node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"]
    num_attention = sum(site.role == "qkv" for site in bert.sites)
    assert len(products) == len(bert.sites) + 2 * num_attention  # queries, keys and values are three
    assert cosines(embed(bert, model), embed(bert, bert.exported)).min() >= INTEGER_COSINE.bound


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_vectors_keep_when_batch_mates_leave(bert: TinyBert, plan: IntegerPlan) -> None:
    session = open_model(rewritten(bert, plan).SerializeToString(), INPUT_NAMES, OPTIONS)
    assert largest_move(session, bert.feeds) <= BATCH_MATES.bound


@pytest.mark.parametrize("granularity", ["static", "token"])
@pytest.mark.parametrize("role", ["qkv", "mixed", "up", "down"])
def test_one_rounded_site_costs_little_and_its_bias_is_added_once(
    bert: TinyBert, role: Role, granularity: Granularity
) -> None:
    # Biases of half a unit: left out, or added twice, they turn the vector far more than rounding does.
    site = bert.named(role)
    model = rewritten(bert, IntegerPlan({role: granularity}, 0.5, excluded=excluding_all_but(bert, site.name)))
    assert cosines(embed(bert, model), embed(bert, bert.exported)).min() >= ONE_SITE_COSINE.bound


@pytest.mark.parametrize("granularity", ["static", "token"])
@pytest.mark.parametrize("role", ["qkv", "mixed", "up", "down"])
def test_one_site_left_in_float32_keeps_its_bias(bert: TinyBert, role: Role, granularity: Granularity) -> None:
    plan = IntegerPlan(dict.fromkeys(BY_TOKEN, granularity), 0.5, excluded=frozenset({bert.named(role).name}))
    model = rewritten(bert, plan)
    assert cosines(embed(bert, model), embed(bert, bert.exported)).min() >= INTEGER_COSINE.bound


def test_smoothing_divides_the_values_and_the_next_product_takes_it_back(bert: TinyBert) -> None:
    # `mixed` is rounded and queries, keys and values are not: the division is exact, and stands in attention's output.
    site = bert.named("mixed")
    assert site.source_site is not None
    model = rewritten(bert, IntegerPlan(smoothing=0.7, excluded=excluding_all_but(bert, site.name)))
    scales = smoothing_scales(bert.activations[site.source].reach(), _weight(bert, site.weight), 0.7)
    assert scales.max() / scales.min() > 1.5
    (divided,), (before,) = observe(model, [site.source], bert.feeds), observe(bert.fused, [site.source], bert.feeds)
    np.testing.assert_allclose(divided * scales, before, atol=RIGHT_SUMS.bound, rtol=0)
    assert not any(node.op_type == "Mul" and node.output[0].endswith("_smoothed") for node in model.graph.node)


def test_weights_are_signed_and_activations_unsigned(bert: TinyBert) -> None:
    model = rewritten(bert, PLANS["feed-forward by token"])
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMulIntegerToFloat":
            assert helper.tensor_dtype_to_string(types[node.input[1]]) == "TensorProto.INT8"
            assert helper.tensor_dtype_to_string(types[node.input[4]]) == "TensorProto.UINT8"


def test_a_static_product_by_hand(bert: TinyBert) -> None:
    site = bert.named("up")
    model = rewritten(bert, IntegerPlan(smoothing=0.5))
    found, source = observe(model, [site.name, site.source], bert.feeds)
    weight = _weight(bert, site.weight)
    flow = bert.activations[site.source]
    scales = smoothing_scales(flow.reach(), weight, 0.5)
    low, high = (flow.low / scales).min(), (flow.high / scales).max()
    step = (high - low) / 255
    zero_point = np.round(-low / step)
    levels = np.clip(np.rint(source / scales / step) + zero_point, 0, 255)
    integers, steps = _columns(model, site.name)
    np.testing.assert_allclose(steps, np.abs(weight * scales[:, None]).max(axis=0) / largest_level(), rtol=1e-6)
    expected = (levels - zero_point) @ integers * steps * step
    # A value that lies on the border of two levels may fall on either side: one step of one feature.
    border = float((np.abs(integers).max() * steps).max() * step)
    assert np.abs(found - expected).max() <= border
    assert np.median(np.abs(found - expected)) <= RIGHT_SUMS.bound


def test_a_product_by_token_by_hand(bert: TinyBert) -> None:
    site = bert.named("up")
    model = rewritten(bert, IntegerPlan(BY_TOKEN, 0.0))
    found, source = observe(model, [site.name, site.source], bert.feeds)
    step = np.abs(source).max(axis=-1, keepdims=True) * np.float32(1 / 127)  # (B, L, 1)
    levels = np.clip(np.rint(source / step), -128, 127)
    integers, steps = _columns(model, site.name)
    np.testing.assert_allclose(found, levels @ integers * steps * step, atol=RIGHT_SUMS.bound, rtol=0)


def test_what_gelu_gave_by_token_by_hand(bert: TinyBert) -> None:
    site = bert.named("down")
    model = rewritten(bert, IntegerPlan(BY_TOKEN, 0.7))
    skip = next(node for node in bert.fused.graph.node if site.name in node.input)
    found, source = observe(model, [site.name, site.source], bert.feeds)
    assert source.min() >= GELU_MINIMUM
    raised = source - GELU_MINIMUM
    step = raised.max(axis=-1, keepdims=True) * np.float32(1 / 255)  # (B, L, 1)
    levels = np.rint(raised / step)
    assert levels.min() >= 0
    assert levels.max() == 255
    integers, steps = _columns(model, site.name)
    expected = levels @ integers * steps * step + GELU_MINIMUM * integers.sum(axis=0) * steps
    expected = expected + constant(bert.fused, skip.input[4])
    np.testing.assert_allclose(found, expected, atol=RIGHT_SUMS.bound, rtol=0)


def _weight(bert: TinyBert, name: str) -> NDArray[np.float32]:
    return constant(bert.fused, name).astype(np.float32)


def _columns(model: ModelProto, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the levels of a product's weight, (K, N), and the step of each column; test_columns.py holds them."""
    levels = constant(model, f"{name}_weight_int8")
    assert levels.dtype == np.int8
    return levels.astype(np.float32), constant(model, f"{name}_weight_scale").astype(np.float32)
