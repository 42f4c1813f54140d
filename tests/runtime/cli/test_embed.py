import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign_runtime import Embedder, load_vectors

NO_PYARROW = "Parquet needs pyarrow, the extra mmalign-runtime[parquet]"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.png", "deep/c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npz"


def test_a_folder_of_images_becomes_a_file_of_vectors(
    cli, embedder: Embedder, tiny_bundle: Path, photos: Path, out: Path
) -> None:
    result = cli("embed", tiny_bundle, photos, "--out", out, "--batch-size", 2, "--threads", 2)
    assert (result.code, "3/3" in result.err, "items/s" in result.err) == (0, True, True)
    saved = load_vectors(out)
    assert saved.ids == ("a.png", "b.png", "deep/c.png")
    assert (saved.space_id, saved.variant_id) == (embedder.space_id, embedder.info().variant_id)
    expected = embedder.encode_image([photos / name for name in saved.ids], batch_size=2)
    np.testing.assert_array_equal(saved.vectors, expected)


def test_a_list_of_texts_becomes_a_file_of_vectors(
    cli, embedder: Embedder, tiny_bundle: Path, tmp_path: Path, out: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a dog\n\na cat\n")
    assert cli("embed", tiny_bundle, tmp_path / "texts.txt", "--out", out, "--kind", "text", "--threads", 2).code == 0
    np.testing.assert_array_equal(load_vectors(out).vectors, embedder.encode_text(["a dog", "", "a cat"]))


def test_a_parquet_table_is_read_and_written(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
    import pyarrow.parquet as pq

    source, out = tmp_path / "texts.parquet", tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"key": ["x", "y"], "caption": ["a dog", "a cat"]}), source)
    words = ("embed", tiny_bundle, source, "--out", out, "--kind", "text", "--column", "caption", "--id-column", "key")
    assert cli(*words).code == 0
    assert load_vectors(out).ids == ("x", "y")


def test_a_bad_item_stops_the_run_and_nothing_is_written(cli, tiny_bundle: Path, photos: Path, out: Path) -> None:
    (photos / "bad.jpg").write_text("no image")
    result = cli("embed", tiny_bundle, photos, "--out", out, "--on-error", "raise")
    assert (result.code, out.exists()) == (2, False)
    assert "bad.jpg), open: the bytes are not an image" in result.err


@pytest.mark.parametrize(("on_error", "code"), [("record", 1), ("skip", 0)])
def test_failed_items_are_left_out_and_listed_with_their_reasons(
    cli, tiny_bundle: Path, photos: Path, out: Path, on_error: str, code: int
) -> None:
    (photos / "bad.jpg").write_text("no image")
    (photos / "empty.jpg").touch()
    result = cli("embed", tiny_bundle, photos, "--out", out, "--on-error", on_error)
    assert result.code == code
    assert load_vectors(out).ids == ("a.png", "b.png", "deep/c.png")
    assert "2 of 5 items failed" in result.err
    assert "  bad.jpg, open: the bytes are not an image" in result.err
    assert "  empty.jpg, open: the file is empty" in result.err


def test_of_many_failures_the_first_are_shown(cli, tiny_bundle: Path, photos: Path, out: Path) -> None:
    for number in range(8):
        (photos / f"z{number}.jpg").touch()
    err = cli("embed", tiny_bundle, photos, "--out", out).err
    assert ("8 of 11 items failed" in err, "z4.jpg" in err, "z5.jpg" in err, "  and 3 more" in err) == (
        True,
        True,
        False,
        True,
    )


def test_nothing_but_bad_items_is_an_error(cli, tiny_bundle: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "images.txt").write_text("missing.jpg\n")
    result = cli("embed", tiny_bundle, tmp_path / "images.txt", "--out", out)
    assert (result.code, out.exists()) == (2, False)
    assert "none of the 1 items" in result.err


def test_a_file_is_replaced_only_by_force(cli, tiny_bundle: Path, photos: Path, out: Path) -> None:
    out.write_text("precious")
    refused = cli("embed", tiny_bundle, photos, "--out", out)
    assert (refused.code, out.read_text()) == (2, "precious")
    assert "is there already. Add --force" in refused.err
    assert cli("embed", tiny_bundle, photos, "--out", out, "--force").code == 0
    assert len(load_vectors(out).ids) == 3


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--kind", "sound"), "--kind 'sound' is not known; choose one of image, text"),
        (("--on-error", "ignore"), "--on-error 'ignore' is not known; choose one of record, skip, raise"),
        (("--column", "image"), "it has no columns"),
        (("--resume",), "is held in memory until the end. To resume, use a folder or .parquet"),
        (("--resume", "--force"), "Leave one of the two out"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    cli, tiny_bundle: Path, photos: Path, out: Path, words: tuple[str, ...], reason: str
) -> None:
    result = cli("embed", tiny_bundle, photos, "--out", out, *words)
    assert result.code == 2
    assert reason in result.err


@pytest.mark.parametrize("out", ["texts.npz", "texts"])
def test_a_list_of_texts_taken_for_paths_says_how_texts_are_embedded(
    out: str, cli, tiny_bundle: Path, tmp_path: Path
) -> None:
    if not out.endswith("npz"):
        pytest.importorskip("pyarrow", reason=NO_PYARROW)
    texts = tmp_path / "captions.txt"
    texts.write_text("a dog\na red house\n", encoding="utf-8")
    result = cli("embed", tiny_bundle, texts, "--out", tmp_path / out)
    assert result.code == (2 if out.endswith("npz") else 1)
    assert "Each line was taken as the path of an image. If the lines are texts, add `--kind text`." in result.err


def test_a_pattern_that_the_shell_expanded_is_named(cli, tiny_bundle: Path, photos: Path, out: Path) -> None:
    first, second, *_ = sorted(photos.iterdir())
    result = cli("embed", tiny_bundle, first, second, "--out", out)
    assert result.code == 2
    assert f"embed takes one INPUT, and got 2: {first}, {second}... " in result.err
    assert "quote it: 'photos/*.jpg'" in result.err


def test_a_suffix_that_is_not_written_is_told_before_pyarrow_is_missed(
    cli, tiny_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = cli("embed", tiny_bundle, photos, "--out", tmp_path / "vectors.csv")
    assert "ends in '.csv', expected a folder's name without a suffix, .parquet or .npz" in result.err


def test_an_interrupted_npz_says_that_nothing_was_written(
    cli, tiny_bundle: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mmalign_runtime.bulk.job.stream_entries", interrupt)
    result = cli("embed", tiny_bundle, photos, "--out", out)
    assert (result.code, out.exists()) == (130, False)
    assert "interrupted: nothing was written" in result.err
