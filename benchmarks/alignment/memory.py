"""Resident memory of training steps: a batch of 256 as it is, and of 4,096 in chunks. Towers learn, all random.

python -m benchmarks.alignment.memory

Each setting runs in a process of its own, which says its highest resident memory after two steps.
"""

import resource
from pathlib import Path

import msgspec
import torch
import transformers

from benchmarks.harness.command import run
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.processes import apart
from benchmarks.harness.results import write_result
from mmalign.config import Config, DataConfig, TrainConfig
from mmalign.data import DataSource
from mmalign.losses.infonce import InfoNCEConfig
from mmalign.model import DualEncoder
from mmalign.optim import Schedule, StepPlan
from mmalign.towers.text import create_text_tower
from mmalign.towers.vision import create_image_tower
from mmalign.training.inputs import StepInputs, TowerInputs
from mmalign.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results/memory.json"
SIDE, NUM_TOKENS, NUM_STEPS = 32, 16, 2
SETTINGS = ((256, 0, 0), (4096, 64, 256))  # batch, chunk of towers, chunk of the loss


class Memory(msgspec.Struct, frozen=True):
    """Highest resident memory, in MB, of a batch size and its chunks."""

    batch_size: int
    chunk_size: int
    loss_chunk_size: int
    resident_mb: float


class Result(msgspec.Struct, frozen=True):
    """All settings, with the machine."""

    environment: Environment
    found: tuple[Memory, ...]


def main() -> None:
    """Measure each setting in a process of its own."""
    watch = Watch(torch.get_num_threads())
    found = tuple(Memory(*setting, apart(_resident_mb, *setting)) for setting in SETTINGS)
    write_result(Result(watch.card(), found), RESULTS)
    rows = [[f"{value:,.0f}" for value in msgspec.structs.astuple(each)] for each in found]
    print(table(["batch", "chunk", "rows of the loss", "resident, MB"], rows))
    print(f"{found[1].resident_mb / found[0].resident_mb - 1:+.1%}")


def _resident_mb(batch_size: int, chunk_size: int, loss_chunk_size: int) -> float:
    loss = InfoNCEConfig(chunk_size=loss_chunk_size)
    config = Config(
        data=DataConfig(sources=(DataSource(path="none.csv"),)),
        loss=loss,
        train=TrainConfig(batch_size=batch_size, chunk_size=chunk_size, device="cpu"),
    )
    torch.manual_seed(0)
    bert = transformers.BertConfig(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512)
    model = DualEncoder(create_image_tower("timm:resnet18"), create_text_tower(bert, "mean"), config.model, loss)
    trainer = Trainer(model, config, Schedule(batch_size, batch_size, epochs=NUM_STEPS))
    ids, rows = torch.randint(1, bert.vocab_size, (batch_size, NUM_TOKENS)), tuple(range(batch_size))
    image = TowerInputs((torch.rand(batch_size, 3, SIDE, SIDE),))
    for step in range(NUM_STEPS):
        text = TowerInputs((ids, torch.ones_like(ids)))
        trainer.step(StepInputs(StepPlan(step, rows, seed=step), image, text, torch.arange(batch_size)))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3  # kilobytes on Linux


if __name__ == "__main__":
    run(main)
