from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.bench.compare import Question, Turns, compare, first_candidates, recommended, settings
from mmalign_runtime.bench.comparison import Candidate, Lap, measured
from mmalign_runtime.bench.workload import golden_images, golden_texts
from mmalign_runtime.bundle import Bundle, open_bundle
from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.errors import EngineError, InputError, ProviderError, VerificationError
from mmalign_runtime.profile import save_profile

ORT = RuntimeConfig(num_threads=2)
INT8 = RuntimeConfig(precision="int8", num_threads=2)
FAST = RuntimeConfig(engine="openvino", precision="int8", num_threads=2)
TWO_THREADS = {"num_threads": 2, "allow_spinning": False}


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def turns(
    item_s: Callable[[RuntimeConfig], float], refuse: Sequence[RuntimeConfig] = ()
) -> tuple[Turns, list[RuntimeConfig]]:
    """Turns of fake candidates of known speeds; the second value lists whose laps were run, in order."""
    ran: list[RuntimeConfig] = []

    def run_lap(config: RuntimeConfig, batch_sizes: Sequence[int]) -> list[Lap]:
        ran.append(config)
        if config.cache:
            raise EngineError("out of memory")
        return [Lap("image", size, (item_s(config) * 10,), 10) for size in batch_sizes]

    def verify(config: RuntimeConfig) -> None:
        if config in refuse:
            raise VerificationError("cosine 0.9")

    return Turns("throughput", run_lap, verify, lambda what: None), ran


def test_the_fastest_is_recommended_and_everyone_was_measured(bundle: Bundle) -> None:
    speeds = {"onnxruntime": 0.010, "openvino": 0.004}
    compared, _ = turns(lambda each: speeds[each.engine] / (each.num_threads or 1))
    found = compared.run([ORT, FAST], {}, (1, 8))
    assert found[0].config == FAST
    assert {each.config for each in found} >= {ORT, FAST}
    assert recommended(found, "throughput", bundle) == found[0]


def test_candidates_take_turns_and_the_last_are_measured_at_every_batch_size() -> None:
    compared, ran = turns(lambda each: 0.01)
    found = compared.run([ORT, INT8], TWO_THREADS, (1, 4, 8))  # type: ignore[arg-type]
    assert [{row.batch_size for row in each.measured} for each in found if each.is_final] == [{1, 4, 8}] * 2
    assert ran == [ORT, INT8, INT8, ORT, ORT, INT8, INT8, ORT, ORT, INT8]


def test_who_is_far_behind_is_measured_once_and_not_recommended(bundle: Bundle) -> None:
    compared, ran = turns(lambda each: 0.1 if each.precision == "int8" else 0.01)
    found = compared.run([ORT, INT8], TWO_THREADS, (1,))  # type: ignore[arg-type]
    assert [(each.config, each.is_final) for each in found] == [(ORT, True), (INT8, False)]
    assert ran.count(INT8) == 2
    assert recommended(found[1:], "throughput", bundle) is None


def test_the_default_stays_to_the_end_however_slow(bundle: Bundle) -> None:
    compared, _ = turns(lambda each: 0.1 if each == ORT else 0.01)
    found = compared.run([ORT, INT8], TWO_THREADS, (1,))  # type: ignore[arg-type]
    assert {each.config for each in found if each.is_final} == {ORT, INT8}


def test_who_fails_verify_is_refused_however_fast(bundle: Bundle) -> None:
    compared, ran = turns(lambda each: 0.001 if each.precision == "int8" else 0.01, refuse=[FAST])
    found = compared.run([ORT, FAST], {}, (1,))
    best = recommended(found, "throughput", bundle)
    assert best is not None and best.config.engine == "onnxruntime"
    assert compared.refused == {FAST: "cosine 0.9"}
    assert FAST not in [*ran, *(each.config for each in found)]


def test_who_cannot_be_run_is_refused_and_the_rest_go_on() -> None:
    broken = msgspec.structs.replace(INT8, cache=True)
    compared, ran = turns(lambda each: 0.01)
    found = compared.run([ORT, broken], {}, (1,))
    assert compared.refused == {broken: "out of memory"}
    assert ran.count(broken) == 1
    assert ORT in [each.config for each in found]


def test_nobody_left_is_no_recommendation(bundle: Bundle) -> None:
    compared, _ = turns(lambda each: 0.01, refuse=[ORT])
    assert recommended(compared.run([ORT], {"num_threads": 1}, (1,)), "throughput", bundle) is None


def candidate(config: RuntimeConfig, item_ms: float) -> Candidate:
    laps = [Lap("image", 1, (item_ms / 1000,), 1)]
    return Candidate(config=config, is_final=True, measured=(measured(laps),))


def test_of_equals_the_one_that_asks_for_least_is_recommended(bundle: Bundle) -> None:
    spinning = msgspec.structs.replace(ORT, allow_spinning=True)
    close = [candidate(spinning, 9.8), candidate(INT8, 9.9), candidate(ORT, 10.0)]
    assert recommended(close, "latency", bundle) == close[2]
    apart = [candidate(spinning, 9.0), candidate(INT8, 5.0), candidate(ORT, 10.0)]
    assert recommended(apart, "latency", bundle) == apart[1]


def test_the_score_is_the_geometric_mean_over_kinds() -> None:
    rows = tuple(
        measured([Lap(kind, size, (seconds,), 10)])
        for kind, size, seconds in (("image", 1, 0.1), ("image", 8, 0.05), ("text", 1, 0.0125))
    )
    found = Candidate(config=ORT, is_final=True, measured=rows)
    assert [row.batch_size for row in found.best("throughput")] == [8, 1]
    assert found.score("throughput") == pytest.approx((200 * 800) ** 0.5)


def test_a_batch_of_a_lap_took_its_share_of_the_lap() -> None:
    found = measured([Lap("text", 4, (0.2,), 8), Lap("text", 4, (0.4,), 8)])
    assert found.p50_ms == pytest.approx(150)
    assert found.items_per_s == pytest.approx(30)


def test_threads_are_powers_of_two_and_spinning_is_for_several_of_onnxruntime() -> None:
    found = list(settings(RuntimeConfig(num_threads=6), {}))
    ways = [(1, False), (2, False), (2, True), (4, False), (4, True), (6, False), (6, True)]
    assert [(each.num_threads, each.allow_spinning) for each in found] == ways
    four = RuntimeConfig(engine="openvino", num_threads=4)
    assert [each.num_threads for each in settings(four, {})] == [1, 2, 4]
    assert list(settings(four, {"num_threads": 4})) == [four]
    spinning = RuntimeConfig(num_threads=2, allow_spinning=True)
    assert list(settings(spinning, {"num_threads": 2, "allow_spinning": True})) == [spinning]


def test_only_what_an_engine_has_of_a_bundle_is_a_candidate(bundle: Bundle) -> None:
    found = first_candidates(bundle, {"num_threads": 2, "allow_tf32": True}, ("image", "text"))
    assert [each.precision for each in found] == list(bundle.spec.precisions())  # and no bf16
    assert {(each.num_threads, each.allow_tf32) for each in found} == {(2, True)}
    with pytest.raises(ProviderError, match=r"no engine of onnxruntime can run .* with precision bf16"):
        compare(bundle, Question(goal="latency", fixed={"precision": "bf16"}), [], [])


def test_a_kind_without_items_cannot_be_compared(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="seen 0 images, expected at least one to measure"):
        compare(bundle, Question(goal="latency", fixed={"precision": "fp32"}), [], ["a dog"])


@pytest.mark.parametrize("goal", ["latency", "throughput"])
def test_a_profile_comes_out_that_load_takes(bundle: Bundle, tmp_path: Path, goal: str) -> None:
    question = Question(
        goal=goal,  # type: ignore[arg-type]
        fixed={"precision": "fp32"},
        batch_sizes=(1, 2),
        even_if_noisy=True,
    )
    images, texts = [*golden_images(bundle)[:3], "missing.jpg"], golden_texts(bundle)[:3]
    found = compare(bundle, question, images, texts, on_error="skip")
    assert [item.source for item in found.skipped] == ["missing.jpg"]
    assert found.recommended is not None and found.profile is not None
    save_profile(tmp_path / "p.json", found.profile)
    with Embedder.load(bundle.path, profile=tmp_path / "p.json") as embedder:
        assert str(embedder.config) == str(found.recommended)
        assert {embedder.config.image_batch_size, embedder.config.text_batch_size} <= {1, 2}
