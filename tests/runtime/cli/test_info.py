import json
import sys
from pathlib import Path

import msgspec

from mmalign_runtime import Embedder
from mmalign_runtime.bundle import open_bundle
from mmalign_runtime.spec import BundleSpec, ImageTower, Similarity


def test_a_table_shows_the_bundle_and_what_was_chosen(cli, tiny_bundle: Path) -> None:
    result = cli("info", tiny_bundle, "--provider", "cpu", "--threads", 1)
    assert result.code == 0
    spec = open_bundle(tiny_bundle).spec
    chosen = ("onnxruntime 1.", "cpu (asked: cpu)", "on CPUExecutionProvider")
    for fact in (spec.space_id, spec.variant_id("fp32"), *chosen):
        assert fact in result.out


def test_options_that_are_on_are_shown(cli, tiny_bundle: Path) -> None:
    words = ("info", tiny_bundle, "--provider", "cpu", "--threads", 2)
    plain = cli(*words, "--no-cache").out
    assert "asleep between" in plain
    assert "options" not in plain
    chosen = cli(*words, "--cache", "--allow-tf32", "--allow-spinning").out
    assert "spinning between" in chosen
    assert "allow_tf32, cache" in chosen


def test_patches_are_shown_with_their_number_and_size(cli, tiny_bundle: Path, edit_spec) -> None:
    def patched(spec: BundleSpec) -> BundleSpec:
        tower = spec.tower("image", ImageTower)
        image = msgspec.structs.replace(tower.spec, resize="naflex", size=(32, 48), shortest_edge=8)
        towers = {**spec.towers, "image": msgspec.structs.replace(tower, spec=image)}
        return msgspec.structs.replace(spec, towers=towers)

    edit_spec(patched)
    assert "up to 24 patches of 8 x 8 pixels, naflex" in " ".join(
        cli("info", tiny_bundle, "--provider", "cpu").out.split()
    )


def test_what_training_made_of_cosines_is_shown(cli, tiny_bundle: Path, edit_spec) -> None:
    assert "softmax, scale 14.29, bias 0" in cli("info", tiny_bundle, "--provider", "cpu").out
    sigmoid = Similarity(kind="sigmoid", scale=117.33, bias=-12.93)
    edit_spec(lambda spec: msgspec.structs.replace(spec, similarity=sigmoid))
    assert "sigmoid, scale 117.3, bias -12.93" in cli("info", tiny_bundle, "--provider", "cpu").out
    with Embedder.load(tiny_bundle, provider="cpu", lazy=True) as embedder:
        assert embedder.similarity == sigmoid
        assert embedder.logit_scale == 117.33


def test_both_towers_and_where_they_come_from_are_shown(cli, tiny_bundle: Path) -> None:
    out = cli("info", tiny_bundle, "--provider", "cpu").out
    assert "timm:test_resnet, 64 x 64 pixels, squash, bilinear" in out
    assert "bert-base-uncased, 16 tokens, padding longest, cleaning none" in out
    assert "from run tmpi07fakre (none.csv), mmalign 0.1.0, opset 18" in out


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
