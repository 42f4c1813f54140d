from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch
from mmalign.losses.soft_targets import SoftTargetsConfig
from tests.mmalign.losses.oracle import CONCEPTS, Array, Definition, assert_equals, batch_of, log_softmax, unit
from tests.tolerances import LOSS_AGAINST_NUMPY


def spelled_out(concepts: Sequence[int], config: SoftTargetsConfig, captions: Array) -> Definition:
    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        losses = []
        for queries, items in ((image, text), (text, image)):
            for row, query in enumerate(queries):
                same = np.array([concept == concepts[row] for concept in concepts])
                alike = np.exp(captions @ captions[row] / config.caption_temperature)
                targets = (
                    (1 - config.smoothing - config.caption_share) * same / same.sum()
                    + config.smoothing / len(concepts)
                    + config.caption_share * alike / alike.sum()
                )
                losses.append(-(targets * log_softmax(scale * (items @ query))).sum())
        return complex(np.mean(losses))

    return definition


@pytest.mark.parametrize("concepts", CONCEPTS)
@pytest.mark.parametrize(("smoothing", "share"), [(0.1, 0.0), (0.0, 0.3), (0.2, 0.5)])
def test_value_and_gradients_equal_the_definition_in_numpy(concepts: list[int], smoothing: float, share: float) -> None:
    config = SoftTargetsConfig(smoothing=smoothing, caption_share=share, caption_temperature=0.4)
    batch = batch_of(concepts)
    captions = batch.caption_features().double().numpy().astype(np.complex128)
    assert_equals(config.build(), batch, spelled_out(concepts, config, captions))


def test_smoothing_is_that_of_cross_entropy() -> None:
    batch = EmbeddedBatch(unit(9, 1), unit(9, 2), torch.arange(9))
    loss = SoftTargetsConfig(smoothing=0.2).build()
    logits = loss.scale().detach() * batch.image_embeds @ batch.text_embeds.T
    expected = sum(functional.cross_entropy(each, torch.arange(9), label_smoothing=0.2) for each in (logits, logits.T))
    assert loss(batch).item() == pytest.approx(float(expected) / 2, rel=LOSS_AGAINST_NUMPY.bound)


def test_shares_that_leave_nothing_to_the_right_item_are_refused() -> None:
    with pytest.raises(ValueError, match=r"smoothing 0\.5 and caption_share 0\.5 leave nothing to the right item"):
        SoftTargetsConfig(smoothing=0.5, caption_share=0.5)
