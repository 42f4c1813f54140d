from pathlib import Path

import msgspec
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleFeatureError
from mmalign_runtime.spec import Artifact, BundleSpec, ImageSpec, ImageTower, TextSpec, TextTower
from mmalign_runtime.support import check_supported


def with_spec(spec: BundleSpec, name: str, **changes: object) -> BundleSpec:
    tower = spec.towers[name]
    changed = msgspec.structs.replace(tower, spec=msgspec.structs.replace(tower.spec, **changes))
    return msgspec.structs.replace(spec, towers={**spec.towers, name: changed})


def test_patches_at_a_pictures_own_ratio_are_refused_by_name(tiny_bundle: Path, edit_spec) -> None:
    edit_spec(lambda spec: with_spec(spec, "image", resize="naflex"))
    with pytest.raises(BundleFeatureError, match=r"the image tower takes patches .* \(resize 'naflex'\)"):
        Embedder.load(tiny_bundle, provider="cpu", lazy=True)
    assert len(Embedder.load(tiny_bundle, provider="cpu", towers=["text"]).encode_text(["a dog"])) == 1


def test_a_package_with_weights_in_another_file_is_refused_by_name() -> None:
    tower = TextTower(spec=TextSpec(), tokenizer="t", architecture="a")
    check_supported(tower, Artifact(tower="text", engine="onnx", external=("w.bin",)))
    with pytest.raises(BundleFeatureError, match=r"the text tower's aotinductor package keeps weights .* in w\.bin"):
        check_supported(tower, Artifact(tower="text", engine="aotinductor", external=("w.bin",)))


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(),
        ImageSpec(resize="shortest_edge"),
        ImageSpec(resize="longest_edge", size=(3, 5)),
        ImageSpec(resize="resize_then_crop", resize_size=300),
        TextSpec(),
        TextSpec(padding_side="left", truncation_side="left"),
        TextSpec(cleaning="clip", padding="fixed"),
    ],
)
def test_everything_else_is_computed(spec: ImageSpec | TextSpec) -> None:
    if isinstance(spec, ImageSpec):
        check_supported(ImageTower(spec=spec, preprocess="p", architecture="a"), Artifact(tower="i", engine="onnx"))
    else:
        check_supported(TextTower(spec=spec, tokenizer="t", architecture="a"), Artifact(tower="t", engine="onnx"))
