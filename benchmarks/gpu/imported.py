"""CLIP at its real size, imported and run on a GPU beside open_clip: python -m benchmarks.gpu.imported WORK OUT.json

Each model (random weights, kept in WORK) is imported, gets float16 by `mmalign quantize`, is verified in both
precisions, and is timed in turns with open_clip on the same device: towers from tensors to vectors on the host, and
whole pipelines from file or caption to vector.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.interleave import interleaved, timed
from benchmarks.harness.results import write_result
from benchmarks.harness.statistics import median_ms
from benchmarks.imports.clip_speed import OpenClip, captions, jpegs
from benchmarks.imports.random_clip import save_random
from mmalign_export import import_model, quantize
from mmalign_export.quantization.budget import parse_budget
from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.spec import ImageTower, Modality, Precision
from mmalign_runtime.verify import verify_bundle

Device = Literal["cpu", "cuda"]
Vectors = NDArray[np.float32]
Way = Callable[[], Vectors]

BATCH_SIZES = (1, 8, 32, 128)
WHOLE_SIZES = (1, 32)
_LEAST_COSINE = 0.999
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
_NUM_ROUNDS, _NUM_UNTIMED = 15, 3


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `verify` found of one model in one precision; `failed` names cases and checks."""

    model: str
    precision: Precision
    num_cases: int
    failed: tuple[str, ...]
    max_abs_difference: float


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Median ms of a batch in each way; `what` is what each call goes through."""

    model: str
    what: str
    batch_size: int
    p50_ms: dict[str, float]


class Imported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measurement."""

    environment: Environment
    device: str
    proofs: tuple[Proof, ...]
    timings: tuple[Timing, ...]


class DeviceClip(OpenClip):
    """open_clip on a device, towers compiled or not."""

    def __init__(self, place: str, device: Device, precision: Precision, *, compiled: bool = False) -> None:
        self.device, self.dtype = device, torch.float16 if precision == "fp16" else torch.float32
        self.model, self.transform = open_clip.create_model_from_pretrained(place, precision=precision, device=device)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(place)
        self._image, self._text = self.model.encode_image, self.model.encode_text
        if compiled:
            self._image, self._text = torch.compile(self._image), torch.compile(self._text)

    @torch.inference_mode()
    def image_tower(self, pixels: Vectors) -> Vectors:
        """Return the unit vectors of pixels that stand on the host."""
        tensor = torch.from_numpy(pixels).to(self.device, self.dtype)
        return self._image(tensor, normalize=True).float().cpu().numpy()

    @torch.inference_mode()
    def text_tower(self, ids: torch.Tensor) -> Vectors:
        """Return the unit vectors of token ids that stand on the host."""
        return self._text(ids.to(self.device), normalize=True).float().cpu().numpy()

    def images(self, files: list[bytes]) -> Vectors:
        """Return the unit vectors of picture files, as one batch."""
        return self.image_tower(self.pixels(files))

    def texts(self, texts: list[str]) -> Vectors:
        """Return the unit vectors of texts, as one batch."""
        return self.text_tower(self.tokenizer(texts))


def ready_bundle(model: str, work: Path, device: Device) -> Path:
    """Make the model and its bundle with float16 towers, where they are not there yet."""
    plain, halved = work / f"{model}.bundle", work / f"{model}.fp16.bundle"
    if not plain.exists():
        import_model(save_random(model, work / model), plain)
    if not halved.exists():
        quantize(plain, halved, budget=parse_budget("cosine=0.999"), precision="fp16", provider=device)
    return halved


def proofs(model: str, bundle: Path, device: Device) -> Iterator[Proof]:
    """Verify a bundle in each of its precisions, with the towers that have it."""
    for precision in _PRECISIONS:
        report = verify_bundle(bundle, provider=device, precision=precision, towers=towers_in(bundle, precision))
        failed = tuple(each.name for each in (*report.cases, *report.checks) if not each.passed)
        worst = max(case.max_abs_difference for case in report.cases)
        yield Proof(model, precision, len(report.cases), failed, worst)


def towers_in(bundle: Path, precision: Precision) -> tuple[Modality, ...]:
    """Return the towers that a bundle has in a precision: float16 is added only where it is faster."""
    offered = {each.tower for each in open_bundle(bundle).spec.offered() if each.precision == precision}
    return tuple(each for each in get_args(Modality) if each in offered)


def timings(model: str, work: Path, bundle: Path, device: Device) -> Iterator[Timing]:
    """Time towers and whole pipelines, every way in turns."""
    place = f"local-dir:{work / model}"
    theirs = {
        "open_clip float32": DeviceClip(place, device, "fp32"),
        "open_clip float16": DeviceClip(place, device, "fp16"),
        "open_clip float16, compiled": DeviceClip(place, device, "fp16", compiled=True),
    }
    offered = {precision: towers_in(bundle, precision) for precision in _PRECISIONS}
    ours = {
        f"mmalign {'float16' if precision == 'fp16' else 'float32'}": Embedder.load(
            bundle, provider=device, precision=precision, towers=towers
        )
        for precision, towers in offered.items()
        if towers
    }
    eager = {name: each for name, each in theirs.items() if "compiled" not in name}
    for size in BATCH_SIZES:
        pixels, texts = theirs["open_clip float32"].pixels(jpegs(size)), captions(size)
        ways: dict[str, Way] = {name: partial(each.image_tower, pixels) for name, each in theirs.items()}
        ways |= {name: partial(_our_image_tower, each, pixels) for name, each in ours.items() if "image" in each.towers}
        yield Timing(model, "image tower", size, in_turns(ways))
        ids = theirs["open_clip float32"].tokenizer(texts)
        ways = {name: partial(each.text_tower, ids) for name, each in theirs.items()}
        ways |= {name: partial(each.encode_text, texts) for name, each in ours.items() if "text" in each.towers}
        yield Timing(model, "text tower (ours with its tokenizer)", size, in_turns(ways))
    for size in WHOLE_SIZES:
        files = jpegs(size)
        ways = {name: partial(each.images, files) for name, each in eager.items()}
        ways |= {name: partial(each.encode_image, files) for name, each in ours.items() if "image" in each.towers}
        yield Timing(model, "JPEG files", size, in_turns(ways))
    for embedder in ours.values():
        embedder.close()


def _our_image_tower(embedder: Embedder, pixels: Vectors) -> Vectors:
    tower = embedder.bundle.spec.towers["image"]
    assert isinstance(tower, ImageTower)
    return embedder.image.session.run({tower.inputs.pixel_values: pixels})


def in_turns(ways: dict[str, Way]) -> dict[str, float]:
    """Return each way's median ms; raise AssertionError for vectors unlike the first way's, before or after."""
    first = next(iter(ways.values()))()
    _check(first, ways)
    calls = {name: partial(timed, way) for name, way in ways.items()}
    laps = interleaved(calls, _NUM_ROUNDS, random.Random(0), num_untimed=_NUM_UNTIMED)
    _check(first, ways)  # a shape's first run and its later ones may take other paths
    return {name: median_ms(each) for name, each in laps.items()}


def _check(first: Vectors, ways: dict[str, Way]) -> None:
    for name, way in ways.items():
        lowest = float((first * way()).sum(axis=1).min())
        assert lowest > _LEAST_COSINE, f"{name} gives other vectors: lowest cosine {lowest:.5f}"


def lines(found: Imported) -> list[str]:
    """Return both tables in Markdown."""
    rows = [f"{found.device}, torch {found.environment.versions['torch']}", ""]
    rows += ["| model | precision | golden cases | not passed | largest difference |", "|" + "---|" * 5]
    for each in found.proofs:
        what = f"| {each.model} | {each.precision} | {each.num_cases} | {', '.join(each.failed) or 'none'} "
        rows.append(f"{what}| {each.max_abs_difference:.1e} |")
    names = list(dict.fromkeys(name for each in found.timings for name in each.p50_ms))
    rows += ["", f"| model | what | batch | {' | '.join(names)} |", "|" + "---|" * (3 + len(names))]
    for timing in found.timings:
        figures = (f"{timing.p50_ms[name]:.2f}" if name in timing.p50_ms else "" for name in names)
        rows.append(f"| {timing.model} | {timing.what} | {timing.batch_size} | {' | '.join(figures)} |")
    return rows


def measure(models: Sequence[str], work: Path, device: Device) -> Imported:
    """Import, verify and time every model."""
    watch = Watch("python -m benchmarks.gpu.imported WORK OUT", available_threads())
    proven: list[Proof] = []
    timed_ways: list[Timing] = []
    for model in models:
        bundle = ready_bundle(model, work, device)
        proven += proofs(model, bundle, device)
        for timing in timings(model, work, bundle, device):
            print(timing, flush=True)
            timed_ways.append(timing)
    name = torch.cuda.get_device_name() if device == "cuda" else "no device"
    return Imported(watch.card(), name, tuple(proven), tuple(timed_ways))


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="keeps models and bundles")
    parser.add_argument("out", type=Path, help="the JSON file that gets the results")
    parser.add_argument("--models", nargs="+", default=["ViT-B-32-quickgelu", "ViT-L-14-quickgelu"])
    parser.add_argument("--provider", choices=get_args(Device), default="cuda", help="cpu tries the script itself")
    options = parser.parse_args()
    found = measure(options.models, options.work, options.provider)
    write_result(found, options.out)
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
