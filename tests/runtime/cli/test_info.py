import json
from pathlib import Path

from mmalign_runtime.bundle import open_bundle


def test_a_table_shows_the_bundle_and_what_was_chosen(cli, tiny_bundle: Path) -> None:
    result = cli("info", tiny_bundle, "--provider", "cpu", "--threads", 1)
    assert result.code == 0
    spec = open_bundle(tiny_bundle).spec
    for fact in (spec.space_id, spec.variant_id("fp32"), "cpu (asked: cpu)", "on CPUExecutionProvider"):
        assert fact in result.out


def test_json_holds_the_whole_spec_and_the_runtime(cli, tiny_bundle: Path) -> None:
    found = json.loads(cli("info", tiny_bundle, "--threads", 1, "--json").out)
    assert found["bundle"]["space_id"] == found["runtime"]["space_id"] == open_bundle(tiny_bundle).spec.space_id
    assert found["runtime"]["num_threads"] == 1


def test_an_unknown_word_names_the_choices(cli, tiny_bundle: Path) -> None:
    assert (
        "--provider 'tpu' is not known; choose one of auto, cpu, cuda"
        in cli("info", tiny_bundle, "--provider", "tpu").err
    )
    assert (
        "--precision 'fp8' is not known; choose one of fp32, fp16, int8"
        in cli("info", tiny_bundle, "--precision", "fp8").err
    )
