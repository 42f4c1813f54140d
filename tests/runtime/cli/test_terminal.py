"""What a user's terminal and pipes get, whatever names hold, whatever the encoding is, whoever stops reading."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign_runtime.cli import main
from tests.runtime.pictures import noise, saved

NO_PYARROW = "Parquet needs pyarrow, the extra mmalign-runtime[parquet]"
FIXTURE = Path(__file__).parent.parent / "fixtures/tiny_bundle"
COMMAND = [sys.executable, "-c", "from mmalign_runtime.cli import main; main()"]
UNSHOWN = "esc\x1b[31mred\nline \u202egpj.png"
SHOWN = {"COLUMNS": "300", "NO_COLOR": "1"}

Done = subprocess.CompletedProcess[bytes]


def run(*words: object, encoding: str = "utf-8") -> Done:
    environment = os.environ | SHOWN | {"PYTHONIOENCODING": encoding}
    return subprocess.run([*COMMAND, *map(os.fsencode, map(str, words))], capture_output=True, env=environment)


def call(*words: object, encoding: str = "utf-8") -> Done:
    """Do as `run`, in this process, with streams as Python makes them of PYTHONIOENCODING: a second less."""
    codec, _, errors = encoding.partition(":")
    (raw, out), (raw_err, err) = (stream(codec, each) for each in (errors or "strict", "backslashreplace"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        for name, value in SHOWN.items():
            patch.setenv(name, value)
        main([str(word) for word in words])
    assert isinstance(left.value.code, int)
    return Done(words, left.value.code, raw.getvalue(), raw_err.getvalue())


def stream(encoding: str, errors: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    raw = io.BytesIO()
    return raw, io.TextIOWrapper(raw, encoding, errors)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    (tmp_path / "in").mkdir()
    for name in ("café.png", "caf\udce9.png", UNSHOWN):
        (tmp_path / "in" / name).write_bytes(saved(Image.fromarray(noise(20, 30)), "PNG"))
    for name in ("bad é.png", "bad \udce9.png", f"bad {UNSHOWN}"):
        (tmp_path / "in" / name).write_bytes(b"not a picture")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("encoding", "out", "start"),
    [
        ("ascii", "naïve.npz", run),
        *((encoding, "naïve.npz", call) for encoding in ("ascii", "cp1252", "utf-8", "ascii:strict")),
        ("ascii:strict", "naïve.parquet", call),
        ("ascii:strict", "naïve", call),
    ],
)
def test_embed_and_search_show_any_name_in_any_encoding(
    photos: Path, tmp_path: Path, encoding: str, out: str, start: Callable[..., Done]
) -> None:
    if not out.endswith(".npz"):
        pytest.importorskip("pyarrow", reason=NO_PYARROW)
    codec = encoding.partition(":")[0]
    done = start("embed", FIXTURE, photos, "--out", tmp_path / out, encoding=encoding)
    assert (done.returncode, done.stderr.decode(codec).count("\n  bad ")) == (1, 3)
    assert "3 of 6 items, vectors of 16 numbers" in done.stdout.decode(codec)
    found = start("search", FIXTURE, tmp_path / out, "a dog é", encoding=encoding)
    assert found.returncode == 0
    shown = done.stderr + found.stdout
    assert b"caf\\xe9.png" in shown
    assert b"esc\\x1b[31mred\\nline \\u202egpj.png" in shown
    assert b"\x1b" not in shown


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_json_is_utf8_in_any_encoding(photos: Path, tmp_path: Path, encoding: str) -> None:
    call("embed", FIXTURE, photos, "--out", tmp_path / "v.npz")
    words = ("search", FIXTURE, tmp_path / "v.npz", photos / "caf\udce9.png", "--image", "--json")
    found = run(*words, encoding=encoding)
    (row,) = json.loads(found.stdout.decode("utf-8"))
    assert row["query"].endswith("caf\\xe9.png")
    assert {hit["id"] for hit in row["hits"]} == {"café.png", "caf\\xe9.png", UNSHOWN}


def test_a_bundle_of_any_name_is_described_and_verified(tmp_path: Path) -> None:
    bundle = shutil.copytree(FIXTURE, tmp_path / "bé\x1b[31m")
    for verb in ("info", "verify"):
        plain = run(verb, bundle, encoding="ascii")
        assert (plain.returncode, plain.stderr, b"\x1b" in plain.stdout) == (0, b"", False)
        told = call(verb, bundle, "--json", encoding="ascii")
        assert json.loads(told.stdout)["runtime"]["bundle"].endswith("bé\x1b[31m")


def test_an_error_shows_any_name(tmp_path: Path) -> None:
    done = run("info", f"no\udce9\x1b[2J{UNSHOWN}", encoding="ascii")
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"no\\xe9\\x1b[2Jesc" in done.stderr


def test_a_query_that_is_not_utf8_is_named(photos: Path, tmp_path: Path) -> None:
    call("embed", FIXTURE, photos, "--out", tmp_path / "v.npz")
    done = run("search", FIXTURE, tmp_path / "v.npz", "caf\udce9")
    assert (done.returncode, b"query 1 (caf\\xe9) is not UTF-8" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [("--help",), ("info", FIXTURE), ("verify", FIXTURE), ("verify", FIXTURE, "--json")])
def test_a_reader_that_is_gone_ends_a_verb_quietly_with_141(words: tuple[object, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [*COMMAND, *map(str, words)]
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=os.environ | {"NO_COLOR": "1"})
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_is_gone_changes_no_error_into_another() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert subprocess.run([*COMMAND, "info", "nowhere"], stdout=writer, stderr=writer).returncode == 2
    finally:
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("--version",), ("info", FIXTURE), ("info", FIXTURE, "--json")])
def test_a_full_disk_is_one_line_of_error(words: tuple[object, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, *map(str, words)], stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"the output: No space left on device" in done.stderr
