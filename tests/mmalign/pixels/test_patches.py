"""Patches at a picture's own ratio: as many as transformers', with Pillow's pixels, each with its place."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from transformers.models.siglip2.image_processing_siglip2 import get_image_size_for_max_num_patches

from mmalign.pixels.nodes import INT64, Nodes, info
from mmalign.pixels.patches import add_patch_grid
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec
from tests.mmalign.pixels.test_graph import OPERATORS, noise, spec_with
from tests.tolerances import OLDER_PILLOW

# (height, width): usual ones, those enlarged to the largest scale, strips, and the largest sides.
SIDES = ((480, 640), (606, 512), (3672, 5496), (1, 1), (2, 3), (1, 200), (200, 1), (256, 256), (65_535, 65_535))
SIDES += ((65_535, 400), (16, 4096), (17, 4096), (100, 1600), (101, 1600))


def sides_of(spec: ImageSpec, pictures: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return rows and columns of patches, by the nodes that the preprocessing graph has for them."""
    nodes = Nodes()
    nodes.rename(add_patch_grid(nodes, spec, "sides"), "grid")
    graph = helper.make_graph(
        nodes.nodes, "grid", [info("sides", INT64, [2])], [info("grid", INT64, [2])], initializer=nodes.initializers
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [tuple(session.run(None, {"sides": np.array(each)})[0].tolist()) for each in pictures]


@pytest.mark.parametrize(
    ("most", "side", "size"), [(256, 16, 256), (24, 8, (32, 48)), (1024, 14, 448), (7, 32, (32, 224))]
)
def test_the_number_of_patches_is_the_library_s(most: int, side: int, size: int | tuple[int, int]) -> None:
    spec = spec_with(resize="naflex", size=size, shortest_edge=side)
    assert spec.num_patches == most
    drawn = random.Random(most)
    pictures = [
        *SIDES,
        *((drawn.randint(1, top), drawn.randint(1, top)) for top in (60, 900, 6000) for _ in range(150)),
    ]
    pictures += [(each, ratio * each) for each in range(1, 400, 13) for ratio in (1, 2, 3)]
    expected = [get_image_size_for_max_num_patches(*each, side, most) for each in pictures]
    assert [(rows * side, columns * side) for rows, columns in sides_of(spec, pictures)] == expected
    assert max(rows * columns for rows, columns in sides_of(spec, pictures)) <= most


def patches(spec: ImageSpec, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        build_preprocess(spec).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: NDArray[np.float32] = session.run(None, {"pixels": pixels})[0]
    assert found.shape == (1, *spec.values_shape)
    return found[0]


@OLDER_PILLOW
@pytest.mark.parametrize("shape", [(480, 640), (31, 900), (900, 31), (1, 1), (5, 3), (64, 64)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_each_patch_is_pillow_s_and_says_its_place(shape: tuple[int, int], interpolation: str) -> None:
    spec = spec_with(resize="naflex", size=(32, 48), shortest_edge=8, interpolation=interpolation)
    pixels = noise(*shape)
    height, width = get_image_size_for_max_num_patches(*shape, 8, 24)
    resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling[interpolation.upper()]))
    found = patches(spec, pixels)
    at = 0
    for row in range(height // 8):
        for column in range(width // 8):
            expected = resized[8 * row : 8 * row + 8, 8 * column : 8 * column + 8].ravel()
            np.testing.assert_array_equal(np.rint(found[at, :192]), expected)
            assert found[at, 192:].tolist() == [row + 1, column + 1]
            at += 1
    assert not found[at:].any()


def test_grey_and_transparent_pictures_are_cut_as_well() -> None:
    spec = spec_with(resize="naflex", size=(32, 48), shortest_edge=8)
    grey = noise(50, 70, 1)
    np.testing.assert_array_equal(patches(spec, grey), patches(spec, grey.repeat(3, axis=2)))
    opaque = np.concatenate([noise(50, 70), np.full((50, 70, 1), 255, np.uint8)], axis=2)
    np.testing.assert_array_equal(patches(spec, opaque), patches(spec, noise(50, 70)))


def test_its_operators_are_the_portable_ones() -> None:
    def kinds(graph: onnx.GraphProto) -> set[str]:
        inner = (attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
        return {node.op_type for node in graph.node}.union(*map(kinds, inner))

    found = kinds(build_preprocess(spec_with(resize="naflex", size=(32, 48), shortest_edge=8)).graph)
    assert found - OPERATORS == {"Expand", "ReduceMax"}
