from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch
from mmalign.model.attention import AttentionConfig, RegionAttention, attention_loss
from tests.tolerances import CHUNKED_GRADIENT, CHUNKED_LOSS, LOSS_AGAINST_NUMPY, LOSS_GRADIENT, UNIT_LENGTH

Array = NDArray[np.float64]
B, N, R, D = 6, 5, 7, 8


def attention_of(seed: int = 0, **settings: float) -> RegionAttention:
    """Return an attention whose layers differ from where they begin, without dropout, as it stands in evaluation."""
    torch.manual_seed(seed)
    attention = RegionAttention(AttentionConfig(**({"weight": 1.0, "dropout": 0.0} | settings)), R, D)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
        attention.standardize.running_mean.normal_()
        attention.standardize.running_var.uniform_(0.5, 2.0)
    return attention.eval()


def batch_of(keys: list[int]) -> EmbeddedBatch:
    generator = torch.Generator().manual_seed(1)
    image, text = (functional.normalize(torch.randn(B, D, generator=generator), dim=-1) for _ in range(2))
    return EmbeddedBatch(image, text, torch.tensor(keys), regions=torch.randn(B, N, R, generator=generator))


def unit(values: Array) -> Array:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def numpy_scores(attention: RegionAttention, batch: EmbeddedBatch) -> tuple[Array, Array]:
    """Spell the docstring out in float64, pair by pair: weights of the regions, their mean, the mixture."""
    values = {name: tensor.double().numpy() for name, tensor in attention.state_dict().items()}
    texts, images = batch.text_embeds.double().numpy(), batch.image_embeds.double().numpy()
    assert batch.regions is not None
    scores, weights = np.empty((B, B)), np.empty((B, B, N))
    share = 1 / (1 + math.exp(-float(values["share_logit"])))
    for at, text in enumerate(texts):
        query, value = unit(values["query.weight"] @ text), unit(values["value.weight"] @ text)
        for other, regions in enumerate(batch.regions.double().numpy()):
            moved = (regions - values["standardize.running_mean"]) / np.sqrt(values["standardize.running_var"] + 1e-5)
            tokens = unit(moved @ values["token.weight"].T)
            powers = np.exp(tokens @ query / math.exp(float(values["log_temperature"])))
            weights[at, other] = powers / powers.sum()
            attended = weights[at, other] @ (tokens @ value)
            scores[at, other] = (1 - share) * float(text @ images[other]) + share * attended
    return scores, weights


def numpy_loss(scores: Array, scale: float, keys: list[int], kept: NDArray[np.bool_]) -> float:
    """InfoNCE of rows and of columns, cell by cell, each against what `kept` (text, image) leaves of its row."""
    total = 0.0
    for logits, is_kept in ((scale * scores, kept[0]), (scale * scores.T, kept[1])):
        for row in range(B):
            right = [column for column in range(B) if keys[column] == keys[row]]
            whole = sum(math.exp(logits[row, column]) for column in range(B) if is_kept[row, column])
            total -= sum(logits[row, column] - math.log(whole) for column in right) / len(right) / B / 2
    return total


def test_scores_and_weights_equal_the_definition_in_numpy() -> None:
    attention, batch = attention_of(), batch_of([0, 1, 2, 3, 4, 5])
    assert batch.regions is not None
    with torch.inference_mode():
        scores, weights = attention(batch.text_embeds, batch.image_embeds, attention.tokens(batch.regions))
    expected_scores, expected_weights = numpy_scores(attention, batch)
    assert np.abs(scores.numpy() - expected_scores).max() <= LOSS_AGAINST_NUMPY.bound
    assert np.abs(weights.numpy() - expected_weights).max() <= LOSS_AGAINST_NUMPY.bound
    assert np.abs(weights.sum(-1).numpy() - 1).max() <= UNIT_LENGTH.bound


@pytest.mark.parametrize("keys", [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 2, 2]])
def test_the_loss_equals_the_definition_in_numpy(keys: list[int]) -> None:
    attention, batch = attention_of(weight=0.7), batch_of(keys)
    expected = numpy_loss(
        numpy_scores(attention, batch)[0], attention.log_scale.exp().item(), keys, np.ones((2, B, B), dtype=bool)
    )
    assert abs(attention_loss(attention, batch).item() / (0.7 * expected) - 1) <= LOSS_AGAINST_NUMPY.bound


def test_with_candidates_only_the_nearest_negatives_by_the_vectors_count() -> None:
    keys = [0, 0, 1, 2, 3, 4]
    attention, batch = attention_of(num_candidates=2), batch_of(keys)
    cosines = batch.text_embeds.double().numpy() @ batch.image_embeds.double().numpy().T
    kept = np.equal.outer(keys, keys)[None].repeat(2, axis=0)
    for found, rows in zip(kept, (cosines, cosines.T), strict=True):
        for row in range(B):
            negatives = [column for column in range(B) if keys[column] != keys[row]]
            found[row, sorted(negatives, key=lambda column: -rows[row, column])[:2]] = True
    expected = numpy_loss(numpy_scores(attention, batch)[0], attention.log_scale.exp().item(), keys, kept)
    assert abs(attention_loss(attention, batch).item() / expected - 1) <= LOSS_AGAINST_NUMPY.bound


@pytest.mark.parametrize("num_candidates", [0, 2])
def test_gradients_equal_differences_of_the_definition(num_candidates: int) -> None:
    """In float64, where a difference over 1e-6 keeps eight digits of a derivative."""
    attention, batch = attention_of(num_candidates=num_candidates).double(), batch_of([0, 0, 1, 2, 3, 4])
    assert batch.regions is not None
    tensors = [batch.image_embeds.double(), batch.text_embeds.double(), batch.regions.double()]

    def loss(image: Tensor, text: Tensor, regions: Tensor) -> Tensor:
        return _in_float64(attention, EmbeddedBatch(image, text, batch.keys, regions=regions))

    assert torch.autograd.gradcheck(loss, [tensor.requires_grad_() for tensor in tensors])


def _in_float64(attention: RegionAttention, batch: EmbeddedBatch) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "float", lambda tensor: tensor)
        return attention_loss(attention, batch)


def test_float32_gradients_are_those_of_float64() -> None:
    attention, batch = attention_of(), batch_of([0, 1, 2, 3, 4, 5])
    parameters = list(attention.parameters())
    found = torch.autograd.grad(attention_loss(attention, batch), parameters)
    exact = attention_of().double()
    assert batch.regions is not None
    wide = EmbeddedBatch(
        batch.image_embeds.double(), batch.text_embeds.double(), batch.keys, regions=batch.regions.double()
    )
    expected = torch.autograd.grad(_in_float64(exact, wide), list(exact.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() <= LOSS_GRADIENT.bound * max(1.0, other.abs().max().item())


def test_in_chunks_value_and_gradients_stay() -> None:
    attention, batch = attention_of(), batch_of([0, 0, 1, 2, 3, 4])
    parameters = list(attention.parameters())
    whole = attention_loss(attention, batch)
    chunked = attention_loss(attention, batch, chunk_size=4)
    assert abs(chunked.item() / whole.item() - 1) <= CHUNKED_LOSS.bound
    for one, other in zip(
        torch.autograd.grad(chunked, parameters), torch.autograd.grad(whole, parameters), strict=True
    ):
        assert (one - other).abs().max() <= CHUNKED_GRADIENT.bound * other.abs().max()


def test_half_precision_around_it_changes_nothing() -> None:
    attention, batch = attention_of(), batch_of([0, 1, 2, 3, 4, 5])
    with torch.autocast("cpu", torch.bfloat16):
        inside = attention_loss(attention, batch)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, attention_loss(attention, batch))


def test_temperatures_stay_above_their_bound() -> None:
    attention = attention_of()
    with torch.no_grad():
        attention.log_temperature.fill_(-9.0)
        attention.log_scale.fill_(9.0)
    attention.bound()
    assert attention.log_temperature.exp().item() == pytest.approx(0.01)
    assert attention.log_scale.exp().item() == pytest.approx(100.0)


def test_a_batch_without_regions_is_refused() -> None:
    batch = batch_of([0, 1, 2, 3, 4, 5])
    with pytest.raises(ValueError, match="the batch has none"):
        attention_loss(attention_of(), EmbeddedBatch(batch.image_embeds, batch.text_embeds, batch.keys))
