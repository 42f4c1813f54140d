"""Matryoshka, distillation and views: each against its definition, and beside a loss."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch

from mmalign.losses.distillation import Distillation
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import EmbeddedBatch, LossConfig
from mmalign.losses.sigmoid import SigmoidConfig
from mmalign.losses.term import Term, training_loss
from tests.mmalign.losses.oracle import CONCEPTS, Array, assert_equals, batch_of, log_softmax, unit_rows
from tests.tolerances import LOSS_AGAINST_NUMPY

TERMS: list[Term] = [
    Matryoshka(dims=(2, 5)),
    IntraModal(),
    Distillation(teacher="t"),
    Distillation(teacher="t", temperature=0.5),
]


def infonce(first: Array, second: Array, scale: Array | float, concepts: list[int]) -> complex:
    losses = []
    for queries, items in ((first, second), (second, first)):
        for row, query in enumerate(queries):
            shares = log_softmax(scale * (items @ query))
            losses.append(-np.mean([shares[at] for at in range(len(items)) if concepts[at] == concepts[row]]))
    return complex(np.mean(losses))


@pytest.mark.parametrize("concepts", CONCEPTS)
def test_matryoshka_is_the_loss_of_prefixes(concepts: list[int]) -> None:
    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        return sum(infonce(unit_rows(image[:, :d]), unit_rows(text[:, :d]), scale, concepts) for d in (4, 6))

    assert_equals(InfoNCEConfig().build(), batch_of(concepts), definition, Matryoshka(dims=(4, 6)))


def test_matryoshka_takes_each_loss_as_it_is() -> None:
    batch, loss = batch_of(CONCEPTS[1]), SigmoidConfig().build()
    image, text = (
        each[:, :3] / each[:, :3].norm(dim=1, keepdim=True) for each in (batch.image_embeds, batch.text_embeds)
    )
    expected = loss(EmbeddedBatch(image, text, batch.keys))
    assert Matryoshka(dims=(3,)).value(batch, loss).item() == pytest.approx(
        expected.item(), rel=LOSS_AGAINST_NUMPY.bound
    )


@pytest.mark.parametrize("concepts", CONCEPTS)
def test_views_are_told_apart_as_texts_are(concepts: list[int]) -> None:
    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        return infonce(image, views, 5.0, concepts)

    assert_equals(InfoNCEConfig().build(), batch_of(concepts), definition, IntraModal(temperature=0.2))


@pytest.mark.parametrize("temperature", [None, 0.25])
def test_distillation_by_similarity_is_the_divergence_from_the_teacher(temperature: float | None) -> None:
    batch = batch_of(CONCEPTS[0])
    assert batch.teacher is not None
    pictures, words = (each.double().numpy() for each in (batch.teacher.image, batch.teacher.text))
    teacher_scale = 7.0 if temperature is None else 4.0

    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        losses = []
        for own, theirs in (((image, text), (pictures, words)), ((text, image), (words, pictures))):
            for row in range(len(image)):
                wanted = log_softmax((teacher_scale * (theirs[1] @ theirs[0][row])).astype(np.complex128))
                found = log_softmax(scale * (own[1] @ own[0][row]))
                losses.append((np.exp(wanted) * (wanted - found)).sum())
        return complex(np.mean(losses))

    assert_equals(InfoNCEConfig().build(), batch, definition, Distillation(teacher="t", temperature=temperature))


def test_distillation_by_embedding_is_one_less_the_cosine() -> None:
    batch = batch_of(CONCEPTS[0])
    teacher = msgspec.structs.replace(
        batch.teacher, image=batch.text_embeds.detach().roll(1, 0), text=batch.image_embeds.detach()
    )
    batch = msgspec.structs.replace(batch, teacher=teacher)
    pictures, words = (each.double().numpy() for each in (teacher.image, teacher.text))

    def definition(image: Array, text: Array, views: Array, scale: Array) -> complex:
        return complex(1 - ((image * pictures).sum() + (text * words).sum()) / (2 * len(image)))

    assert_equals(InfoNCEConfig().build(), batch, definition, Distillation(teacher="t", form="embedding"))


def test_terms_are_weighted_and_added() -> None:
    batch, loss = batch_of(CONCEPTS[1]), InfoNCEConfig().build()
    terms = [msgspec.structs.replace(term, weight=0.5 + at) for at, term in enumerate(TERMS)]
    expected = loss(batch) + sum((0.5 + at) * term.value(batch, loss) for at, term in enumerate(TERMS))
    assert training_loss(loss, terms, batch).item() == pytest.approx(expected.item(), rel=LOSS_AGAINST_NUMPY.bound)
    assert training_loss(loss, (), batch).item() == loss(batch).item()


@pytest.mark.parametrize("config", [InfoNCEConfig(), SigmoidConfig()])
@pytest.mark.parametrize("term", TERMS)
def test_terms_stay_float32_under_autocast(config: LossConfig, term: Term) -> None:
    batch, loss = batch_of(CONCEPTS[1]), config.build()
    expected = term.value(batch, loss)
    with torch.autocast("cpu", torch.bfloat16):
        found = term.value(batch, loss)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (IntraModal(), "needs a second view of each image"),
        (Distillation(teacher="t"), "needs a teacher's vectors"),
    ],
)
def test_a_batch_that_lacks_what_a_term_needs_is_refused(term: Term, message: str) -> None:
    batch = EmbeddedBatch(torch.eye(2), torch.eye(2), torch.arange(2))
    with pytest.raises(ValueError, match=message):
        term.value(batch, InfoNCEConfig().build())


def test_a_width_is_named_once() -> None:
    with pytest.raises(ValueError, match=r"dims \[4, 4\] name one width twice"):
        Matryoshka(dims=(4, 4))
