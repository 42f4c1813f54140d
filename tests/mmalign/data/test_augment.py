from __future__ import annotations

import msgspec
import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from mmalign.data.augment import AugmentConfig, ImageAugment
from mmalign.pixels.preprocess import build_preprocess
from mmalign_runtime.spec import ImageSpec
from tests.tolerances import NORMALIZED

SPEC = ImageSpec(size=16)
NONE = AugmentConfig(crop_scale=1.0, color_jitter=0.0, grayscale=0.0, blur=0.0)
PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def test_the_same_seed_gives_the_same_pixels_whatever_was_drawn_before() -> None:
    augment = ImageAugment(AugmentConfig(), SPEC)
    first = augment(PIXELS, seed=7)
    torch.rand(13)
    assert torch.equal(augment(PIXELS, seed=7), first)
    assert not torch.equal(augment(PIXELS, seed=8), first)


def test_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    ImageAugment(AugmentConfig(), SPEC)(PIXELS, seed=7)
    assert torch.equal(torch.rand(3), expected)


def test_gives_normalised_float32_of_the_spec_s_size() -> None:
    result = ImageAugment(NONE, SPEC)(np.full((5, 9, 3), 255, np.uint8), seed=0)
    assert result.shape == (3, 16, 16)
    assert result.dtype == torch.float32
    white = (1 - np.array(SPEC.mean)) / np.array(SPEC.std)
    assert np.allclose(result[:, 3, 3], white, atol=NORMALIZED.bound)


def test_flips_are_off_unless_asked_for() -> None:
    plain, flipping = ImageAugment(NONE, SPEC), ImageAugment(AugmentConfig(**FLIP), SPEC)
    upright = plain(PIXELS, seed=0)
    assert all(torch.equal(plain(PIXELS, seed), upright) for seed in range(20))
    assert torch.equal(flipping(PIXELS, seed=0), upright.flip(-1))


FLIP = {"crop_scale": 1.0, "horizontal_flip": 1.0, "color_jitter": 0.0, "grayscale": 0.0, "blur": 0.0}


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(size=16, resize="shortest_edge", shortest_edge=16),
        ImageSpec(size=(12, 20), resize="resize_then_crop", resize_size=(30, 20)),
        ImageSpec(size=(16, 20), resize="longest_edge", fill=(9, 120, 200)),
        ImageSpec(size=(12, 20)),
    ],
)
def test_without_random_crop_the_pixels_are_those_that_serve(spec: ImageSpec) -> None:
    graph = onnxruntime.InferenceSession(build_preprocess(spec).SerializeToString(), None, ["CPUExecutionProvider"])
    pixels = np.zeros((17, 64, 3), np.uint8)
    pixels[:, :24, 0] = 255  # an edge outside of the centred crop, which spans columns 24 to 40
    (served,) = graph.run(None, {"pixels": pixels})
    found = ImageAugment(NONE, spec)(pixels, seed=0).numpy()
    assert np.abs(found - served[0]).max() <= 1.5 / 255 / min(spec.std)  # torchvision rounds between the passes


SMALL_CROPS = AugmentConfig(crop_scale=0.05, color_jitter=0.0, grayscale=0.0, blur=0.0, jpeg_oversampling=2)


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_has_as_many_pixels_as_asked_and_not_twice_as_many(seed: int) -> None:
    stored, size = (900, 1200), (16, 24)
    augment = ImageAugment(SMALL_CROPS, ImageSpec(size=size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        whole = torch.empty(3, *stored)
        crop = v2.RandomResizedCrop.get_params(whole, [0.05, 1.0], [3 / 4, 4 / 3])[2:]  # (height, width), full scale
    wanted = augment.wanted(stored, seed)
    for side, wanted_side, stored_side, cropped in zip(size, wanted, stored, crop, strict=True):
        assert wanted_side - 1 < 2 * side * stored_side / cropped <= wanted_side


def test_without_random_crop_a_jpeg_keeps_what_the_resize_needs() -> None:
    config = msgspec.structs.replace(SMALL_CROPS, crop_scale=1.0)
    assert ImageAugment(config, ImageSpec(size=(12, 20))).wanted((900, 1200), 0) == (40, 40)


@pytest.mark.parametrize("seed", range(6))
def test_a_reduced_picture_is_cropped_where_the_whole_one_is(seed: int) -> None:
    rows, columns = np.mgrid[:640, :480] / 640
    whole = np.stack([255 * rows, 255 * columns, 0 * rows], axis=2).astype(np.uint8)
    reduced = np.ascontiguousarray(whole[3::8, 3::8])
    augment = ImageAugment(msgspec.structs.replace(SMALL_CROPS, crop_scale=0.2), SPEC)
    expected = augment(whole, seed)
    assert (augment(reduced, seed, stored=(640, 480)) - expected).abs().mean() < 0.05
    assert (augment(np.roll(reduced, 8, axis=0), seed, stored=(640, 480)) - expected).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["crop_scale", "color_jitter", "grayscale", "blur"])
def test_each_augmentation_varies_the_image(name: str) -> None:
    strengths = {"crop_scale": 0.5, "color_jitter": 0.5, "grayscale": 0.5, "blur": 0.5}
    settings = {"crop_scale": 1.0, "color_jitter": 0.0, "grayscale": 0.0, "blur": 0.0, name: strengths[name]}
    augment = ImageAugment(AugmentConfig(**settings), SPEC)
    assert len({augment(PIXELS, seed).numpy().tobytes() for seed in range(8)}) > 1
