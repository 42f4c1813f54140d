"""GradCache: towers a chunk at a time have the gradients, the dropout and the statistics that are promised."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec
import pytest
import torch
from torch import Tensor, nn

from mmalign.config import Config
from mmalign.losses import AnyLossConfig
from mmalign.losses.intra_modal import IntraModal
from mmalign.losses.matryoshka import Matryoshka
from mmalign.losses.protocol import LossConfig
from mmalign.model import DualEncoder
from mmalign.model.chunks import Sharing, run_in_chunks
from mmalign.optim import Schedule, StepPlan
from mmalign.training.inputs import StepInputs, TowerInputs
from mmalign.training.trainer import Trainer
from tests.tolerances import CHUNKED_BFLOAT16, CHUNKED_GRADIENT

MakeModel = Callable[..., DualEncoder]
MakeConfig = Callable[..., Config]
KINDS: tuple[type[LossConfig], ...] = get_args(AnyLossConfig)
NUM_PAIRS = 10
# Not the image head: before batch statistics the gradient of a bias is nothing but rounding.
IMAGE_HEAD, TEXT_HEAD = {"dropout": 0.3}, {"dropout": 0.3, "standardize_features": True}


@pytest.fixture
def gradients(make_model: MakeModel, make_config: MakeConfig) -> Callable[..., dict[str, Tensor]]:
    """Return a function that gives the gradients of a first step of a batch of ten, of towers without dropout."""

    def take(chunk_size: int, loss: LossConfig, autocast: str = "off") -> dict[str, Tensor]:
        config = make_config(
            {
                **{"train.chunk_size": chunk_size, "train.autocast": autocast, "model.embed_dim": 4},
                **{"model.image_head": IMAGE_HEAD, "model.text_head": TEXT_HEAD, "optim.accumulate": 2},
            }
        )
        terms = (Matryoshka(dims=(2,)), IntraModal(weight=0.5))
        config = msgspec.structs.replace(config, loss=loss, terms=terms)
        model = make_model(config.model, loss=loss)
        for module in model.text_tower.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        trainer = Trainer(model, config, Schedule(NUM_PAIRS, NUM_PAIRS, epochs=2, accumulate=2))
        trainer.step(step_inputs())
        return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}

    return take


def step_inputs() -> StepInputs:
    generator = torch.Generator().manual_seed(0)
    pixels, view = torch.rand(2, NUM_PAIRS, 3, 8, 8, generator=generator)
    ids = torch.randint(1, 11, (NUM_PAIRS, 5), generator=generator)
    mask = (torch.arange(5) < torch.randint(2, 6, (NUM_PAIRS, 1), generator=generator)).long()
    plan, keys = StepPlan(0, tuple(range(NUM_PAIRS)), seed=3), torch.arange(NUM_PAIRS) // 2
    return StepInputs(plan, TowerInputs((pixels,)), TowerInputs((ids, mask)), keys, TowerInputs((view,)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_whole_batch(
    gradients: Callable[..., dict[str, Tensor]], kind: type[LossConfig]
) -> None:
    whole, chunked = gradients(0, kind()), gradients(3, kind(chunk_size=4))
    assert whole.keys() == chunked.keys()
    assert {name.split(".")[0] for name in whole} >= {"image_tower", "text_tower", "image_projection", "loss"}
    for name, wanted in whole.items():
        largest = max(each.abs().max() for other, each in whole.items() if other.split(".")[0] == name.split(".")[0])
        assert (chunked[name] - wanted).abs().max() <= CHUNKED_GRADIENT.bound * largest, name


def test_half_precision_goes_in_chunks_too(gradients: Callable[..., dict[str, Tensor]]) -> None:
    whole, chunked = (gradients(size, KINDS[0](), "bf16") for size in (0, 3))
    for name in ("image_tower.backbone.2.weight", "image_projection.1.weight"):
        assert (chunked[name] - whole[name]).abs().max() <= CHUNKED_BFLOAT16.bound * whole[name].abs().max()


def test_dropout_draws_the_same_masks_when_a_chunk_runs_again() -> None:
    tower, features = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)), torch.rand(10, 4)
    chunks = Sharing(3).chunks(10)
    (run_in_chunks(tower, (features,), chunks, 5).square().sum()).backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad for parameter in tower.parameters()]
    parts = [features[chunk.start : chunk.start + chunk.size] for chunk in chunks]
    # The same draws, all kept in memory, since a chunk alone is not run twice.
    whole = torch.cat([run_in_chunks(tower, (part,), [chunk], 5) for chunk, part in zip(chunks, parts, strict=True)])
    wanted = torch.autograd.grad(whole.square().sum(), list(tower.parameters()))
    for own, other in zip(found, wanted, strict=True):
        assert own is not None
        assert torch.allclose(own, other, rtol=CHUNKED_GRADIENT.bound)


def test_batch_norm_in_a_tower_is_over_chunks_and_counts_each_once() -> None:
    tower, features = nn.Sequential(nn.BatchNorm1d(4)), torch.rand(8, 4)
    chunks = Sharing(4).chunks(8)
    run_in_chunks(tower, (features,), chunks, 0).square().sum().backward()  # type: ignore[no-untyped-call]
    once = nn.BatchNorm1d(4)
    expected = torch.cat([once(chunk) for chunk in features.split(4)])
    assert torch.equal(run_in_chunks(tower, (features,), chunks, 0), expected)
    once(features[:4]), once(features[4:])
    for name, tensor in once.state_dict().items():
        assert torch.equal(tower.state_dict()[f"0.{name}"], tensor), name


def test_each_tower_keeps_the_activations_of_one_chunk() -> None:
    seen: list[int] = []

    class Watched(nn.Linear):
        def forward(self, features: Tensor) -> Tensor:
            seen.append(len(features))
            return super().forward(features)

    tower = Watched(4, 2)
    run_in_chunks(tower, (torch.rand(10, 4),), Sharing(4).chunks(10), 0).sum().backward()  # type: ignore[no-untyped-call]
    assert seen[:3] == [4, 3, 3]
    assert sorted(seen[3:]) == [3, 3, 4], "each chunk runs once more, for its gradients"
    seen.clear()
    run_in_chunks(tower, (torch.rand(10, 4),), Sharing().chunks(10), 0)
    assert seen == [10]
