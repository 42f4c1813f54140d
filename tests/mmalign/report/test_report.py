"""The report of a run and of a bundle: what it shows, and that it asks nobody for anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmalign.config import Config
from mmalign.report import charts
from mmalign.report.pictures import NUM_FOUND, NUM_WORST
from mmalign.training import train
from mmalign_runtime.cli import main

TINY = Path(__file__).parents[2] / "runtime/fixtures/tiny_bundle"
FROZEN: dict[str, object] = {"image_tower.frozen": True, "text_tower.frozen": True}


class Page(HTMLParser):
    """Gathers what a browser would load, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.alts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.loaded += [str(named[key]) for key in ("src", "href", "srcset", "data") if key in named]
        self.alts += [str(named["alt"])] if "alt" in named else []
        assert tag not in ("script", "link", "iframe", "object")
        if tag not in ("meta", "img", "circle", "line", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("circle", "line", "polyline"):
            assert self.open.pop() == tag


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def test_a_run_s_report_has_figures_pictures_and_the_temperature(
    make_config: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_config({**FROZEN, "train.epochs": 2}), tmp_path / "run")
    assert run("evaluate", tmp_path / "run", "--report", tmp_path / "out" / "report.html", "--dim", 3) == 0
    assert "first 3 components: recall@10" in capsys.readouterr().out
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.loaded
    assert all(each.startswith("data:image/webp;base64,") for each in page.loaded)
    assert "url(" not in text
    assert "@import" not in text
    assert "temperature, 1 / scale of cosines" in text
    assert any("a red square" in words or "a blue" in words or "a green" in words for words in page.alts)
    for words in ("recall@10", "nDCG@10", "ahead, 95%", "linear map", "Reliability, classes", "first 3 components"):
        assert words in text


def test_a_bundle_s_report_needs_no_run_and_escapes_what_it_shows(tmp_path: Path) -> None:
    rows = ["image,caption"]
    for number in range(40):
        Image.new("RGB", (700, 300 + number), (6 * number, 255 - 6 * number, 90)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,<b>picture</b> {number} & more")
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert run("evaluate", TINY, "--pairs", tmp_path / "pairs.csv", "--report", tmp_path / "report.html") == 0
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "&lt;b&gt;picture&lt;/b&gt; 3 &amp; more" in text
    assert "<b>" not in text
    assert "course of training" not in text
    assert "linear map" not in text
    ranks = [int(found) for found in re.findall(r"rank ([\d,]+)", text)]
    worst = ranks[:NUM_WORST]
    assert worst == sorted(worst, reverse=True)
    assert len(page.loaded) <= 2 * NUM_WORST * (NUM_FOUND + 1) + 8 * (NUM_FOUND + 1)
    assert max(map(len, page.loaded)) < 8000
    assert len(text) < 1_000_000


def test_a_place_that_takes_no_report_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("evaluate", tmp_path / "no run", "--report", tmp_path / "file" / "report.html") == 2
    assert "file is not a folder, so report.html cannot be written to it" in capsys.readouterr().err


def test_a_line_that_never_moves_is_drawn() -> None:
    drawn = charts.line_chart([(step, 0.1) for step in range(1000)], "flat")
    assert "nan" not in drawn
    assert drawn.count(",") < 600
    assert torch.isfinite(torch.tensor([float(y) for y in re.findall(r",([\d.]+)", drawn)])).all()
