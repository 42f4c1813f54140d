"""The report in its three forms: the card's section, the terminal's table, the chart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from mmalign_export.quantization.report import QuantizationReport, report_name
from mmalign_export.quantization.summary import nothing_qualified, print_report, with_section, write_chart
from mmalign_export.quantization.trial import Speed
from mmalign_runtime.clipping import ClippedTensor
from mmalign_runtime.spec import Modality
from tests.export.quantization.tiny_models import make_report, make_trial

CARD = "# Dual encoder\n\nAbout.\n\n## Use\n\nSo.\n\n## Origin\n\nHere.\n"
BOTH: tuple[Modality, ...] = ("image", "text")
TITLE = "## Quantized to eight bits"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("towers", [("image",), ("text",), BOTH])
def test_header_and_rows_have_as_many_columns(towers: tuple[Modality, ...]) -> None:
    table = [line for line in with_section(CARD, make_report(*towers)).splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3 * len(towers)  # float32, chosen and refused
    assert {len(cells(line)) for line in table} == {12}


def test_each_figure_stands_in_its_column() -> None:
    lines = [line for line in with_section(CARD, make_report("image")).splitlines() if line.startswith("|")]
    head, _, float32, chosen, refused = (cells(line) for line in lines)
    assert dict(zip(head, float32, strict=True))["resident MB"] == "12"
    found = dict(zip(head, chosen, strict=True))
    assert (found["lost @1"], found["cosine"], found["lowest"], found["golden"]) == (
        "+0.25",
        "0.99900",
        "0.9890",
        "0.9790",
    )
    assert found["MB"] == "1"
    assert (found["ms, batch"], chosen[-1]) == ("4.0 (2.00x, 8)", "**chosen**")
    assert refused[-1] == "outside the budget"


def test_the_section_stands_before_the_origin_and_takes_an_older_ones_place() -> None:
    once = with_section(CARD, make_report(*BOTH))
    assert re.findall("^## .*", once, re.M) == ["## Use", TITLE, "## Origin"]
    assert with_section(once, make_report(*BOTH)) == once
    assert with_section(once, make_report("text")).count(TITLE) == 1
    assert once.endswith("## Origin\n\nHere.\n")


def test_a_card_without_an_origin_ends_with_the_section() -> None:
    card = with_section("# Mine\n", make_report("text"))
    assert card.startswith("# Mine\n")
    assert card.count(TITLE) == 1


def test_a_tower_that_stays_float32_is_in_all_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(*BOTH)
    report = msgspec.structs.replace(report, chosen={"text": report.chosen["text"]})
    assert "| image | float32 |" in with_section(CARD, report)
    print_report(report)
    out = capsys.readouterr().out
    assert "text: static, 2.00x as fast as float32, lowest golden cosine 0.9790 (portrait 9x16)" in out
    assert "image: stays float32: nothing qualified" in out
    write_chart(report, tmp_path / "chart.svg")
    assert "image tower" in (tmp_path / "chart.svg").read_text()


def test_the_terminal_names_every_candidate_and_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    print_report(make_report(*BOTH))
    out = capsys.readouterr().out
    assert "+0.25 points lost of recall@1=0.5,cosine=0.995" in out
    for word in ("static", "bold", "chosen", "outside the budget", "batch 8"):
        assert word in out


def test_a_tower_without_a_trial_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(*BOTH)
    trials = tuple(trial for trial in report.trials if trial.tower == "text")
    print_report(msgspec.structs.replace(report, trials=trials, chosen={"text": report.chosen["text"]}))
    assert "image, times as fast" not in capsys.readouterr().out


def test_where_nothing_is_fast_enough_no_budget_is_asked_for() -> None:
    report = make_report(*BOTH)
    assert nothing_qualified(report).endswith("or allow more with --budget.")
    slow = [msgspec.structs.replace(trial, speeds=(Speed(1, 1.0, 1.1),)) for trial in report.trials]
    told = nothing_qualified(msgspec.structs.replace(report, trials=(*slow,)))
    assert "None is 1.15 times as fast as float32 with onnxruntime" in told
    assert "--budget" not in told
    elsewhere = msgspec.structs.replace(report, trials=(*slow,), asks_for_speed=False)
    assert nothing_qualified(elsewhere).endswith("or allow more with --budget.")


def test_the_chart_is_well_formed_names_its_points_apart_and_is_the_same_each_time(tmp_path: Path) -> None:
    report = make_report(*BOTH)
    many = tuple(make_trial("text", f"recipe {number}", cosine=0.999) for number in range(8))
    report = msgspec.structs.replace(report, trials=(*report.trials, *many))
    for name in ("one.svg", "two.svg"):
        write_chart(report, tmp_path / name)
    contents = (tmp_path / "one.svg").read_bytes()
    assert contents == (tmp_path / "two.svg").read_bytes()
    root = ElementTree.fromstring(contents)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    names = [text for text in root.iter("{http://www.w3.org/2000/svg}text") if (text.text or "").startswith("recipe ")]
    heights = sorted(float(text.attrib["y"]) for text in names)
    assert len(names) == 8
    assert min(below - above for above, below in pairwise(heights)) > 5


def test_the_report_can_be_read_again() -> None:
    report = make_report(*BOTH)
    assert msgspec.json.decode(msgspec.json.encode(report), type=QuantizationReport) == report


def test_a_trial_is_named_with_what_stays_in_float32_and_ranked_by_the_geometric_mean() -> None:
    trial = msgspec.structs.replace(make_trial("text"), speeds=(Speed(1, 2.0, 2.0), Speed(8, 1.0, 4.0)))
    assert trial.name() == "static"
    assert msgspec.structs.replace(trial, kept="first 3").name() == "static, first 3 in float32"
    assert trial.speedup() == pytest.approx(2.0)
    assert [speed.ratio() for speed in trial.speeds] == [1.0, 4.0]


def test_coverage_tells_the_mean_of_the_ranges_and_the_one_that_is_clipped_most() -> None:
    first = ClippedTensor(name="a", low=0.0, high=1.0, calibration=0.01, evaluation=0.02)
    second = ClippedTensor(name="b", low=0.0, high=1.0, calibration=0.03, evaluation=0.06)
    report = msgspec.structs.replace(make_report(*BOTH), evaluation="pairs", clipped={"image": (first, second)})
    assert report.coverage("image") == (
        "image: 4.0000% of rounded values are clipped on pairs, 2.0000% at calibration; "
        "most in b (6.0000%), of 2 ranges"
    )
    assert report.coverage("text") == ""


def test_each_precision_has_a_report_of_its_own() -> None:
    assert [report_name(precision) for precision in ("int8", "fp16")] == ["quantization.json", "quantization_fp16.json"]


def test_what_a_report_does_not_say_is_eight_bits_on_the_cpu_for_speed() -> None:
    report, trial = make_report("text"), make_trial("text")
    assert (report.precision, report.provider, report.asks_for_speed) == ("int8", "cpu", True)
    assert (trial.refused, trial.kept) == ("", "")
    for part in (report, trial):
        assert part.__struct_config__.frozen
        with pytest.raises(TypeError, match="Extra positional arguments provided"):
            type(part)(1)  # type: ignore[call-arg, misc]


def test_without_pairs_all_forms_say_that_recall_was_not_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = make_report(*BOTH)
    trials = tuple(msgspec.structs.replace(trial, recall=None, lost_points={}) for trial in report.trials)
    chosen = {trial.tower: trial for trial in trials if not trial.refused}
    report = msgspec.structs.replace(
        report, fp32_recall=None, pair_recall=None, pair_lost_points={}, trials=trials, chosen=chosen
    )
    said = "recall was not measured. The verdicts are by cosine alone"
    card = with_section(CARD, report)
    print_report(report)
    assert said in card
    assert said in capsys.readouterr().out
    assert "points lost in the worse" not in card
    assert {len(cells(line)) for line in card.splitlines() if line.startswith("|")} == {12}
    write_chart(report, tmp_path / "chart.svg")


def test_the_chart_tells_what_is_clipped(tmp_path: Path) -> None:
    tensor = ClippedTensor(name="a", low=0.0, high=1.0, calibration=0.01, evaluation=0.02)
    write_chart(msgspec.structs.replace(make_report(*BOTH), clipped={"image": (tensor,)}), tmp_path / "chart.svg")
    assert (tmp_path / "chart.svg").read_text().count("values clipped: 2.0000% as judged, 1.0000% at calibration") == 1
