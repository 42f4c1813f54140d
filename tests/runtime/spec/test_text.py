import msgspec
import pytest

from mmalign_runtime.spec import TextSpec
from tests.runtime.spec.structs import check_closed, check_words


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        ("context_length", (2, 1_000_000), (1, 1_000_001)),
        ("pad_token_id", (0, 2**31 - 1), (-1, 2**31)),
        ("max_characters", (1, 10**9), (0,)),
    ],
)
def test_each_number_has_its_range(field: str, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    for value in inside:
        assert getattr(msgspec.convert({field: value}, TextSpec), field) == value
    for value in outside:
        with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.{field}`"):
            msgspec.convert({field: value}, TextSpec)


def test_the_defaults_are_part_of_the_format() -> None:
    assert msgspec.structs.asdict(TextSpec()) == {
        "cleaning": "none",
        "context_length": 128,
        "truncation_side": "right",
        "padding": "longest",
        "padding_side": "right",
        "pad_token_id": 0,
        "pad_token": "[PAD]",
        "max_characters": 1_000_000,
    }


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("cleaning", ("none", "clip", "clip_cased", "clip_canonical", "siglip")),
        ("truncation_side", ("right", "left")),
        ("padding", ("longest", "fixed")),
        ("padding_side", ("right", "left")),
    ],
)
def test_each_word_is_one_of_the_format(field: str, words: tuple[str, ...]) -> None:
    check_words(TextSpec, field, words)


def test_fields_go_by_their_names_and_stay() -> None:
    check_closed(TextSpec)
