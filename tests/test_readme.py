"""The README is short, its tables come from the committed measurements, and its Python runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.readme import README, readme_tables, with_tables
from mmalign_runtime import Embedder

_TINY = Path(__file__).parent / "runtime/fixtures/tiny_bundle"


def test_the_readme_is_under_200_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 200


def test_its_tables_are_the_scripts() -> None:
    readme = README.read_text(encoding="utf-8")
    assert with_tables(readme, readme_tables()) == readme


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"(?:\]\(|src=\")([^)#\"]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target


def test_its_python_runs_without_torch() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    code += "\nimport sys\nassert 'torch' not in sys.modules\nprint(float(images[0] @ images[1]))\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=README.parent, capture_output=True, text=True, check=True)
    *_, ids, cosine = run.stdout.splitlines()
    assert ids == f"{Embedder.load(_TINY).space_id} cpu"
    assert float(cosine) > 0.999  # the same picture, saved in two ways
