import builtins
from pathlib import Path

import pytest
from PIL import Image

from mmalign_runtime import Embedder
from mmalign_runtime.bench import BenchPlan, BenchReport, golden_images, golden_texts, run_bench
from mmalign_runtime.bench.charts import draw_charts, require_matplotlib
from mmalign_runtime.errors import MissingDependencyError


@pytest.fixture(scope="module")
def report(embedder: Embedder) -> BenchReport:
    plan = BenchPlan(parts=("stages", "bulk", "open-loop"), batch_sizes=(1, 4), seconds=1.0)
    return run_bench(embedder, golden_images(embedder.bundle), golden_texts(embedder.bundle), plan=plan)


def test_every_part_becomes_a_picture_with_something_in_it(report: BenchReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib: mmalign-runtime[charts]")
    paths = draw_charts(report, tmp_path / "charts")
    assert [path.name for path in paths] == ["stages.png", "throughput.png", "open_loop.png"]
    for path in paths:
        with Image.open(path) as picture:
            colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
            assert picture.width > picture.height > 400
        assert colours is not None
        blue = [number for number, colour in colours if colour == (0x00, 0x72, 0xB2)]
        assert blue and blue[0] > 100  # the tower, the public path, p50


def test_parts_that_were_not_measured_are_not_drawn(embedder: Embedder, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="charts need matplotlib: mmalign-runtime[charts]")
    plan = BenchPlan(parts=("bulk",), batch_sizes=(1,), num_rounds=1)
    report = run_bench(embedder, golden_images(embedder.bundle)[:1], ["a dog"], plan=plan)
    assert [path.name for path in draw_charts(report, tmp_path)] == ["throughput.png"]


def test_without_matplotlib_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest)  # type: ignore[arg-type]

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mmalign-runtime\[charts\]'"):
        require_matplotlib()
