from __future__ import annotations

import subprocess
import sys
from functools import cache

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.reliability.pillow_resize import with_pillow
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec
from tests.tolerances import OLDER_PILLOW

# Normalisation that leaves levels as they are: x / 255, minus 0, by 1 / 255.
SQUASH = ImageSpec(
    mean=(0.0, 0.0, 0.0),
    std=(1 / 255, 1 / 255, 1 / 255),
    background=(250, 128, 7),
    fill=(9, 120, 200),
)
MODES = {
    "squash": {},
    "shortest_edge": {"resize": "shortest_edge", "shortest_edge": 256},
    "longest_edge": {"resize": "longest_edge"},
    # ALIGN of transformers
    "resize_then_crop": {"resize": "resize_then_crop", "resize_size": 346, "size": 289},
}
# Every operator that the graph may be made of: none has a mode, or a default that engines read differently.
OPERATORS = {
    *("Abs", "Add", "And", "Cast", "Clip", "Concat", "Div", "Equal", "Floor", "Gather", "Greater", "Identity", "If"),
    *("Less", "Loop", "MatMul", "Max", "Min", "Mul", "Neg", "Range", "ReduceSum", "Relu", "Reshape", "Round", "Shape"),
    *("Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
sides = st.integers(1, 300)
small = st.tuples(st.integers(1, 40), st.integers(1, 40))
roundings = st.sampled_from(["half_even", "floor"])


def spec_with(**changes: object) -> ImageSpec:
    return msgspec.convert(msgspec.to_builtins(SQUASH) | changes, ImageSpec)


@cache
def run_of(spec: ImageSpec) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(build_preprocess(spec).SerializeToString(), options, ["CPUExecutionProvider"])


def levels(spec: ImageSpec, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = run_of(spec).run(None, {"pixels": pixels})[0]
    assert found.shape == (1, 3, *spec.shape)
    return found[0].transpose(1, 2, 0)  # (H, W, 3)


def noise(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng([height, width, channels])
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def extremes(height: int, width: int) -> NDArray[np.uint8]:
    """Black and white alone: a cubic overshoots as far as it can."""
    return (noise(height, width) // 128 * 255).astype(np.uint8)


@OLDER_PILLOW
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", MODES)
def test_the_graph_is_pillow_to_the_bit(mode: str, interpolation: str) -> None:
    spec = spec_with(interpolation=interpolation, **MODES[mode])
    for height, width in (
        (480, 640),
        (640, 480),
        (333, 499),
        (72, 72),
        (224, 224),
        (225, 227),
        (1001, 223),
        (31, 2048),
    ):
        for pixels in (noise(height, width), extremes(height, width)):
            np.testing.assert_array_equal(levels(spec, pixels), with_pillow(pixels, spec))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (1, 90), (90, 1), (2, 3), (5000, 3), (1, 2500), (2500, 1)])
def test_thin_pictures_and_enlarged_ones_are_pillows(shape: tuple[int, int], interpolation: str) -> None:
    for mode in MODES:
        spec = spec_with(interpolation=interpolation, **MODES[mode])
        np.testing.assert_array_equal(levels(spec, extremes(*shape)), with_pillow(extremes(*shape), spec))


@OLDER_PILLOW
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    height=sides,
    width=sides,
    channels=st.integers(1, 4),
    shape=small,
    more=small,
    resize=st.sampled_from(["squash", "shortest_edge", "longest_edge", "resize_then_crop"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    alpha=st.sampled_from(["composited", "dropped"]),
    side_rounding=roundings,
    crop_rounding=roundings,
)
def test_every_spec_on_every_size_is_pillows(
    height: int, width: int, channels: int, shape: tuple[int, int], more: tuple[int, int], resize: str, **rest: str
) -> None:
    first = [shape[0] + more[0], shape[1] + more[1]]
    cut = {"shortest_edge": {"shortest_edge": max(first)}, "resize_then_crop": {"resize_size": first}}.get(resize, {})
    spec = spec_with(size=list(shape), resize=resize, **cut, **rest)
    pixels = noise(height, width, channels)
    np.testing.assert_array_equal(levels(spec, pixels), with_pillow(pixels, spec))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_become_rgb_as_the_runtime_makes_them(channels: int) -> None:
    spec = spec_with(size=256)
    # Every level with every alpha, unresized: nothing hides the last bit of the compositing.
    alphas, values = np.mgrid[:256, :256].astype(np.uint8)
    colours = [values, 255 - values, values // 2]
    planes = {1: [values], 2: [values, alphas], 3: colours, 4: [*colours, alphas]}[channels]
    pixels = np.stack(planes, axis=-1)
    np.testing.assert_array_equal(levels(spec, pixels), with_pillow(pixels, spec))


@pytest.mark.parametrize(
    ("margin", "rounding", "first"),
    [
        (1, "half_even", 0),
        (3, "half_even", 2),
        (5, "half_even", 2),
        (7, "half_even", 4),
        (3, "floor", 1),
        (7, "floor", 3),
    ],
)
def test_half_a_margin_is_rounded_as_asked(margin: int, rounding: str, first: int) -> None:
    column = np.arange(20, 20 + 8 + margin, dtype=np.uint8)
    cut = spec_with(size=[1, 8], resize_size=[1, 8 + margin], resize="resize_then_crop", crop_rounding=rounding)
    pixels = np.broadcast_to(column[None, :, None], (1, 8 + margin, 3)).copy()
    np.testing.assert_array_equal(levels(cut, pixels)[0, :, 0], column[first : first + 8])
    filled = spec_with(size=[8 + margin, 8], resize="longest_edge", crop_rounding=rounding)
    found = levels(filled, np.full((8, 8, 3), 77, np.uint8))[:, 0]  # (8 + margin, 3)
    np.testing.assert_array_equal(found[first : first + 8], np.full((8, 3), 77))
    outside = np.delete(found, slice(first, first + 8), axis=0)
    np.testing.assert_array_equal(outside, np.broadcast_to(SQUASH.fill, (margin, 3)))


@pytest.mark.parametrize(("rounding", "width"), [("floor", 7), ("half_even", 8)])
def test_the_side_that_the_ratio_gives_is_rounded_as_asked(rounding: str, width: int) -> None:
    # 30 x 22.5 by 3 is 10 x 7.5: the fill tells how wide the picture became.
    spec = spec_with(size=20, resize="longest_edge", side_rounding=rounding)
    found = levels(spec, np.full((40, 15, 3), 77, np.uint8))
    assert (found[0, :, 0] == 77).sum() == width


def test_a_photographs_size_and_the_largest_are_pillows() -> None:
    for height, width in ((1200, 1600), (3000, 4000)):
        np.testing.assert_array_equal(levels(SQUASH, noise(height, width)), with_pillow(noise(height, width), SQUASH))
    cut = spec_with(interpolation="bicubic", **MODES["shortest_edge"])
    wide = noise(60, 20_000)  # 85,333 columns, of which the crop leaves 224
    np.testing.assert_array_equal(levels(cut, wide), with_pillow(wide, cut))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", MODES)
def test_openvino_is_pillow_or_within_a_level(mode: str, interpolation: str) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    spec = spec_with(interpolation=interpolation, **MODES[mode])
    core = openvino.Core()
    model = core.read_model(build_preprocess(spec).SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for height, width, channels in ((480, 640, 3), (72, 72, 4), (333, 499, 1), (1, 9, 2), (224, 224, 3), (31, 700, 3)):
        pixels = noise(height, width, channels)
        found = compiled([pixels])[0][0].transpose(1, 2, 0)
        difference = np.abs(found - with_pillow(pixels, spec))
        # The cubic's weights are in double precision, which OpenVINO computes as single.
        assert difference.max() <= (1 if interpolation == "bicubic" else 0)
        assert (difference > 0).mean() <= 0.001


def test_a_weight_of_fewer_bits_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.pixels.weights.LOW_BITS", 12)  # the lower halves are taken for half of what they are
    spec = spec_with(interpolation="bicubic")
    found = onnxruntime.InferenceSession(build_preprocess(spec).SerializeToString(), None, ["CPUExecutionProvider"])
    pixels = noise(200, 300)
    assert (found.run(None, {"pixels": pixels})[0][0].transpose(1, 2, 0) != with_pillow(pixels, spec)).mean() > 0.01


@pytest.mark.parametrize("mode", MODES)
def test_the_graph_is_small_old_and_of_operators_with_one_meaning(mode: str) -> None:
    model = build_preprocess(spec_with(interpolation="bicubic", **MODES[mode]))
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    assert operators(model.graph) <= OPERATORS
    assert len(model.SerializeToString()) < 20_000


def operators(graph: onnx.GraphProto) -> set[str]:
    found = {node.op_type for node in graph.node}
    for node in graph.node:
        for attribute in node.attribute:
            found |= operators(attribute.g) if attribute.type == onnx.AttributeProto.GRAPH else set()
    return found


# With transparency 81 megapixels take many seconds. 13 are no easier: what does not grow with the picture counts more.
@pytest.mark.parametrize(("side", "channels"), [(9000, 3), (3600, 4)])
def test_memory_for_a_large_picture_is_less_than_once_the_picture_more(side: int, channels: int) -> None:
    code = f"""
import resource, numpy as np, onnxruntime
from tests.mmalign.pixels.test_graph import SQUASH
from mmalign.pixels.preprocess import build_preprocess
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.enable_cpu_mem_arena, options.enable_mem_pattern = 1, False, False
graph = onnxruntime.InferenceSession(build_preprocess(SQUASH).SerializeToString(), options, ["CPUExecutionProvider"])
graph.run(None, {{"pixels": np.zeros((64, 64, {channels}), np.uint8)}})
pixels = np.full(({side}, {side}, {channels}), 200, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
graph.run(None, {{"pixels": pixels}})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / pixels.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1
