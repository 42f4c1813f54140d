"""Runs in batches of fixed sizes, on the CPU, where nothing is recorded: what is filled up, cut and held together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.binding import Binding, PlainRuns
from mmalign_runtime.engine.graphs import GraphRuns
from mmalign_runtime.engine.providers import provider_choices
from mmalign_runtime.errors import EmbedderStateError, EngineError, ProviderError
from mmalign_runtime.spec import Modality

SIZES = (1, 4)
MODALITIES: tuple[Modality, ...] = ("image", "text")
NAME = "the image tower"


@pytest.fixture
def sessions(tiny_bundle: Path) -> dict[str, onnxruntime.InferenceSession]:
    bundle = open_bundle(tiny_bundle)
    return {
        tower: onnxruntime.InferenceSession(
            str(tiny_bundle / bundle.model(tower, "fp32")), providers=["CPUExecutionProvider"]
        )
        for tower in MODALITIES
    }


def images(session: onnxruntime.InferenceSession, number: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    shape = (number, *session.get_inputs()[0].shape[1:])
    return {"pixel_values": np.random.default_rng(seed).standard_normal(shape, np.float32)}


def test_batches_between_the_sizes_are_filled_up_and_larger_ones_cut(
    sessions: dict[str, onnxruntime.InferenceSession],
) -> None:
    vision = sessions["image"]
    runs = GraphRuns(vision, NAME, "cpu", SIZES)
    for number in (3, 1, 4, 2, 9, 11):
        feeds = images(vision, number, seed=number)
        found = runs.run(vision, feeds)
        np.testing.assert_allclose(found, PlainRuns().run(vision, feeds), rtol=0, atol=1e-6)
        assert len(found) == number
    runs.close()


def test_no_later_run_touches_what_was_given_out(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    vision = sessions["image"]
    runs = GraphRuns(vision, NAME, "cpu", SIZES)
    for number in (2, 4):
        first = runs.run(vision, images(vision, number, seed=1))
        kept = first.copy()
        runs.run(vision, images(vision, number, seed=2))
        np.testing.assert_array_equal(first, kept)
    runs.close()


def test_callers_get_their_own_vectors(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    vision = sessions["image"]
    runs = GraphRuns(vision, NAME, "cpu", SIZES)
    expected = [PlainRuns().run(vision, images(vision, 3, seed=seed)) for seed in range(4)]

    def repeat(seed: int) -> bool:
        own = images(vision, 3, seed=seed)
        return all(np.allclose(runs.run(vision, own), expected[seed], rtol=0, atol=1e-6) for _ in range(20))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(repeat, range(4)))
    runs.close()


def test_after_close_it_says_so(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    runs = GraphRuns(sessions["image"], NAME, "cpu", SIZES)
    runs.close()
    with pytest.raises(EmbedderStateError, match="the image tower was closed"):
        runs.run(sessions["image"], images(sessions["image"], 1))


def test_a_graph_that_gives_other_vectors_is_refused(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Binding.run
    monkeypatch.setattr(Binding, "run", lambda self, feeds: right(self, feeds) * np.float32(0.9))
    with pytest.raises(EngineError, match="the graph for batches of 4 gives vectors that are"):
        GraphRuns(sessions["image"], NAME, "cpu", SIZES)


def test_only_the_batch_may_vary(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    with pytest.raises(ProviderError, match="graphs need one input that varies in its batch alone"):
        GraphRuns(sessions["text"], "the text tower", "cpu", SIZES)


def test_other_shapes_are_left_to_onnxruntime_to_refuse(sessions: dict[str, onnxruntime.InferenceSession]) -> None:
    vision = sessions["image"]
    runs = GraphRuns(vision, NAME, "cpu", SIZES)
    with pytest.raises(Exception, match="invalid dimensions"):
        runs.run(vision, {"pixel_values": np.zeros((1, 3, 2, 2), np.float32)})
    runs.close()


def test_they_are_cudas_alone(tiny_bundle: Path) -> None:
    with pytest.raises(ProviderError, match="cuda_graphs was asked for, with engine 'onnxruntime' on provider 'cpu'"):
        Embedder.load(tiny_bundle, provider="cpu", cuda_graphs=True)
    assert provider_choices("cuda", 1, cuda_graphs=True)[0].options["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in provider_choices("cuda", 1)[0].options
