from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from mmalign.pixels.preprocess import build_preprocess, write_preprocess
from mmalign_runtime.engine.pool import thread_pool
from mmalign_runtime.image_encoder import Preprocessor
from mmalign_runtime.spec import ImageSpec
from tests.tolerances import NORMALIZED, OLDER_PILLOW, PIXEL_ROUNDING

# (height, width): landscape, portrait, square, odd, thin, smaller than the target, equal to it, a single pixel.
LARGE = ((480, 640), (640, 480), (1080, 1920), (1920, 1080), (512, 512), (333, 499), (499, 333), (227, 225), (225, 227))
THIN = ((1001, 223), (223, 1001), (2048, 31), (1, 9))
SMALL = ((100, 100), (50, 75), (75, 50), (7, 5), (224, 224), (224, 300), (1, 1))
SIZES = LARGE + THIN + SMALL
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
# Normalisation that leaves levels as they are: x / 255, minus 0, by 1 / 255.
IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """Draw smooth waves under noise: something for every frequency, and borders that are not flat."""
    rng = np.random.default_rng([height, width])
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (5 + 9 * c) + y / (3 + 7 * c)) for c in range(3)]
    noisy = np.stack(waves, axis=-1) + rng.normal(0, 25, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def preprocessor(tmp_path: Path, **settings: object) -> Preprocessor:
    spec = msgspec.convert({**IDENTITY, **settings}, ImageSpec)
    write_preprocess(spec, tmp_path / "preprocess.onnx")
    return Preprocessor(tmp_path / "preprocess.onnx", thread_pool(2))


def assert_pillow(found: NDArray[np.float32], expected: NDArray[np.generic]) -> None:
    np.testing.assert_array_equal(np.rint(found[0].transpose(1, 2, 0)), expected)  # levels times 1/255 by 255


@OLDER_PILLOW
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_squash_is_pillow(tmp_path: Path, interpolation: str) -> None:
    run = preprocessor(tmp_path, interpolation=interpolation)
    for height, width in SIZES:
        pixels = picture(height, width)
        expected = np.asarray(Image.fromarray(pixels).resize((224, 224), RESAMPLING[interpolation]))
        assert_pillow(run(pixels), expected)


def test_squash_is_the_exact_resize_but_for_its_rounding(tmp_path: Path) -> None:
    run = preprocessor(tmp_path, interpolation="bilinear")
    for height, width in SIZES:
        pixels = picture(height, width)
        channels = [Image.fromarray(pixels[..., c].astype(np.float32)) for c in range(3)]
        exact = np.stack([np.asarray(channel.resize((224, 224), RESAMPLING["bilinear"])) for channel in channels])
        assert np.abs(run(pixels)[0] - exact).max() <= PIXEL_ROUNDING.bound


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_shortest_edge_and_crop_are_as_documented(tmp_path: Path, interpolation: str) -> None:
    run = preprocessor(tmp_path, resize="shortest_edge", shortest_edge=256, interpolation=interpolation)
    for height, width in SIZES:
        pixels, short = picture(height, width), min(height, width)
        new_height, new_width = 256 * height // short, 256 * width // short
        resized = Image.fromarray(pixels).resize((new_width, new_height), RESAMPLING[interpolation])
        top, left = round((new_height - 224) / 2), round((new_width - 224) / 2)  # half to even
        expected = np.asarray(resized)[top : top + 224, left : left + 224]
        assert_pillow(run(pixels), expected)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (512, 512), (333, 499), (1001, 223), (50, 75)])
def test_shortest_edge_is_torchvision_on_pillow_images(tmp_path: Path, height: int, width: int) -> None:
    run = preprocessor(tmp_path, resize="shortest_edge", shortest_edge=256)
    pixels = picture(height, width)
    transform = v2.Compose([v2.Resize(256, MODES["bilinear"], antialias=True), v2.CenterCrop(224)])
    assert_pillow(run(pixels), np.asarray(transform(Image.fromarray(pixels))))


def test_normalises_as_torchvision_does(tmp_path: Path) -> None:
    spec = ImageSpec()
    run = preprocessor(tmp_path, mean=spec.mean, std=spec.std)
    pixels = picture(224, 224)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = v2.functional.normalize(image.float() / 255, list(spec.mean), list(spec.std))
    assert np.allclose(run(pixels)[0], expected.numpy(), atol=NORMALIZED.bound)


def test_the_same_spec_gives_the_same_bytes() -> None:
    first, second = (build_preprocess(ImageSpec()).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            ImageSpec(resize="shortest_edge", shortest_edge=200),
            "shortest_edge gives 200 x 200 pixels .*, less than size 224 x 224",
        ),
        (ImageSpec(resize="resize_then_crop", resize_size=(300, 200)), "resize_size gives 300 x 200 pixels"),
        (ImageSpec(resize="naflex", shortest_edge=15), r"size 224 x 224 .* is not a number of patches of 15 x 15"),
        (ImageSpec(std=(0.2, 0.0, 0.2)), r"divides by a number that is not positive"),
    ],
)
def test_spec_that_no_graph_can_follow_is_refused(spec: ImageSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_preprocess(spec)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    size=st.integers(1, 40),
    margin=st.integers(0, 20),
    resize=st.sampled_from(["squash", "shortest_edge"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
)
def test_every_spec_and_size_gives_one_square(
    tmp_path: Path, height: int, width: int, size: int, margin: int, resize: str, interpolation: str
) -> None:
    one = preprocessor(tmp_path, size=size, resize=resize, shortest_edge=size + margin, interpolation=interpolation)
    assert one(picture(height, width)).shape == (1, 3, size, size)
