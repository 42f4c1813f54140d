"""Runs in batches of fixed sizes, on the CPU: what is filled up, cut and given out is the same there as on a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine import onnxruntime as engine
from mmalign_runtime.engine.host_memory import HostMemory
from mmalign_runtime.engine.runs import PlainRuns, SizedRuns, varies_in_its_batch_alone
from mmalign_runtime.errors import EmbedderStateError

SIZES = (1, 4)
Sessions = Callable[[], onnxruntime.InferenceSession]


class Seen:
    """A session, and the batch sizes that it was run at."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run(self, names: list[str], feeds: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        self.sizes.append(len(feeds["pixel_values"]))
        found: list[NDArray[np.float32]] = self._session.run(names, feeds)
        return found


def tower(bundle: Path, name: str) -> onnxruntime.InferenceSession:
    file = open_bundle(bundle).spec.artifact(name).file
    return onnxruntime.InferenceSession(str(bundle / file), providers=["CPUExecutionProvider"])


@pytest.fixture
def created() -> list[Seen]:
    return []


@pytest.fixture
def create(tiny_bundle: Path, created: list[Seen]) -> Sessions:
    def one() -> onnxruntime.InferenceSession:
        created.append(Seen(tower(tiny_bundle, "image")))
        return created[-1]  # type: ignore[return-value]

    return one


@pytest.fixture
def runs(create: Sessions) -> Iterator[SizedRuns]:
    made = SizedRuns(create(), create, "the image tower", HostMemory("cpu"), SIZES)
    yield made
    made.close()


def images(session: onnxruntime.InferenceSession, number: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    shape = (number, *session.get_inputs()[0].shape[1:])
    return {"pixel_values": np.random.default_rng(seed).standard_normal(shape, np.float32)}


def test_batches_between_the_sizes_are_filled_up_and_larger_ones_cut(runs: SizedRuns, tiny_bundle: Path) -> None:
    plain = tower(tiny_bundle, "image")
    for number in (3, 1, 4, 2, 9, 11):
        feeds = images(plain, number, seed=number)
        found = runs.run(plain, feeds)
        np.testing.assert_allclose(found, PlainRuns().run(plain, feeds), rtol=0, atol=1e-6)
        assert len(found) == number


def test_a_session_only_ever_sees_batches_of_one_size(runs: SizedRuns, created: list[Seen]) -> None:
    first = created[0]
    for number in (3, 1, 4, 2, 9, 11):
        runs.run(first, images(first, number))  # type: ignore[arg-type]
    assert [set(session.sizes) for session in created] == [{4}, {1}]


def test_no_later_run_touches_what_was_given_out(runs: SizedRuns, tiny_bundle: Path) -> None:
    plain = tower(tiny_bundle, "image")
    for number in (2, 4):
        first = runs.run(plain, images(plain, number, seed=1))
        kept = first.copy()
        runs.run(plain, images(plain, number, seed=2))
        np.testing.assert_array_equal(first, kept)


def test_callers_get_their_own_vectors(runs: SizedRuns, tiny_bundle: Path) -> None:
    plain = tower(tiny_bundle, "image")
    expected = [PlainRuns().run(plain, images(plain, 3, seed=seed)) for seed in range(4)]

    def repeat(seed: int) -> bool:
        own = images(plain, 3, seed=seed)
        return all(np.allclose(runs.run(plain, own), expected[seed], rtol=0, atol=1e-6) for _ in range(20))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(repeat, range(4)))


def test_after_close_it_says_so(runs: SizedRuns, tiny_bundle: Path) -> None:
    runs.close()
    plain = tower(tiny_bundle, "image")
    for number in (1, 3):
        with pytest.raises(EmbedderStateError, match="the image tower was closed"):
            runs.run(plain, images(plain, number))


def test_a_fork_is_told_to_load_anew(runs: SizedRuns, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = tower(tiny_bundle, "image")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(EmbedderStateError, match="this is a fork of it"):
        runs.run(plain, images(plain, 1))


def test_other_shapes_are_left_to_onnxruntime_to_refuse(runs: SizedRuns, tiny_bundle: Path) -> None:
    with pytest.raises(Exception, match="invalid dimensions"):
        runs.run(tower(tiny_bundle, "image"), {"pixel_values": np.zeros((1, 3, 2, 2), np.float32)})


def test_only_towers_that_vary_in_their_batch_alone_have_them(tiny_bundle: Path) -> None:
    assert varies_in_its_batch_alone(tower(tiny_bundle, "image"))
    assert not varies_in_its_batch_alone(tower(tiny_bundle, "text"))


def test_towers_of_convolutions_have_them_on_cuda_and_nowhere_else(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Embedder.load(tiny_bundle, provider="cpu") as embedder:
        expected = embedder.encode_text(["a fox"])
        assert all(type(each.session._runs) is PlainRuns for each in (embedder.image, embedder.text))  # type: ignore[attr-defined]
    monkeypatch.setattr(engine, "_choices", lambda options: engine.provider_choices("cpu", 1))
    monkeypatch.setattr(engine, "ort_name", lambda provider: "CPUExecutionProvider")
    monkeypatch.setattr("mmalign_runtime.engine.engines.find_engine", lambda name: OnCuda())
    with Embedder.load(tiny_bundle, provider="cuda") as embedder:
        kinds = [type(each.session._runs) for each in (embedder.image, embedder.text)]  # type: ignore[attr-defined]
        assert kinds == [SizedRuns, PlainRuns]
        np.testing.assert_allclose(embedder.encode_text(["a fox"]), expected, rtol=0, atol=1e-6)


class OnCuda(engine.OnnxRuntimeEngine):
    """Believes in a device that is not here."""

    def resolve_provider(self, asked: object) -> engine.ResolvedProvider:
        return "cuda"


def test_a_run_that_goes_on_while_it_is_closed_ends(
    runs: SizedRuns, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tower(tiny_bundle, "image")
    feeds = images(plain, 9)
    run = PlainRuns.run
    monkeypatch.setattr(PlainRuns, "run", lambda self, *given: (runs.close(), run(self, *given))[1])
    np.testing.assert_allclose(runs.run(plain, feeds), run(PlainRuns(), plain, feeds), rtol=0, atol=1e-6)
