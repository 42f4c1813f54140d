"""Measures the machine's peaks, and the towers against them.

python -m benchmarks.roofline.run --out benchmarks/roofline/results/xeon.json --reference BUNDLE
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.against.models import DEMO, REFERENCE
from benchmarks.harness.clock import laps
from benchmarks.harness.environment import Watch
from benchmarks.harness.places import ROOT
from benchmarks.harness.results import command_line, write_result
from benchmarks.roofline.flops import Feeds, count
from benchmarks.roofline.memory import copy_gb_s, read_gb_s
from benchmarks.roofline.products import SHAPES, kernels
from benchmarks.roofline.results import Bandwidth, Product, Roofline, Tower
from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.engines import installed_engines
from mmalign_runtime.engine.session import ComputePrecision
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import BundleSpec, ImageTower, Modality, Precision, TextTower
from mmalign_runtime.text_encoder import TextEncoder

# Seconds for a figure.
PRODUCT_S, MEMORY_S, TOWER_S = 0.1, 2.0, 1.5
BATCH_SIZES = (1, 8, 32)
# Batch and tokens: a query, captions, paragraphs.
TEXT_SHAPES = ((1, 8), (32, 16), (8, 128))

Encoder: TypeAlias = ImageEncoder | TextEncoder


def measure_products(thread_counts: list[int]) -> Iterator[Product]:
    """Measure every kernel on every shape, in a random order: what slows the machine down hits no one kind."""
    found = [(kernel, shape, threads) for kernel in kernels() for shape in SHAPES for threads in thread_counts]
    for kernel, shape, threads in random.Random(0).sample(found, len(found)):
        timed = laps(kernel.make(shape, threads), PRODUCT_S)
        gop = shape.flops / 1e9
        speeds = (round(gop / timed.best_s, 1), round(gop / timed.median_s, 1))
        yield Product(kernel.engine, kernel.operator, kernel.dtype, shape.name, threads, *speeds)


def measure_towers(name: str, path: Path, num_threads: int) -> Iterator[Tower]:
    """Measure both towers of a bundle in every precision it has, through every engine that runs it."""
    spec = open_bundle(path).spec
    for engine, precision in _ways(spec):
        stored: Precision = "fp32" if precision == "bf16" else precision
        towers: list[Modality] = [
            tower for tower in ("image", "text") if stored in {each.precision for each in spec.offered(tower=tower)}
        ]
        with Embedder.load(
            path, engine=engine, precision=precision, towers=towers, num_threads=num_threads
        ) as embedder:
            for tower in towers:
                encoder = embedder.image if tower == "image" else embedder.text
                for feeds in tower_feeds(spec.towers[tower]):
                    names = (spec.artifact(tower).file, spec.artifact(tower, stored).file)
                    yield _tower(name, path, encoder, feeds, names, tower, precision, engine)


def _ways(spec: BundleSpec) -> Iterator[tuple[str, ComputePrecision]]:
    precisions: list[ComputePrecision] = sorted({each.precision for each in spec.offered()})
    for precision in precisions:
        yield "onnxruntime", precision
    if "openvino" in installed_engines():
        for precision in [*precisions, "bf16"]:
            yield "openvino", precision


def _tower(
    name: str,
    path: Path,
    encoder: Encoder,
    feeds: Feeds,
    files: tuple[str, str],
    tower: str,
    precision: ComputePrecision,
    engine: str,
) -> Tower:
    exact, stored = files
    operations = count(path / exact, feeds).total
    weight_bytes = count(path / stored, feeds).weight_bytes
    timed = laps(lambda: encoder.session.run(feeds), TOWER_S)
    shape = tuple(next(iter(feeds.values())).shape)
    return Tower(
        model=name,
        tower=tower,
        precision=precision,
        input_shape=shape,
        p50_ms=round(timed.median_s * 1000, 3),
        gop=round(operations / 1e9, 3),
        weight_mb=round(weight_bytes / 1e6, 1),
        gops=round(operations / timed.median_s / 1e9, 1),
        engine=engine,
    )


def tower_feeds(files: ImageTower | TextTower) -> Iterator[Feeds]:
    """Yield what a tower is timed on: images by batch size, texts by batch size and tokens."""
    rng = np.random.default_rng(0)
    if isinstance(files, ImageTower):
        for size in BATCH_SIZES:
            pixel_values = rng.standard_normal((size, 3, *files.spec.shape), np.float32)
            yield {files.inputs.pixel_values: pixel_values}
        return
    for shape in TEXT_SHAPES:
        ids = rng.integers(1000, 20000, shape)
        yield files.inputs.feeds(ids, np.ones_like(ids))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Measure the machine's peaks, and the towers against them.")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file that gets the results")
    parser.add_argument("--reference", type=Path, help="a bundle of the reference architecture; without, none is timed")
    parser.add_argument("--demo", type=Path, default=ROOT / "demo/bundle", help="the demo's bundle")
    options = parser.parse_args()
    num_threads = available_threads()
    watch = Watch(command_line("python -m benchmarks.roofline.run", sys.argv[1:]), num_threads)
    roofline = Roofline(watch.card(), [], [], [])
    thread_counts = list(range(1, num_threads + 1))
    for product in measure_products(thread_counts):
        print(product, flush=True)
        roofline.products.append(product)
    for threads in thread_counts:
        found = Bandwidth(threads, round(copy_gb_s(threads, MEMORY_S), 1), round(read_gb_s(threads, MEMORY_S), 1))
        print(found, flush=True)
        roofline.bandwidth.append(found)
    for name, path in {DEMO: options.demo, REFERENCE: options.reference}.items():
        if path is None or not path.is_dir():
            print(f"WITHOUT {name}: {path} is not a bundle", flush=True)
            continue
        for tower in measure_towers(name, path, num_threads):
            print(tower, flush=True)
            roofline.towers.append(tower)
            roofline.environment = watch.card()
            write_result(roofline, options.out)  # after each: a kill costs what it fell in


if __name__ == "__main__":
    main()
