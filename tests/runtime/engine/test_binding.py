"""Bound runs, on the CPU: what they keep and what they give is the same there as on a device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.engine.binding import Binding, BoundRuns, PlainRuns, _shapes, device_of
from mmalign_runtime.engine.session import Feeds


@pytest.fixture
def text(tiny_bundle: Path) -> onnxruntime.InferenceSession:
    source = tiny_bundle / open_bundle(tiny_bundle).spec.artifact("text").file
    return onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])


def tokens(num_texts: int, length: int, seed: int = 0) -> Feeds:
    ids = np.random.default_rng(seed).integers(5, 50, (num_texts, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def plain(session: onnxruntime.InferenceSession, feeds: Feeds) -> NDArray[np.float32]:
    return PlainRuns().run(session, feeds)


def test_vectors_are_those_of_plain_runs(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    for round_number in range(3):
        for num_texts, length in ((1, 4), (3, 4), (3, 9)):
            feeds = tokens(num_texts, length, seed=round_number)
            np.testing.assert_array_equal(runs.run(text, feeds), plain(text, feeds))
        assert runs.num_kept == 3


def test_no_later_run_touches_what_was_given_out(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    given = [runs.run(text, tokens(2, 5, seed=seed)) for seed in range(4)]
    for seed, vectors in enumerate(given):
        np.testing.assert_array_equal(vectors, plain(text, tokens(2, 5, seed=seed)))


def test_feeds_need_not_be_contiguous(text: onnxruntime.InferenceSession) -> None:
    runs, wide = BoundRuns("cpu"), tokens(3, 8)
    feeds = {name: array[:, ::2] for name, array in wide.items()}
    for _ in range(2):
        np.testing.assert_array_equal(runs.run(text, feeds), plain(text, feeds))


def test_callers_do_not_share_a_binding(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    expected = [plain(text, tokens(2, 6, seed=seed)) for seed in range(4)]

    def repeat(seed: int) -> bool:
        return all(np.array_equal(runs.run(text, tokens(2, 6, seed=seed)), expected[seed]) for _ in range(50))

    with ThreadPoolExecutor(4) as callers:
        assert all(callers.map(repeat, range(4)))
    assert 1 <= runs.num_kept <= 4


def test_shapes_that_do_not_come_again_are_let_go(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    for length in range(2, 30):
        runs.run(text, tokens(1, length))
    assert runs.num_kept == 8


def test_a_run_that_fails_keeps_nothing_and_the_next_one_works(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    runs.run(text, tokens(1, 4))
    unknown = {**tokens(1, 4), "input_ids": np.full((1, 4), 10**9)}
    with pytest.raises(Exception, match="out of data bounds"):
        runs.run(text, unknown)
    assert runs.num_kept == 0
    np.testing.assert_array_equal(runs.run(text, tokens(1, 4)), plain(text, tokens(1, 4)))


def test_nothing_is_kept_after_close(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    runs.run(text, tokens(1, 4))
    runs.close()
    assert runs.num_kept == 0
    runs.run(text, tokens(1, 4))  # one that was going on
    assert runs.num_kept == 0


def test_tensors_lie_on_the_device_for_cuda_alone() -> None:
    devices = {provider: device_of(provider) for provider in ("cpu", "cuda", "tensorrt", "openvino")}  # type: ignore[arg-type]
    assert devices == {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cpu", "openvino": "cpu"}


def test_the_shapes_that_came_last_are_kept(
    text: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, ...]] = []
    whole = Binding.__init__

    def counted(binding: Binding, session: object, device: str, feeds: Feeds, output: object) -> None:
        made.append(feeds["input_ids"].shape)
        whole(binding, session, device, feeds, output)  # type: ignore[arg-type]

    monkeypatch.setattr(Binding, "__init__", counted)
    runs = BoundRuns("cpu")
    for length in range(2, 10):
        runs.run(text, tokens(1, length))
    runs.run(text, tokens(1, 2))  # used again: no longer the oldest
    assert len(made) == 8
    runs.run(text, tokens(1, 10))  # a ninth: the oldest goes, which is that of three tokens
    runs.run(text, tokens(1, 2))
    assert len(made) == 9
    runs.run(text, tokens(1, 3))
    assert made[-1] == (1, 3)
    assert len(made) == 10


def test_another_type_is_another_binding(text: onnxruntime.InferenceSession) -> None:
    runs = BoundRuns("cpu")
    runs.run(text, tokens(2, 4))
    wrong = {name: array.astype(np.int32) for name, array in tokens(2, 4).items()}
    with pytest.raises(Exception, match="Unexpected input data type"):
        runs.run(text, wrong)
    assert runs.num_kept == 1


def test_of_two_bindings_of_a_shape_one_waits_while_the_other_runs(text: onnxruntime.InferenceSession) -> None:
    runs, feeds = BoundRuns("cpu"), tokens(2, 4)
    shapes = _shapes(feeds)
    runs.run(text, feeds)
    taken = runs._take(shapes)
    assert taken is not None
    runs.run(text, feeds)
    runs._keep(shapes, taken)
    assert runs.num_kept == 2
    again = runs._take(shapes)
    assert again is taken
    assert runs.num_kept == 1
