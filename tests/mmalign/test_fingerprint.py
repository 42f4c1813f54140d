from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
from tokenizers import Tokenizer

from mmalign.fingerprint import _without_limits, digest_state, digest_texts, space_id
from mmalign.model import DualEncoder
from mmalign.tensors import read_tensors, write_tensors
from mmalign_runtime.spec import ImageLimits, ImageSpec, TextSpec

MakeModel = Callable[..., DualEncoder]


@pytest.fixture
def tokenizer(text_encoder_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(text_encoder_dir / "tokenizer.json"))


def test_any_weight_changes_the_id(make_model: MakeModel, tokenizer: Tokenizer) -> None:
    model = make_model()
    seen = {space_id(model, ImageSpec(), TextSpec(), tokenizer)}
    names = [name for name in model.state_dict() if name != "logit_scale"]
    for name in names:
        tensor = model.state_dict()[name].view(-1)
        tensor[-1] += 1
        seen.add(space_id(model, ImageSpec(), TextSpec(), tokenizer))
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
    plain = space_id(make_model(), ImageSpec(), TextSpec(), tokenizer)
    assert (
        space_id(make_model(), msgspec.convert(image, ImageSpec), msgspec.convert(text, TextSpec), tokenizer) != plain
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
    plain = space_id(model, ImageSpec(), TextSpec(), tokenizer)
    model.text_tower.pooling = "cls"
    assert space_id(model, ImageSpec(), TextSpec(), tokenizer) != plain
    tokenizer.add_tokens(["new"])
    assert space_id(make_model(), ImageSpec(), TextSpec(), tokenizer) != plain


def test_what_moves_no_vector_keeps_the_id(make_model: MakeModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = make_model()
    plain = space_id(model, ImageSpec(), TextSpec(), tokenizer)
    with torch.no_grad():
        model.logit_scale += 1
    tokenizer.save(str(tmp_path / "again.json"))
    again = Tokenizer.from_file(str(tmp_path / "again.json"))
    limited = ImageSpec(limits=ImageLimits(max_pixels=10))
    assert space_id(model, limited, TextSpec(max_characters=10), again) == plain


def test_saving_again_keeps_the_digest(make_model: MakeModel, tmp_path: Path) -> None:
    state = make_model().state_dict()
    write_tensors(tmp_path / "a.safetensors", dict(reversed(state.items())), {"note": "later"})
    assert digest_state(read_tensors(tmp_path / "a.safetensors").tensors) == digest_state(state)


def test_dtype_shape_and_name_count() -> None:
    tensor = torch.zeros(4)
    states = [{"a": tensor}, {"b": tensor}, {"a": tensor.reshape(2, 2)}, {"a": tensor.int()}, {"a": torch.zeros(0)}]
    assert len({digest_state(state) for state in states}) == len(states)


def test_where_a_text_ends_counts() -> None:
    texts = [["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c", ""], ["\udce4"]]
    assert len({digest_texts(each) for each in texts}) == len(texts)
