"""What a step takes: features of frozen towers, computed before training, or inputs of towers that learn, made anew.

Everything random about a step is drawn from its plan's seed, so a resumed run sees what an uninterrupted one saw. Of
several processes each makes inputs for towers that learn of its share of a batch alone; what is random about a row is
drawn from its place in the batch. Shapes: B batch, b rows of a share, N pairs, V views, M captions, F features, L text
tokens, S image side, T of a teacher.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmalign.config import Config
from mmalign.data import DataError, Pair
from mmalign.data.augment import ImageAugment
from mmalign.data.identity import image_identity
from mmalign.data.image_store import ImageStore
from mmalign.features import ModelFeatures, PooledTextFeatures
from mmalign.features.cache import MappedRows
from mmalign.features.region_features import RegionFeatures
from mmalign.losses.distillation import Distillation
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.protocol import TeacherVectors
from mmalign.model.chunks import Sharing
from mmalign.optim import StepPlan
from mmalign.run.pairs import augment_pair
from mmalign.seeds import Stream, seed_of
from mmalign.training.sides import CachedTexts, CachedTokens, Features, LiveTexts, Side, SideInputs, TowerInputs
from mmalign.training.teacher import Teacher, read_teacher
from mmalign.training.workers import end_with_trainer, from_workers, worker_context
from mmalign_runtime.errors import ItemError

_WHOLE = Sharing()


class StepInputs(msgspec.Struct, frozen=True):
    """One step's inputs of both sides.

    `keys` (B, 2) int64 number each pair's concept and image: pairs with an equal one are not negatives of each other.
    `view` is another view of each image and `teacher` a teacher's vectors, where a term of the loss needs them.
    """

    plan: StepPlan
    image: SideInputs
    text: SideInputs
    keys: Tensor
    view: SideInputs | None = None
    teacher: TeacherVectors | None = None


class FailedStep(msgspec.Struct, frozen=True):
    """An ItemError's fields. A worker process gives it back in the step's place: raised there, it would come out as a
    traceback in a text, and the error itself cannot be pickled.
    """

    index: int
    source: str
    stage: str
    reason: str


class ImageSide(Side, Protocol):
    """The side of the images, of which there are several views."""

    def gather_other(self, plan: StepPlan) -> SideInputs:
        """Return the inputs of the plan's rows, each image another view of it than `gather` draws."""
        ...


class CachedImages:
    """Features of a frozen image tower, (V, N, F); each step draws a view of each image.

    `regions`, where texts look at them, are (N, n, R) of each view.
    """

    def __init__(self, features: Tensor, regions: Sequence[MappedRows] = ()) -> None:
        self._features = features
        self._regions = regions

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> Features:
        """Return (B, F), and the regions (B, n, R) where there are any."""
        views = self._draw_views(plan)
        values = self._features[views, torch.tensor(plan.rows)]
        if not self._regions:
            return Features(values)
        drawn = zip(views.tolist(), plan.rows, strict=True)
        return Features(values, torch.stack([self._regions[view][row] for view, row in drawn]))

    def gather_other(self, plan: StepPlan) -> Features:
        """Return (B, F), of the views that `gather` does not draw."""
        num_views = self._features.shape[0]
        generator = torch.Generator().manual_seed(seed_of(plan.seed, Stream.SECOND_VIEW))
        further = torch.randint(1, num_views, (len(plan.rows),), generator=generator)  # (B,)
        return Features(self._features[(self._draw_views(plan) + further) % num_views, torch.tensor(plan.rows)])

    def _draw_views(self, plan: StepPlan) -> Tensor:
        generator = torch.Generator().manual_seed(seed_of(plan.seed, Stream.VIEW))
        return torch.randint(self._features.shape[0], (len(plan.rows),), generator=generator)  # (B,)


class LiveImages:
    """Images decoded and augmented anew at each step; worker processes share those that are held as bytes."""

    def __init__(self, pairs: Sequence[Pair], augment: ImageAugment, sharing: Sharing = _WHOLE) -> None:
        self._pairs = ImageStore(pairs)
        self._augment = augment
        self._sharing = sharing

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> TowerInputs:
        """Return pixel_values, (b, 3, S, S). Raises ItemError for an image that does not decode."""
        return self._augmented(plan, Stream.AUGMENT)

    def gather_other(self, plan: StepPlan) -> TowerInputs:
        """Return pixel_values, (b, 3, S, S), augmented otherwise. Raises ItemError as `gather` does."""
        return self._augmented(plan, Stream.SECOND_VIEW)

    def _augmented(self, plan: StepPlan, stream: Stream) -> TowerInputs:
        share = range(len(plan.rows))[self._sharing.rows(len(plan.rows))]
        drawn = [(plan.rows[i], seed_of(plan.seed, stream, i)) for i in share]
        views = [augment_pair(self._pairs[row], self._augment, row, seed) for row, seed in drawn]
        return TowerInputs((torch.stack(views),))


class CachedTeacher:
    """A teacher's vectors, and for each pair the rows of its captions."""

    def __init__(self, teacher: Teacher, rows_of_pair: Sequence[Sequence[int]]) -> None:
        self._images = CachedImages(teacher.images[None])  # (1, N, T)
        self._texts = CachedTexts(teacher.texts, rows_of_pair)
        self._scale = teacher.scale

    def gather(self, plan: StepPlan, captions: Sequence[int]) -> TeacherVectors:
        """Return the vectors (B, T) of the plan's images and of the captions drawn for them."""
        images, texts = self._images.gather(plan, captions), self._texts.gather(plan, captions)
        return TeacherVectors(images.values, texts.values, self._scale)


class Steps(Dataset["StepInputs | FailedStep | DataError"]):
    """The steps of training by their plans; one item is a whole batch, or what failed in it."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        images: ImageSide,
        texts: Side,
        first_caption: float,
        *,
        with_views: bool = False,
        teacher: CachedTeacher | None = None,
    ) -> None:
        self._images = images
        self._texts = texts
        self._with_views = with_views
        self._teacher = teacher
        self._num_captions = [len(pair.captions) for pair in pairs]
        self._first_caption = first_caption
        numbered = (_numbered([pair.concept for pair in pairs]), _numbered([image_identity(pair) for pair in pairs]))
        self.keys = torch.tensor(numbered).T  # (N, 2)

    def __getitem__(self, plan: StepPlan) -> StepInputs | FailedStep:
        """Return the inputs of one step."""
        captions = draw_captions(plan.seed, [self._num_captions[row] for row in plan.rows], self._first_caption)
        keys = self.keys[torch.tensor(plan.rows)]  # (B, 2)
        try:
            return StepInputs(
                plan=plan,
                image=self._images.gather(plan, captions),
                text=self._texts.gather(plan, captions),
                keys=keys,
                view=self._images.gather_other(plan) if self._with_views else None,
                teacher=self._teacher.gather(plan, captions) if self._teacher else None,
            )
        except ItemError as error:
            return FailedStep(error.index, error.source, error.stage, error.reason)


def draw_captions(seed: int, num_captions: Sequence[int], first_caption: float) -> list[int]:
    """Return which of its captions each row of a step takes: the first with that probability, else any other."""
    generator = torch.Generator().manual_seed(seed_of(seed, Stream.CAPTION))
    draws = torch.rand(len(num_captions), 2, generator=generator, dtype=torch.float64).tolist()
    captions = []
    for count, (coin, position) in zip(num_captions, draws, strict=True):
        is_first = count == 1 or coin < first_caption
        captions.append(0 if is_first else 1 + int(position * (count - 1)))
    return captions


def _numbered(names: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]


def prepare_steps(config: Config, features: ModelFeatures, pairs: Sequence[Pair]) -> Steps:
    """Return the steps of training on `pairs`; features of frozen towers are computed here, before the first step.

    Raises ItemError for an image that cannot be decoded, and as `read_teacher`.
    """
    world = features.world
    sharing = Sharing(config.train.chunk_size, world.rank, world.size)
    with world.first_then_others():
        teacher = _teacher(config, pairs)
    return Steps(
        pairs,
        _image_side(config, features, pairs, sharing),
        _text_side(features, pairs, sharing),
        config.augment.first_caption,
        with_views=config.term(IntraModal) is not None,
        teacher=teacher,
    )


def _image_side(config: Config, features: ModelFeatures, pairs: Sequence[Pair], sharing: Sharing) -> ImageSide:
    augment, images = ImageAugment(config.augment, config.image), features.images
    if not images.is_kept:
        return LiveImages(pairs, augment, sharing)
    views = [images.of_view(pairs, augment, view) for view in range(1, config.train.num_views + 1)]
    clean_and_views = torch.stack([images.of(pairs, "training"), *views])  # (V, N, F)
    if not config.model.attention.weight:
        return CachedImages(clean_and_views)
    regions = RegionFeatures(features.model.image, Path(config.train.cache_dir), features.device, features.world)
    seen = [regions.of_view(pairs, augment, view) for view in range(1, config.train.num_views + 1)]
    return CachedImages(clean_and_views, [regions.of(pairs, "training"), *seen])


def _text_side(features: ModelFeatures, pairs: Sequence[Pair], sharing: Sharing) -> Side:
    captions, rows_of_pair = _distinct_captions(pairs)
    if isinstance(features.texts, PooledTextFeatures):
        return CachedTokens(features.texts.tokens(captions, "training"), rows_of_pair, sharing)
    if not features.texts.is_kept:
        return LiveTexts(pairs, features.model.text.bound_tokenizer, sharing)
    return CachedTexts(features.texts.of(captions, "training"), rows_of_pair)


def _teacher(config: Config, pairs: Sequence[Pair]) -> CachedTeacher | None:
    term = config.term(Distillation)
    if term is None:
        return None
    captions, rows_of_pair = _distinct_captions(pairs)
    cache_dir = Path(config.train.cache_dir)
    return CachedTeacher(read_teacher(term, pairs, captions, cache_dir, config.model.embed_dim), rows_of_pair)


def _distinct_captions(pairs: Sequence[Pair]) -> tuple[list[str], list[list[int]]]:
    """Return each caption once, and for each pair the rows of its captions among them."""
    row_of: dict[str, int] = {}
    rows_of_pair = [[row_of.setdefault(caption, len(row_of)) for caption in pair.captions] for pair in pairs]
    return list(row_of), rows_of_pair


def load_steps(
    steps: Dataset[StepInputs | FailedStep | DataError], plans: Iterable[StepPlan], num_workers: int
) -> Iterator[StepInputs]:
    """Yield the inputs of each plan, prepared ahead by worker processes when there are any; worker n of N takes each
    Nth plan. Raises ItemError, DataError where shards are read, and TrainingError when a worker was killed.
    """
    loader: DataLoader[StepInputs | FailedStep | DataError] = DataLoader(
        steps,
        sampler=plans,
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=worker_context() if num_workers else None,
        worker_init_fn=end_with_trainer,
    )
    for inputs in from_workers(loader, num_workers):
        if isinstance(inputs, FailedStep):
            raise ItemError(inputs.index, inputs.source, inputs.stage, inputs.reason)
        if isinstance(inputs, DataError):
            raise inputs
        yield inputs
