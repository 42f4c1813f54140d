"""`verify` runs the preprocessing graph with the engine that serves, where that is another one than onnxruntime."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.verify.golden_cases import run_golden
from mmalign_runtime.verify.pixels import can_check_pixels, check_pixels
from mmalign_runtime.verify.run import verify_embedder

FIXTURE = Path(__file__).parents[1] / "runtime/fixtures/tiny_bundle"

pytest.importorskip("openvino", reason="openvino is not installed")


def test_openvino_prepares_every_golden_image_alike(bundle_dir: Path) -> None:
    with Embedder.load(bundle_dir, engine="openvino") as embedder:
        report = verify_embedder(embedder)
        (check,) = [check for check in report.checks if check.name == "pixels"]
        assert check.passed
        # A level divided by the smallest standard deviation of ImageNet, 0.224.
        assert check.bound == pytest.approx(0.0175, rel=0.01)


def test_pixels_of_two_levels_more_are_seen(bundle_dir: Path) -> None:
    with Embedder.load(bundle_dir, engine="openvino") as embedder:
        golden = run_golden(embedder, verify_embedder(embedder).bounds)
        two_levels = 2 / 255 / 0.224
        moved = [
            msgspec.structs.replace(image, pixel_values=image.pixel_values + two_levels) for image in golden.images
        ]
        assert not check_pixels(embedder, moved).passed


def test_onnxruntime_is_not_compared_with_itself_nor_an_older_graph_with_anything(bundle_dir: Path) -> None:
    with Embedder.load(bundle_dir) as embedder:
        assert not can_check_pixels(embedder)
    with Embedder.load(FIXTURE, engine="openvino") as embedder:
        assert not can_check_pixels(embedder)
        assert "pixels" not in {check.name for check in verify_embedder(embedder).checks}
