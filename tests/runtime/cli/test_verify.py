import json
from importlib.util import find_spec
from pathlib import Path

import pytest


def test_a_table_ends_with_the_verdict(cli, tiny_bundle: Path) -> None:
    result = cli("verify", tiny_bundle, "--provider", "cpu")
    assert result.code == 0
    for word in ("landscape 3x2", "image batch", "concurrency", "float32", "equal: all", "holds: all 5 checks"):
        assert word in result.out


def test_json_holds_cases_checks_and_the_verdict(cli, tiny_bundle: Path) -> None:
    found = json.loads(cli("verify", tiny_bundle, "--provider", "cpu", "--json").out)
    assert found["passed"] is True
    assert {"cases", "checks", "bounds", "runtime", "seconds"} <= found.keys()


def test_another_bundle_is_compared(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    cli("pack", tiny_bundle, "--out", tmp_path / "copy.mmalign")
    result = cli("verify", tiny_bundle, "--provider", "cpu", "--against", tmp_path / "copy.mmalign")
    assert result.code == 0
    assert "the same" in result.out


def test_what_differs_is_one_and_what_cannot_run_is_two(cli, tiny_bundle: Path, edit_spec, tmp_path: Path) -> None:
    def strict(spec):
        import msgspec

        bounds = msgspec.structs.replace(spec.artifacts[0].parity, abs_bound=0.0)
        artifacts = tuple(msgspec.structs.replace(each, parity=bounds) for each in spec.artifacts)
        return msgspec.structs.replace(spec, artifacts=artifacts)

    edit_spec(strict)
    result = cli("verify", tiny_bundle, "--provider", "cpu")
    assert result.code == 1
    assert "cases outside the bounds" in result.out
    assert cli("verify", tmp_path / "nothing").code == 2


def test_bounds_are_told_by_tower_where_they_differ(cli, tiny_bundle: Path, edit_spec) -> None:
    def looser_texts(spec):
        import msgspec

        image, text = spec.artifacts
        parity = msgspec.structs.replace(text.parity, cosine_bound=0.5, abs_bound=0.25)
        return msgspec.structs.replace(spec, artifacts=(image, msgspec.structs.replace(text, parity=parity)))

    same = "all 40 cases inside the bounds (cosine at least 0.99999, max abs at most 0.0001)"
    assert same in cli("verify", tiny_bundle, "--provider", "cpu").out
    edit_spec(looser_texts)
    out = cli("verify", tiny_bundle, "--provider", "cpu").out
    assert "(image: cosine at least 0.99999, max abs at most 0.0001; text: cosine at least 0.5, max abs at" in out
    found = json.loads(cli("verify", tiny_bundle, "--provider", "cpu", "--json").out)
    assert {tower: each["abs_bound"] for tower, each in found["bounds"].items()} == {"image": 1e-4, "text": 0.25}


def test_bfloat16_without_an_engine_that_has_it_cannot_run(cli, tiny_bundle: Path) -> None:
    result = cli("verify", tiny_bundle, "--provider", "cpu", "--precision", "bf16")
    assert result.code == 2
    assert "Ask for engine 'openvino'" in result.err


@pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino: pip install 'mmalign-runtime[openvino]'")
def test_every_verb_takes_an_engine(cli, tiny_bundle: Path, tmp_path: Path) -> None:
    assert "openvino cpu fp32" in cli("verify", tiny_bundle, "--engine", "openvino").out
    out = tmp_path / "vectors.npz"
    assert cli("embed", tiny_bundle, tiny_bundle / "golden", "--out", out, "--engine", "openvino").code == 0
    assert cli("search", tiny_bundle, out, "a dog", "--engine", "openvino").code == 0


def test_one_tower_is_verified_alone(cli, tiny_bundle: Path) -> None:
    for tower in ("image", "text"):
        found = json.loads(cli("verify", tiny_bundle, "--provider", "cpu", "--towers", tower, "--json").out)
        assert found["passed"] is True
        assert {case["kind"] for case in found["cases"]} == {tower}
        assert [loaded["name"] for loaded in found["runtime"]["towers"]] == [tower]
    refused = cli("verify", tiny_bundle, "--towers", "image,sound")
    assert refused.code == 2
    assert "--towers 'sound' is not known; choose one of image, text." in refused.err


def test_a_bundle_with_one_tower_in_a_precision_says_what_to_leave_out(cli, tiny_bundle: Path, edit_spec) -> None:
    def half_image(spec):
        import msgspec

        half = msgspec.structs.replace(spec.artifact("image"), precision="fp16")
        return msgspec.structs.replace(spec, artifacts=(*spec.artifacts, half))

    edit_spec(half_image)
    options = ("verify", tiny_bundle, "--provider", "cpu", "--precision", "fp16")
    assert "or leave the tower out (towers)" in cli(*options).err
    assert cli(*options, "--towers", "image").code == 0
