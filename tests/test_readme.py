"""The README is short, its tables come from the committed measurements, and its Python runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.readme import README, readme_tables, with_tables
from mmalign_runtime import Embedder

_TINY = Path(__file__).parent / "runtime/fixtures/tiny_bundle"


def test_the_readme_is_under_200_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 200


def test_its_tables_are_the_scripts() -> None:
    readme = README.read_text(encoding="utf-8")
    assert with_tables(readme, readme_tables()) == readme


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def test_its_python_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    code = code.replace('"demo/bundle"', repr(str(_TINY)))  # the demo's own bundle is there only after `make demo`
    for name, photo in zip(re.findall(r'"(demo/drawings/[^"]+)"', code), ("grey.jpg", "RGBA.png"), strict=True):
        code = code.replace(name, str(_TINY / "golden" / photo))
    values: dict[str, object] = {}
    exec(code, values)
    similarity = values["similarity"]
    assert isinstance(similarity, np.ndarray)
    assert similarity.shape == (2, 2)
    assert Embedder.load(_TINY).space_id in capsys.readouterr().out
