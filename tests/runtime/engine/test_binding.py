"""Bound tensors, on the CPU: what they give is the same there as on a device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.binding import Binding, device_of, run_plain
from mmalign_runtime.engine.session import Feeds


@pytest.fixture
def text(tiny_bundle: Path) -> onnxruntime.InferenceSession:
    source = tiny_bundle / open_bundle(tiny_bundle).spec.artifact("text").file
    return onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])


def tokens(num_texts: int, length: int, seed: int = 0) -> Feeds:
    ids = np.random.default_rng(seed).integers(5, 50, (num_texts, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def bound(session: onnxruntime.InferenceSession, feeds: Feeds) -> Binding:
    return Binding(session, "cpu", feeds, run_plain(session, feeds))


def test_vectors_are_those_of_plain_runs(text: onnxruntime.InferenceSession) -> None:
    binding = bound(text, tokens(3, 4))
    for seed in range(3):
        feeds = tokens(3, 4, seed=seed)
        np.testing.assert_array_equal(binding.run(feeds), run_plain(text, feeds))


def test_no_later_run_touches_what_was_given_out(text: onnxruntime.InferenceSession) -> None:
    binding = bound(text, tokens(2, 5))
    given: list[NDArray[np.float32]] = [binding.run(tokens(2, 5, seed=seed)) for seed in range(4)]
    for seed, vectors in enumerate(given):
        np.testing.assert_array_equal(vectors, run_plain(text, tokens(2, 5, seed=seed)))


def test_feeds_need_not_be_contiguous(text: onnxruntime.InferenceSession) -> None:
    feeds = {name: array[:, ::2] for name, array in tokens(3, 8).items()}
    np.testing.assert_array_equal(bound(text, feeds).run(feeds), run_plain(text, feeds))


def test_a_run_that_fails_says_so_and_the_next_one_works(text: onnxruntime.InferenceSession) -> None:
    binding = bound(text, tokens(1, 4))
    unknown = {**tokens(1, 4), "input_ids": np.full((1, 4), 10**9)}
    with pytest.raises(Exception, match="out of data bounds"):
        binding.run(unknown)
    np.testing.assert_array_equal(binding.run(tokens(1, 4)), run_plain(text, tokens(1, 4)))


def test_tensors_lie_on_the_device_for_cuda_alone() -> None:
    devices = {provider: device_of(provider) for provider in ("cpu", "cuda", "tensorrt", "openvino")}  # type: ignore[arg-type]
    assert devices == {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cpu", "openvino": "cpu"}
