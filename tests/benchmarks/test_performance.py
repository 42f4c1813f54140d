"""docs/performance.md is what its results say, its links lead somewhere, and its charts can be drawn."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.harness.markdown import number, table
from benchmarks.performance.chart import draw_comparison
from benchmarks.performance.comparison import glance
from benchmarks.performance.measured import RESULTS, Measured, read_measured
from benchmarks.performance.report import CHART, DOCUMENT, page


@pytest.fixture(scope="module")
def measured() -> Measured:
    return read_measured()


def test_the_document_is_what_the_results_say(measured: Measured) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == page(measured)


def test_its_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text(encoding="utf-8"))
    assert targets
    for target in targets:
        assert (DOCUMENT.parent / target).exists(), target


def test_results_name_no_folder_of_the_machine() -> None:
    for path in RESULTS.glob("*.json"):
        assert not re.search(r"/(?:home|root|tmp|work|dev/shm)/", path.read_text(encoding="utf-8")), path.name


def test_the_chart_is_drawn_anew(measured: Measured, tmp_path: Path) -> None:
    draw_comparison(measured.against, tmp_path / "charts" / CHART.name)
    assert "<svg" in (tmp_path / "charts" / CHART.name).read_text(encoding="utf-8")
    assert [path.name for path in CHART.parent.iterdir()] == [CHART.name]


def test_everyone_is_compared_with_each_of_ours(measured: Measured) -> None:
    text = page(measured)
    for name in measured.against.ours:
        if any(name in case.seconds for case in measured.against.cases):
            assert f"Times as fast is **{measured.against.labels[name]}** as" in text


def test_the_first_table_has_no_figure_of_what_was_not_measured(measured: Measured) -> None:
    against = msgspec.structs.replace(measured.against, cases=[])
    starts = measured.cold_start.cases
    rows = glance(against, starts).splitlines()
    compared = [row for row in rows if "against fastembed" in row and "first" not in row]
    assert compared == ["| images, mixed, float32, against fastembed | 2 | — | — |"]
    assert "—" not in glance(measured.against, starts).splitlines()[3]  # int8 of both engines was


def test_numbers_keep_three_digits() -> None:
    assert [number(value) for value in (12345.6, 123.4, 12.34, 1.234, 0.01234)] == [
        "12,346",
        "123",
        "12.3",
        "1.23",
        "0.012",
    ]


def test_a_table_with_a_short_row_is_refused() -> None:
    assert table(["a", "b"], [["1", "2|3"]]) == "| a | b |\n| --- | --- |\n| 1 | 2\\|3 |"
    with pytest.raises(ValueError, match="cells"):
        table(["a", "b"], [["1"]])
