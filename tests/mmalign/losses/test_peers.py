"""Value and gradients of the losses that other libraries have too, on the same float32 tensors."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from sentence_transformers.sentence_transformer import losses as peers
from sentence_transformers.util import dot_score
from torch import Tensor, nn
from torch.nn import functional

from mmalign.losses.distillation import Distillation
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import EmbeddedBatch, TeacherVectors
from mmalign.losses.sigmoid import SigmoidConfig
from mmalign.losses.term import training_loss
from tests.mmalign.losses.oracle import unit
from tests.tolerances import LOSS_GRADIENT

NUM_PAIRS, WIDTH = 24, 16


@pytest.fixture
def raw() -> list[Tensor]:
    """Vectors before they are divided by their length, as a model has them: some peers divide once more."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(NUM_PAIRS, WIDTH, generator=generator).requires_grad_() for _ in range(2)]


@pytest.fixture
def batch(raw: list[Tensor]) -> EmbeddedBatch:
    return EmbeddedBatch(*(functional.normalize(each, dim=1) for each in raw), torch.arange(NUM_PAIRS))


class Given(nn.Module):
    """A sentence-transformers model whose embeddings are given."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features["vectors"]}

    def get_embedding_dimension(self) -> int:
        return WIDTH


def assert_same(found: Tensor, wanted: Tensor, inputs: Sequence[Tensor]) -> None:
    assert found.item() == pytest.approx(wanted.item(), rel=LOSS_GRADIENT.bound)
    gradients = (torch.autograd.grad(each, inputs, retain_graph=True) for each in (found, wanted))
    for own, theirs in zip(*gradients, strict=True):
        assert (own - theirs).abs().max() <= LOSS_GRADIENT.bound * theirs.abs().max()


@pytest.mark.parametrize("chunk_size", [0, 5])
def test_infonce_is_open_clips(raw: list[Tensor], batch: EmbeddedBatch, chunk_size: int) -> None:
    loss = InfoNCEConfig(chunk_size=chunk_size).build()
    inputs = [*raw, loss.logit_scale]
    assert_same(loss(batch), ClipLoss()(batch.image_embeds, batch.text_embeds, loss.scale()), inputs)


@pytest.mark.parametrize("chunk_size", [0, 5])
def test_sigmoid_is_open_clips(raw: list[Tensor], batch: EmbeddedBatch, chunk_size: int) -> None:
    loss = SigmoidConfig(chunk_size=chunk_size).build()
    inputs = [*raw, loss.logit_scale, loss.logit_bias]
    assert_same(loss(batch), SigLipLoss()(batch.image_embeds, batch.text_embeds, loss.scale(), loss.logit_bias), inputs)


def test_infonce_is_the_symmetric_ranking_loss_of_sentence_transformers(
    raw: list[Tensor], batch: EmbeddedBatch
) -> None:
    loss = InfoNCEConfig(temperature=0.05, learn_temperature=False).build()
    theirs = symmetric_ranking()
    wanted = theirs.compute_loss_from_embeddings([batch.image_embeds, batch.text_embeds], torch.empty(0))
    assert_same(loss(batch), wanted, raw)


def test_matryoshka_is_that_of_sentence_transformers(raw: list[Tensor], batch: EmbeddedBatch) -> None:
    loss, term = InfoNCEConfig(temperature=0.05, learn_temperature=False).build(), Matryoshka(dims=(4, 8), weight=0.5)
    theirs = peers.MatryoshkaLoss(Given(), symmetric_ranking(), [WIDTH, 8, 4], [1.0, 0.5, 0.5])
    theirs.loss.model = theirs.model
    wanted = theirs([{"vectors": batch.image_embeds}, {"vectors": batch.text_embeds}], torch.empty(0))
    assert_same(training_loss(loss, [term], batch), wanted, raw)


def test_distillation_by_similarity_is_that_of_sentence_transformers(raw: list[Tensor], batch: EmbeddedBatch) -> None:
    image, text = unit(NUM_PAIRS, 3, 5), unit(NUM_PAIRS, 4, 5)
    taught = EmbeddedBatch(batch.image_embeds, batch.text_embeds, batch.keys, teacher=TeacherVectors(image, text, 9.0))
    loss = InfoNCEConfig(temperature=0.05, learn_temperature=False).build()
    theirs = peers.DistillKLDivLoss(Given(), temperature=1.0)
    ways = (batch.image_embeds, batch.text_embeds, image, text), (batch.text_embeds, batch.image_embeds, text, image)
    wanted = [
        # Each of the other side's items is a column of its own, the same for all queries.
        theirs.compute_loss_from_embeddings(
            [20.0 * queries, *(item.expand(NUM_PAIRS, -1) for item in items)], 9.0 * t_queries @ t_items.T
        )
        for queries, items, t_queries, t_items in ways
    ]
    found = Distillation(teacher="t").value(taught, loss)
    assert_same(found, (wanted[0] + wanted[1]) / 2, raw)


def test_distillation_by_embedding_is_that_of_sentence_transformers(raw: list[Tensor], batch: EmbeddedBatch) -> None:
    image, text = unit(NUM_PAIRS, 3, WIDTH), unit(NUM_PAIRS, 4, WIDTH)
    taught = EmbeddedBatch(batch.image_embeds, batch.text_embeds, batch.keys, teacher=TeacherVectors(image, text, 9.0))
    found = Distillation(teacher="t", form="embedding").value(taught, InfoNCEConfig().build())
    distance = peers.EmbedDistillLoss(Given(), distance_metric="cosine")
    wanted = distance.compute_loss_from_embeddings([batch.image_embeds, batch.text_embeds], [image, text])
    assert_same(found, wanted, raw)


def symmetric_ranking() -> nn.Module:
    return peers.MultipleNegativesRankingLoss(
        Given(),
        scale=20.0,
        similarity_fct=dot_score,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
