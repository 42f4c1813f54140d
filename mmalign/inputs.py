"""What the towers are fed at each step: cached features of frozen towers, or freshly augmented images and sampled captions.

Everything random about step n is drawn from seed_of(seed, n), so a resumed run sees what an uninterrupted one saw.
Shapes: B batch, N pairs, V views, M captions, F features, L text tokens, S image side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmalign.augment import ImageAugment
from mmalign.data import Pair
from mmalign.features import decode_pair, seed_of
from mmalign_runtime.spec import ImageSpec
from mmalign_runtime.tokenizer import TextTokenizer


class StepPlan(msgspec.Struct, frozen=True):
    """Which pairs make a step, and the seed of all that is random about it."""

    step: int
    rows: tuple[int, ...]
    seed: int


class StepInputs(msgspec.Struct, frozen=True):
    """One step's inputs: features (B, F) or pixel_values (B, 3, S, S); features (B, F) or ids and mask (B, L)."""

    plan: StepPlan
    image: Tensor
    text: tuple[Tensor, ...]
    concept_ids: Tensor


class ImageInputs(Protocol):
    """One side of a step."""

    def gather(self, plan: StepPlan) -> Tensor:
        """Return the inputs of the plan's rows."""
        ...


class TextInputs(Protocol):
    """The other side of a step."""

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the inputs of the plan's rows, each with the caption drawn for it."""
        ...


class CachedImages:
    """Features of a frozen image tower, (V, N, F); each step draws a view of each image."""

    def __init__(self, features: Tensor) -> None:
        self._features = features

    def gather(self, plan: StepPlan) -> Tensor:
        """Return (B, F)."""
        generator = torch.Generator().manual_seed(seed_of(plan.seed, 1))
        views = torch.randint(self._features.shape[0], (len(plan.rows),), generator=generator)  # (B,)
        return self._features[views, torch.tensor(plan.rows)]  # (B, F)


class LiveImages:
    """Images decoded and augmented anew at each step."""

    def __init__(self, pairs: Sequence[Pair], augment: ImageAugment, spec: ImageSpec) -> None:
        self._pairs = pairs
        self._augment = augment
        self._spec = spec

    def gather(self, plan: StepPlan) -> Tensor:
        """Return pixel_values, (B, 3, S, S). Raises ItemError for an image that does not decode."""
        decoded = (decode_pair(self._pairs[row], self._spec, row) for row in plan.rows)
        return torch.stack([self._augment(pixels, seed_of(plan.seed, 2, i)) for i, pixels in enumerate(decoded)])


class CachedTexts:
    """Features of a frozen text tower, (M, F), and for each pair the rows of its captions."""

    def __init__(self, features: Tensor, rows_of_pair: Sequence[Sequence[int]]) -> None:
        self._features = features
        self._rows_of_pair = rows_of_pair

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> tuple[Tensor, ...]:
        """Return one tensor, (B, F)."""
        rows = [self._rows_of_pair[row][caption] for row, caption in zip(plan.rows, captions, strict=True)]
        return (self._features[torch.tensor(rows)],)


class LiveTexts:
    """Captions tokenized anew at each step."""

    def __init__(self, pairs: Sequence[Pair], tokenizer: TextTokenizer) -> None:
        self._pairs = pairs
        self._tokenizer = tokenizer

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> tuple[Tensor, ...]:
        """Return ids and mask, (B, L) each."""
        texts = [self._pairs[row].captions[caption] for row, caption in zip(plan.rows, captions, strict=True)]
        tokens = self._tokenizer.encode(texts)
        return torch.from_numpy(tokens.input_ids), torch.from_numpy(tokens.attention_mask)


class Steps(Dataset[StepInputs]):
    """The steps of training by their plans; one item is a whole batch."""

    def __init__(self, pairs: Sequence[Pair], images: ImageInputs, texts: TextInputs, first_caption: float) -> None:
        self._images = images
        self._texts = texts
        self._num_captions = [len(pair.captions) for pair in pairs]
        self._first_caption = first_caption
        ids: dict[str, int] = {}
        self._concept_ids = torch.tensor([ids.setdefault(pair.concept, len(ids)) for pair in pairs])  # (N,)

    def __getitem__(self, plan: StepPlan) -> StepInputs:
        """Return the inputs of one step."""
        captions = self._draw_captions(plan)
        concept_ids = self._concept_ids[torch.tensor(plan.rows)]  # (B,)
        return StepInputs(plan, self._images.gather(plan), self._texts.gather(plan, captions), concept_ids)

    def _draw_captions(self, plan: StepPlan) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(plan.seed, 3))
        draws = torch.rand(len(plan.rows), 2, generator=generator, dtype=torch.float64).tolist()
        captions = []
        for row, (coin, position) in zip(plan.rows, draws, strict=True):
            num_others = self._num_captions[row] - 1
            is_first = num_others == 0 or coin < self._first_caption
            captions.append(0 if is_first else 1 + int(position * num_others))
        return captions


def plan_steps(num_pairs: int, batch_size: int, seed: int, first_step: int, num_steps: int) -> Iterator[StepPlan]:
    """Yield the plans from `first_step` on: each epoch a new permutation, the incomplete last batch left out."""
    steps_per_epoch = num_pairs // batch_size
    order: list[int] = []
    for step in range(first_step, num_steps):
        epoch, position = divmod(step, steps_per_epoch)
        if position == 0 or not order:
            generator = torch.Generator().manual_seed(seed_of(seed, epoch))
            order = torch.randperm(num_pairs, generator=generator).tolist()
        rows = order[position * batch_size : (position + 1) * batch_size]
        yield StepPlan(step, tuple(rows), seed_of(seed, epoch, step))


def load_steps(steps: Steps, plans: Sequence[StepPlan], num_workers: int) -> Iterator[StepInputs]:
    """Yield the inputs of each plan, prepared ahead by worker processes when there are any."""
    # Typed loosely: torch's sampler type wants integers, a plan serves as well.
    loader: DataLoader[StepInputs] = DataLoader(
        steps, sampler=plans, batch_size=None, num_workers=num_workers, collate_fn=_as_is
    )
    return iter(loader)


def _as_is(inputs: StepInputs) -> StepInputs:
    return inputs
