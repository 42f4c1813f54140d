from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bench import golden_images, golden_texts
from mmalign_runtime.bench.compare.candidates import Candidate, basic_candidates, settings
from mmalign_runtime.bench.compare.heats import Heats
from mmalign_runtime.bench.compare.laps import Lap, measured
from mmalign_runtime.bench.compare.report import Contestant
from mmalign_runtime.bench.compare.run import Question, compare, recommended
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.errors import EngineError, ProviderError, VerificationError
from mmalign_runtime.profile import save_profile

ORT = Candidate("onnxruntime", "fp32", 2)
INT8 = Candidate("onnxruntime", "int8", 2)
FAST = Candidate("openvino", "int8", 2)


def heats(item_s: Callable[[Candidate], float], refuse: Sequence[Candidate] = ()) -> tuple[Heats, list[Candidate]]:
    """Heats over fake candidates of known speeds; the second value lists who was tried, in order."""
    tried: list[Candidate] = []

    def try_once(candidate: Candidate, batch_sizes: Sequence[int]) -> list[Lap]:
        tried.append(candidate)
        return [Lap("image", size, (item_s(candidate) * 10,), 10) for size in batch_sizes]

    def verify(candidate: Candidate) -> None:
        if candidate in refuse:
            raise VerificationError("cosine 0.9")

    return Heats("throughput", try_once, verify, lambda what: None), tried


def test_the_fastest_wins_and_everyone_was_tried() -> None:
    speeds = {"onnxruntime": 0.010, "openvino": 0.004}
    ran, _ = heats(lambda each: speeds[each.engine] / each.num_threads)
    found = ran.run([ORT, FAST], ORT, (1, 8), num_threads=None)
    assert found[0].candidate == FAST
    assert {each.candidate for each in found} >= {ORT, FAST}
    assert recommended(found, "throughput", ("fp32", "int8")) == found[0]


def test_finalists_take_turns_and_are_tried_at_every_batch_size() -> None:
    ran, tried = heats(lambda each: 0.01 if each.num_threads == 2 else 0.02)
    found = ran.run([ORT, INT8], ORT, (1, 4, 8), num_threads=2)
    finals = [each for each in found if each.is_verified and each.num_tries == 3]
    assert {row.batch_size for row in finals[0].measured} == {1, 4, 8}
    first, second = tried[-2 * len(finals) : -len(finals)], tried[-len(finals) :]
    assert set(first) == set(second) and first != second


def test_who_fails_verify_is_refused_however_fast() -> None:
    ran, _ = heats(lambda each: 0.001 if each.precision == "int8" else 0.01, refuse=[FAST])
    found = ran.run([ORT, FAST], ORT, (1,), num_threads=2)
    assert recommended(found, "throughput", ("fp32", "int8")).candidate.engine == "onnxruntime"
    assert [(each.candidate, each.reason) for each in ran.refused] == [(FAST, "cosine 0.9")]
    assert FAST not in [each.candidate for each in found]


def test_who_cannot_be_loaded_is_refused_once_and_the_rest_go_on() -> None:
    ran, _ = heats(lambda each: 0.01)
    original = ran._try_once

    def try_once(candidate: Candidate, batch_sizes: Sequence[int]) -> Sequence[Lap]:
        if candidate.engine == "openvino":
            raise EngineError("out of memory")
        return original(candidate, batch_sizes)

    ran._try_once = try_once
    found = ran.run([ORT, FAST], ORT, (1,), num_threads=2)
    assert [each.reason for each in ran.refused] == ["out of memory"]
    assert ORT in [each.candidate for each in found]


def test_nobody_left_is_no_recommendation() -> None:
    ran, _ = heats(lambda each: 0.01, refuse=[ORT])
    found = ran.run([ORT], ORT, (1,), num_threads=1)
    assert recommended(found, "throughput", ("fp32",)) is None


def contestant(candidate: Candidate, item_ms: float) -> Contestant:
    laps = [Lap("image", 1, (item_ms / 1000,), 1)]
    return Contestant(candidate=candidate, num_tries=5, is_verified=True, measured=(measured(laps),))


def test_of_equals_the_one_that_asks_for_least_is_recommended() -> None:
    spinning = Candidate("onnxruntime", "fp32", 2, allow_spinning=True)
    order = ("fp32", "int8")
    close = [contestant(spinning, 9.8), contestant(INT8, 9.9), contestant(ORT, 10.0)]
    assert recommended(close, "latency", order).candidate == ORT
    apart = [contestant(spinning, 9.0), contestant(INT8, 5.0), contestant(ORT, 10.0)]
    assert recommended(apart, "latency", order).candidate == INT8


def test_the_score_is_the_geometric_mean_over_kinds() -> None:
    rows = tuple(
        measured([Lap(kind, size, (seconds,), 10)])
        for kind, size, seconds in (("image", 1, 0.1), ("image", 8, 0.05), ("text", 1, 0.0125))
    )
    found = Contestant(candidate=ORT, num_tries=1, is_verified=True, measured=rows)
    assert [row.batch_size for row in found.best("throughput")] == [8, 1]
    assert found.score("throughput") == pytest.approx((200 * 800) ** 0.5)


def test_a_batch_of_a_lap_took_its_share_of_the_lap() -> None:
    found = measured([Lap("text", 4, (0.2,), 8), Lap("text", 4, (0.4,), 8)])
    assert found.p50_ms == pytest.approx(150)
    assert found.items_per_s == pytest.approx(30)


def test_threads_are_powers_of_two_and_spinning_is_for_several_of_onnxruntime() -> None:
    found = list(settings(Candidate("onnxruntime", "fp32", 6), num_threads=None))
    assert [(each.num_threads, each.allow_spinning) for each in found] == [
        (1, False),
        (2, False),
        (2, True),
        (4, False),
        (4, True),
        (6, True),
    ]
    assert [each.num_threads for each in settings(Candidate("openvino", "fp32", 4), num_threads=None)] == [1, 2]
    assert list(settings(Candidate("openvino", "fp32", 4), num_threads=4)) == []


def test_only_what_an_engine_has_of_a_bundle_is_a_candidate(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    found = basic_candidates(bundle, ["onnxruntime"], ("image", "text"), precision=None, num_threads=2)
    assert [each.precision for each in found] == list(bundle.spec.precisions())  # and no bf16
    with pytest.raises(ProviderError, match=r"no engine of onnxruntime can run .* with precision bf16"):
        compare(bundle, Question(goal="latency", engines=("onnxruntime",), precision="bf16"), [], [])


@pytest.mark.parametrize("goal", ["latency", "throughput"])
def test_a_profile_comes_out_that_load_takes(tiny_bundle: Path, tmp_path: Path, goal: str) -> None:
    bundle = open_bundle(tiny_bundle)
    question = Question(
        goal=goal,  # type: ignore[arg-type]
        engines=("onnxruntime",),
        precision="fp32",
        batch_sizes=(1, 2),
        even_if_noisy=True,
    )
    images, texts = [*golden_images(bundle)[:3], "missing.jpg"], golden_texts(bundle)[:3]
    found = compare(bundle, question, images, texts, on_error="skip")
    assert [item.source for item in found.skipped] == ["missing.jpg"]
    assert found.recommended is not None and found.profile is not None
    assert found.of(found.recommended).is_verified
    save_profile(tmp_path / "p.json", found.profile)
    with Embedder.load(tiny_bundle, profile=tmp_path / "p.json") as embedder:
        info = embedder.info()
        assert Candidate(info.engine, "fp32", info.num_threads, info.allow_spinning) == found.recommended
        assert {embedder.batch_sizes.image, embedder.batch_sizes.text} <= {1, 2}
