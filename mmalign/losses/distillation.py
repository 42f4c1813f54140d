"""Distillation: a model learns from a teacher, a bundle, on the same images and captions.

By similarities (as TinyCLIP, Wu et al. 2023): for each item the teacher's softmax over the batch is the target. By
embeddings: each vector is to be the teacher's. Shapes: B batch, b rows of a block, D embedding, T of the teacher.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.losses.protocol import EmbeddedBatch, Loss, TeacherVectors
from mmalign.losses.rows import mean_over_rows
from mmalign.losses.term import Term


class Distillation(Term, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="distillation"):
    """What a student learns from its teacher, whose vectors are computed once and kept in `train.cache_dir`.

    Attributes:
        teacher: The bundle, a folder or a .mmalign file.
        form: "similarity": the teacher's softmax over the batch, both ways, by the Kullback-Leibler divergence from the
            student's. "embedding": 1 less the cosine with the teacher's vector, in the mean of both sides;
            `model.embed_dim` is then the teacher's.
        temperature: Temperature of the teacher's softmax. Not set: that of the teacher's own scale.
    """

    teacher: Annotated[str, msgspec.Meta(min_length=1)]
    form: Literal["similarity", "embedding"] = "similarity"
    temperature: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def value(self, batch: EmbeddedBatch, loss: Loss) -> Tensor:
        """Return how far the batch is from its teacher. Raises ValueError for a batch without one."""
        if batch.teacher is None:
            raise ValueError("the term 'distillation' needs a teacher's vectors; give `teacher`")
        if self.form == "embedding":
            return _distance(batch, batch.teacher)
        scale = batch.teacher.scale if self.temperature is None else 1.0 / self.temperature
        image, text = batch.teacher.image, batch.teacher.text
        forth = _divergence(batch.image_embeds, batch.text_embeds, image, text, scale, loss)
        back = _divergence(batch.text_embeds, batch.image_embeds, text, image, scale, loss)
        return (forth + back) / 2


def _distance(batch: EmbeddedBatch, teacher: TeacherVectors) -> Tensor:
    with torch.autocast(device_type=batch.image_embeds.device.type, enabled=False):
        pairs = (batch.image_embeds, teacher.image), (batch.text_embeds, teacher.text)
        cosines = [(own.float() * theirs.float()).sum(dim=1) for own, theirs in pairs]  # (B,) each
        return 1 - torch.stack(cosines).mean()


def _divergence(
    queries: Tensor, items: Tensor, teacher_queries: Tensor, teacher_items: Tensor, teacher_scale: float, loss: Loss
) -> Tensor:
    scale = loss.scale()

    def row_losses(cosines: Tensor, at: slice) -> Tensor:
        wanted = (teacher_scale * (teacher_queries[at] @ teacher_items.T)).log_softmax(dim=1)  # (b, B)
        found = (scale.float() * cosines).log_softmax(dim=1)  # (b, B)
        return functional.kl_div(found, wanted, reduction="none", log_target=True).sum(dim=1)

    return mean_over_rows(queries, items, row_losses, loss.chunk_size)
