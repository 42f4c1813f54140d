"""The preprocessing graph against Pillow 12's resize, on 200 sizes: python benchmarks/reliability/pixels.py

Both interpolations, both resize modes, on a photograph and on noise. Only the resize is compared, as levels of 0..255:
mean 0 and standard deviation 1/255 make the graph give the levels themselves. Pillow resizes the whole image and the
crop follows, since that is what the graph promises.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

if __package__ in (None, ""):  # run as a script: make the repository root importable, as pytest and mypy do
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import msgspec
import numpy as np
import onnxruntime
import PIL
from numpy.typing import NDArray
from PIL import Image

from benchmarks.reliability.record import ROOT, Row, record
from mmalign.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec

PHOTO = ROOT / "export/mmalign_export/photo/grace_hopper.jpg"
NUM_SIZES = 200
LARGEST = (6000, 4000)
_USUAL = (
    *(
        (1, 1),
        (2, 2),
        (3, 2),
        (16, 16),
        (32, 32),
        (64, 64),
        (128, 128),
        (224, 224),
        (256, 256),
        (512, 512),
        (1024, 1024),
    ),
    *((320, 240), (640, 480), (800, 600), (1024, 768), (1280, 720), (1600, 1200), (1920, 1080), (2048, 1536)),
    *((2560, 1440), (3840, 2160), (4000, 3000), LARGEST),
)
# The longer side by the shorter one: beyond, "shortest_edge" asks for enormous images, which the runtime refuses.
_MAX_RATIO = 8
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
# What the design claims: the share of values that may differ, by one level.
CLAIMED_SHARE = {"bilinear": 0.01, "bicubic": 0.001}
CLAIMED_LEVELS = 1

Content = Literal["photograph", "noise"]
Pixels = NDArray[np.uint8]


class Comparison(msgspec.Struct, frozen=True):
    """One size in one setting: the share of values (0..1) that differ, and by how many levels at most."""

    content: Content
    interpolation: str
    resize: str
    width: int
    height: int
    share: float
    levels: int

    def holds(self) -> bool:
        """Whether it is within what the design claims."""
        return self.levels <= CLAIMED_LEVELS and self.share <= CLAIMED_SHARE[self.interpolation]


class Details(msgspec.Struct, frozen=True):
    """The sizes compared, and those comparisons that are not within what the design claims."""

    pillow: str
    sizes: tuple[str, ...]
    outside: tuple[Comparison, ...]


def sizes(num_sizes: int, seed: int) -> list[tuple[int, int]]:
    """Return the usual sizes, each landscape and portrait, and random ones between 1x1 and the largest."""
    found = list(dict.fromkeys(size for usual in _USUAL for size in (usual, usual[::-1])))
    rng = np.random.default_rng(seed)
    while len(found) < num_sizes:
        long, short = (int(np.exp(rng.uniform(0, np.log(limit)))) for limit in LARGEST)
        size = (long, short) if rng.random() < 0.5 else (short, long)
        if max(size) <= _MAX_RATIO * min(size) and size not in found:
            found.append(size)
    return found[:num_sizes]


def compare(spec: ImageSpec, graph: onnxruntime.InferenceSession, pixels: Pixels, content: Content) -> Comparison:
    """Compare one image's resized pixels."""
    found = np.rint(graph.run(None, {"pixels": pixels})[0][0]).astype(np.int64).transpose(1, 2, 0)  # (S, S, 3)
    difference = np.abs(found - with_pillow(pixels, spec).astype(np.int64))
    height, width, _ = pixels.shape
    share = round(float((difference > 0).mean()), 6)
    return Comparison(content, spec.interpolation, spec.resize, width, height, share, int(difference.max()))


def with_pillow(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """Resize and crop (H, W, 3) with Pillow, as the spec says."""
    image, resample = Image.fromarray(pixels), _RESAMPLE[spec.interpolation]
    height, width = spec.shape
    if spec.resize == "squash":
        return np.asarray(image.resize((width, height), resample))
    short = min(image.size)
    resized = (image.width * spec.shortest_edge // short, image.height * spec.shortest_edge // short)
    left, top = round((resized[0] - width) / 2), round((resized[1] - height) / 2)
    return np.asarray(image.resize(resized, resample).crop((left, top, left + width, top + height)))


def levels_graph(spec: ImageSpec, folder: Path) -> onnxruntime.InferenceSession:
    """Return the spec's graph, loaded."""
    path = folder / f"{spec.interpolation}-{spec.resize}.onnx"
    path.write_bytes(build_preprocess(spec).SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def specs() -> list[ImageSpec]:
    """Return the specs compared: they give levels of 0..255 as they are."""
    deviation = 1 / 255
    return [
        ImageSpec(interpolation=interpolation, resize=resize, mean=(0.0, 0.0, 0.0), std=(deviation,) * 3)
        for interpolation in ("bilinear", "bicubic")
        for resize in ("squash", "shortest_edge")
    ]


def _contents(width: int, height: int, photo: Image.Image, seed: int) -> Iterator[tuple[Content, Pixels]]:
    """Yield the photograph at that size, cropped to its ratio, and noise."""
    scale = max(width / photo.width, height / photo.height)
    box_width, box_height = width / scale, height / scale
    left, top = (photo.width - box_width) / 2, (photo.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    yield "photograph", np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS, box=box))
    rng = np.random.default_rng([seed, width, height])
    yield "noise", rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _rows(comparisons: Sequence[Comparison]) -> list[Row]:
    rows = []
    for content in get_args(Content):
        for interpolation, claimed in CLAIMED_SHARE.items():
            of = [c for c in comparisons if c.content == content and c.interpolation == interpolation]
            shares = sorted(c.share for c in of)
            over, two = sum(share > claimed for share in shares), sum(c.levels > CLAIMED_LEVELS for c in of)
            worst = max(of, key=lambda c: c.share)
            measured = (
                f"share of values that differ: median {np.median(shares):.3%}, largest {worst.share:.2%} (from "
                f"{worst.width}x{worst.height}, {worst.resize}); {over} over {claimed:.1%}; "
                f"largest difference {max(c.levels for c in of)} levels, {two} over {CLAIMED_LEVELS}"
            )
            what = f"preprocessing graph against Pillow, {interpolation}, {content}"
            rows.append(Row(what, len(of), sum(c.holds() for c in of), measured))
    return rows


def main() -> None:
    """Compare and record."""
    parser = argparse.ArgumentParser(description="Compare the preprocessing graph with Pillow's resize.")
    parser.add_argument("--sizes", type=int, default=NUM_SIZES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not PIL.__version__.startswith("12."):
        raise SystemExit(f"Pillow is {PIL.__version__}, expected 12: later ones resize portrait images otherwise.")
    photo = Image.open(io.BytesIO(PHOTO.read_bytes())).convert("RGB")
    comparisons, chosen = [], sizes(options.sizes, options.seed)
    with tempfile.TemporaryDirectory() as name:
        graphs = [(spec, levels_graph(spec, Path(name))) for spec in specs()]
        for width, height in chosen:
            for content, pixels in _contents(width, height, photo, options.seed):
                comparisons += [compare(spec, graph, pixels, content) for spec, graph in graphs]
    named = tuple(f"{width}x{height}" for width, height in chosen)
    details = Details(PIL.__version__, named, tuple(c for c in comparisons if not c.holds()))
    record("pixels", _rows(comparisons), details, is_kept=options.sizes == NUM_SIZES)


if __name__ == "__main__":
    main()
