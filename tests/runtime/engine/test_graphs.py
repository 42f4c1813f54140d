"""Runs in batches of fixed sizes, on the CPU, where nothing is recorded: what is filled up, cut and held together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.binding import Binding, PlainRuns
from mmalign_runtime.engine.graphs import GraphRuns, _Graph
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
            str(tiny_bundle / bundle.spec.artifact(tower).file), providers=["CPUExecutionProvider"]
        )
        for tower in MODALITIES
    }


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mmalign-graphs")]


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
    assert len(own_threads()) == 1  # the one that recorded: onnxruntime keeps a graph with its thread
    runs.close()
    assert own_threads() == []


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
    assert own_threads() == []


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


class Counted:
    """Stands for Binding: counts what is run, by batch size, and adds to what it gives."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, apart: float = 0.0) -> None:
        self.sizes: list[int] = []
        right = Binding.run

        def run(binding: Binding, feeds: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
            found = right(binding, feeds)
            self.sizes.append(len(found))
            return found + np.float32(apart)

        monkeypatch.setattr(Binding, "run", run)


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_graph_may_give_vectors_that_are_five_thousandths_apart(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch, sign: int
) -> None:
    with monkeypatch.context() as patch:
        Counted(patch, sign * 4.9e-3)
        GraphRuns(sessions["image"], NAME, "cpu", SIZES).close()
    with monkeypatch.context() as patch:
        Counted(patch, sign * 5.1e-3)
        with pytest.raises(EngineError, match=r"are 0\.0051 from those of a plain run, expected at most 0\.005\."):
            GraphRuns(sessions["image"], NAME, "cpu", SIZES)


def test_vectors_that_are_no_numbers_are_refused_as_a_graph(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    Counted(monkeypatch, float("nan"))
    with pytest.raises(EngineError, match="gives vectors that are nan from those of a plain run"):
        GraphRuns(sessions["image"], NAME, "cpu", SIZES)


def test_each_size_is_recorded_by_four_runs_the_largest_first_and_then_held(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    GraphRuns(sessions["image"], NAME, "cpu", (4, 1)).close()
    # onnxruntime before 1.26 records in the third run of a graph: four, and one that is held to a plain run.
    assert counted.sizes == [*[4] * 5, *[1] * 5]


def test_graphs_are_of_1_8_and_32_images_unless_told_otherwise(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(monkeypatch)
    vision = sessions["image"]
    runs = GraphRuns(vision, NAME, "cpu")
    counted.sizes.clear()
    for number in (1, 2, 8, 9, 32, 33, 41):
        assert len(runs.run(vision, images(vision, number))) == number
    runs.close()
    # 2 images fill up the graph of 8; 33 are cut into 32 and 1, 41 into 32 and 9, which fill up another 32.
    assert counted.sizes == [1, 8, 8, 32, 32, 32, 1, 32, 32]


def test_a_graph_is_asked_for_by_its_size_and_a_plain_run_by_minus_one(
    sessions: dict[str, onnxruntime.InferenceSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    class RunOptions(onnxruntime.RunOptions):  # type: ignore[misc]
        def add_run_config_entry(self, key: str, value: str) -> None:
            seen.append((key, value))
            super().add_run_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "RunOptions", RunOptions)
    GraphRuns(sessions["image"], NAME, "cpu", SIZES).close()
    assert {key for key, _ in seen} == {"gpu_graph_id"}
    # Minus one is onnxruntime's word for a run that is not recorded: the row alone, and one for each size's output.
    assert [value for _, value in seen] == ["-1", "-1", "4", "-1", "1"]


class Inputs:
    """Stands for a session that has these inputs."""

    def __init__(self, **shapes: list[int | str]) -> None:
        self._inputs = [SimpleNamespace(name=name, shape=shape) for name, shape in shapes.items()]

    def get_inputs(self) -> list[SimpleNamespace]:
        return self._inputs


@pytest.mark.parametrize(
    ("session", "seen"),
    [
        (Inputs(x=["B", 3, "S", 8]), r"x \['B', 3, 'S', 8\]"),
        (Inputs(x=["B", 3], y=["B", 3]), r"x \['B', 3\], y \['B', 3\]"),
        (Inputs(x=["B", 3], y=["B", "L"]), r"x \['B', 3\], y \['B', 'L'\]"),
    ],
)
def test_more_inputs_or_another_side_that_varies_is_refused(session: Inputs, seen: str) -> None:
    with pytest.raises(ProviderError, match=rf"the tower takes {seen}: graphs need one input"):
        GraphRuns(session, "the tower", "cpu", SIZES)  # type: ignore[arg-type]


def test_a_recorded_graph_is_frozen() -> None:
    assert _Graph.__struct_config__.frozen
