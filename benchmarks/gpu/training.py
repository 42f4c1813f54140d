"""How fast the reference architecture trains on a device: python -m benchmarks.gpu.training TOKENIZER OUT.json

ResNet-50 and BERT-base, random weights, both learning, on the demo's drawings at 224 pixels. A step of `Trainer` is
timed beside a bare loop (the same towers, autocast, cross entropy, AdamW, no checks), in turns, and set beside the rate
of one large matrix product in the same precision; then what the loader gives, by its worker processes. Batches in
chunks (GradCache) have no bare loop. TOKENIZER is a folder with BERT's tokenizer.json, such as the demo's bundle.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from typer import Argument, Option

from benchmarks.gpu.towers import Device
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.places import ROOT
from benchmarks.harness.timing import timed
from mmalign.config import Config, parse_config
from mmalign.data import Pair
from mmalign.features import ModelFeatures
from mmalign.model import DualEncoder
from mmalign.optim import Schedule, plan_steps
from mmalign.run import create_run
from mmalign.run.model import dual_model
from mmalign.run.pairs import load_sources, merged_splits
from mmalign.training.inputs import StepInputs, Steps, TowerInputs, load_steps, prepare_steps
from mmalign.training.trainer import Trainer
from mmalign_runtime.engine.threads import available_threads

Autocast = Literal["off", "bf16", "fp16"]

_PACKS = ROOT / "benchmarks/emoji/packs"
_WARM_UP = 5
_COUNTED_ROWS = 16
_NUM_BATCHES = 4  # of real drawings, taken again and again
_WORKERS = (0, 4, 8, 15)  # processes of the loader
_DEFAULT = ("off:256", "bf16:256", "bf16:1024", "fp16:256", "bf16+compile:256")
_HEAD = (
    *("autocast", "compiled", "batch", "chunk", "step ms", "pairs/s", "bare loop ms", "ours / bare"),
    *("peak MB", "TFLOP/s", "of a product"),
)


class StepTiming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Median ms of a step, and of the bare loop's; MB are the device's peak, a share is of `Product.tflop_s`."""

    autocast: Autocast
    compiled: bool
    batch_size: int
    chunk_size: int  # 0: the whole batch at once
    step_ms: float
    bare_ms: float | None
    peak_mb: float
    tflop_s: float
    share_of_product: float


class Setting(NamedTuple):
    """One setting, written as "bf16+compile:4096/256": autocast, compiled or not, batch size, chunk size."""

    autocast: Autocast
    compiled: bool
    batch_size: int
    chunk_size: int


class LoaderTiming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the loader gives: images decoded and augmented, captions tokenized."""

    num_workers: int
    images_per_s: float


class Bench:
    """The model, its data and its steps, for one setting."""

    def __init__(self, config: Config, pairs: Sequence[Pair], folder: Path, device: Device) -> None:
        created = create_run(config, folder / "run")
        self.config = config
        self.device = torch.device(device)
        self.model: DualEncoder = created.model.to(self.device)
        features = ModelFeatures(dual_model(created), folder / "cache", self.device, is_training=True)
        self.steps: Steps = prepare_steps(config, features, pairs)
        self.schedule = Schedule(len(pairs), config.train.batch_size, epochs=1000)

    def batches(self, num_batches: int, num_workers: int) -> Iterator[StepInputs]:
        """Yield the first batches as training does."""
        plans = plan_steps(self.schedule, self.config.train.seed)
        return load_steps(self.steps, islice(plans, num_batches), num_workers)

    def tensors(self, inputs: StepInputs, num_rows: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the first rows of a batch on the device, all by default: images, and what texts are."""
        assert isinstance(inputs.image, TowerInputs)
        assert isinstance(inputs.text, TowerInputs)
        images, *texts = (tensor[:num_rows].to(self.device) for tensor in (*inputs.image.tensors, *inputs.text.tensors))
        return images, texts

    def bare_step(self) -> Callable[[StepInputs], None]:
        """Return a step without checks: what one writes by hand."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        name = self.config.train.autocast
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
        scaler = torch.amp.GradScaler(self.device.type, enabled=name == "fp16")

        def step(inputs: StepInputs) -> None:
            images, texts = self.tensors(inputs)
            if dtype is not None:
                images = images.contiguous(memory_format=torch.channels_last)
            with nullcontext() if dtype is None else torch.autocast(self.device.type, dtype):
                logits = 14.0 * self.model.encode_image(images) @ self.model.encode_text(*texts).T  # (B, B)
                targets = torch.arange(len(logits), device=self.device)
                loss = functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)
            torch.autograd.backward(scaler.scale(loss))
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)

        return step


def settings(tokenizer: Path, device: Device, setting: Setting) -> Config:
    columns = {"caption_columns": ["label", "keywords"], "concept_column": "concept", "group_column": "group"}
    packs = [{"path": str(_PACKS / f"{name}.parquet")} | columns for name in ("noto", "twemoji", "emojione")]
    train = dict(zip(("autocast", "compile", "batch_size", "chunk_size"), setting, strict=True))
    given = {
        "data": {"sources": packs},
        "image_tower": {"weights": "random"},
        "text_tower": {"weights": "random", "tokenizer": str(tokenizer)},
        "augment": {"crop_scale": 0.4, "horizontal_flip": 0.5, "color_jitter": 0.2},
        "train": {"device": device} | train,
    }
    return parse_config(given, "benchmarks/gpu/training.py")


def time_steps(bench: Bench, setting: Setting, seconds: float) -> StepTiming:
    """Time our step and the bare one, in turns on the same batches."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    batches = list(bench.batches(_NUM_BATCHES, min(8, available_threads())))
    bench.model.train()
    ours = Trainer(bench.model, bench.config, bench.schedule).step
    ways: list[Callable[[StepInputs], object]] = [ours] if setting.chunk_size else [ours, bench.bare_step()]
    taken: list[list[float]] = [[] for _ in ways]
    for way in ways:
        for i in range(_WARM_UP):
            way(batches[i % len(batches)])
    until = time.perf_counter() + seconds
    i = 0
    while time.perf_counter() < until or i < len(batches):
        for way, times in zip(ways, taken, strict=True):
            times.append(_lap_s(bench.device, partial(way, batches[i % len(batches)])))
        i += 1
    medians = [round(float(np.median(times)) * 1000, 2) for times in taken]
    peak = torch.cuda.max_memory_allocated() / 2**20 if bench.device.type == "cuda" else 0.0
    rate = step_flops(bench, batches[0]) / medians[0] / 1e9
    share = rate / product_tflop_s(bench.device, setting.autocast)
    bare_ms = medians[1] if len(medians) > 1 else None
    return StepTiming(*setting, medians[0], bare_ms, round(peak, 1), round(rate, 1), round(share, 3))


def step_flops(bench: Bench, inputs: StepInputs) -> int:
    """Return the operations of a bare step's products and convolutions, forward and backward, without chunks."""
    share = min(_COUNTED_ROWS, len(inputs.plan.rows))  # in float32, whatever the step does: a few rows fit
    images, texts = bench.tensors(inputs, share)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward((bench.model.encode_image(images) * bench.model.encode_text(*texts)).sum())
    bench.model.zero_grad(set_to_none=True)
    return counter.get_total_flops() * len(inputs.plan.rows) // share


@cache
def product_tflop_s(device: torch.device, autocast: Autocast) -> float:
    """Return what one large matrix product reaches on a device in that precision, in TFLOP/s."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[autocast]
    left, right = torch.randn(2, side, side, device=device, dtype=dtype)
    laps_s = [_lap_s(device, lambda: left @ right) for _ in range(_WARM_UP + 10)]
    return 2 * side**3 / float(np.median(laps_s[_WARM_UP:])) / 1e12


def _lap_s(device: torch.device, call: Callable[[], object]) -> float:
    """Return the seconds of a call, with what the device has left to do of it."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    return timed(lambda: (call(), synchronize()))


def time_loader(bench: Bench, num_workers: int, num_batches: int) -> LoaderTiming:
    """Return images a second, the first batch and the start of the workers apart."""
    loaded = bench.batches(num_batches + 1, num_workers)
    next(loaded)
    start = time.perf_counter()
    num_images = sum(len(inputs.plan.rows) for inputs in loaded)
    return LoaderTiming(num_workers, round(num_images / (time.perf_counter() - start), 1))


def _asked(texts: Sequence[str]) -> Iterator[Setting]:
    for text in texts:
        how, _, sizes = text.partition(":")
        name, _, compiled = how.partition("+")
        batch_size, _, chunk_size = sizes.partition("/")
        (autocast,) = (each for each in get_args(Autocast) if each == name)
        yield Setting(autocast, compiled == "compile", int(batch_size), int(chunk_size or 0))


def main(
    tokenizer: Annotated[Path, Argument(help="a folder with BERT's tokenizer.json")],
    out: Annotated[Path, Argument(help="the JSON file that gets the results")],
    asked: Annotated[list[str], Argument(help="settings: autocast[+compile]:batch size[/chunk size]")] = [*_DEFAULT],  # noqa: B006
    device: Annotated[Device, Option(help="cpu tries the script itself")] = "cuda",
    seconds: Annotated[float, Option(help="seconds for each setting")] = 5.0,
    loader_batches: Annotated[int, Option(help="batches for each figure of the loader")] = 12,
) -> None:
    watch, found, loaders, pairs = Watch(), list[StepTiming](), list[LoaderTiming](), list[Pair]()
    for setting in _asked(asked):
        config = settings(tokenizer, device, setting)
        pairs = pairs or list(merged_splits(load_sources(config.data, config.image, config.text)).train)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(config, pairs, Path(folder), device)
            found.append(time_steps(bench, setting, seconds))
            print(found[-1], flush=True)
            loaders = loaders or [time_loader(bench, count, loader_batches) for count in _WORKERS]
    name = torch.cuda.get_device_name() if device == "cuda" else "no device"
    watch.write(out, device=name, steps=found, loaders=loaders)
    print(f"{name}, torch {torch.__version__}\n")
    print(table(_HEAD, [_cells(each) for each in found]), end="\n\n")
    print(table(("loader's processes", "images/s"), [[str(e.num_workers), f"{e.images_per_s:,.0f}"] for e in loaders]))


def _cells(each: StepTiming) -> list[str]:
    how = [each.autocast, "yes" if each.compiled else "no", str(each.batch_size), str(each.chunk_size or "")]
    bare = ["", ""] if each.bare_ms is None else [f"{each.bare_ms:.1f}", f"{each.step_ms / each.bare_ms:.2f}"]
    speed = [f"{each.step_ms:.1f}", f"{each.batch_size / each.step_ms * 1000:,.0f}"]
    return [*how, *speed, *bare, f"{each.peak_mb:,.0f}", f"{each.tflop_s:.1f}", f"{each.share_of_product:.0%}"]


if __name__ == "__main__":
    run(main)
