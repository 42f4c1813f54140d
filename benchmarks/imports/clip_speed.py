"""CLIP ViT-B/32 from file to vector, the imported bundle against open_clip's eager pipeline: in turns, in one run.

    python -m benchmarks.imports.clip_speed WORK [--model ViT-B-32-quickgelu] [--seconds 20] [--int8 BUNDLE]

WORK keeps model and bundle, with random weights of the real size. The same JPEG files and captions go through both,
with the same number of threads; parity is checked before anything is timed. The last line is JSON.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
import open_clip
import torch
from PIL import Image
from typer import Option

from benchmarks.against.protocol import Kind
from benchmarks.harness.command import run
from benchmarks.harness.environment import Watch
from benchmarks.harness.timing import Vectors, Way, laps_of, median_ms
from benchmarks.imports.random_weights import save_random
from mmalign_export import import_model
from mmalign_export.golden import golden_photo
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads

SIZES: dict[Kind, tuple[int, ...]] = {"image": (1, 8), "text": (1, 32)}
INT8 = "mmalign int8"
LEAST_INT8 = {INT8: 0.97}  # cosine to our float32, so that what is timed is the same model
_SIDES = ((640, 480), (480, 640), (1024, 768), (800, 600))
_SUBJECTS = ("dog", "cat", "red bicycle", "child", "sailing boat", "old man", "horse", "green bottle")
_PLACES = ("on the beach", "in the snow", "under a tree", "beside the road")


class Timing(msgspec.Struct, frozen=True):
    """Median ms of so many images or captions in each way, and how many times the way "mmalign" that is."""

    items: str
    p50_ms: dict[str, float]
    times: dict[str, float]
    num_calls: int


class OpenClip:
    """open_clip's own pipeline, eager, on the CPU."""

    def __init__(self, place: str) -> None:
        self.model, self.transform = open_clip.create_model_from_pretrained(place)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(place)

    def pixels(self, files: Sequence[bytes]) -> Vectors:
        """Return what the tower reads of picture files: (B, 3, H, W)."""
        return torch.stack([self.transform(Image.open(io.BytesIO(file))) for file in files]).numpy()

    @torch.inference_mode()
    def images(self, files: Sequence[bytes]) -> Vectors:
        """Return the unit vectors of picture files, as one batch."""
        return self.model.encode_image(torch.from_numpy(self.pixels(files)), normalize=True).numpy()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Vectors:
        """Return the unit vectors of texts, as one batch."""
        return self.model.encode_text(self.tokenizer(texts), normalize=True).numpy()


def jpegs(count: int) -> list[bytes]:
    """Return JPEG files of photographs of several sizes."""
    photo, found = golden_photo(), []
    for number in range(count):
        buffer = io.BytesIO()
        photo.resize(_SIDES[number % len(_SIDES)]).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def captions(count: int) -> list[str]:
    """Return captions of about ten tokens."""
    return [f"a photo of a {_SUBJECTS[n % 8]} {_PLACES[n // 8 % 4]}" for n in range(count)]


def compare(
    ways_of: Callable[[Kind, int], Mapping[str, Way]],
    sizes: Mapping[Kind, Sequence[int]],
    seconds: float,
    least_cosines: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Time all ways of so many images or captions, so many seconds for each number; print them and one line of JSON."""
    watch, found = Watch(), []
    for kind, number in ((kind, number) for kind, numbers in sizes.items() for number in numbers):
        laps = laps_of(ways_of(kind, number), seconds, least_cosines)
        p50_ms = {name: median_ms(each) for name, each in laps.items()}
        times = {name: round(ms / p50_ms["mmalign"], 2) for name, ms in p50_ms.items()}
        found.append(Timing(f"{kind}s {number}", p50_ms, times, len(laps["mmalign"])))
        shown = ", ".join(f"{name} {ms:.1f} ms ({times[name]} times)" for name, ms in p50_ms.items())
        print(f"{found[-1].items:9}: {shown}", flush=True)
    print(msgspec.json.encode({"environment": watch.card(), "measured": found}).decode())


def load_ours(bundle: Path, int8: Path | None) -> dict[str, Embedder]:
    """Return our side by name: the bundle, and its quantized copy where there is one."""
    threads = available_threads()
    ours = {"mmalign": Embedder.load(bundle, provider="cpu", num_threads=threads)}
    if int8:
        ours[INT8] = Embedder.load(int8, provider="cpu", num_threads=threads, precision="int8")
    return ours


def ways_of_ours(ours: Mapping[str, Embedder], kind: Kind, items: Sequence[bytes] | Sequence[str]) -> dict[str, Way]:
    encoders = {name: each.encode_image if kind == "image" else each.encode_text for name, each in ours.items()}
    return {name: partial(encode, items) for name, encode in encoders.items()}


def main(
    work: Path,
    model: Annotated[str, Option(help="a name that open_clip knows")] = "ViT-B-32-quickgelu",
    seconds: Annotated[float, Option(help="for each of the four comparisons")] = 20.0,
    int8: Annotated[Path | None, Option(help="the bundle quantized, so that its int8 takes part")] = None,
) -> None:
    folder, bundle = save_random(model, work / model), work / f"{model}.bundle"
    if not bundle.exists():
        import_model(folder, bundle)
    torch.set_num_threads(available_threads())
    theirs = OpenClip(f"local-dir:{folder}")
    ours = load_ours(bundle, int8)

    def ways(kind: Kind, number: int) -> dict[str, Way]:
        items, way = (jpegs(number), theirs.images) if kind == "image" else (captions(number), theirs.texts)
        return {"open_clip": partial(way, items)} | ways_of_ours(ours, kind, items)

    compare(ways, SIZES, seconds, LEAST_INT8)


if __name__ == "__main__":
    run(main)
