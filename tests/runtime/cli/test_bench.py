import json
from pathlib import Path


def test_a_table_and_a_file_are_written(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = cli("bench", tiny_bundle, "--rounds", 1, "--batch-size", 1, "--batch-size", 2, "--json", path)
    assert result.code == 0
    assert all(stage in result.out for stage in ("decode", "preprocess", "tokenize", "tower", "total"))
    assert {row["batch_size"] for row in json.loads(path.read_text())["timings"]} == {1, 2}


def test_json_to_stdout_stands_alone(cli, tiny_bundle: Path) -> None:
    result = cli("bench", tiny_bundle, "--rounds", 1, "--batch-size", 1, "--threads", 1, "--json", "-")
    report = json.loads(result.out)
    assert report["environment"]["runtime"]["num_threads"] == 1


def test_images_and_texts_of_ones_own_are_used(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a dog\na cat\n")
    words = ("--texts", tmp_path / "texts.txt", "--images", tiny_bundle / "golden", "--rounds", 1, "--json", "-")
    report = json.loads(cli("bench", tiny_bundle, *words).out)
    assert report["num_texts"] == 2


def test_a_file_without_a_folder_is_refused_before_measuring(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    result = cli("bench", tiny_bundle, "--json", tmp_path / "missing" / "bench.json")
    assert result.code == 2
    assert "its folder does not exist" in result.err
