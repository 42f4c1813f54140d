"""How long the preprocessing graph takes against the one of format 1, made of `Resize`: interleaved, in one process.

It always runs on one thread, as in the runtime; the other one on as many as it is given, as it did there: one beside
other images, and all for an image alone.
"""

from __future__ import annotations

from time import perf_counter, process_time

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from benchmarks.reliability.resize_graph import build_resize_graph
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec, Interpolation, Resize

# A drawing, and photographs up to a camera's 20 megapixels.
PACE_SIZES = ((72, 72), (640, 480), (1600, 1200), (4000, 3000), (5472, 3648))
PACE_THREADS = (1, 2)
_SECONDS_A_SIZE = 2.0
_TURNS = (7, 101)
_INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic")
_OLD_RESIZES: tuple[Resize, ...] = ("squash", "shortest_edge")


class PixelPace(msgspec.Struct, frozen=True):
    """Medians of one setting, ms: of the clock, and of the processors' time. `threads` are those of `Resize`."""

    threads: int
    width: int
    height: int
    interpolation: Interpolation
    resize: Resize
    portable_ms: float
    resize_ms: float
    portable_cpu_ms: float
    resize_cpu_ms: float

    @property
    def ratio(self) -> float:
        """How many times as long the portable graph takes."""
        return self.portable_ms / self.resize_ms


def session(model: ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph as the runtime does, without an arena."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def paces(pixels: NDArray[np.uint8], threads: int) -> list[PixelPace]:
    """Time one picture (h, w, 3) in both interpolations and both resize modes of format 1, on so many threads."""
    height, width, _ = pixels.shape
    found = []
    for interpolation in _INTERPOLATIONS:
        for resize in _OLD_RESIZES:
            spec = ImageSpec(interpolation=interpolation, resize=resize)
            graphs = [session(build_preprocess(spec), 1), session(build_resize_graph(spec), threads)]
            (portable, cpu), (old, old_cpu) = _interleaved(graphs, pixels)
            found.append(PixelPace(threads, width, height, interpolation, resize, portable, old, cpu, old_cpu))
    return found


def _interleaved(graphs: list[onnxruntime.InferenceSession], pixels: NDArray[np.uint8]) -> list[tuple[float, float]]:
    """Return the medians of wall and processor time of each graph, ms; the first turn is not counted."""
    times: list[list[tuple[float, float]]] = [[] for _ in graphs]
    began = perf_counter()
    turn = 0
    while turn <= _TURNS[0] or (turn <= _TURNS[1] and perf_counter() - began < _SECONDS_A_SIZE):
        for number in (0, 1) if turn % 2 else (1, 0):
            wall, cpu = perf_counter(), process_time()
            graphs[number].run(None, {"pixels": pixels})
            times[number].append((perf_counter() - wall, process_time() - cpu))
        turn += 1
    medians = [np.median(np.array(found[1:]), axis=0) * 1000 for found in times]
    return [(round(float(wall), 3), round(float(cpu), 3)) for wall, cpu in medians]
