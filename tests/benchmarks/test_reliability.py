"""The reliability scripts see the faults they make; the document holds what they measured. Nothing large, no times."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.harness.environment import Card
from benchmarks.harness.markdown import with_tables
from benchmarks.harness.places import ROOT
from benchmarks.harness.processes import resident_mb
from benchmarks.harness.results import read_result
from benchmarks.reliability.__main__ import _is_whole, main
from benchmarks.reliability.memory import Level, drift, image_pool, varied_texts
from benchmarks.reliability.mutated import _PRELOADED
from benchmarks.reliability.mutation import TARGETS, read_reasons, source_of
from benchmarks.reliability.pillow_resize import with_pillow
from benchmarks.reliability.pillow_versions import Answer, Answers, differences
from benchmarks.reliability.pixels import compare, load, sizes, specs
from benchmarks.reliability.record import RESULTS, Record, Row
from benchmarks.reliability.report import DOCUMENT, TRIALS, results, table
from benchmarks.reliability.scores import Mutation, Score, Survivor, summary, tables


def test_the_document_holds_the_table() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(document, table(results())) == document


def test_the_command_runs_a_module_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/reliability/__main__.py", "report"])
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    assert capsys.readouterr().out.startswith("| what | trials |")
    monkeypatch.setattr("sys.argv", ["benchmarks/reliability/__main__.py", "fire"])
    with pytest.raises(SystemExit, match="seen 'fire', expected one of pixels, pillow_versions"):
        main()
    assert [name for name in TRIALS if find_spec(f"benchmarks.reliability.{name}") is None] == []


def test_a_result_is_kept_of_a_whole_trial_alone() -> None:
    def trial(bundle: Path | None = None, images: int = 200, seed: int = 0) -> None: ...

    assert _is_whole(trial, {"bundle": Path("demo"), "images": 200, "seed": 1})  # type: ignore[arg-type]
    assert not _is_whole(trial, {"bundle": None, "images": 100, "seed": 0})  # type: ignore[arg-type]


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text(encoding="utf-8")):
        assert (DOCUMENT.parent / target).exists(), target


def test_results_name_no_folder_of_the_machine() -> None:
    for path in RESULTS.glob("*.json"):
        assert not re.search(r"/(?:home|root|tmp|work|dev/shm)/", path.read_text(encoding="utf-8")), path.name


def test_the_table_marks_what_did_not_go_as_promised() -> None:
    card = Card(
        date="2026-01-01T00:00:00+00:00",
        command="python x.py",
        cpu="CPU",
        platform="Linux",
        python="3.11",
        versions={"pillow": "12"},
    )
    rows = (Row("good", 5, 5, "fine"), Row("bad", 5, 4, "a | b"))
    text = table({"pixels": Record(card, rows, b"{}")})  # type: ignore[arg-type]
    assert "| good | 5 | 5 | fine |" in text
    assert r"| bad | 5 | **4** | a \| b |" in text


def test_sizes_come_in_both_orientations() -> None:
    found = sizes(200, seed=0)
    assert len(set(found)) == 200
    assert {(1, 1), (640, 480), (480, 640), (6000, 4000)} <= set(found)


@pytest.mark.parametrize("at", range(8))
def test_the_graph_is_pillows(at: int) -> None:
    spec = specs()[at]
    pixels = np.random.default_rng(0).integers(0, 256, (199, 301, 3), dtype=np.uint8)
    found = compare(spec, load(spec, "onnxruntime"), pixels, "onnxruntime", "noise")
    assert (found.levels, found.share) == (0, 0)
    assert with_pillow(pixels, spec).shape == (*spec.shape, 3)


def test_a_wrong_graph_is_seen_in_either_engine() -> None:
    bilinear, bicubic = specs()[0], specs()[4]
    pixels = np.random.default_rng(0).integers(0, 256, (97, 143, 3), dtype=np.uint8)
    for engine in ("onnxruntime", "openvino"):
        assert not compare(bilinear, load(bicubic, engine), pixels, engine, "noise").holds()


def test_drift_is_of_the_level_furthest_away() -> None:
    levels = [Level("image", number, mb) for number, mb in ((1, 100.0), (2, 104.0), (3, 90.0))]
    assert drift(levels) == pytest.approx(-0.1)


def test_the_memory_pool_is_mixed() -> None:
    assert resident_mb() > 1
    words = varied_texts(0)
    assert len({len(next(words).split()) for _ in range(100)}) > 20
    assert len({data[:4] for data in image_pool(0)}) == 3


def test_two_versions_that_part_are_named() -> None:
    first = Answers("12", (Answer("a", "x", (1.0, 0.0)), Answer("b", "x", (1.0, 0.0))))
    other = Answers("13", (Answer("a", "x", (1.0, 0.0)), Answer("b", "y", (0.5, 0.0))))
    (found,) = differences(first, other)
    assert (found.file, found.same_pixels, found.max_abs_difference) == ("b", False, 0.5)


def test_mutants_are_counted_by_module_and_survivors_told_with_their_reason() -> None:
    kept = Survivor("mmalign.figures.retrieval", 7, "a | b", "a & b", "alike")
    open_question = Survivor("mmalign.figures.retrieval", 9, "x = 1", "x = 2", "")
    found = Mutation((Score("mmalign.figures.retrieval", 20, 18, 1),), (kept, open_question), 60.0)
    row = summary(found)
    assert (row.num_trials, row.num_good) == (20, 19)
    assert row.measured.startswith("18 killed (90%), 1 survive")
    text = tables(found)
    assert "| `mmalign.figures.retrieval` | 20 | 18 (90%) | 2 |" in text
    assert r"| figures.retrieval: `a \| b` | `a & b` | alike |" in text
    assert "| figures.retrieval: `x = 1` | `x = 2` | **not explained** |" in text


def test_every_survivor_has_a_reason_and_nine_mutants_of_ten_are_killed() -> None:
    path = RESULTS / "mutation.json"
    if not path.is_file():
        pytest.skip("needs benchmarks/reliability/results/mutation.json: run `make mutation`")
    found = msgspec.json.decode(read_result(path, Record).details, type=Mutation)
    assert [survivor for survivor in found.survivors if not survivor.reason] == []
    assert sum(score.num_killed for score in found.scores) >= 0.9 * sum(score.num_mutants for score in found.scores)


def test_mutants_change_one_thing_that_runs() -> None:
    if not (ROOT / ".mutation").is_dir():
        pytest.skip("needs cosmic-ray in .mutation: run `make mutation`")
    from benchmarks.reliability.mutants import mutants_of

    source = '''"""Says 0.5."""
BOUND: float = 0.75
def within(value: int | None, name: str = "cpu") -> bool:
    return value is not None and value <= BOUND
'''
    found = {(mutant.line, mutant.after) for mutant in mutants_of(source)}
    assert found == {
        (2, "BOUND: float = 0.5"),
        (2, "BOUND: float = 0.875"),
        (2, "BOUND: float = 1.75"),
        (2, "BOUND: float = -0.25"),
        (3, 'def within(value: int | None, name: str = "XXcpu") -> bool:'),
        (4, "return value is None and value <= BOUND"),
        (4, "return value is not None or value <= BOUND"),
        (4, "return value is not None and value < BOUND"),
        (4, "return value is not None and value > BOUND"),
    }


def test_what_mutation_imports_beforehand_is_there() -> None:
    ours = [name for name in _PRELOADED if name.split(".")[0].startswith("mmalign")]
    assert ours
    assert [name for name in ours if find_spec(name) is None] == []


def test_what_is_mutated_and_its_tests_are_there() -> None:
    paths = [path for each in TARGETS for path in (source_of(each.module), *(ROOT / test for test in each.tests))]
    assert [path for path in paths if not path.is_file()] == []
    assert {module for module, _, _ in read_reasons()} <= {each.module for each in TARGETS}


def test_a_mutant_that_the_tests_notice_fails_and_another_does_not(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from mmalign_runtime import unit_vectors\ndef test_it():\n    assert unit_vectors._LENGTH_BOUND < 0.01\n"
    )
    code = f"""
from pathlib import Path
from benchmarks.reliability.mutated import run_afresh, run_in_place
module, tests = "mmalign_runtime.unit_vectors", [Path({str(tmp_path)!r})]
right, near, far, broken = (f"_LENGTH_BOUND = {{bound}}" for bound in ("0.005", "0.009", "0.02", "unknown"))
print(run_in_place(module, right, [near, far, broken], tests, num_workers=2))
print([run_afresh(module, source, tests) for source in (near, far)])
print(run_afresh(module, "import time; time.sleep(60); _LENGTH_BOUND = 0.0", tests, limit_s=3.0))
run_in_place(module, far, [], tests, num_workers=1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["[0, 1, 1]", "[0, 1]", "-1"]
    assert "the tests of mmalign_runtime.unit_vectors fail as it stands" in done.stderr
