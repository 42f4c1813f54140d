from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mmalign.losses.hard_negatives import HardNegatives, HardNegativesConfig
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.protocol import EmbeddedBatch
from tests.mmalign.losses.oracle import CONCEPTS, Array, Definition, assert_equals, batch_of, unit
from tests.tolerances import LOSS_AGAINST_NUMPY


def spelled_out(
    concepts: Sequence[int], alpha: float, beta: float, captions: Array | None = None, limit: float = 2.0
) -> Definition:
    """HN-NCE item by item: exponentials as they stand, the weights of a row's n negatives summing to n."""

    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        losses = []
        for queries, items in ((image, text), (text, image)):
            for row, query in enumerate(queries):
                logits = scale * (items @ query)
                positives = [at for at in range(len(items)) if concepts[at] == concepts[row]]
                negatives = [at for at in range(len(items)) if at not in positives]
                if captions is not None:
                    negatives = [at for at in negatives if (captions[at] @ captions[row]).real <= limit]
                hardness = np.exp(beta * logits[negatives])
                weights = len(negatives) * hardness / hardness.sum()
                total = alpha * np.exp(logits[positives]).sum() + (weights * np.exp(logits[negatives])).sum()
                losses.append(np.log(total) - logits[positives].mean())
        return complex(np.mean(losses))

    return definition


@pytest.mark.parametrize("concepts", CONCEPTS)
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (1.0, 0.25), (0.5, 1.0)])
def test_value_and_gradients_equal_the_definition_in_numpy(concepts: list[int], alpha: float, beta: float) -> None:
    loss = HardNegativesConfig(alpha=alpha, beta=beta).build()
    assert_equals(loss, batch_of(concepts), spelled_out(concepts, alpha, beta))


@pytest.mark.parametrize("concepts", CONCEPTS[:2])
def test_positives_can_be_left_out_of_the_denominator(concepts: list[int]) -> None:
    assert_equals(HardNegativesConfig(alpha=0.0, beta=0.5).build(), batch_of(concepts), spelled_out(concepts, 0.0, 0.5))


def test_pairs_whose_captions_say_the_same_are_no_negatives() -> None:
    batch = batch_of(CONCEPTS[1])
    captions = batch.caption_features().double().numpy().astype(np.complex128)
    cosines = (captions @ captions.T).real
    assert ((cosines > 0.5).sum(), (cosines <= 0.5).sum()) != (6, 30), "some captions are alike"
    loss = HardNegativesConfig(beta=0.5, max_caption_similarity=0.5).build()
    assert_equals(loss, batch, spelled_out(CONCEPTS[1], 1.0, 0.5, captions, 0.5))


def test_without_weights_it_is_infonce() -> None:
    batch = batch_of(CONCEPTS[1])
    found, wanted = HardNegativesConfig(beta=0.0).build()(batch), InfoNCEConfig().build()(batch)
    assert found.item() == pytest.approx(wanted.item(), rel=LOSS_AGAINST_NUMPY.bound)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_batch_without_negatives_has_finite_gradients(alpha: float) -> None:
    batch = EmbeddedBatch(unit(3, 1).requires_grad_(), unit(3, 2), torch.tensor([4, 4, 4]))
    value = HardNegativesConfig(alpha=alpha).build()(batch)
    (gradient,) = torch.autograd.grad(value, batch.image_embeds)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_a_batch_without_captions_is_refused_where_they_are_compared() -> None:
    loss = HardNegativesConfig(max_caption_similarity=0.8).build()
    assert isinstance(loss, HardNegatives)
    with pytest.raises(ValueError, match="the batch has no features of them; give `captions`"):
        loss(EmbeddedBatch(unit(3, 1), unit(3, 2), torch.arange(3)))
