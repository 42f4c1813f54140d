import json
import sys
from pathlib import Path

from mmalign_runtime.bundle import open_bundle


def test_a_table_shows_the_bundle_and_what_was_chosen(cli, tiny_bundle: Path) -> None:
    result = cli("info", tiny_bundle, "--provider", "cpu", "--threads", 1)
    assert result.code == 0
    spec = open_bundle(tiny_bundle).spec
    chosen = ("onnxruntime 1.", "cpu (asked: cpu)", "on CPUExecutionProvider")
    for fact in (spec.space_id, spec.variant_id("fp32"), *chosen):
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


def test_an_engine_that_is_not_known_or_not_here_says_what_to_do(cli, tiny_bundle: Path, monkeypatch) -> None:
    assert "engine 'tvm' is not known; choose one of onnxruntime" in cli("info", tiny_bundle, "--engine", "tvm").err
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = cli("info", tiny_bundle, "--engine", "openvino")
    assert result.code == 2
    assert "pip install 'mmalign-runtime[openvino]'" in result.err
