import json
from pathlib import Path


def test_a_bundle_is_upgraded_once(cli, tiny_bundle: Path) -> None:
    space = json.loads((tiny_bundle / "bundle.json").read_text())["space_id"]
    first = cli("upgrade", tiny_bundle)
    assert (first.code, "bundle.json rewritten in format 2.0, every other file as it was" in first.out) == (0, True)
    contents = (tiny_bundle / "bundle.json").read_bytes()
    assert json.loads(contents)["format_version"] == "2.0"
    assert json.loads(contents)["space_id"] == space
    second = cli("upgrade", tiny_bundle)
    assert (second.code, "there is nothing to do" in second.out) == (0, True)
    assert (tiny_bundle / "bundle.json").read_bytes() == contents
    assert cli("verify", tiny_bundle, "--provider", "cpu").code == 0


def test_what_is_at_out_is_replaced_only_when_asked(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.mmalign"
    out.write_bytes(b"old")
    refused = cli("upgrade", tiny_bundle, "--out", out)
    assert (refused.code, "is there already" in refused.err, out.read_bytes()) == (2, True, b"old")
    assert cli("upgrade", tiny_bundle, "--out", out, "--force").code == 0
    assert cli("info", out, "--provider", "cpu").code == 0
    assert json.loads((tiny_bundle / "bundle.json").read_text())["format_version"] == "1.1"


def test_a_damaged_bundle_cannot_be_upgraded(cli, tiny_bundle: Path) -> None:
    (tiny_bundle / "tokenizer.json").write_text("{}")
    result = cli("upgrade", tiny_bundle)
    assert (result.code, "tokenizer.json was changed" in result.err) == (2, True)
    assert json.loads((tiny_bundle / "bundle.json").read_text())["format_version"] == "1.1"
