"""The corpus, replayed: every input that fuzzing ever found worth keeping gives its answer or a named error.

The short runs of the fuzzer itself need atheris; `python tests/fuzz/run.py` runs it for longer.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mmalign_runtime.spec import decode_spec
from tests.fuzz.mutators import MUTATORS
from tests.fuzz.run import FuzzReport
from tests.fuzz.seeds import CORPUS, small_spec, write_seeds
from tests.fuzz.targets import TARGETS
from tests.fuzz.zips import read_archive, stored

RUN = Path(__file__).with_name("run.py")
SHORT_RUN_S = 2
MAX_CORPUS_BYTES = 300_000


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_of_the_corpus_gives_an_answer_or_a_named_error(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    failed = {}
    for path in inputs:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:  # noqa: BLE001 - whatever is raised here is the finding
            failed[path.name] = repr(error)
    assert failed == {}


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed (Linux on x86-64 and Python up to 3.13: `pip install atheris`)")
    command = [sys.executable, str(RUN), "--target", target, "--seconds", str(SHORT_RUN_S), "--work", str(tmp_path)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.stdout, done.stderr
    report = msgspec.json.decode(done.stdout, type=FuzzReport)
    assert report.findings == ()
    assert report.executions > 0


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) < MAX_CORPUS_BYTES


def test_the_targets_load_no_onnxruntime() -> None:
    modules = "tests.fuzz.targets, tests.fuzz.mutators, mmalign_runtime.bundle"
    code = f"import sys, {modules}; sys.exit('onnxruntime' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_the_seeds_that_should_be_right_are(tmp_path: Path) -> None:
    write_seeds(tmp_path)
    assert decode_spec((tmp_path / "bundle/2-small").read_bytes()).files == small_spec().files
    assert {path.name for path in tmp_path.glob("*/*")} <= {path.name for path in CORPUS.glob("*/*")}


def test_mutated_bundles_keep_a_seal_that_fits() -> None:
    data = (CORPUS / "bundle/small").read_bytes()
    messages = [_message(MUTATORS["bundle"](data, 8192, seed, _flip)) for seed in range(100)]
    assert sum("seal does not fit" in message for message in messages) < len(messages) / 2
    assert any("unknown field" in message for message in messages)


def test_mutated_archives_often_stay_readable() -> None:
    data = (CORPUS / "archive/small").read_bytes()
    mutated = [MUTATORS["archive"](data, 8192, seed, _flip) for seed in range(100)]
    assert len(set(mutated)) > 60  # some are left to `_flip`, which gives the same each time
    assert sum(read_archive(archive) is not None for archive in mutated) > 20


def test_a_zip_written_by_hand_reads_back() -> None:
    archive = read_archive(stored([("a", b"1"), ("b/c", b"23")]))
    assert archive is not None
    assert [(entry.name, entry.data) for entry in archive.entries] == [(b"a", b"1"), (b"b/c", b"23")]


def _flip(data: bytes, max_size: int) -> bytes:
    """Stands in for libFuzzer's mutation."""
    rng = random.Random(data)
    at = rng.randrange(len(data) or 1)
    return (data[:at] + rng.randbytes(1) + data[at + 1 :])[:max_size]


def _message(data: bytes) -> str:
    try:
        decode_spec(data)
    except Exception as error:  # noqa: BLE001 - only the words count here
        return str(error)
    return ""
