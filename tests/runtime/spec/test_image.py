import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime.spec import ImageLimits, ImageSpec
from tests.runtime.spec.structs import check_closed, check_words


@pytest.mark.parametrize(
    ("kind", "field", "inside", "outside"),
    [
        (ImageSpec, "size", (1, 65_535), (0, 65_536)),
        (ImageSpec, "shortest_edge", (1, 100_000), (0,)),
        (ImageSpec, "jpeg_oversampling", (0, 100), (-1,)),
        (ImageLimits, "max_pixels", (1, 10**12), (0,)),
        (ImageLimits, "max_bytes", (1, 10**12), (0,)),
        (ImageLimits, "max_side", (1, 10**6), (0,)),
        (ImageLimits, "max_aspect_ratio", (1.0, 1e6), (0.999,)),
    ],
)
def test_each_number_has_its_range(
    kind: type[msgspec.Struct], field: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    for value in inside:
        assert getattr(msgspec.convert({field: value}, kind), field) == value
    for value in outside:
        with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.{field}`"):
            msgspec.convert({field: value}, kind)


def test_a_size_is_both_sides_or_height_and_width() -> None:
    assert ImageSpec(size=7).shape == (7, 7)
    assert msgspec.json.decode(b'{"size": [3, 5]}', type=ImageSpec).shape == (3, 5)
    for wrong in ([3], [3, 5, 7], [0, 5], [3, 65_536], [], "3"):
        with pytest.raises(msgspec.ValidationError, match=r"Expected .* - at `\$\.size"):
            msgspec.convert({"size": wrong}, ImageSpec)


def test_resize_then_crop_has_a_size_of_its_own_and_no_other_mode_has() -> None:
    assert ImageSpec(size=289, resize="resize_then_crop", resize_size=346).resized_shape == (346, 346)
    for fields in ({"resize": "resize_then_crop"}, {"resize_size": 346}, {"resize": "naflex", "resize_size": [3, 5]}):
        with pytest.raises(msgspec.ValidationError, match="set resize_size with 'resize_then_crop', and only there"):
            msgspec.convert(fields, ImageSpec)


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (ImageSpec(size=224), (224, 224)),
        (ImageSpec(size=(224, 320)), (224, 320)),
        (ImageSpec(size=224, resize="shortest_edge", shortest_edge=256), (256, 256)),
        (ImageSpec(size=(224, 320), resize="longest_edge"), (224, 320)),
        (ImageSpec(size=289, resize="resize_then_crop", resize_size=(340, 346)), (340, 346)),
    ],
)
def test_what_a_picture_is_resized_to_depends_on_the_mode(spec: ImageSpec, shape: tuple[int, int]) -> None:
    assert spec.resized_shape == shape


def test_the_defaults_are_part_of_the_format() -> None:
    # A bundle.json that leaves a field out means these values.
    assert msgspec.structs.asdict(ImageLimits()) == {
        "max_pixels": 100_000_000,
        "max_bytes": 268_435_456,  # 256 MiB
        "max_side": 65_535,  # what a JPEG can hold
        "max_aspect_ratio": 200.0,
    }
    assert msgspec.structs.asdict(ImageSpec()) == {
        "size": 224,
        "resize": "squash",
        "shortest_edge": 256,
        "resize_size": None,
        "fill": (0, 0, 0),
        "side_rounding": "floor",
        "crop_rounding": "half_even",
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "orientation": "applied",
        "alpha": "composited",
        "background": (255, 255, 255),
        "icc_profile": "ignore",
        "jpeg_oversampling": 2,
        "limits": ImageLimits(),
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["max_pixels", "max_bytes", "max_side", "max_aspect_ratio"]),
    value=st.integers(-(2**40), 0) | st.text() | st.none() | st.floats(max_value=0.5, allow_nan=False),
)
def test_a_limit_below_one_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.limits\.{name}`"):
        msgspec.convert({"limits": {name: value}}, ImageSpec)


@pytest.mark.parametrize("field", ["background", "fill"])
@pytest.mark.parametrize("colour", [(0, 0, 256), (-1, 0, 0), (0, 0), (0.5, 0, 0)])
def test_a_colour_is_three_levels(field: str, colour: tuple[float, ...]) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"at `\$\.{field}"):
        msgspec.convert({field: colour}, ImageSpec)


@pytest.mark.parametrize("field", ["background", "fill"])
def test_a_level_is_from_0_to_255(field: str) -> None:
    assert getattr(msgspec.convert({field: [0, 128, 255]}, ImageSpec), field) == (0, 128, 255)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("resize", ("squash", "shortest_edge", "longest_edge", "naflex")),
        ("side_rounding", ("half_even", "floor")),
        ("crop_rounding", ("half_even", "floor")),
        ("interpolation", ("bilinear", "bicubic")),
        ("orientation", ("applied", "ignored")),
        ("alpha", ("composited", "dropped")),
        ("icc_profile", ("ignore", "to_srgb")),
    ],
)
def test_each_word_is_one_of_the_format(field: str, words: tuple[str, ...]) -> None:
    check_words(ImageSpec, field, words)


@pytest.mark.parametrize("kind", [ImageSpec, ImageLimits])
def test_fields_go_by_their_names_and_stay(kind: type[msgspec.Struct]) -> None:
    check_closed(kind)


@pytest.mark.parametrize(
    ("fields", "num_patches", "shape"),
    [
        ({"size": 256, "shortest_edge": 16}, 256, (256, 770)),
        ({"size": (32, 48), "shortest_edge": 8}, 24, (24, 194)),
        ({"size": (14, 98), "shortest_edge": 14}, 7, (7, 590)),
    ],
)
def test_patches_are_as_many_as_the_area_holds(
    fields: dict[str, object], num_patches: int, shape: tuple[int, int]
) -> None:
    spec = msgspec.convert({"resize": "naflex", **fields}, ImageSpec)
    assert (spec.num_patches, spec.values_shape) == (num_patches, shape)


def test_pixels_of_one_size_have_three_planes() -> None:
    assert ImageSpec(size=(32, 48)).values_shape == (3, 32, 48)
