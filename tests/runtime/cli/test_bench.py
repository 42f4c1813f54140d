import json
from pathlib import Path

import pytest

from mmalign_runtime import Embedder

STAGES = ("--only", "stages", "--rounds", 1)


def test_a_table_and_a_file_are_written(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = cli("bench", tiny_bundle, *STAGES, "--batch-size", 1, "--batch-size", 2, "--json", path)
    assert result.code == 0
    assert all(stage in result.out for stage in ("decode", "preprocess", "tokenize", "tower", "total"))
    assert {row["batch_size"] for row in json.loads(path.read_text())["timings"]} == {1, 2}


def test_conclusions_come_before_tables_and_every_table_fits_80_columns(
    cli, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = cli("bench", tiny_bundle, "--seconds", 1, "--starts", 1, "--batch-size", 1)
    assert result.code == 0
    words = (
        "machine: ",
        "one at a time",
        "in bulk",
        "cold start",
        "stages, one after the other",
    )
    places = [result.out.index(word) for word in words]
    assert places == sorted(places)
    assert all(f"{title}:" in result.out for title in ("in bulk", "closed loop", "cold start"))
    assert "…" not in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_progress_is_told_on_stderr(cli, tiny_bundle: Path) -> None:
    result = cli("bench", tiny_bundle, *STAGES, "--json", "-")
    assert [line for line in result.err.splitlines() if line] == [
        "every item once",
        "stages of images",
        "stages of texts",
    ]


def test_json_to_stdout_stands_alone(cli, tiny_bundle: Path) -> None:
    result = cli("bench", tiny_bundle, *STAGES, "--batch-size", 1, "--threads", 1, "--json", "-")
    report = json.loads(result.out)
    assert report["environment"]["runtime"]["num_threads"] == 1


def test_images_and_texts_of_ones_own_are_used(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    words = ("--texts", tmp_path / "texts.txt", "--images", tiny_bundle / "golden", *STAGES, "--json", "-")
    report = json.loads(cli("bench", tiny_bundle, *words).out)
    assert report["num_texts"] == 2


def test_one_kind_alone(cli, tiny_bundle: Path) -> None:
    report = json.loads(cli("bench", tiny_bundle, *STAGES, "--kind", "text", "--json", "-").out)
    assert {row["kind"] for row in report["timings"]} == {"text"}
    assert [tower["name"] for tower in report["environment"]["runtime"]["towers"]] == ["text"]


def test_a_bad_image_is_left_out_and_named_or_raised(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "bad.png").write_bytes(b"no picture")
    (photos / "good.png").write_bytes((tiny_bundle / "golden" / "tiny.png").read_bytes())
    words = ("bench", tiny_bundle, *STAGES, "--images", photos)
    skipped = cli(*words)
    assert skipped.code == 0
    assert "1 items left out, which cannot be embedded" in skipped.out and "bad.png, " in skipped.out
    raised = cli(*words, "--on-error", "raise")
    assert raised.code == 2 and "bad.png" in raised.err


def test_cold_starts_of_kept_graphs_can_be_measured(cli, tiny_bundle: Path) -> None:
    words = ("--only", "cold-start", "--starts", 1, "--kind", "text", "--cache", "--json", "-")
    report = json.loads(cli("bench", tiny_bundle, *words).out)
    assert report["environment"]["runtime"]["cache"] is True
    assert [start["kind"] for start in report["cold_starts"]] == ["text"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "everything"), "--only 'everything' is not known; choose one of stages, bulk"),
        (("--on-error", "record"), "--on-error 'record' is not known; choose one of raise, skip"),
        (("--kind", "sound"), "--kind 'sound' is not known"),
    ],
)
def test_words_that_are_not_known_are_refused_before_measuring(cli, tiny_bundle: Path, words, said: str) -> None:
    result = cli("bench", tiny_bundle, *words)
    assert result.code == 2
    assert said in result.err


def test_a_place_that_cannot_be_written_is_refused_before_measuring(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for option in ("--json", "--save-profile"):
        result = cli("bench", tiny_bundle, option, tmp_path / "file" / "bench.json")
        assert result.code == 2
        assert "file is not a folder, so bench.json cannot be written to it" in result.err
    result = cli("bench", tiny_bundle, "--json", "https://example.org/bench.json")
    assert result.code == 2
    assert "is not a path on this machine" in result.err


def test_engines_are_compared_and_the_profile_is_saved(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    words = ("--engine", "all", "--precision", "fp32", "--threads", 1, "--even-if-noisy", "--save-profile", path)
    result = cli("bench", tiny_bundle, *words)
    assert result.code == 0
    assert "For latency: " in result.out and "1 thread." in result.out
    assert f'saved: {path}, for Embedder.load("{tiny_bundle}", profile="{path}")' in result.out
    with Embedder.load(tiny_bundle, profile=path) as embedder:
        assert embedder.info().num_threads == 1


def test_on_a_noisy_machine_nothing_is_recommended_nor_saved(
    cli, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign_runtime.bench.quiet.SPREAD_LIMIT", 0.5)  # no machine is that steady
    path = tmp_path / "profile.json"
    words = ("--engine", "onnxruntime", "--goal", "throughput", "--threads", 1, "--batch-size", 1)
    result = cli("bench", tiny_bundle, *words, "--precision", "fp32", "--save-profile", path)
    assert result.code == 1
    assert "Noisy machine" in result.out and "Nothing is recommended on a noisy machine" in result.out
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--goal", "cheap"), "--goal 'cheap' is not known; choose one of latency, throughput"),
        (("--engine", "all", "--callers", 5), "--callers belong to measuring the speed of one engine"),
        (("--engine", "tvm", "--goal", "latency"), "engine 'tvm' is not known"),
    ],
)
def test_comparisons_that_make_no_sense_are_refused_at_once(cli, tiny_bundle: Path, words, said: str) -> None:
    result = cli("bench", tiny_bundle, *words)
    assert result.code == 2
    assert said in result.err
