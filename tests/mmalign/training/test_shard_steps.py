from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmalign.config import Config
from mmalign.data import DataConfigError, SourceError
from mmalign.distributed import ALONE, World
from mmalign.errors import ConfigError, TrainingError
from mmalign.evaluation import evaluate
from mmalign.heads.linear import LinearHead
from mmalign.losses.distillation import Distillation
from mmalign.losses.intra_modal import IntraModal
from mmalign.model import ModelConfig
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule
from mmalign.run import RunFolder, read_trained_images
from mmalign.training import train
from mmalign.training.checks import check_streamable
from mmalign.training.inputs import StepInputs, TowerInputs
from mmalign.training.metrics import read_metrics
from mmalign.training.shard_steps import POSITIONS, ShardStream, open_stream
from mmalign.training.trainer import Trainer
from mmalign_runtime.errors import ItemError
from mmalign_runtime.spec import TextSpec
from mmalign_runtime.tokenizer import TextTokenizer
from tests.mmalign.shards import write_shards

MakeConfig = Callable[..., Config]
Inputs = Callable[..., list[StepInputs]]
NUM_PAIRS, BATCH = 24, 8
SCHEDULE = Schedule(NUM_PAIRS, BATCH, epochs=3)


@pytest.fixture
def settings(pairs_csv: Path, tmp_path: Path) -> dict[str, object]:
    """Four shards of six pairs to train on in two lanes, and the drawings to validate on."""
    listed = {"path": str(pairs_csv), "concept_column": "concept"}
    streamed = {"path": write_shards(tmp_path / "shards", 4, 6), "stream": True, "num_pairs": NUM_PAIRS}
    return {
        "data.sources": [listed, streamed],
        "data.stream": {"lanes": 2, "turns": 2, "shuffle": 16},
        **{"train.batch_size": BATCH, "train.epochs": 3, "text_tower.frozen": True},
    }


@pytest.fixture
def tokenizer(make_config: MakeConfig) -> TextTokenizer:
    path = Path(make_config().text_tower.name) / "tokenizer.json"
    return TextTokenizer(Tokenizer.from_file(str(path)), TextSpec(context_length=8))


@pytest.fixture
def inputs(make_config: MakeConfig, settings: dict[str, object], tokenizer: TextTokenizer) -> Inputs:
    """Return a function that gives the inputs of all steps from one on, of one process of several."""

    def make(
        changed: dict[str, object] | None = None,
        first_step: int = 0,
        world: World = ALONE,
        kept: dict[str, Tensor] | None = None,
    ) -> list[StepInputs]:
        stream = ShardStream(make_config({**settings, **(changed or {})}))
        return list(stream.inputs(SCHEDULE, tokenizer, first_step, {} if kept is None else kept, world))

    return make


class OneOfTwo(World):
    """A process of two, whose sums are its own numbers."""

    size = 2

    def __init__(self, rank: int) -> None:
        self.rank = rank


def pixels(inputs: StepInputs) -> Tensor:
    assert isinstance(inputs.image, TowerInputs)
    return inputs.image.tensors[0]


def tokens(inputs: StepInputs) -> Tensor:
    assert isinstance(inputs.text, TowerInputs)
    return inputs.text.tensors[0]


def test_each_pair_is_a_positive_of_its_own(inputs: Inputs) -> None:
    steps = inputs()
    assert [step.plan.step for step in steps] == list(range(9))
    for step in steps:
        assert pixels(step).shape == (BATCH, 3, 32, 32)
        assert step.keys.tolist() == [[row, row] for row in range(BATCH)]
        assert len({each.numpy().tobytes() for each in pixels(step)}) == BATCH


def test_worker_processes_change_nothing(inputs: Inputs) -> None:
    here, elsewhere = inputs(), inputs({"train.num_workers": 2})
    assert all(torch.equal(pixels(a), pixels(b)) for a, b in zip(here, elsewhere, strict=True))


@pytest.mark.parametrize("first_step", [1, 4, 8])
def test_steps_go_on_from_what_a_checkpoint_keeps(
    inputs: Inputs, settings: dict[str, object], make_config: MakeConfig, tokenizer: TextTokenizer, first_step: int
) -> None:
    whole = inputs()
    stream, kept = ShardStream(make_config(settings)), dict[str, Tensor]()
    ran: Iterator[StepInputs] = stream.inputs(SCHEDULE, tokenizer, 0, kept, ALONE)
    for _ in range(first_step):
        next(ran)
    resumed = inputs(first_step=first_step, kept={POSITIONS: kept[POSITIONS].clone()})
    assert all(torch.equal(pixels(a), pixels(b)) for a, b in zip(whole[first_step:], resumed, strict=True))


def test_two_processes_share_batches_and_shards(inputs: Inputs) -> None:
    whole = inputs()
    halves = [inputs(world=OneOfTwo(rank)) for rank in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(torch.cat([pixels(first), pixels(second)]), pixels(one))
        assert torch.equal(torch.cat([tokens(first), tokens(second)]), tokens(one))
        assert one.plan.rows == first.plan.rows == second.plan.rows


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_image_is_an_error_that_names_its_shard_or_another_pair_takes_its_place(
    inputs: Inputs, tmp_path: Path, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    write_shards(tmp_path / "shards", 4, 6, damaged=frozenset({9}))
    with pytest.raises(ItemError, match=r"001\.tar, member 0009: .*replace it"):
        inputs({"train.num_workers": num_workers})
    steps = inputs({"train.num_workers": num_workers, "data.on_error": "skip"})
    assert re.search(r"pairs skipped so far: 1; the last: .*001\.tar, member 0009", caplog.text)
    assert all(len({each.numpy().tobytes() for each in pixels(step)}) == BATCH for step in steps)


@pytest.fixture
def skipping(tmp_path: Path) -> dict[str, object]:
    """Shards in which half of the pairs are damaged, to be skipped."""
    write_shards(tmp_path / "shards", 4, 6, damaged=frozenset({0, *range(4, 9), 12, 13, *range(18, 22)}))
    return {"data.on_error": "skip"}


def test_damaged_images_cost_no_batch_and_are_the_same_in_any_number_of_processes(
    inputs: Inputs, skipping: dict[str, object]
) -> None:
    whole = inputs(skipping)
    halves = [inputs(skipping, world=OneOfTwo(rank)) for rank in range(2)]
    for one, first, second in zip(whole, *halves, strict=True):
        assert torch.equal(torch.cat([pixels(first), pixels(second)]), pixels(one))


def test_a_lane_goes_on_behind_the_pairs_that_it_skipped(
    inputs: Inputs,
    skipping: dict[str, object],
    make_config: MakeConfig,
    settings: dict[str, object],
    tokenizer: TextTokenizer,
) -> None:
    whole, kept = inputs(skipping), dict[str, Tensor]()
    stream = ShardStream(make_config(settings | skipping))
    ran = stream.inputs(SCHEDULE, tokenizer, 0, kept, ALONE)
    for _ in range(4):
        next(ran)
    resumed = inputs(skipping, first_step=4, kept={POSITIONS: kept[POSITIONS].clone()})
    assert all(torch.equal(pixels(a), pixels(b)) for a, b in zip(whole[4:], resumed, strict=True))


def test_shards_of_damaged_images_alone_are_an_error(inputs: Inputs, tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", 4, 6, damaged=frozenset(range(24)))
    with pytest.raises(SourceError, match=r"1000 pairs one after the other .* last is .*\.tar, member 00\d\d"):
        inputs({"data.on_error": "skip"})


def test_a_caption_over_the_limit_is_an_error_that_names_its_shard_or_skipped(
    inputs: Inputs, tokenizer: TextTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.spec = TextSpec(context_length=8, max_characters=len("a picture 9"))
    with pytest.raises(ItemError, match=r"\.tar, member 00\d\d: 'a picture \d\d'\), tokenize: 12 characters"):
        inputs()
    assert len(inputs({"data.on_error": "skip"})) == SCHEDULE.num_steps
    assert re.search(r"pairs skipped so far: \d+; the last: item \d+ \(.*\.tar, member 00\d\d: ", caplog.text)


@pytest.mark.parametrize(("num_pairs", "said"), [(NUM_PAIRS, None), (BATCH, "at least"), (500, "at most")])
def test_a_number_of_pairs_that_is_far_off_is_told(
    inputs: Inputs, settings: dict[str, object], caplog: pytest.LogCaptureFixture, num_pairs: int, said: str | None
) -> None:
    assert isinstance(settings["data.sources"], list)
    settings["data.sources"][1]["num_pairs"] = num_pairs
    inputs()
    told = [message for message in caplog.messages if "num_pairs says" in message]
    assert [said in message for message in told if said] == ([True] if said else [])
    assert len(told) == (said is not None)


def test_a_run_that_was_cut_goes_on_to_the_same_numbers(
    make_config: MakeConfig,
    settings: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {**settings, "train.checkpoint_minutes": 0}
    train(make_config(settings), tmp_path / "whole")
    take_step = Trainer.step

    def interrupted(self: Trainer, inputs: StepInputs) -> object:
        if inputs.plan.step == 5:
            raise KeyboardInterrupt
        return take_step(self, inputs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "step", interrupted)
        train(make_config(settings), tmp_path / "cut")
    train(make_config(settings), tmp_path / "cut", resume=True)
    whole, cut = (read_metrics(tmp_path / name / "metrics.csv") for name in ("whole", "cut"))
    assert len(whole) == 9
    assert whole == cut


def test_views_of_a_frozen_image_tower_are_drawn_at_each_step_and_not_cached(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    config = make_config({**settings, "image_tower.frozen": True, "train.epochs": 1})
    train(config, tmp_path / "without")
    train(msgspec.structs.replace(config, terms=(IntraModal(),)), tmp_path / "with")
    without, with_term = (read_metrics(tmp_path / name / "metrics.csv")[0]["loss"] for name in ("without", "with"))
    assert float(with_term) > float(without)


def test_a_run_is_validated_and_evaluated_on_the_listed_source(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    train(make_config(settings), tmp_path)
    assert read_metrics(tmp_path / "metrics.csv")[-1]["val_score"]
    (scores,) = evaluate(tmp_path).sources
    assert scores.source == "pairs"


def test_the_images_trained_on_are_not_told(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    train(make_config({**settings, "train.epochs": 1}), tmp_path)
    assert read_trained_images(RunFolder(tmp_path)) is None


def test_a_loss_that_is_not_finite_names_the_shards(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"Pairs that may be the cause: .*shards/00\d\.tar, member 00\d\d; "):
        train(make_config({**settings, "optim.image_tower_lr": 1e30, "optim.projection_lr": 1e30}), tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("mining.share", 0.5, "mining.share"),
        ("train.num_views", 1, "train.num_views"),
        ("data.split", {"max_caption_similarity": 0.9}, "data.split.max_caption_similarity"),
    ],
)
def test_what_needs_all_pairs_is_refused_by_name(
    make_config: MakeConfig, settings: dict[str, object], key: str, value: object, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: computed over all training pairs"):
        open_stream(make_config({**settings, key: value}))


def test_a_teacher_and_a_start_from_the_linear_map_are_refused_by_name(
    make_config: MakeConfig, settings: dict[str, object]
) -> None:
    config = make_config(settings)
    check_streamable(config)
    with pytest.raises(ConfigError, match=r"^the term 'distillation': "):
        check_streamable(msgspec.structs.replace(config, terms=(Distillation(teacher="bundle"),)))
    head = LinearHead(standardize_features=True)
    started = ModelConfig(start="linear_map", image_head=head, text_head=head)
    with pytest.raises(ConfigError, match=r'^model\.start = "linear_map": '):
        check_streamable(msgspec.structs.replace(config, model=started))


def test_too_few_shards_and_batches_that_no_lane_divides_are_refused(
    make_config: MakeConfig, settings: dict[str, object]
) -> None:
    with pytest.raises(DataConfigError, match=r"1 turns of 5 lanes, and the streamed sources have 4 shards"):
        open_stream(make_config({**settings, "data.stream": {"lanes": 5, "turns": 1}}))
    with pytest.raises(ConfigError, match=r"train\.num_workers = 3 cannot share data\.stream\.turns = 2"):
        open_stream(make_config({**settings, "train.num_workers": 3}))
    stream = ShardStream(make_config(settings))
    with pytest.raises(ConfigError, match=r"a batch of 7 pairs .* cannot be cut between 2 lanes"):
        stream.lanes_of(Sharing(), 7)
    stream.check(OneOfTwo(0), ())
    with pytest.raises(ConfigError, match=r"for 4 processes in chunks of 0 cannot be cut between 2 lanes"):
        stream.lanes_of(Sharing(0, 0, 4), 8)


def test_a_batch_that_no_lane_divides_leaves_no_folder(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"Set train\.batch_size to a multiple of data\.stream\.lanes"):
        train(make_config({**settings, "train.batch_size": 7}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_pairs", [1, BATCH - 1])
def test_fewer_pairs_than_a_batch_are_refused(
    make_config: MakeConfig, settings: dict[str, object], num_pairs: int
) -> None:
    assert isinstance(settings["data.sources"], list)
    settings["data.sources"][1]["num_pairs"] = num_pairs
    with pytest.raises(ConfigError, match=rf"num_pairs = {num_pairs} .* less than train\.batch_size = 8"):
        ShardStream(make_config(settings)).check(ALONE, ())


def test_a_shard_that_is_evaluated_is_not_streamed(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "validation.tar").symlink_to(tmp_path / "shards" / "001.tar")
    assert isinstance(settings["data.sources"], list)
    settings["data.sources"][0] = {"path": str(tmp_path / "validation.tar")}
    settings["data.split"] = {"val": 0.4, "test": 0.4}
    with pytest.raises(ConfigError, match=r"001\.tar is streamed, and read by a source that is not"):
        train(make_config(settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_listed_source_there_is_nothing_to_validate_on(
    make_config: MakeConfig, settings: dict[str, object], tmp_path: Path
) -> None:
    assert isinstance(settings["data.sources"], list)
    alone = {**settings, "data.sources": settings["data.sources"][1:]}
    with pytest.raises(TrainingError, match="Add a source that is not streamed, whose val and test sides"):
        train(make_config(alone), tmp_path)
