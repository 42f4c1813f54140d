import hashlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import (
    FORMAT_MAJOR,
    FORMAT_VERSION,
    SPEC_NAME,
    BundleSpec,
    ImageLimits,
    ImageSpec,
    ImageTowerFiles,
    Parity,
    Provenance,
    TextSpec,
    TextTowerFiles,
    _FormatOnly,
    decode_spec,
    encode_spec,
    seal_of,
)


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


def test_a_variant_id_is_twelve_digits_over_the_files_of_both_towers(spec: BundleSpec) -> None:
    names = sorted([spec.image.models["fp32"], spec.text.models["fp32"]])
    digest = hashlib.sha256("".join(spec.files[name] for name in names).encode()).hexdigest()
    assert spec.variant_id("fp32") == f"fp32-{digest[:12]}"
    assert len(spec.variant_id("fp32")) == len("fp32-") + 12
    for tower in (spec.image, spec.text):
        changed = {**spec.files, tower.models["fp32"]: "0" * 64}
        assert msgspec.structs.replace(spec, files=changed).variant_id("fp32") != spec.variant_id("fp32")


def test_two_towers_in_one_file_are_one_file_of_the_variant(spec: BundleSpec) -> None:
    name = spec.image.models["fp32"]
    shared = msgspec.structs.replace(spec, text=msgspec.structs.replace(spec.text, models={"fp32": name}))
    digest = hashlib.sha256(spec.files[name].encode()).hexdigest()
    assert shared.variant_id("fp32") == f"fp32-{digest[:12]}"


def test_precisions_are_told_most_exact_first(spec: BundleSpec) -> None:
    models = dict.fromkeys(("int8", "fp16", "fp32"), spec.image.models["fp32"])
    image, text = (msgspec.structs.replace(tower, models=models) for tower in (spec.image, spec.text))
    assert msgspec.structs.replace(spec, image=image, text=text).precisions() == ("fp32", "fp16", "int8")


def test_the_seal_is_a_sha256_of_all_but_itself_whatever_the_order(spec: BundleSpec) -> None:
    contents = msgspec.json.decode(encode_spec(spec))
    rest = {name: value for name, value in contents.items() if name != "seal"}
    assert contents["seal"] == hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()
    backwards = dict(reversed(contents.items()))
    assert decode_spec(msgspec.json.encode(backwards)) == decode_spec(encode_spec(spec))


@pytest.mark.parametrize("digits", [63, 65, 0])
def test_a_files_hash_is_sixty_four_digits(spec: BundleSpec, digits: int) -> None:
    name = next(iter(spec.files))
    with pytest.raises(BundleFormatError, match=r"at `\$\.files"):
        decode_spec(encode_spec(msgspec.structs.replace(spec, files={**spec.files, name: "0" * digits})))


@pytest.mark.parametrize(
    ("version", "is_read"),
    [("1.0", True), ("1.1", True), ("1.9999", True), ("1.10000", False), ("00001.1", False), ("1.1\n", False)],
)
def test_any_minor_version_of_up_to_four_digits_is_read(spec: BundleSpec, version: str, is_read: bool) -> None:
    raw = encode_spec(msgspec.structs.replace(spec, format_version=version))
    if is_read:
        assert decode_spec(raw).format_version == version
    else:
        with pytest.raises(BundleFormatError, match=r"this version reads 1\.x"):
            decode_spec(raw)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda spec: {"golden": "gone"}, "golden"),
        (lambda spec: {"quantization": "gone"}, "quantization"),
        (lambda spec: {"goldens": {"int8": "gone"}}, r"goldens\.int8"),
        (lambda spec: {"image": msgspec.structs.replace(spec.image, preprocess="gone")}, r"image\.preprocess"),
        (lambda spec: {"image": msgspec.structs.replace(spec.image, models={"fp16": "gone"})}, r"image\.models\.fp16"),
        (lambda spec: {"image": msgspec.structs.replace(spec.image, aoti="gone")}, r"image\.aoti"),
        (lambda spec: {"text": msgspec.structs.replace(spec.text, tokenizer="gone")}, r"text\.tokenizer"),
        (lambda spec: {"text": msgspec.structs.replace(spec.text, models={"int8": "gone"})}, r"text\.models\.int8"),
        (lambda spec: {"text": msgspec.structs.replace(spec.text, aoti="gone")}, r"text\.aoti"),
    ],
)
def test_every_file_that_is_named_is_listed(
    spec: BundleSpec, change: Callable[[BundleSpec], dict[str, object]], field: str
) -> None:
    raw = encode_spec(msgspec.structs.replace(spec, **change(spec)))
    with pytest.raises(BundleFormatError, match=rf"^bundle\.json: {field} is 'gone', which `files` does not list"):
        decode_spec(raw)


@pytest.mark.parametrize(
    ("kind", "field", "inside", "outside"),
    [
        (ImageSpec, "size", (1, 65_535), (0, 65_536)),
        (ImageSpec, "shortest_edge", (1, 100_000), (0,)),
        (ImageSpec, "jpeg_oversampling", (0, 100), (-1,)),
        (TextSpec, "context_length", (2, 1_000_000), (1, 1_000_001)),
        (TextSpec, "pad_token_id", (0, 2**31 - 1), (-1, 2**31)),
        (TextSpec, "max_characters", (1, 10**9), (0,)),
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


def test_fewer_bits_keep_a_cosine_of_97_hundredths_unless_told_otherwise() -> None:
    measured = {"artifact": "onnx-int8", "num_cases": 1, "min_cosine": 1.0, "max_abs_difference": 0.0}
    figures = {**measured, "cosine_bound": 0.998, "abs_bound": 0.02}
    assert msgspec.convert(figures, Parity).least_cosine == 0.97
    for value in (0.0, 1.0):
        assert msgspec.convert({**figures, "least_cosine": value}, Parity).least_cosine == value
    for value in (-0.001, 1.001):
        with pytest.raises(msgspec.ValidationError, match=r"Expected .* - at `\$\.least_cosine`"):
            msgspec.convert({**figures, "least_cosine": value}, Parity)


def test_a_bundle_has_a_dimension(spec: BundleSpec) -> None:
    with pytest.raises(BundleFormatError, match=r"at `\$\.embed_dim`"):
        decode_spec(encode_spec(msgspec.structs.replace(spec, embed_dim=0)))
    assert decode_spec(encode_spec(msgspec.structs.replace(spec, embed_dim=1))).embed_dim == 1


def test_the_defaults_are_part_of_the_format() -> None:
    # A bundle.json that leaves a field out means these values.
    assert msgspec.structs.asdict(ImageLimits()) == {
        "max_pixels": 100_000_000,
        "max_bytes": 268_435_456,  # 256 MiB
        "max_side": 65_535,  # what a JPEG can hold
        "max_aspect_ratio": 200.0,
    }
    image = msgspec.structs.asdict(ImageSpec())
    assert (image["size"], image["resize"], image["shortest_edge"]) == (224, "squash", 256)
    assert image["interpolation"] == "bilinear"
    assert (image["mean"], image["std"]) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (image["background"], image["icc_profile"], image["jpeg_oversampling"]) == ((255, 255, 255), "ignore", 2)
    assert msgspec.structs.asdict(TextSpec()) == {
        "context_length": 128,
        "padding": "longest",
        "pad_token_id": 0,
        "pad_token": "[PAD]",
        "max_characters": 1_000_000,
    }


WRITTEN = (
    ImageLimits,
    ImageSpec,
    TextSpec,
    ImageTowerFiles,
    TextTowerFiles,
    Parity,
    Provenance,
    BundleSpec,
)


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_read_from_a_bundle_is_frozen_and_refuses_fields_that_it_does_not_know(
    kind: type[msgspec.Struct],
) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.forbid_unknown_fields
    with pytest.raises(TypeError, match="Extra positional arguments provided"):
        kind(1)


def test_a_bundle_calls_its_inputs_and_outputs_so_unless_it_says_otherwise() -> None:
    image = ImageTowerFiles(spec=ImageSpec(), preprocess="p", models={}, architecture="a")
    text = TextTowerFiles(spec=TextSpec(), tokenizer="t", models={}, architecture="a")
    assert (image.input_name, image.output_name) == ("pixel_values", "image_embeds")
    assert (text.input_names, text.output_name) == (("input_ids", "attention_mask"), "text_embeds")
    origin = Provenance(created="now", run="r", data=(), opset_version=18, versions={})
    assert origin.weights_licence == "unknown"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_only_an_older_bundle_is_given_another_value_than_the_default(spec: BundleSpec, version: str) -> None:
    said = msgspec.structs.replace(
        spec,
        format_version=version,
        image=msgspec.structs.replace(spec.image, spec=msgspec.structs.replace(spec.image.spec, jpeg_oversampling=3)),
    )
    assert decode_spec(encode_spec(said)).image.spec.jpeg_oversampling == 3


def test_this_version_writes_format_1_1_to_bundle_json() -> None:
    assert (FORMAT_MAJOR, FORMAT_VERSION, SPEC_NAME) == (1, "1.1", "bundle.json")


def test_bundle_json_is_indented_by_two_and_ends_with_a_line_break(spec: BundleSpec) -> None:
    raw = encode_spec(spec)
    assert raw.startswith(b'{\n  "embed_dim": 16,\n')  # sorted by name: the same contents are the same bytes
    assert raw.endswith(b"}\n")


level = st.integers(0, 255)
count = st.integers(1, 2**40)
numbers = st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3)
limits = st.fixed_dictionaries(
    {"max_pixels": count, "max_bytes": count, "max_side": count, "max_aspect_ratio": st.floats(1, 1e6)}
)
image_specs = st.fixed_dictionaries(
    {
        "size": st.integers(1, 65_535),
        "resize": st.sampled_from(["squash", "shortest_edge"]),
        "interpolation": st.sampled_from(["bilinear", "bicubic"]),
        "mean": numbers,
        "std": numbers,
        "background": st.tuples(level, level, level),
        "icc_profile": st.sampled_from(["ignore", "to_srgb"]),
        "jpeg_oversampling": st.integers(0, 100),
        "limits": limits,
    }
)
text_specs = st.fixed_dictionaries(
    {
        "context_length": st.integers(2, 10**6),
        "padding": st.sampled_from(["longest", "fixed"]),
        "pad_token_id": st.integers(0, 10**6),
        "pad_token": st.text(),
        "max_characters": count,
    }
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(image=image_specs, text=text_specs)
def test_every_image_and_text_spec_survives_json(image: dict[str, object], text: dict[str, object]) -> None:
    for kind, fields in ((ImageSpec, image), (TextSpec, text)):
        spec = msgspec.convert(fields, kind)
        assert msgspec.json.decode(msgspec.json.encode(spec), type=kind) == spec


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


def test_what_is_read_first_is_frozen_and_takes_any_other_field() -> None:
    assert _FormatOnly.__struct_config__.frozen
    assert not _FormatOnly.__struct_config__.forbid_unknown_fields  # a later major version may have them
