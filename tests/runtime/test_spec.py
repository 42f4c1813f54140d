import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import BundleSpec, ImageLimits, ImageSpec, TextSpec, decode_spec, encode_spec, seal_of


@pytest.fixture
def spec(embedder: Embedder) -> BundleSpec:
    return embedder.bundle.spec


def test_a_spec_survives_the_round_trip(spec: BundleSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec


def test_an_edited_spec_does_not_fit_its_seal(spec: BundleSpec) -> None:
    edited = encode_spec(spec).replace(spec.space_id.encode(), b"f" * len(spec.space_id))
    with pytest.raises(BundleFormatError, match="its seal does not fit"):
        decode_spec(edited)


def test_a_bundle_older_than_reduced_jpegs_decodes_them_in_full(spec: BundleSpec) -> None:
    assert spec.image.spec.jpeg_oversampling == ImageSpec().jpeg_oversampling == 2
    contents = msgspec.to_builtins(msgspec.structs.replace(spec, format_version="1.0"))
    del contents["image"]["spec"]["jpeg_oversampling"]
    contents["seal"] = seal_of(contents)
    older = decode_spec(msgspec.json.encode(contents))
    assert older.image.spec.jpeg_oversampling == 0
    assert decode_spec(encode_spec(older)).image == older.image


@pytest.mark.parametrize("version", ["2.0", "0.9", "1", "one", ""])
def test_another_major_version_is_refused(spec: BundleSpec, version: str) -> None:
    raw = encode_spec(msgspec.structs.replace(spec, format_version=version))
    with pytest.raises(BundleFormatError, match=r"this version reads 1\.x"):
        decode_spec(raw)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"{}", b"\xff\xfe"])
def test_what_is_no_spec_cannot_be_read(raw: bytes) -> None:
    with pytest.raises(BundleFormatError, match="cannot be read"):
        decode_spec(raw)


def test_an_unknown_or_missing_field_is_named(spec: BundleSpec) -> None:
    fields = msgspec.to_builtins(spec)
    with pytest.raises(BundleFormatError, match="unknown field `colour`"):
        decode_spec(msgspec.json.encode(fields | {"colour": 1}))
    with pytest.raises(BundleFormatError, match="missing required field `embed_dim`"):
        decode_spec(msgspec.json.encode({name: value for name, value in fields.items() if name != "embed_dim"}))


def test_a_precision_of_one_tower_alone_has_a_variant_and_is_not_offered_for_both(spec: BundleSpec) -> None:
    models = {"fp32": spec.image.models["fp32"], "fp16": spec.image.models["fp32"]}
    text_only_fp32 = msgspec.structs.replace(spec.text, models={"fp32": spec.text.models["fp32"]})
    half = msgspec.structs.replace(spec, image=msgspec.structs.replace(spec.image, models=models), text=text_only_fp32)
    assert half.precisions() == ("fp32",)
    assert half.variant_id("fp16").startswith("fp16-")
    assert half.variant_id("fp16").removeprefix("fp16") != half.variant_id("fp32").removeprefix("fp32")


level = st.integers(0, 255)
count = st.integers(1, 2**40)
numbers = st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
limits = st.builds(ImageLimits, max_pixels=count, max_bytes=count, max_side=count, max_aspect_ratio=st.floats(1, 1e6))
image_specs = st.builds(
    ImageSpec,
    size=st.integers(1, 65_535),
    resize=st.sampled_from(["squash", "shortest_edge"]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    mean=numbers,
    std=numbers,
    background=st.tuples(level, level, level),
    icc_profile=st.sampled_from(["ignore", "to_srgb"]),
    jpeg_oversampling=st.integers(0, 100),
    limits=limits,
)
text_specs = st.builds(
    TextSpec,
    context_length=st.integers(2, 10**6),
    padding=st.sampled_from(["longest", "fixed"]),
    pad_token_id=st.integers(0, 10**6),
    pad_token=st.text(),
    max_characters=count,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(spec=image_specs | text_specs)
def test_every_image_and_text_spec_survives_json(spec: ImageSpec | TextSpec) -> None:
    assert msgspec.json.decode(msgspec.json.encode(spec), type=type(spec)) == spec


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["max_pixels", "max_bytes", "max_side", "max_aspect_ratio"]),
    value=st.integers(-(2**40), 0) | st.text() | st.none() | st.floats(max_value=0.5, allow_nan=False),
)
def test_a_limit_below_one_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.limits\.{name}`"):
        msgspec.convert({"limits": {name: value}}, ImageSpec)


@pytest.mark.parametrize("background", [(0, 0, 256), (-1, 0, 0), (0, 0), (0.5, 0, 0)])
def test_a_background_is_three_levels(background: tuple[float, ...]) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"at `\$\.background"):
        msgspec.convert({"background": background}, ImageSpec)
