from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from mmalign.augment import AugmentConfig, ImageAugment
from mmalign.data import Origin, Pair
from mmalign.inputs import CachedImages, CachedTexts, LiveImages, LiveTexts, StepInputs, Steps, load_steps
from mmalign.schedule import Schedule, plan_steps
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.tolerances import CAPTION_DRAW

SCHEDULE = Schedule(num_pairs=8, batch_size=4, epochs=3)
SPEC = ImageSpec(size=16)


@pytest.fixture
def pairs(pairs_csv: Path) -> list[Pair]:
    """Eight pairs of four concepts, with three captions each."""
    paths = sorted(pairs_csv.parent.glob("*.png"))[:8]
    captions = [("a red bar", "the picture", "a square of the frame")] * 8
    return [
        Pair(path, words, path.stem[:-2], Origin(pairs_csv, line=line))
        for line, (path, words) in enumerate(zip(paths, captions, strict=True))
    ]


@pytest.fixture
def live(pairs: list[Pair], text_encoder_dir: Path) -> Steps:
    tokenizer = TextTokenizer(Tokenizer.from_file(str(text_encoder_dir / "tokenizer.json")), TextSpec(context_length=8))
    return Steps(pairs, LiveImages(pairs, ImageAugment(AugmentConfig(), SPEC), SPEC), LiveTexts(pairs, tokenizer), 0.5)


def same(first: StepInputs, second: StepInputs) -> bool:
    tensors = zip((first.image, *first.text, first.keys), (second.image, *second.text, second.keys), strict=True)
    return first.plan == second.plan and all(torch.equal(a, b) for a, b in tensors)


@pytest.mark.parametrize("first_step", [0, 1, 3, 5])
def test_steps_are_the_same_from_any_step_on(live: Steps, first_step: int) -> None:
    whole = list(load_steps(live, plan_steps(SCHEDULE, seed=1), num_workers=0))
    resumed = list(load_steps(live, plan_steps(SCHEDULE, 1, first_step), num_workers=0))
    assert len(whole) == 6
    assert all(same(a, b) for a, b in zip(whole[first_step:], resumed, strict=True))


def test_worker_processes_change_nothing(live: Steps) -> None:
    plans = list(plan_steps(SCHEDULE, seed=1))
    here, elsewhere = (list(load_steps(live, plans, num_workers=workers)) for workers in (0, 2))
    assert all(same(a, b) for a, b in zip(here, elsewhere, strict=True))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_damaged_image_is_an_error_that_names_it(
    pairs: list[Pair], live: Steps, tmp_path: Path, num_workers: int
) -> None:
    (tmp_path / "damaged.png").write_bytes(b"no image")
    pairs[5] = Pair(tmp_path / "damaged.png", pairs[5].captions, "damaged", pairs[5].origin)
    with pytest.raises(ItemError, match=r"item 5 \(.*pairs\.csv, line 5: .*damaged\.png\), open"):
        list(load_steps(live, plan_steps(SCHEDULE, seed=1), num_workers))


def test_live_inputs_have_the_shapes_that_towers_take(live: Steps) -> None:
    (inputs, *_) = load_steps(live, plan_steps(SCHEDULE, seed=1), num_workers=0)
    ids, mask = inputs.text
    assert inputs.image.shape == (4, 3, 16, 16)
    assert ids.shape == mask.shape
    assert ids.dtype == mask.dtype == torch.int64
    assert inputs.keys.shape == (4, 2)


def test_pairs_of_one_concept_have_one_id(live: Steps, pairs: list[Pair]) -> None:
    id_of: dict[str, set[int]] = {}
    for inputs in load_steps(live, plan_steps(SCHEDULE, seed=1), num_workers=0):
        for row, concept_id in zip(inputs.plan.rows, inputs.keys[:, 0].tolist(), strict=True):
            id_of.setdefault(pairs[row].concept, set()).add(concept_id)
    assert len(id_of) == len({next(iter(ids)) for ids in id_of.values()}) == len({pair.concept for pair in pairs})
    assert all(len(ids) == 1 for ids in id_of.values())


@pytest.mark.parametrize("first_caption", [0.0, 0.5, 1.0])
def test_first_caption_is_drawn_as_often_as_asked_and_the_others_evenly(first_caption: float) -> None:
    pairs = [Pair(b"", ("first", "second", "third"), str(row), Origin(Path("a.csv"))) for row in range(8)]
    features = torch.arange(24.0)[:, None]
    texts = CachedTexts(features, [range(3 * row, 3 * row + 3) for row in range(8)])
    steps = Steps(pairs, CachedImages(torch.zeros(1, 8, 2)), texts, first_caption)
    many = Schedule(num_pairs=8, batch_size=8, epochs=400)
    drawn = Counter(
        int(value) % 3 for inputs in load_steps(steps, plan_steps(many, 0), 0) for value in inputs.text[0][:, 0]
    )
    shares = [drawn[caption] / 3200 for caption in range(3)]
    rest = (1 - first_caption) / 2
    assert shares == pytest.approx([first_caption, rest, rest], abs=CAPTION_DRAW.bound)


def test_a_caption_of_a_pair_without_others_is_its_first() -> None:
    pairs = [Pair(b"", ("only",), str(row), Origin(Path("a.csv"))) for row in range(4)]
    texts = CachedTexts(torch.arange(4.0)[:, None], [[row] for row in range(4)])
    steps = Steps(pairs, CachedImages(torch.zeros(1, 4, 2)), texts, first_caption=0.0)
    (inputs,) = load_steps(steps, plan_steps(Schedule(4, 4, 1), 0), 0)
    assert inputs.text[0][:, 0].tolist() == list(inputs.plan.rows)


def test_every_view_of_cached_images_is_drawn() -> None:
    features = torch.arange(3.0)[:, None, None] + torch.zeros(3, 8, 1)  # each view is its own number
    images = CachedImages(features)
    plans = plan_steps(Schedule(8, 4, 20), 0)
    drawn = Counter(value for plan in plans for value in images.gather(plan)[:, 0].tolist())
    assert set(drawn) == {0.0, 1.0, 2.0}
