from pathlib import Path


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
