"""Images/s and resident memory from 1,000 to 50,000 images: python -m benchmarks.growth.images --out RESULT.json

One Embedder, the thumbnails of the comparison cycled through `stream_images`. Results are written at every level.
"""

from __future__ import annotations

import argparse
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

from benchmarks.against.images import build_image_sets
from benchmarks.growth.results import Growth, Level
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import CACHE, ROOT
from benchmarks.harness.processes import resident_mb
from benchmarks.harness.results import write_result
from mmalign_runtime import Embedder
from mmalign_runtime.engine.threads import available_threads

NUM_IMAGES = 50_000
EVERY = 1000
# The first images start threads and plan memory.
_NUM_WARMUP = 200


def main() -> None:
    """Embed, measure, write."""
    parser = argparse.ArgumentParser(description="Images/s and memory as the number of images grows.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that gets the results")
    parser.add_argument("--bundle", type=Path, default=ROOT / "demo/bundle", help="the bundle")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder with the image sets")
    parser.add_argument("--images", type=int, default=NUM_IMAGES, help="how many")
    options = parser.parse_args()
    watch = Watch(f"python -m benchmarks.growth.images --images {options.images}", available_threads())
    thumbnails = build_image_sets(options.cache)["thumbnails"]
    growth = Growth(watch.card(), options.bundle.parent.name + "/" + options.bundle.name, [])
    with Embedder.load(options.bundle, towers=("image",)) as embedder:
        for _ in embedder.stream_images(islice(cycle(thumbnails), _NUM_WARMUP)):
            pass
        watch.restart()
        start = perf_counter()
        stream = embedder.stream_images(islice(cycle(thumbnails), options.images))
        for number, _ in enumerate(stream, start=1):
            if number % EVERY == 0:
                speed = number / (perf_counter() - start)
                growth.levels.append(Level(number, round(speed, 2), round(resident_mb(), 1)))
                growth.environment = watch.card()
                write_result(growth, options.out)
                print(growth.levels[-1], flush=True)


if __name__ == "__main__":
    main()
