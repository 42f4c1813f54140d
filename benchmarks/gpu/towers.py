"""The towers on a device in every precision and every way to run them: python -m benchmarks.gpu.towers BUNDLE OUT.json

Ways: "plain" leaves tensors to onnxruntime, "bound" keeps them on the device, "graphs" plays back recorded launches.
Peaks are torch's own matrix products on the device, where torch sees one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.clock import laps
from benchmarks.harness.environment import Environment, Watch
from benchmarks.harness.results import write_result
from benchmarks.roofline.flops import Feeds, count
from benchmarks.roofline.run import tower_feeds
from mmalign_runtime import Embedder, open_bundle
from mmalign_runtime.engine.binding import PlainRuns
from mmalign_runtime.engine.onnxruntime import OnnxSession
from mmalign_runtime.engine.threads import available_threads
from mmalign_runtime.image_encoder import ImageEncoder
from mmalign_runtime.spec import Modality, Precision
from mmalign_runtime.text_encoder import TextEncoder

Way = Literal["plain", "bound", "graphs"]
Device = Literal["cpu", "cuda"]

SECONDS = 1.0
_PEAK_SIDE = 8192


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tower, one shape: median ms of a run with both copies, Gop/s, and the least cosine to float32 on the CPU."""

    tower: Modality
    precision: Precision
    way: Way
    input_shape: tuple[int, ...]
    p50_ms: float
    gops: float
    min_cosine: float
    moved_in_batch: float


class Towers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measurement; `peaks` are Gop/s of the device by precision."""

    environment: Environment
    device: str
    peaks: dict[Precision, float]
    timings: tuple[Timing, ...]


def measure(path: Path, provider: Device, seconds: float) -> Iterator[Timing]:
    """Measure every precision that a bundle has, but int8, which is for CPUs."""
    with Embedder.load(path, provider="cpu") as reference:
        for precision in (each for each in reference.bundle.spec.precisions() if each != "int8"):
            for way in get_args(Way):
                if way == "graphs" and provider != "cuda":
                    continue
                towers: tuple[Modality, ...] = ("image",) if way == "graphs" else ("image", "text")
                with Embedder.load(
                    path, provider=provider, precision=precision, towers=towers, cuda_graphs=way == "graphs"
                ) as embedder:
                    for tower in towers:
                        expected = reference.image if tower == "image" else reference.text
                        encoder = embedder.image if tower == "image" else embedder.text
                        if way == "plain":
                            _run_plainly(encoder)
                        for feeds in tower_feeds(reference.bundle.spec.towers[tower]):
                            yield _time(path, tower, precision, way, encoder, expected, feeds, seconds)


def _run_plainly(encoder: ImageEncoder | TextEncoder) -> None:
    assert isinstance(encoder.session, OnnxSession)
    encoder.session._runs = PlainRuns()  # no user has a reason to ask for it


def _time(
    path: Path,
    tower: Modality,
    precision: Precision,
    way: Way,
    encoder: ImageEncoder | TextEncoder,
    expected: ImageEncoder | TextEncoder,
    feeds: Feeds,
    seconds: float,
) -> Timing:
    vectors, alone = encoder.session.run(feeds), {name: values[:1] for name, values in feeds.items()}
    operations = count(path / open_bundle(path).spec.artifact(tower).file, feeds).total
    median_s = laps(lambda: encoder.session.run(feeds), seconds).median_s
    return Timing(
        tower=tower,
        precision=precision,
        way=way,
        input_shape=next(iter(feeds.values())).shape,
        p50_ms=round(median_s * 1000, 3),
        gops=round(operations / median_s / 1e9, 1),
        min_cosine=round(_min_cosine(vectors, expected.session.run(feeds)), 7),
        moved_in_batch=float(np.abs(encoder.session.run(alone)[0] - vectors[0]).max()),
    )


def _min_cosine(vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    products = (vectors.astype(np.float64) * expected).sum(axis=1)
    return float((products / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)).min())


def device_peaks() -> tuple[str, dict[Precision, float]]:
    """Return the device's name and its peaks in Gop/s, float32 without TF32; nothing where torch sees no device."""
    try:
        import torch
    except ImportError:
        return "", {}
    if not torch.cuda.is_available():
        return "", {}
    torch.backends.cuda.matmul.allow_tf32 = False
    kinds: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16}
    peaks: dict[Precision, float] = {}
    for precision, dtype in kinds.items():
        left = torch.randn(_PEAK_SIDE, _PEAK_SIDE, device="cuda").to(dtype)

        def product(left: torch.Tensor = left) -> None:
            torch.mm(left, left)
            torch.cuda.synchronize()

        peaks[precision] = round(2 * _PEAK_SIDE**3 / laps(product, SECONDS).best_s / 1e9)
    return torch.cuda.get_device_name(), peaks


def lines(found: Towers) -> list[str]:
    """Return the table in Markdown."""
    head = "| tower | precision | way | input | p50 ms | items/s | of the peak | cosine to float32 | moves by, alone |"
    rows = [head, "|" + "---|" * 9]
    for timing in found.timings:
        shape = "x".join(map(str, timing.input_shape))
        speed = f"{timing.input_shape[0] / timing.p50_ms * 1000:.0f}"
        peak = found.peaks.get(timing.precision)
        share = f"{timing.gops / peak:.0%}" if peak else ""
        what = f"| {timing.tower} | {timing.precision} | {timing.way} | {shape} | {timing.p50_ms:.2f} | {speed} "
        rows.append(f"{what}| {share} | {timing.min_cosine:.6f} | {timing.moved_in_batch:.1e} |")
    peaks = ", ".join(f"{precision} {peak / 1000:,.1f} Top/s" for precision, peak in found.peaks.items())
    return [f"{found.device or 'no device'}; peaks: {peaks or 'not measured'}", "", *rows]


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description="Time a bundle's towers on a device.")
    parser.add_argument("bundle", type=Path, help="a bundle's folder")
    parser.add_argument("out", type=Path, help="the JSON file that gets the results")
    parser.add_argument("--provider", choices=get_args(Device), default="cuda", help="cpu tries the script itself")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds for each figure")
    options = parser.parse_args()
    open_bundle(options.bundle)
    watch = Watch("python -m benchmarks.gpu.towers", available_threads())
    device, peaks = device_peaks() if options.provider == "cuda" else ("", {})
    timings = tuple(measure(options.bundle, options.provider, options.seconds))
    found = Towers(watch.card(), device, peaks, timings)
    write_result(found, options.out)
    print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
