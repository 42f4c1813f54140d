"""Several processes: the gradients of each loss, batch statistics, and what is refused. Here they are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, get_args

import msgspec
import pytest
import torch
from torch import Tensor, nn

from mmalign.config import Config
from mmalign.distributed import ALONE, World, check_agreement, joined_world, local_device, named_failures
from mmalign.errors import ConfigError, OtherProcessError, TrainingError
from mmalign.losses import AnyLossConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import LossConfig
from mmalign.model import DualEncoder, freeze
from mmalign.model.chunks import Sharing
from mmalign.optim import Schedule, StepPlan
from mmalign.run import Run, create_run
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training.checks import check_new_run
from mmalign.training.inputs import StepInputs, TowerInputs
from mmalign.training.trainer import Trainer
from tests.tolerances import CHUNKED_GRADIENT

MakeModel = Callable[..., DualEncoder]
MakeConfig = Callable[..., Config]
KINDS: tuple[type[LossConfig], ...] = get_args(AnyLossConfig)
NUM_PAIRS, CHUNK_SIZE = 10, 2
Found = TypeVar("Found")
SomeWorld = TypeVar("SomeWorld", bound=World)


class Threads(World):
    """A process as a thread: what each gives lies in a list that all of them read when they have met."""

    def __init__(self, rank: int, barrier: threading.Barrier, given: list[list[Tensor]]) -> None:
        self.rank, self.size = rank, barrier.parties
        self._barrier, self._given = barrier, given

    def add(self, tensors: Sequence[Tensor]) -> None:
        self._exchange(tensors, lambda parts: torch.stack(parts).sum(dim=0))

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        self._exchange(tensors, lambda parts: parts[0])

    def _exchange(self, tensors: Sequence[Tensor], choose: Callable[[list[Tensor]], Tensor]) -> None:
        self._given[self.rank] = [tensor.detach().clone() for tensor in tensors]
        self._barrier.wait(60)
        found = [choose(list(parts)) for parts in zip(*self._given, strict=True)]
        self._barrier.wait(60)
        with torch.no_grad():
            for tensor, value in zip(tensors, found, strict=True):
                tensor.copy_(value)


def threads(size: int) -> list[Threads]:
    barrier, given = threading.Barrier(size), [[] for _ in range(size)]  # type: ignore[var-annotated]
    return [Threads(rank, barrier, given) for rank in range(size)]


def together(worlds: Sequence[SomeWorld], work: Callable[[SomeWorld], Found]) -> list[Found]:
    with ThreadPoolExecutor(len(worlds)) as pool:
        return list(pool.map(work, worlds))


@pytest.fixture
def make_trainer(make_model: MakeModel, make_config: MakeConfig) -> Callable[[LossConfig, World], Trainer]:
    """Return a function that makes the trainer of a process, of a model with batch statistics in tower and head."""

    def make(loss: LossConfig, world: World) -> Trainer:
        settings = {"train.chunk_size": CHUNK_SIZE, "model.embed_dim": 4, "optim.clip_norm": 0.0}
        config = make_config({**settings, "model.text_head": {"standardize_features": True}})
        terms = (Matryoshka(dims=(2,)), IntraModal(weight=0.5))
        config = msgspec.structs.replace(config, loss=loss, terms=terms)
        model = make_model(config.model, loss=loss)
        torch.manual_seed(1)
        layers = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), model.image_tower.backbone
        model.image_tower.backbone = nn.Sequential(*layers)
        for module in model.text_tower.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # threads draw from one generator
        return Trainer(model, config, Schedule(NUM_PAIRS, NUM_PAIRS, epochs=2), world)

    return make


def step_of(trainer: Trainer, world: World) -> dict[str, Tensor]:
    """Return the gradients of a step, and the batch statistics after it."""
    model, found = trainer.model, {}
    trainer.optimizer.register_step_pre_hook(lambda *_: found.update(gradients_of(model)))
    trainer.step(step_inputs(Sharing(CHUNK_SIZE, world.rank, world.size)))
    return found | {name: tensor for name, tensor in model.named_buffers() if name.startswith("image_tower")}


def gradients_of(model: DualEncoder) -> dict[str, Tensor]:
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def step_inputs(sharing: Sharing) -> StepInputs:
    generator = torch.Generator().manual_seed(0)
    pixels, view = torch.rand(2, NUM_PAIRS, 3, 8, 8, generator=generator)
    ids = torch.randint(1, 11, (NUM_PAIRS, 5), generator=generator)
    plan, keys, at = StepPlan(0, tuple(range(NUM_PAIRS)), seed=3), torch.arange(NUM_PAIRS) // 2, sharing.rows(NUM_PAIRS)
    texts = TowerInputs((ids[at], torch.ones_like(ids)[at]))
    return StepInputs(plan, TowerInputs((pixels[at],)), texts, keys, TowerInputs((view[at],)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_batch_statistics_are_those_of_one_process(
    make_trainer: Callable[[LossConfig, World], Trainer], kind: type[LossConfig]
) -> None:
    """Five chunks among three processes: one takes one of them, the others two."""
    whole = step_of(make_trainer(kind(), ALONE), ALONE)
    assert {name.split(".")[0] for name in whole} >= {"image_tower", "text_tower", "image_projection", "loss"}
    assert whole["image_tower.backbone.1.num_batches_tracked"] == 10  # five chunks of images, and of their views
    worlds = threads(3)
    trainers = {world: make_trainer(kind(chunk_size=4), world) for world in worlds}  # one by one: they draw weights
    for found in together(worlds, lambda world: step_of(trainers[world], world)):
        assert found.keys() == whole.keys()
        for name, wanted in whole.items():
            part = name.split(".")[0]
            largest = max(each.abs().max() for other, each in whole.items() if other.split(".")[0] == part)
            assert (found[name] - wanted).abs().max() <= CHUNKED_GRADIENT.bound * largest, name


@pytest.mark.parametrize(("chunk_size", "num_processes", "num_rows"), [(0, 4, 10), (3, 4, 10), (2, 3, 9), (1, 1, 5)])
def test_shares_are_whole_chunks_that_make_the_batch(chunk_size: int, num_processes: int, num_rows: int) -> None:
    shares = [Sharing(chunk_size, rank, num_processes) for rank in range(num_processes)]
    rows = [row for share in shares for row in range(num_rows)[share.rows(num_rows)]]
    assert rows == list(range(num_rows))
    chunks = [chunk for share in shares for chunk in share.own(num_rows)]
    assert chunks == Sharing(chunk_size, 0, num_processes).chunks(num_rows)
    assert all(share.own(num_rows) for share in shares)
    assert max(chunk.size for chunk in chunks) <= (chunk_size or num_rows)


def test_chunks_do_not_depend_on_the_number_of_processes() -> None:
    assert Sharing(3, 0, 1).chunks(10) == Sharing(3, 2, 4).chunks(10)
    assert [chunk.size for chunk in Sharing(3, 0, 1).chunks(10)] == [3, 3, 2, 2]


def test_a_batch_with_fewer_chunks_than_processes_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match=r"10 pairs in chunks of 5 is 2 chunks, too few for 4 .*chunk_size to 2 or"):
        Sharing(5, 0, 4).check(10, make_model())


def test_batch_statistics_of_a_tower_need_a_chunk_size(make_model: MakeModel) -> None:
    model = make_model()
    Sharing(0, 0, 4).check(10, model)
    model.image_tower.backbone.append(nn.BatchNorm1d(5))
    with pytest.raises(ConfigError, match=r"BatchNorm, whose statistics .* Set train\.chunk_size, to 2 for one"):
        Sharing(0, 0, 4).check(10, model)
    Sharing(0, 0, 1).check(10, model)
    Sharing(2, 0, 4).check(10, model)
    freeze(model.image_tower)
    Sharing(0, 0, 4).check(10, model)


def test_processes_with_other_arguments_are_refused() -> None:
    def compare(world: World) -> str:
        try:
            check_agreement(world, "the same" if world.rank != 2 else "another")
        except TrainingError as error:
            return str(error)
        return ""

    told = together(threads(3), compare)
    assert told[:2] == ["", ""]
    assert told[2].startswith("process 2 has another configuration or reads other pairs than the first process.")


def test_a_process_that_is_gone_is_a_named_error() -> None:
    told = r"ended \(Connection closed by peer\).*go on with --resume"
    with pytest.raises(OtherProcessError, match=told), named_failures():
        raise RuntimeError("Connection closed by peer\nat address")


def test_the_first_process_goes_ahead() -> None:
    order: list[int] = []

    def note(world: World) -> None:
        with world.first_then_others():
            order.append(world.rank)

    class Waiting(Threads):
        def wait(self) -> None:
            self._barrier.wait(60)

    barrier = threading.Barrier(3)
    together([Waiting(rank, barrier, []) for rank in (2, 1, 0)], note)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as world:
        assert world is ALONE
    assert world.is_first


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert local_device("cuda") == torch.device("cuda", 1)
    assert local_device("cpu") == torch.device("cpu")
    assert chosen == [1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"process 2 of this machine has no GPU: torch sees 2\. Start as many"):
        local_device("cuda")
    monkeypatch.delenv("LOCAL_RANK")
    assert local_device("cuda") == torch.device("cuda")


def test_several_processes_with_batch_norm_are_refused_before_the_run_is_begun(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """As the first of two processes: the run of one is made, and its folder is not."""
    config = make_config({"train.chunk_size": 0})
    sources = load_sources(config.data, config.image)
    first, _ = threads(2)

    def check(run: Run) -> None:
        run.model.image_tower.append_for_the_test = nn.BatchNorm1d(5)
        check_new_run(run, sources, merged_splits(sources), torch.device("cpu"), first)

    with pytest.raises(ConfigError, match=r"BatchNorm, whose statistics .* Set train\.chunk_size"):
        create_run(config, tmp_path / "run", check)
    assert not (tmp_path / "run").exists()
