from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from tokenizers import Tokenizer, models

from mmalign.config import Config, DataConfig
from mmalign.data import DataSource
from mmalign.dual_model import DualModel
from mmalign.model import DualEncoder
from mmalign.run import Run, RunFolder
from mmalign.run.model import dual_model
from mmalign.space import _without_limits, space_id
from mmalign_runtime.spec import ImageLimits, ImageSpec, TextSpec

MakeModel = Callable[..., DualEncoder]


def run_of(model: DualEncoder, tokenizer: Tokenizer, image: ImageSpec, text: TextSpec) -> DualModel:
    config = Config(data=DataConfig(sources=(DataSource("none.csv"),)), image=image, text=text)
    return dual_model(Run(RunFolder(Path("run")), config, model, tokenizer))


def space_of(
    model: DualEncoder, tokenizer: Tokenizer, image: ImageSpec | None = None, text: TextSpec | None = None
) -> str:
    plain = run_of(model, tokenizer, ImageSpec(), TextSpec())
    towers = {
        "image": msgspec.structs.replace(plain.image, spec=image or ImageSpec()),
        "text": msgspec.structs.replace(plain.text, spec=text or TextSpec()),
    }
    return space_id(msgspec.structs.replace(plain, towers=towers))


@pytest.fixture
def tokenizer(text_encoder_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(text_encoder_dir / "tokenizer.json"))


def test_any_weight_changes_the_id(make_model: MakeModel, tokenizer: Tokenizer) -> None:
    model = make_model()
    seen = {space_of(model, tokenizer)}
    names = [name for name in model.state_dict() if name != "loss.logit_scale"]
    for name in names:
        tensor = model.state_dict()[name].view(-1)
        tensor[-1] += 1
        seen.add(space_of(model, tokenizer))
    assert len(seen) == len(names) + 1


@pytest.mark.parametrize(
    ("image", "text"),
    [
        ({"size": 192}, {}),
        ({"interpolation": "bicubic"}, {}),
        ({"mean": (0.5, 0.5, 0.5)}, {}),
        ({"background": (0, 0, 0)}, {}),
        ({"icc_profile": "to_srgb"}, {}),
        ({"jpeg_oversampling": 0}, {}),
        ({"jpeg_oversampling": 3}, {}),
        ({"size": [224, 192]}, {}),
        ({"resize": "resize_then_crop", "resize_size": 256}, {}),
        ({"fill": (1, 2, 3)}, {}),
        ({"side_rounding": "half_even"}, {}),
        ({"crop_rounding": "floor"}, {}),
        ({"orientation": "ignored"}, {}),
        ({"alpha": "dropped"}, {}),
        ({}, {"cleaning": "clip"}),
        ({}, {"truncation_side": "left"}),
        ({}, {"padding_side": "left"}),
        ({}, {"context_length": 64}),
    ],
)
def test_pixels_and_tokens_change_the_id(
    make_model: MakeModel, tokenizer: Tokenizer, image: dict[str, object], text: dict[str, object]
) -> None:
    plain = space_of(make_model(), tokenizer)
    assert (
        space_of(make_model(), tokenizer, msgspec.convert(image, ImageSpec), msgspec.convert(text, TextSpec)) != plain
    )


def test_what_is_done_as_before_is_hashed_as_before() -> None:
    # What the first version hashed, byte for byte: fields that came later leave the ids of its spaces as they are.
    assert msgspec.json.encode(_without_limits(ImageSpec(size=(64, 64), jpeg_oversampling=0)), order="sorted") == (
        b'{"background":[255,255,255],"icc_profile":"ignore","interpolation":"bilinear","mean":[0.485,0.456,0.406],'
        b'"resize":"squash","shortest_edge":256,"size":64,"std":[0.229,0.224,0.225]}'
    )
    assert msgspec.json.encode(_without_limits(TextSpec()), order="sorted") == (
        b'{"context_length":128,"pad_token":"[PAD]","pad_token_id":0,"padding":"longest"}'
    )


def test_tokenizer_and_pooling_change_the_id(make_model: MakeModel, tokenizer: Tokenizer) -> None:
    model = make_model()
    plain = space_of(model, tokenizer)
    model.text_tower.pooling = "cls"
    assert space_of(model, tokenizer) != plain
    tokenizer.add_tokens(["new"])
    assert space_of(make_model(), tokenizer) != plain


def test_what_moves_no_vector_keeps_the_id(make_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make_model()
    plain = space_of(model, tokenizer)
    with torch.no_grad():
        model.loss.logit_scale += 1
    tokenizer.save(str(tmp_path / "again.json"))
    again = Tokenizer.from_file(str(tmp_path / "again.json"))
    limited = ImageSpec(limits=ImageLimits(max_pixels=10))
    assert space_of(model, again, limited, TextSpec(max_characters=10)) == plain


def test_a_run_keeps_the_id_that_it_had_before_models_came_from_elsewhere(make_model: MakeModel) -> None:
    model = make_model()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    words = {"[PAD]": 0, "[UNK]": 1, "dog": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    found = space_of(model, tokenizer, ImageSpec(size=32), TextSpec(context_length=12))
    assert found == "mma-295cb7c23c37c587e2cb3348a6ebf20c"


def test_what_a_tower_is_beside_its_weights_changes_the_id(make_model: MakeModel, tokenizer: Tokenizer) -> None:
    model = run_of(make_model(), tokenizer, ImageSpec(), TextSpec())
    others = []
    for name, definition in (("image", "ReLU"), ("image", "GELU"), ("text", "ReLU")):
        tower = msgspec.structs.replace(model.towers[name], definition=definition)
        others.append(msgspec.structs.replace(model, towers=model.towers | {name: tower}))
    assert len({space_id(each) for each in (model, *others)}) == 4
