from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder, InputError, ItemError
from mmalign_runtime.bench.run import PARTS, BenchPlan, BenchReport, Part, run_bench
from mmalign_runtime.bench.workload import golden_images, golden_texts

STAGES_ONLY = BenchPlan(parts=("stages",), batch_sizes=(1, 3), num_rounds=2)


@pytest.fixture(scope="module")
def whole(embedder: Embedder) -> BenchReport:
    """Every part, as short as can be."""
    plan = BenchPlan(batch_sizes=(1, 4), seconds=1.0, num_starts=1)
    return run_bench(embedder, golden_images(embedder.bundle), golden_texts(embedder.bundle), plan=plan)


def test_every_stage_of_every_batch_size_is_timed(embedder: Embedder) -> None:
    images, texts = golden_images(embedder.bundle), golden_texts(embedder.bundle)
    report = run_bench(embedder, images, texts, plan=STAGES_ONLY)
    found = [(row.kind, row.batch_size, row.stage) for row in report.timings]
    stages = {"image": ("decode", "preprocess", "tower", "total"), "text": ("tokenize", "tower", "total")}
    assert found == [(kind, size, stage) for kind in stages for size in (1, 3) for stage in stages[kind]]
    assert all(0 < row.p50_ms <= row.p90_ms <= row.p99_ms for row in report.timings)
    assert {row.num_batches for row in report.timings} == {2}
    assert (report.num_images, report.num_texts) == (len(images), len(texts))


def test_a_report_carries_its_environment_and_survives_json(embedder: Embedder, whole: BenchReport) -> None:
    assert msgspec.json.decode(msgspec.json.encode(whole), type=BenchReport) == whole
    assert whole.environment.runtime == embedder.info()
    assert whole.environment.cpu


def test_every_part_finds_something_of_both_kinds(whole: BenchReport) -> None:
    for rows in (whole.timings, whole.bulk, whole.closed_loop, whole.cold_starts):
        assert {row.kind for row in rows} == {"image", "text"}
    assert {row.batch_size for row in whole.bulk} == {1, 4}
    assert {row.num_callers for row in whole.closed_loop} == {1, 2}  # the embedder has two threads
    assert whole.quietness is not None and whole.quietness.num_references >= 20


def test_a_cold_start_is_the_sum_of_its_stages(whole: BenchReport) -> None:
    for row in whole.cold_starts:
        stages = row.process_ms + row.import_ms + row.open_ms + row.load_ms + row.first_run_ms
        assert stages == pytest.approx(row.total_ms)
        assert min(row.process_ms, row.import_ms, row.open_ms, row.load_ms, row.first_run_ms) > 0


@pytest.mark.parametrize("part", PARTS)
def test_a_part_alone_leaves_the_others_out(embedder: Embedder, part: Part) -> None:
    plan = BenchPlan(parts=(part,), batch_sizes=(1,), seconds=0.2, num_starts=1, num_callers=(1,))
    report = run_bench(embedder, golden_images(embedder.bundle)[:1], ["a dog"], plan=plan)
    rows: dict[Part, tuple[object, ...]] = {
        "stages": report.timings,
        "bulk": report.bulk,
        "closed-loop": report.closed_loop,
        "cold-start": report.cold_starts,
    }
    assert {name for name, found in rows.items() if found} == {part}


def test_one_tower_is_measured_alone() -> None:
    path = Path(__file__).parents[1] / "fixtures" / "tiny_bundle"
    with Embedder.load(path, provider="cpu", towers=("text",)) as embedder:
        report = run_bench(embedder, [], ["a dog"], plan=STAGES_ONLY)
    assert {row.kind for row in report.timings} == {"text"}
    assert (report.num_images, report.num_texts) == (0, 1)


def test_nothing_to_measure_is_an_input_error(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="seen 0 images, expected at least one"):
        run_bench(embedder, [], ["a dog"])
    with pytest.raises(InputError, match="expected at least 1 everywhere"):
        run_bench(embedder, golden_images(embedder.bundle), ["a dog"], plan=BenchPlan(batch_sizes=(1, 0)))
    with pytest.raises(InputError, match="expected more than 0"):
        run_bench(embedder, golden_images(embedder.bundle), ["a dog"], plan=BenchPlan(seconds=0.0))


def test_an_item_that_cannot_be_embedded_is_named(embedder: Embedder) -> None:
    with pytest.raises(ItemError, match=r"missing\.jpg"):
        run_bench(embedder, ["missing.jpg"], ["a dog"], plan=STAGES_ONLY)


def test_bad_items_are_left_out_and_reported(embedder: Embedder) -> None:
    images = ["missing.jpg", *golden_images(embedder.bundle)[:2]]
    report = run_bench(embedder, images, ["a dog", "\ud800"], plan=STAGES_ONLY, on_error="skip")
    assert (report.num_images, report.num_texts) == (2, 1)
    assert [(item.kind, item.stage) for item in report.skipped] == [("image", "open"), ("text", "tokenize")]


def test_nothing_but_bad_items_is_an_input_error(embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"none of 1 images can be embedded, the first \(missing\.jpg\) fails in open"):
        run_bench(embedder, ["missing.jpg"], ["a dog"], plan=STAGES_ONLY, on_error="skip")
