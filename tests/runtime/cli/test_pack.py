from pathlib import Path

import pytest

NO_PYARROW = "Parquet needs pyarrow, the extra mmalign-runtime[parquet]"


def test_a_bundle_becomes_one_file_and_a_folder_again(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "bundle.mmalign"
    assert cli("pack", tiny_bundle, "--out", packed).code == 0
    assert cli("info", packed, "--provider", "cpu").code == 0
    assert cli("unpack", packed, "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again" / "bundle.json").read_bytes() == (tiny_bundle / "bundle.json").read_bytes()


def test_what_is_there_is_replaced_only_when_asked(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    packed = tmp_path / "bundle.mmalign"
    packed.write_bytes(b"old")
    result = cli("pack", tiny_bundle, "--out", packed)
    assert (result.code, packed.read_bytes()) == (2, b"old")
    assert "is there already" in result.err
    assert cli("pack", tiny_bundle, "--out", packed, "--force").code == 0


def test_a_bundle_that_was_unpacked_is_replaced_when_asked(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "again"
    assert cli("unpack", tiny_bundle, "--out", out).code == 0
    (out / "stale.txt").touch()
    refused = cli("unpack", tiny_bundle, "--out", out)
    assert (refused.code, "is there already. Add --force to replace it" in refused.err) == (2, True)
    assert cli("unpack", tiny_bundle, "--out", out, "--force").code == 0
    assert not (out / "stale.txt").exists()
    assert [path.name for path in out.parent.iterdir()] == ["again"]
    assert (out / "bundle.json").read_bytes() == (tiny_bundle / "bundle.json").read_bytes()


def test_what_is_not_a_bundle_is_not_replaced_even_when_asked(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").touch()
    (tmp_path / "file").touch()
    (tmp_path / "b.mmalign").mkdir()
    for verb, name, reason in (
        ("unpack", "thesis", "a folder of something else: it has no bundle.json"),
        ("unpack", "file", "is not a folder, expected one to replace"),
        ("pack", "b.mmalign", "is a folder, expected the name of a file"),
    ):
        result = cli(verb, tiny_bundle, "--out", tmp_path / name, "--force")
        assert (result.code, reason in result.err) == (2, True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_a_bundle_is_unpacked_over_itself(cli, tiny_bundle: Path) -> None:
    before = (tiny_bundle / "bundle.json").read_bytes()
    assert cli("unpack", tiny_bundle, "--out", tiny_bundle, "--force").code == 0
    assert (tiny_bundle / "bundle.json").read_bytes() == before


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("pack", "p/q/b.mmalign"),
        ("unpack", "u/v/bundle"),
        ("embed", "e/f/vectors"),
        ("embed", "g/h/vectors.parquet"),
        ("embed", "i/j/vectors.npz"),
    ],
)
def test_folders_above_the_output_are_made(cli, tiny_bundle: Path, tmp_path: Path, verb: str, name: str) -> None:
    if verb == "embed" and not name.endswith(".npz"):
        pytest.importorskip("pyarrow", reason=NO_PYARROW)
    (tmp_path / "texts.txt").write_text("a dog\n")
    words = (tiny_bundle, tmp_path / "texts.txt", "--kind", "text") if verb == "embed" else (tiny_bundle,)
    assert cli(verb, *words, "--out", tmp_path / name).code == 0
    assert (tmp_path / name).exists()
