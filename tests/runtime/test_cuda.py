"""What only a GPU can show. Without one these tests are skipped, and say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.bundle.golden import load_golden
from mmalign_runtime.verify import verify_embedder

TINY_BUNDLE = Path(__file__).parent / "fixtures" / "tiny_bundle"
PARITY = 1e-4  # the export's own bound
BATCH_SIZES = (1, 3, 8, 17, 64)

pytestmark = pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-gpu and an NVIDIA GPU",
)


@pytest.fixture(scope="module")
def on_cuda() -> Iterator[Embedder]:
    with Embedder.load(TINY_BUNDLE, provider="cuda") as embedder:
        yield embedder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [case.text for case in load_golden(open_bundle(TINY_BUNDLE)).texts]


@pytest.fixture(scope="module")
def images() -> list[Path]:
    return [TINY_BUNDLE / case.file for case in load_golden(open_bundle(TINY_BUNDLE)).images]


def embed(embedder: Embedder, images: list[Path], texts: list[str]) -> NDArray[np.float32]:
    return np.concatenate([embedder.encode_image(images), embedder.encode_text(texts)])


def test_the_bundle_verifies_and_no_node_of_a_tower_falls_to_the_cpu(on_cuda: Embedder) -> None:
    report = verify_embedder(on_cuda)
    assert report.passed, [check for check in report.checks if not check.passed]
    assert report.runtime.provider == "cuda"
    assert on_cuda.info().provider == "cuda"


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_vectors_are_those_of_the_cpu_in_batches_of_any_size(
    on_cuda: Embedder, embedder: Embedder, images: list[Path], texts: list[str], batch_size: int
) -> None:
    some_images, some_texts = (images * 9)[:batch_size], (texts * 9)[:batch_size]
    difference = embed(on_cuda, some_images, some_texts) - embed(embedder, some_images, some_texts)
    assert np.abs(difference).max() <= PARITY


def test_batches_of_other_sizes_and_texts_in_between_move_no_vector(
    on_cuda: Embedder, embedder: Embedder, images: list[Path], texts: list[str]
) -> None:
    expected = embedder.encode_image(images)
    for number in (1, 3, len(images), 1, 8, 2, len(images)):
        assert np.abs(on_cuda.encode_image(images[:number]) - expected[:number]).max() <= PARITY
        on_cuda.encode_text(texts[:number])


def test_batches_of_any_size_take_no_longer_than_a_full_one(on_cuda: Embedder, images: list[Path]) -> None:
    on_cuda.encode_image(images[:1])
    start = time.perf_counter()
    for number in (5, 2, 9, 3, 7, 1, 8, 4, 6, 10):  # planned anew, each would take 0.1 s or more
        on_cuda.encode_image(images[:number])
    assert time.perf_counter() - start < 1.0


def test_calls_that_follow_each_other_have_their_own_vectors(on_cuda: Embedder, embedder: Embedder) -> None:
    words = [f"{first} {second}" for first in ("red", "old", "big") for second in ("cat", "dog", "car")]
    for text in words * 5:  # equal shapes, so that what one call leaves on the device could serve the next
        batch = [text] * 32
        assert np.abs(on_cuda.encode_text(batch) - embedder.encode_text(batch)).max() <= PARITY, text


def test_callers_at_once_get_their_own_vectors(on_cuda: Embedder, texts: list[str]) -> None:
    expected = [on_cuda.encode_text([text]) for text in texts]
    with ThreadPoolExecutor(8) as callers:
        found = list(callers.map(lambda text: on_cuda.encode_text([text]), texts * 20))
    for i, vectors in enumerate(found):
        assert np.abs(vectors - expected[i % len(texts)]).max() <= PARITY
