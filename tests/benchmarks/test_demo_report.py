"""The demo's report: complete, self-contained, and honest about what failed."""

import re
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from benchmarks.demo.drawings import Attribution, Drawing
from benchmarks.demo.report import headline_figures, render, write_report
from benchmarks.demo.results import (
    CurvePoint,
    DemoResults,
    Found,
    FoundDrawing,
    FoundLabel,
    GoldenImage,
    ImageSearch,
    Step,
    TextSearch,
    image_search,
    read_curve,
)
from mmalign.figures.retrieval import Recall
from mmalign.figures.scores import Evaluation, Scored, SourceScores
from mmalign_runtime.bench.environment import Environment
from mmalign_runtime.bench.run import BenchReport
from mmalign_runtime.bench.stages import StageTiming
from mmalign_runtime.engine.providers import ProviderChoice
from mmalign_runtime.engine.session import NodeGroup
from mmalign_runtime.info import RuntimeInfo, TowerInfo
from mmalign_runtime.ranking import Hit
from mmalign_runtime.spec import Parity, Provenance, Source
from mmalign_runtime.verify import CaseResult, CheckResult, VerifyReport

SECTIONS = ("search", "drawings", "recall", "training", "parity", "latency", "commands", "environment", "credits")
BANANA = Drawing("noto", "1f34c", "banana", b"one", False)
LEMON = Drawing("openmoji", "1f34b", "lemon <sour>", b"two", True)


def scores(source: str, *, is_held_out: bool) -> SourceScores:
    def scored(at_1: float) -> Scored:
        return Scored(Recall(at_1, 0.5, 0.6, 4.0), Recall(at_1, 0.5, 0.6, 5.0), 0.5)

    return SourceScores(source, is_held_out, 10, 10, 8, scored(0.31), scored(0.24), scored(0.003))


def timings() -> tuple[StageTiming, ...]:
    stages = [("image", "decode"), ("image", "preprocess"), ("image", "tower"), ("image", "total")]
    stages += [("text", "tokenize"), ("text", "tower"), ("text", "total")]
    return tuple(
        msgspec.convert(
            {"kind": kind, "stage": stage, "batch_size": size, "num_batches": 5, "items_per_s": 80.0}
            | {"p50_ms": 4.0 * size, "p90_ms": 5.0 * size, "p99_ms": 6.0 * size},
            StageTiming,
        )
        for size in (1, 8)
        for kind, stage in stages
    )


@pytest.fixture
def results(tmp_path: Path) -> DemoResults:
    path = tmp_path / "grey.png"
    Image.new("L", (30, 20), 128).save(path)
    cpu = "CPUExecutionProvider"
    towers = (TowerInfo("image", "vision_model.onnx", (ProviderChoice(cpu, {}),), (NodeGroup(cpu, "Conv", 3),)),)
    runtime = RuntimeInfo(
        bundle="demo/bundle",
        space_id="mma-1234",
        variant_id="fp32-5678",
        embed_dim=256,
        provider_asked="auto",
        provider="cpu",
        num_threads=2,
        num_runs=1,
        towers=towers,
    )
    bounds = Parity(
        num_cases=2,
        min_cosine=1.0,
        max_abs_difference=2e-7,
        cosine_bound=0.99999,
        abs_bound=1e-4,
    )
    towers_bounds = {"image": bounds, "text": bounds}
    cases = (
        CaseResult(name="grey", kind="image", passed=True, cosine=1.0, max_abs_difference=2e-7),
        CaseResult(name="empty", kind="text", passed=True, cosine=1.0, max_abs_difference=0.0),
    )
    checks = (
        CheckResult(name="image batch", passed=True, max_abs_difference=3e-7, bound=1e-6, detail="2 in one batch"),
        CheckResult(name="placement", passed=True, max_abs_difference=0.0, bound=0.0, detail="5 of 5 nodes"),
    )
    card = Environment(
        date="2026-01-02T03:04:05+00:00",
        cpu="a processor",
        platform="Linux",
        python="3.12",
        mmalign_runtime="0.1.0",
        onnxruntime="1.23",
        runtime=runtime,
    )
    found = (FoundDrawing(BANANA, 0.61, True), FoundDrawing(LEMON, 0.42, False))
    return DemoResults(
        steps=(Step("Train", "mmalign train benchmarks/demo/demo.toml --out demo/run", 31.0),),
        curve=(CurvePoint(1, 6.6), CurvePoint(2, 5.1, 0.1, 0.2, 0.3), CurvePoint(3, 4.0, 0.2, 0.2, 0.4)),
        evaluation=Evaluation(
            "test",
            "best",
            "first",
            1.0,
            (scores("noto", is_held_out=False), scores("openmoji", is_held_out=True)),
        ),
        text_searches=(TextSearch("yellow & sweet", found),),
        image_searches=(ImageSearch(LEMON, (FoundLabel("lemon <sour>", 0.5, True),), found),),
        num_drawings=1234,
        verification=VerifyReport(runtime=runtime, bounds=towers_bounds, cases=cases, checks=checks),
        golden=(GoldenImage("grey", path, 30, 20),),
        bench=BenchReport(environment=card, num_images=2, num_texts=2, timings=timings()),
        provenance=Provenance(
            created="2026-01-02",
            source=Source(kind="run", name="run", library="mmalign", version="0.1.0"),
            data=("noto.parquet",),
            opset_version=23,
            versions={"torch": "2.14"},
            weights_licence="Apache-2.0",
        ),
        attributions=(Attribution("noto", "Noto authors", "Apache-2.0", "https://example.org/licence", "smaller"),),
    )


def test_every_section_is_there_with_something_in_it(results: DemoResults) -> None:
    page = render(results)

    found = re.findall(r'<section id="(\w+)"><h2>[^<]+</h2>', page)
    assert tuple(found) == SECTIONS


def test_the_page_loads_nothing(results: DemoResults) -> None:
    page = render(results)
    style, body = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)[0], page.split("</style>")[1]

    assert "<script" not in page and "<link" not in page and "<iframe" not in page and "@import" not in style
    assert all(url.startswith("data:") for url in re.findall(r'url\("?([^)"]*)', style))
    assert all(source.startswith("data:image/") for source in re.findall(r'src="?([^">]*)', body))
    assert re.findall(r'href="([^"]*)"', page) == ["https://example.org/licence"]


def test_texts_from_data_are_escaped(results: DemoResults) -> None:
    page = render(results)

    assert "<sour>" not in page and "lemon &lt;sour&gt;" in page
    assert "yellow &amp; sweet" in page


def test_both_colour_schemes_are_described(results: DemoResults) -> None:
    assert "@media (prefers-color-scheme: dark)" in render(results)


def test_right_answers_carry_a_mark(results: DemoResults) -> None:
    page = render(results)

    assert page.count('<li class="right"') == 3  # the banana twice, and the lemon's own name
    assert "1 of 2 right" in page


def test_the_headline_sets_recall_beside_the_map_and_chance(results: DemoResults) -> None:
    figures = headline_figures(results)

    assert [figure.value for figure in figures] == ["31%", "31%", "2/2", "4.0 ms"]
    assert figures[0].caption.endswith("linear map 24%, chance 0.3%")


def test_a_case_that_differs_is_shown_as_such(results: DemoResults) -> None:
    bad = CaseResult(
        name="grey",
        kind="image",
        passed=False,
        cosine=-1.0,
        max_abs_difference=float("inf"),
        stage="decode",
        detail="truncated",
    )
    cases = (bad, *results.verification.cases[1:])
    verification = msgspec.structs.replace(results.verification, cases=cases)

    page = render(msgspec.structs.replace(results, verification=verification))

    assert "1 of 2 cases equal" in page and 'class="differs"' in page and "decode: truncated" in page


def test_the_report_is_one_file(results: DemoResults, tmp_path: Path) -> None:
    path = write_report(results, tmp_path / "report.html")

    assert path.read_text(encoding="utf-8") == render(results)


def test_a_drawing_does_not_find_itself() -> None:
    drawings = {drawing.name: drawing for drawing in (BANANA, LEMON)}
    found = Found(LEMON.name, (Hit(LEMON.name, 1.0, 1), Hit(BANANA.name, 0.4, 2)))
    named = Found(LEMON.name, (Hit("1", 0.5, 1), Hit("0", 0.3, 2)))

    search = image_search(LEMON, named, found, ("banana", LEMON.label), drawings)

    assert [hit.drawing for hit in search.found] == [BANANA]
    assert [(name.label, name.is_right) for name in search.labels] == [(LEMON.label, True), ("banana", False)]


def test_the_curve_is_read_with_and_without_validation(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    head = "step,loss,val_image_to_text_at_1,val_text_to_image_at_1,val_score"
    path.write_text(f"{head}\n1,6.5,,,\n2,5.5,0.1,0.2,0.3\n")

    assert read_curve(path) == (CurvePoint(1, 6.5), CurvePoint(2, 5.5, 0.1, 0.2, 0.3))
