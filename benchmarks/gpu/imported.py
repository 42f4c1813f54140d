"""CLIP at its real size, imported and run on a GPU beside open_clip: python -m benchmarks.gpu.imported WORK OUT.json

Each model (random weights, kept in WORK) is imported, gets float16 by `mmalign quantize`, is verified in both
precisions, and is timed in turns with open_clip on the same device: towers from tensors to vectors on the host, and
whole pipelines from file or caption to vector.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import msgspec
import open_clip
import torch
from typer import Argument, Option

from benchmarks.gpu.towers import Device
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.markdown import table
from benchmarks.harness.timing import Vectors, Way, laps_of, median_ms
from benchmarks.imports.clip_speed import OpenClip, captions, jpegs
from benchmarks.imports.random_weights import save_random
from mmalign_export import import_model, quantize
from mmalign_export.quantization.budget import parse_budget
from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.spec import ImageTower, Modality, Precision
from mmalign_runtime.verify import verify_bundle

BATCH_SIZES = (1, 8, 32, 128)
WHOLE_SIZES = (1, 32)
LEAST_COSINE, SECONDS = 0.999, 3.0
_PRECISIONS: dict[str, Precision] = {"float32": "fp32", "float16": "fp16"}


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

    def images(self, files: Sequence[bytes]) -> Vectors:
        """Return the unit vectors of picture files, as one batch."""
        return self.image_tower(self.pixels(files))

    def texts(self, texts: Sequence[str]) -> Vectors:
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
    for precision in _PRECISIONS.values():
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
    theirs = {f"open_clip {name}": DeviceClip(place, device, each) for name, each in _PRECISIONS.items()}
    theirs["open_clip float16, compiled"] = DeviceClip(place, device, "fp16", compiled=True)
    ours = {
        f"mmalign {name}": Embedder.load(bundle, provider=device, precision=precision, towers=towers)
        for name, precision in _PRECISIONS.items()
        if (towers := towers_in(bundle, precision))
    }
    eager = {name: each for name, each in theirs.items() if "compiled" not in name}
    for size in BATCH_SIZES:
        pixels, texts = theirs["open_clip float32"].pixels(jpegs(size)), captions(size)
        ways: dict[str, Way] = {name: partial(each.image_tower, pixels) for name, each in theirs.items()}
        ways |= {name: partial(_our_image_tower, each, pixels) for name, each in ours.items() if "image" in each.towers}
        yield Timing(model, "image tower", size, medians_ms(ways))
        ids = theirs["open_clip float32"].tokenizer(texts)
        ways = {name: partial(each.text_tower, ids) for name, each in theirs.items()}
        ways |= {name: partial(each.encode_text, texts) for name, each in ours.items() if "text" in each.towers}
        yield Timing(model, "text tower (ours with its tokenizer)", size, medians_ms(ways))
    for size in WHOLE_SIZES:
        files = jpegs(size)
        ways = {name: partial(each.images, files) for name, each in eager.items()}
        ways |= {name: partial(each.encode_image, files) for name, each in ours.items() if "image" in each.towers}
        yield Timing(model, "JPEG files", size, medians_ms(ways))
    for embedder in ours.values():
        embedder.close()


def medians_ms(ways: dict[str, Way]) -> dict[str, float]:
    return {name: median_ms(each) for name, each in laps_of(ways, SECONDS, dict.fromkeys(ways, LEAST_COSINE)).items()}


def _our_image_tower(embedder: Embedder, pixels: Vectors) -> Vectors:
    tower = embedder.bundle.spec.tower("image", ImageTower)
    return embedder.image.session.run({tower.inputs.pixel_values: pixels})


def main(
    work: Annotated[Path, Argument(help="keeps models and bundles")],
    out: Annotated[Path, Argument(help="the JSON file that gets the results")],
    models: Annotated[list[str], Argument(help="of open_clip")] = ["ViT-B-32-quickgelu", "ViT-L-14-quickgelu"],  # noqa: B006
    provider: Annotated[Device, Option(help="cpu tries the script itself")] = "cuda",
) -> None:
    watch, proven, timed_ways = Watch(), list[Proof](), list[Timing]()
    for model in models:
        bundle = ready_bundle(model, work, provider)
        proven += proofs(model, bundle, provider)
        for timing in timings(model, work, bundle, provider):
            print(timing, flush=True)
            timed_ways.append(timing)
    device = torch.cuda.get_device_name() if provider == "cuda" else "no device"
    watch.write(out, device=device, proofs=proven, timings=timed_ways)
    print(f"{device}, torch {torch.__version__}\n")
    rows = [
        [each.model, each.precision, str(each.num_cases), ", ".join(each.failed), f"{each.max_abs_difference:.1e}"]
        for each in proven
    ]
    print(table(("model", "precision", "golden cases", "not passed", "largest difference"), rows), end="\n\n")
    names = list(dict.fromkeys(name for each in timed_ways for name in each.p50_ms))
    rows = [
        [each.model, each.what, str(each.batch_size), *(f"{each.p50_ms.get(name, float('nan')):.2f}" for name in names)]
        for each in timed_ways
    ]
    print(table(("model", "what", "batch", *names), rows))


if __name__ == "__main__":
    run(main)
