from pathlib import Path

import msgspec
import pytest
from tokenizers import Tokenizer

from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleFeatureError, MissingDependencyError
from mmalign_runtime.spec import BundleSpec, ImageSpec, ImageTower, TextSpec, TextTower
from mmalign_runtime.support import check_supported
from mmalign_runtime.text_cleaning import find_cleaner
from mmalign_runtime.tokenizer import TextTokenizer


def with_spec(spec: BundleSpec, name: str, **changes: object) -> BundleSpec:
    tower = spec.towers[name]
    changed = msgspec.structs.replace(tower, spec=msgspec.structs.replace(tower.spec, **changes))
    return msgspec.structs.replace(spec, towers={**spec.towers, name: changed})


@pytest.mark.parametrize("cleaning", ["clip", "clip_cased", "clip_canonical", "siglip"])
def test_a_cleaner_that_is_not_here_names_the_extra(tiny_bundle: Path, edit_spec, cleaning: str) -> None:
    edit_spec(lambda spec: with_spec(spec, "text", cleaning=cleaning))
    message = rf"cleaned as '{cleaning}', .* `pip install -U 'mmalign-runtime\[clean\]'`"
    with pytest.raises(MissingDependencyError, match=message):
        Embedder.load(tiny_bundle, provider="cpu", lazy=True)
    with pytest.raises(MissingDependencyError, match=message):
        TextTokenizer(Tokenizer.from_file(str(tiny_bundle / "tokenizer.json")), TextSpec(cleaning=cleaning))
    assert len(Embedder.load(tiny_bundle, provider="cpu", towers=["image"]).encode_image([])) == 0


def test_patches_at_a_pictures_own_ratio_are_refused_by_name(tiny_bundle: Path, edit_spec) -> None:
    edit_spec(lambda spec: with_spec(spec, "image", resize="naflex"))
    with pytest.raises(BundleFeatureError, match=r"the image tower takes patches .* \(resize 'naflex'\)"):
        Embedder.load(tiny_bundle, provider="cpu", lazy=True)
    assert len(Embedder.load(tiny_bundle, provider="cpu", towers=["text"]).encode_text(["a dog"])) == 1


@pytest.mark.parametrize(
    "spec",
    [
        ImageSpec(),
        ImageSpec(resize="shortest_edge"),
        ImageSpec(resize="longest_edge", size=(3, 5)),
        ImageSpec(resize="resize_then_crop", resize_size=300),
        TextSpec(),
        TextSpec(padding_side="left", truncation_side="left"),
    ],
)
def test_everything_else_is_computed(spec: ImageSpec | TextSpec) -> None:
    if isinstance(spec, ImageSpec):
        check_supported("image", ImageTower(spec=spec, preprocess="p", architecture="a"))
    else:
        check_supported("text", TextTower(spec=spec, tokenizer="t", architecture="a"))
    assert find_cleaner("none") is None
