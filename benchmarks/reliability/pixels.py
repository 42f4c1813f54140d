"""The preprocessing graph against Pillow 12, on 200 sizes: python -m benchmarks.reliability pixels

All resize modes, both interpolations, on a photograph and on noise, in onnxruntime and in OpenVINO. Levels of 0..255
are compared: mean 0 and standard deviation 1/255 make the graph give the levels themselves.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Literal, get_args

import msgspec
import numpy as np
import onnxruntime
import openvino
import PIL
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness.places import PHOTO
from benchmarks.reliability.pillow_resize import with_pillow
from benchmarks.reliability.record import Found, Row
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec, Interpolation, Resize

NUM_SIZES = 200
LARGEST = (6000, 4000)
_USUAL = (
    *((1, 1), (2, 2), (3, 2)),
    *((side, side) for side in (16, 32, 64, 128, 224, 256, 512, 1024)),
    *((320, 240), (640, 480), (800, 600), (1024, 768), (1280, 720), (1600, 1200), (1920, 1080), (2048, 1536)),
    *((2560, 1440), (3840, 2160), (4000, 3000), LARGEST),
)
# The longer side by the shorter one.
_MAX_RATIO = 8
# What is claimed: Pillow's levels in onnxruntime, and one level in OpenVINO, which computes double precision as single.
CLAIMED_LEVELS = {"onnxruntime": 0, "openvino": 1}

RESIZES: tuple[Resize, ...] = ("squash", "shortest_edge", "longest_edge", "resize_then_crop")
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic")

Content = Literal["photograph", "noise"]
Engine = Literal["onnxruntime", "openvino"]
Pixels = NDArray[np.uint8]
Graph = Callable[[Pixels], NDArray[np.float32]]


class Comparison(msgspec.Struct, frozen=True):
    """One size in one setting: the share of values (0..1) that differ, and by how many levels at most."""

    engine: Engine
    content: Content
    interpolation: str
    resize: str
    width: int
    height: int
    share: float
    levels: int

    def holds(self) -> bool:
        """Whether it is within what is claimed."""
        return self.levels <= CLAIMED_LEVELS[self.engine]


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


def specs() -> list[ImageSpec]:
    """Return the specs compared: they give levels of 0..255 as they are."""
    levels = ImageSpec(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), fill=(124, 116, 104))
    sides = {"resize_then_crop": 259}
    return [
        replace(levels, resize=resize, resize_size=sides.get(resize), interpolation=interpolation)
        for interpolation in INTERPOLATIONS
        for resize in RESIZES
    ]


def load(spec: ImageSpec, engine: Engine) -> Graph:
    """Return the spec's graph, loaded: (h, w, 3) uint8 -> (1, 3, H, W) float32."""
    model = build_preprocess(spec)
    if engine == "onnxruntime":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return lambda pixels: graph.run(None, {"pixels": pixels})[0]
    core = openvino.Core()
    read = core.read_model(model.SerializeToString())
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pixels: compiled([pixels])[0]


def compare(spec: ImageSpec, graph: Graph, pixels: Pixels, engine: Engine, content: Content) -> Comparison:
    found = np.rint(graph(pixels)[0]).astype(np.int64).transpose(1, 2, 0)  # (H, W, 3)
    difference = np.abs(found - with_pillow(pixels, spec).astype(np.int64))
    height, width, _ = pixels.shape
    share, levels = round(float((difference > 0).mean()), 6), int(difference.max())
    return Comparison(engine, content, spec.interpolation, spec.resize, width, height, share, levels)


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
    for key in product(get_args(Engine), get_args(Content), INTERPOLATIONS):
        of = [c for c in comparisons if (c.engine, c.content, c.interpolation) == key]
        shares = [c.share for c in of]
        measured = (
            f"largest difference {max(c.levels for c in of)} levels; share of values that differ: median "
            f"{np.median(shares):.3%}, largest {max(shares):.2%}"
        )
        engine, content, interpolation = key
        what = f"preprocessing graph in {engine} against Pillow, {interpolation}, {content}"
        rows.append(Row(what, len(of), sum(c.holds() for c in of), measured))
    return rows


def run(num_sizes: int = NUM_SIZES, seed: int = 0) -> Found:
    if not PIL.__version__.startswith("12."):
        raise SystemExit(f"Pillow is {PIL.__version__}, expected 12: later ones resize portrait images otherwise.")
    photo = Image.open(io.BytesIO(PHOTO.read_bytes())).convert("RGB")
    chosen = sizes(num_sizes, seed)
    graphs = [(spec, engine, load(spec, engine)) for spec in specs() for engine in get_args(Engine)]
    comparisons = [
        compare(spec, graph, pixels, engine, content)
        for width, height in chosen
        for content, pixels in _contents(width, height, photo, seed)
        for spec, engine, graph in graphs
    ]
    details = {
        **{"pillow": PIL.__version__, "openvino": openvino.__version__},
        "sizes": [f"{width}x{height}" for width, height in chosen],
        "outside": [c for c in comparisons if not c.holds()],
    }
    return _rows(comparisons), details
