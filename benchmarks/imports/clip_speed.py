"""CLIP ViT-B/32 from file to vector, the imported bundle against open_clip's eager pipeline: in turns, in one run.

    python -m benchmarks.imports.clip_speed WORK [--model ViT-B-32-quickgelu] [--seconds 20]

WORK keeps model and bundle, with random weights of the real size. The same JPEG files and captions go through both,
with the same number of threads; parity is checked before anything is timed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from types import MappingProxyType

import msgspec
import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.environment import Watch
from benchmarks.imports.random_clip import save_random
from mmalign_export import import_model
from mmalign_export.golden import golden_photo
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads

IMAGE_SIZES, TEXT_SIZES = (1, 8), (1, 32)
_SIDES = ((640, 480), (480, 640), (1024, 768), (800, 600))
_LEAST_COSINE = 0.9999
_SUBJECTS = ("dog", "cat", "red bicycle", "child", "sailing boat", "old man", "horse", "green bottle")
_PLACES = ("on the beach", "in the snow", "under a tree", "beside the road")

Vectors = NDArray[np.float32]


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


def timed_in_turns(
    ways: dict[str, Callable[[], Vectors]], seconds: float, least_cosines: Mapping[str, float] = MappingProxyType({})
) -> dict[str, list[float]]:
    """Call each way in turn for so long in all, after one call of each; return its seconds a call.

    Every way must give the first one's vectors, at a cosine of at least 0.9999 or what `least_cosines` says for it.
    """
    vectors = {name: way() for name, way in ways.items()}
    first = next(iter(vectors.values()))
    for name, other in vectors.items():
        lowest = float((first * other).sum(axis=1).min())
        assert lowest > least_cosines.get(name, _LEAST_COSINE), (
            f"{name} gives other vectors: lowest cosine {lowest:.5f}"
        )
    laps: dict[str, list[float]] = {name: [] for name in ways}
    end = perf_counter() + seconds
    while perf_counter() < end or len(next(iter(laps.values()))) < 5:
        for name, way in ways.items():
            start = perf_counter()
            way()
            laps[name].append(perf_counter() - start)
    return laps


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
    found = {}
    for kind, sizes in (("images", IMAGE_SIZES), ("captions", TEXT_SIZES)):
        for size in sizes:
            files, texts = jpegs(size), captions(size)
            ways: dict[str, Callable[[], Vectors]] = (
                {
                    "open_clip": lambda files=files: theirs.images(files),
                    "mmalign": lambda files=files: ours.encode_image(files),
                }
                if kind == "images"
                else {
                    "open_clip": lambda texts=texts: theirs.texts(texts),
                    "mmalign": lambda texts=texts: ours.encode_text(texts),
                }
            )
            laps = timed_in_turns(ways, options.seconds)
            p50 = {name: 1000 * float(np.median(each)) for name, each in laps.items()}
            best = {name: 1000 * min(each) for name, each in laps.items()}
            found[f"{kind} {size}"] = {
                "p50_ms": p50,
                "best_ms": best,
                "times": p50["open_clip"] / p50["mmalign"],
                "calls": len(laps["mmalign"]),
            }
            print(
                f"{kind:9} {size:3}: open_clip {p50['open_clip']:8.1f} ms, mmalign {p50['mmalign']:8.1f} ms, "
                f"{p50['open_clip'] / p50['mmalign']:.2f} times (best calls {best['open_clip'] / best['mmalign']:.2f})"
            )
    print(json.dumps({"environment": msgspec.to_builtins(watch.card()), "measured": found}))


if __name__ == "__main__":
    main()
