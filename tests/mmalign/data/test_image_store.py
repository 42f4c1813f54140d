from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.data import Origin, Pair
from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.data.image_store import ImageStore
from mmalign.errors import TrainingError
from mmalign.optim import Schedule, plan_steps
from mmalign.training.inputs import LiveImages, LiveTexts, Steps, load_steps
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.make_tiny_bundle import tiny_tokenizer
from tests.mmalign.run_features import tensors_of

SPEC = ImageSpec(size=16)
SCHEDULE = Schedule(num_pairs=8, batch_size=4, epochs=2)


def steps_of(pairs: list[Pair]) -> Steps:
    tokenizer = TextTokenizer(tiny_tokenizer(), TextSpec(context_length=8))
    return Steps(pairs, LiveImages(pairs, ImageAugment(AugmentConfig(), SPEC)), LiveTexts(pairs, tokenizer), 0.5)


@pytest.fixture
def pairs(pairs_csv: Path) -> list[Pair]:
    """Eight pairs: every other one holds its image as bytes."""
    paths = sorted(pairs_csv.parent.glob("*.png"))[:8]
    origin = Origin(pairs_csv, line=3)
    return [
        Pair(path.read_bytes() if row % 2 else path, ("a red bar", "a bar"), path.stem, origin)
        for row, path in enumerate(paths)
    ]


def test_a_pickled_copy_gives_the_same_pairs(pairs: list[Pair]) -> None:
    store = ImageStore(pairs)
    copies = [pickle.loads(pickle.dumps(store)) for _ in range(2)]
    copies.append(pickle.loads(pickle.dumps(copies[0])))  # a copy of a copy
    for copy in copies:
        assert [copy[row] for row in range(8)] == [store[row] for row in range(8)] == pairs


def test_what_a_worker_gets_does_not_grow_with_the_images() -> None:
    rng = np.random.default_rng(0)
    origin = Origin(Path("a.parquet"))
    small, large = (
        [Pair(rng.bytes(size), ("a bar",), str(row), origin) for row in range(8)] for size in (10, 1_000_000)
    )
    sizes = [len(pickle.dumps(steps_of(pairs))) for pairs in (small, large)]
    assert sizes[1] < sizes[0] + 1000


def test_workers_give_the_steps_of_this_process(pairs: list[Pair]) -> None:
    steps, plans = steps_of(pairs), list(plan_steps(SCHEDULE, seed=1))
    here, elsewhere = (list(load_steps(steps, plans, workers)) for workers in (0, 2))
    assert len(here) == 4
    for one, other in zip(here, elsewhere, strict=True):
        for side, same in ((one.image, other.image), (one.text, other.text)):
            assert all(torch.equal(a, b) for a, b in zip(tensors_of(side), tensors_of(same), strict=True))


def test_a_damaged_image_held_as_bytes_is_named_by_a_worker(pairs: list[Pair]) -> None:
    pairs[5] = Pair(pairs[5].image[:60], ("a",), "damaged", Origin(Path("a.parquet"), row=5))  # type: ignore[index]
    with pytest.raises(ItemError, match=r"a\.parquet, row 5: 60 bytes\), decode"):
        list(load_steps(steps_of(pairs), plan_steps(SCHEDULE, seed=1), num_workers=1))


def test_a_full_disk_names_the_folder_and_what_to_set(pairs: list[Pair], monkeypatch: pytest.MonkeyPatch) -> None:
    def fill() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", fill)
    with pytest.raises(TrainingError, match=r"No space left on device\)\. Set TMPDIR"):
        list(load_steps(steps_of(pairs), plan_steps(SCHEDULE, seed=1), num_workers=1))
