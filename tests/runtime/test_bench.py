from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder, InputError, ItemError
from mmalign_runtime.bench import BenchReport, cpu_model, golden_images, golden_texts, run_bench


def test_every_stage_of_every_batch_size_is_timed(embedder: Embedder) -> None:
    images, texts = golden_images(embedder.bundle), golden_texts(embedder.bundle)
    report = run_bench(embedder, images, texts, batch_sizes=(1, 3), num_rounds=2)
    found = [(row.kind, row.batch_size, row.stage) for row in report.timings]
    stages = {"image": ("decode", "preprocess", "tower", "total"), "text": ("tokenize", "tower", "total")}
    assert found == [(kind, size, stage) for kind in stages for size in (1, 3) for stage in stages[kind]]
    assert all(0 < row.p50_ms <= row.p90_ms <= row.p99_ms for row in report.timings)
    assert {row.num_batches for row in report.timings} == {2}
    assert (report.num_images, report.num_texts) == (len(images), len(texts))


def test_a_report_carries_its_environment_and_survives_json(embedder: Embedder) -> None:
    report = run_bench(embedder, golden_images(embedder.bundle), ["a dog"], batch_sizes=[1], num_rounds=1)
    assert msgspec.json.decode(msgspec.json.encode(report), type=BenchReport) == report
    assert report.environment.runtime == embedder.info()
    assert report.environment.cpu


def test_the_processor_is_named_as_linux_names_it(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Fast One 3000\n\nprocessor\t: 1\nmodel name\t: Fast One 3000\n")
    assert cpu_model(path) == "Fast One 3000"
    assert cpu_model(tmp_path / "missing")


def test_nothing_to_measure_is_an_input_error(embedder: Embedder) -> None:
    with pytest.raises(InputError, match="seen 0 images and 1 texts"):
        run_bench(embedder, [], ["a dog"])
    with pytest.raises(InputError, match="expected at least 1 everywhere"):
        run_bench(embedder, golden_images(embedder.bundle), ["a dog"], batch_sizes=[1, 0])


def test_an_item_that_cannot_be_embedded_is_named(embedder: Embedder) -> None:
    with pytest.raises(ItemError, match=r"missing\.jpg"):
        run_bench(embedder, ["missing.jpg"], ["a dog"], batch_sizes=[1], num_rounds=1)
