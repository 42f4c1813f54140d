"""CLIP ViT-B/32 from file to vector, the imported bundle against open_clip's eager pipeline: in turns, in one run.

    python -m benchmarks.imports.clip_speed WORK [--model ViT-B-32-quickgelu] [--seconds 20]

WORK keeps model and bundle, with random weights of the real size. The same JPEG files and captions go through both,
with the same number of threads; parity is checked before anything is timed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.environment import Watch
from benchmarks.harness.interleave import interleaved, timed
from benchmarks.harness.statistics import median_ms
from benchmarks.imports.random_clip import save_random
from mmalign_export import import_model
from mmalign_export.golden import golden_photo
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads

_SIDES = ((640, 480), (480, 640), (1024, 768), (800, 600))
_LEAST_COSINE = 0.9999
_SUBJECTS = ("dog", "cat", "red bicycle", "child", "sailing boat", "old man", "horse", "green bottle")
_PLACES = ("on the beach", "in the snow", "under a tree", "beside the road")

Vectors = NDArray[np.float32]
Way = Callable[[], Vectors]
Kind = Literal["images", "captions"]
SIZES: dict[Kind, tuple[int, ...]] = {"images": (1, 8), "captions": (1, 32)}


class OpenClip:
    """open_clip's own pipeline, eager, on the CPU."""

    def __init__(self, place: str) -> None:
        self.model, self.transform = open_clip.create_model_from_pretrained(place)
        self.model.eval()
        self.tokenizer = open_clip.get_tokenizer(place)

    def pixels(self, files: list[bytes]) -> Vectors:
        """Return what the tower reads of picture files: (B, 3, H, W)."""
        return torch.stack([self.transform(Image.open(io.BytesIO(file))) for file in files]).numpy()

    @torch.inference_mode()
    def images(self, files: list[bytes]) -> Vectors:
        """Return the unit vectors of picture files, as one batch."""
        return self.model.encode_image(torch.from_numpy(self.pixels(files)), normalize=True).numpy()

    @torch.inference_mode()
    def texts(self, texts: list[str]) -> Vectors:
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
) -> dict[str, dict[str, object]]:
    """Time all ways from items to unit vectors, so many seconds for each number of items; print and return medians.

    `ways_of` gives them by name for so many images or captions. Every way must give the first one's vectors, at a
    cosine of at least 0.9999 or what `least_cosines` says for it. `times` are medians by that of the way "mmalign".
    """
    found: dict[str, dict[str, object]] = {}
    for kind, numbers in sizes.items():
        for number in numbers:
            ways = ways_of(kind, number)
            _check(ways, least_cosines)
            timers = {name: partial(timed, way) for name, way in ways.items()}
            num_rounds = max(5, round(seconds / sum(timer() for timer in timers.values())))
            laps = interleaved(timers, num_rounds, random.Random(0))
            p50_ms = {name: median_ms(each) for name, each in laps.items()}
            times = {name: round(ms / p50_ms["mmalign"], 2) for name, ms in p50_ms.items()}
            found[f"{kind} {number}"] = {"p50_ms": p50_ms, "times": times, "calls": num_rounds}
            shown = ", ".join(f"{name} {ms:.1f} ms ({times[name]} times)" for name, ms in p50_ms.items())
            print(f"{kind:9}{number:3}: {shown}", flush=True)
    return found


def _check(ways: Mapping[str, Way], least_cosines: Mapping[str, float]) -> None:
    """Call each way once. Raises SystemExit where one gives other vectors than the first."""
    vectors = {name: way() for name, way in ways.items()}
    first = next(iter(vectors.values()))
    for name, other in vectors.items():
        lowest = float((first * other).sum(axis=1).min())
        if not lowest > least_cosines.get(name, _LEAST_COSINE):
            raise SystemExit(f"{name} gives other vectors: lowest cosine {lowest:.5f}. Its speed would mean nothing.")


def main() -> None:
    """Make the bundle where it is not there yet, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--model", default="ViT-B-32-quickgelu", choices=open_clip.list_models())
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of the four comparisons")
    options = parser.parse_args()
    folder, bundle = save_random(options.model, options.work / options.model), options.work / f"{options.model}.bundle"
    if not bundle.exists():
        import_model(folder, bundle)
    threads = available_threads()
    torch.set_num_threads(threads)
    watch = Watch(f"python -m benchmarks.imports.clip_speed WORK --model {options.model}", threads)
    theirs, ours = OpenClip(f"local-dir:{folder}"), Embedder.load(bundle, provider="cpu", num_threads=threads)

    def ways(kind: Kind, number: int) -> dict[str, Way]:
        if kind == "images":
            files = jpegs(number)
            return {"open_clip": partial(theirs.images, files), "mmalign": partial(ours.encode_image, files)}
        texts = captions(number)
        return {"open_clip": partial(theirs.texts, texts), "mmalign": partial(ours.encode_text, texts)}

    found = compare(ways, SIZES, options.seconds)
    print(json.dumps({"environment": msgspec.to_builtins(watch.card()), "measured": found}))


if __name__ == "__main__":
    main()
