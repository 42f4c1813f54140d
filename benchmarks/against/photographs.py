"""A bundle's int8 image tower on photographs, beside float32: python -m benchmarks.against.photographs BUNDLE

Cosines on the golden cases, each alone, against PyTorch's vectors, and on the comparison's three sets of photographs,
against float32's. Speed of the tower alone, one image and eight, the two precisions in turn. The last line is JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.against.images import build_image_sets
from benchmarks.harness.places import CACHE
from benchmarks.harness.results import command_line
from mmalign_export.quantization.examples import prepared_images
from mmalign_export.quantization.trial import Speed, cosines, time_beside
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.embedder import Embedder
from mmalign_runtime.engine.processor import cpu_name

_SIZES = (1, 8)
_SETS = ("thumbnails", "web", "phone")


class Nearness(msgspec.Struct, frozen=True):
    """Cosines of one set: how many images, the mean, the lowest, and the name of the image that has it."""

    num_images: int
    mean: float
    lowest: float
    worst: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured with one engine, on which processor, and when."""

    date: str
    command: str
    cpu: str
    engine: str
    engine_version: str
    num_threads: int
    sets: dict[str, Nearness]
    mean_on_photographs: float
    lowest_golden: float
    speeds: tuple[Speed, ...]
    ratios: tuple[float, ...]


def measure(bundle: Path, engine: str, cache: Path, num_threads: int | None) -> Result:
    """Run both precisions of the image tower. Raises BundleError where the bundle has no int8 image tower."""
    loaded = {
        precision: Embedder.load(
            bundle, engine=engine, provider="cpu", precision=precision, towers=["image"], num_threads=num_threads
        )
        for precision in ("fp32", "int8")
    }
    exact, rounded = loaded["fp32"], loaded["int8"]
    golden = load_golden(exact.bundle)
    expected = np.array([case.embedding for case in golden.images], np.float32)
    found = rounded.encode_image([exact.bundle.source(case.file) for case in golden.images], batch_size=1)
    sets = {"golden": _nearness(cosines(found, expected), [case.name for case in golden.images])}
    files = build_image_sets(cache)
    for name in _SETS:
        vectors = [embedder.encode_image(files[name], batch_size=1) for embedder in (rounded, exact)]
        sets[name] = _nearness(cosines(*vectors), [path.name for path in files[name]])
    pixels = np.concatenate(prepared_images(files["web"][: max(_SIZES)], exact))
    feeds = [{exact.image.inputs.pixel_values: pixels[:size]} for size in _SIZES]
    speeds = tuple(time_beside(rounded.image.session, exact.image.session, each) for each in feeds)
    num_photographs = sum(sets[name].num_images for name in _SETS)
    return Result(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line("python -m benchmarks.against.photographs", sys.argv[1:]),
        cpu=cpu_name(),
        engine=engine,
        engine_version=exact.engine.version(),
        num_threads=exact.options.pool.num_threads,
        sets=sets,
        mean_on_photographs=sum(sets[name].mean * sets[name].num_images for name in _SETS) / num_photographs,
        lowest_golden=sets["golden"].lowest,
        speeds=speeds,
        ratios=tuple(speed.ratio() for speed in speeds),
    )


def _nearness(found: Sequence[float] | np.ndarray, names: Sequence[str]) -> Nearness:
    values = np.asarray(found)
    worst = int(values.argmin())
    return Nearness(len(values), float(values.mean()), float(values[worst]), names[worst])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the comparison's sets are kept")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="write the JSON there as well")
    args = parser.parse_args()
    result = measure(args.bundle, args.engine, args.cache, args.threads)
    for name, nearness in result.sets.items():
        figures = f"mean {nearness.mean:.4f}  lowest {nearness.lowest:.4f}  {nearness.worst}"
        print(f"{name:<11} {nearness.num_images:>3}  {figures}")
    for speed in result.speeds:
        print(f"{speed.num_items} at once: {speed.ratio():.2f}x as fast as float32")
    line = msgspec.json.encode(result).decode()
    if args.out:
        args.out.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
