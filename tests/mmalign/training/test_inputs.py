from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmalign.config import Config
from mmalign.data import Origin, Pair
from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.errors import TrainingError
from mmalign.optim import Schedule, StepPlan, plan_steps
from mmalign.run import create_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training.inputs import (
    CachedImages,
    CachedTexts,
    Features,
    LiveImages,
    LiveTexts,
    StepInputs,
    Steps,
    TowerInputs,
    load_steps,
    prepare_steps,
)
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import ImageSpec, TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.mmalign.run_features import features_of, tensors_of
from tests.tolerances import CAPTION_DRAW, FEATURES

FirstStep = Callable[[dict[str, object]], StepInputs]
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
    return Steps(pairs, LiveImages(pairs, ImageAugment(AugmentConfig(), SPEC)), LiveTexts(pairs, tokenizer), 0.5)


def tensors_in(inputs: StepInputs) -> tuple[Tensor, ...]:
    return (*tensors_of(inputs.image), *tensors_of(inputs.text), inputs.keys)


def same(first: StepInputs, second: StepInputs) -> bool:
    tensors = zip(tensors_in(first), tensors_in(second), strict=True)
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


def test_workers_do_not_run_the_script_that_trains(
    live: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a script without `if __name__ == "__main__"` would be run once more by each."""
    script = tmp_path / "train.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(3)\n")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(main, "__file__", str(script), raising=False)
    assert len(list(load_steps(live, plan_steps(SCHEDULE, seed=1), num_workers=1))) == 6
    assert not (tmp_path / "ran").exists()
    assert main.__file__ == str(script)


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
    assert isinstance(inputs.image, TowerInputs)
    assert isinstance(inputs.text, TowerInputs)
    (pixel_values,), (ids, mask) = inputs.image.tensors, inputs.text.tensors
    assert pixel_values.shape == (4, 3, 16, 16)
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
        int(value) % 3
        for inputs in load_steps(steps, plan_steps(many, 0), 0)
        for value in tensors_of(inputs.text)[0][:, 0]
    )
    shares = [drawn[caption] / 3200 for caption in range(3)]
    rest = (1 - first_caption) / 2
    assert shares == pytest.approx([first_caption, rest, rest], abs=CAPTION_DRAW.bound)


def test_a_caption_of_a_pair_without_others_is_its_first() -> None:
    pairs = [Pair(b"", ("only",), str(row), Origin(Path("a.csv"))) for row in range(4)]
    texts = CachedTexts(torch.arange(4.0)[:, None], [[row] for row in range(4)])
    steps = Steps(pairs, CachedImages(torch.zeros(1, 4, 2)), texts, first_caption=0.0)
    (inputs,) = load_steps(steps, plan_steps(Schedule(4, 4, 1), 0), 0)
    assert tensors_of(inputs.text)[0][:, 0].tolist() == list(inputs.plan.rows)


def test_every_view_of_cached_images_is_drawn() -> None:
    features = torch.arange(3.0)[:, None, None] + torch.zeros(3, 8, 1)  # each view is its own number
    images = CachedImages(features)
    plans = plan_steps(Schedule(8, 4, 20), 0)
    drawn = Counter(value for plan in plans for value in images.gather(plan, ()).values[:, 0].tolist())
    assert set(drawn) == {0.0, 1.0, 2.0}


@pytest.fixture
def first_step(make_config: Callable[..., Config], tmp_path: Path) -> FirstStep:
    """Return a function that gives the inputs of one step under some settings, and always the first caption."""

    def step(settings: dict[str, object]) -> StepInputs:
        config = make_config({"augment.first_caption": 1.0, **settings})
        run = create_run(config, tmp_path / "run")
        steps = prepare_steps(
            config, features_of(run, is_training=True), merged_splits(load_sources(config.data)).train
        )
        inputs = steps[StepPlan(0, (3, 0, 7), seed=0)]
        assert isinstance(inputs, StepInputs)
        return inputs

    return step


def test_towers_that_learn_are_fed_pixels_and_tokens(first_step: FirstStep) -> None:
    inputs = first_step({})
    assert isinstance(inputs.image, TowerInputs)
    assert isinstance(inputs.text, TowerInputs)
    assert [tensor.shape for tensor in inputs.image.tensors] == [(3, 3, 32, 32)]
    assert [tensor.shape[0] for tensor in inputs.text.tensors] == [3, 3]


def test_frozen_towers_are_fed_the_features_of_the_pairs_asked_for(
    first_step: FirstStep, make_config: Callable[..., Config], tmp_path: Path
) -> None:
    inputs = first_step({"image_tower.frozen": True, "text_tower.frozen": True})
    run = create_run(make_config({"image_tower.frozen": True, "text_tower.frozen": True}), tmp_path / "again")
    pairs = [merged_splits(load_sources(run.config.data)).train[row] for row in (3, 0, 7)]
    features = features_of(run, is_training=False)
    assert isinstance(inputs.image, Features)
    assert isinstance(inputs.text, Features)
    assert torch.allclose(inputs.image.values, features.images.of(pairs, "test"), atol=FEATURES.bound)
    expected = features.texts.of([pair.captions[0] for pair in pairs], "test")
    assert torch.allclose(inputs.text.values, expected, atol=FEATURES.bound)


@pytest.mark.parametrize("num_views", [0, 2])
def test_views_are_cached_beside_the_clean_images(first_step: FirstStep, tmp_path: Path, num_views: int) -> None:
    first_step({"image_tower.frozen": True, "train.num_views": num_views})
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 1 + num_views


def test_a_worker_ends_when_the_process_that_trains_was_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    killed, ended = threading.Event(), queue.Queue[int]()

    class Trainer:
        def join(self) -> None:
            killed.wait()

    monkeypatch.setattr("multiprocessing.parent_process", Trainer)
    monkeypatch.setattr("os._exit", ended.put)
    loaders: list[Callable[[int], None]] = []
    monkeypatch.setattr(
        "mmalign.training.inputs.DataLoader", lambda *_, worker_init_fn, **__: loaders.append(worker_init_fn) or []
    )
    assert not list(load_steps([], [], num_workers=1))  # type: ignore[arg-type]
    loaders[0](0)
    assert ended.empty()
    killed.set()
    assert ended.get(timeout=10) == 1


class Killed(Dataset[StepInputs]):
    """Steps of which the second ends the process that prepares it; or its pipe, with an error of the process's own."""

    def __init__(self, error: Exception | None = None, exit_code: int | None = None) -> None:
        self.error = error
        self.exit_code = exit_code

    def __getitem__(self, plan: StepPlan) -> StepInputs:
        if plan.step == 1:
            if self.error:
                raise self.error
            if self.exit_code is not None:
                os._exit(self.exit_code)
            os.kill(os.getpid(), signal.SIGKILL)
        features = Features(torch.zeros(1, 1))
        return StepInputs(plan, features, features, torch.zeros(1, 2))


def test_a_worker_that_was_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system kills one that takes too much memory. torch looks each five seconds for those that are gone."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    steps = load_steps(Killed(), plan_steps(SCHEDULE, seed=1), num_workers=2)
    assert next(steps).plan.step == 0
    with pytest.raises(TrainingError, match=r"one of 2 .*was killed by SIGKILL.*fewer workers.*--resume goes on"):
        list(steps)


def test_a_worker_that_ended_itself_was_not_killed_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
    with pytest.raises(TrainingError, match=r"one of 1 .*, ended with exit code 7\. What it wrote"):
        list(load_steps(Killed(exit_code=7), plan_steps(SCHEDULE, seed=1), num_workers=1))


@pytest.mark.parametrize("error", [RuntimeError("a fault"), BrokenPipeError("a pipe")])
def test_an_error_of_a_worker_that_lives_stays_what_it_is(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.training.workers._UNTIL_DEAD_S", 0.1)
    with pytest.raises(type(error), match=str(error)):
        list(load_steps(Killed(error), plan_steps(SCHEDULE, seed=1), num_workers=1))
