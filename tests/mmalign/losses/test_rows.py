"""Losses a block of rows at a time: the same number and gradients, and no matrix of the whole batch."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
import torch
from torch import Tensor

from mmalign.losses import AnyLossConfig
from mmalign.losses.distillation import Distillation
from mmalign.losses.hard_negatives import HardNegativesConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import LossConfig
from mmalign.losses.soft_targets import SoftTargetsConfig
from mmalign.losses.term import training_loss
from tests.mmalign.largest import Largest
from tests.mmalign.losses.oracle import batch_of
from tests.tolerances import CHUNKED_LOSS

TERMS = (Matryoshka(dims=(3,)), IntraModal(), Distillation(teacher="t"))
CONFIGS: list[LossConfig] = [
    *(config() for config in get_args(AnyLossConfig)),
    HardNegativesConfig(max_caption_similarity=0.5),
    SoftTargetsConfig(caption_share=0.3),
]
CONCEPTS = [at // 3 for at in range(33)]  # a last block of another size, and positives in other blocks


def value_and_gradients(config: LossConfig, chunk_size: int) -> tuple[Tensor, list[Tensor]]:
    loss, batch = msgspec.structs.replace(config, chunk_size=chunk_size).build(), batch_of(CONCEPTS)
    assert batch.view_embeds is not None
    value = training_loss(loss, TERMS, batch)
    inputs = [batch.image_embeds, batch.text_embeds, batch.view_embeds, *loss.parameters()]
    return value, list(torch.autograd.grad(value, inputs))


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("chunk_size", [1, 4, 32, 33, 100])
def test_blocks_change_nothing(config: LossConfig, chunk_size: int) -> None:
    (whole, gradients), (value, found) = value_and_gradients(config, 0), value_and_gradients(config, chunk_size)
    assert value.item() == pytest.approx(whole.item(), rel=CHUNKED_LOSS.bound)
    for gradient, wanted in zip(found, gradients, strict=True):
        assert (gradient - wanted).abs().max() <= CHUNKED_LOSS.bound * wanted.abs().max()


@pytest.mark.parametrize("config", CONFIGS)
def test_no_matrix_of_the_whole_batch_is_held_in_either_pass(config: LossConfig) -> None:
    seen = {}
    for chunk_size in (0, 4):
        with Largest() as largest:
            value_and_gradients(config, chunk_size)
        seen[chunk_size] = largest.numel
    assert seen == {0: 33 * 33, 4: 33 * 8}, "with blocks, vectors of 8 components are the largest"
