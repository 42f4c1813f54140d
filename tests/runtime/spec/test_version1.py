import msgspec
import pytest

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import (
    AOTINDUCTOR,
    TORCH_COMPILE,
    BundleSpec,
    ImageLimits,
    ImageTower,
    Quantization,
    Similarity,
    TextInputs,
    TextTower,
    decode_spec,
    encode_spec,
    seal_of,
)
from mmalign_runtime.spec.version1 import (
    BundleSpec1,
    ImageSpec1,
    ImageTower1,
    Parity1,
    Provenance1,
    TextSpec1,
    TextTower1,
)
from tests.runtime.spec.structs import check_words


@pytest.fixture
def told(raw1: bytes) -> dict[str, object]:
    """What a bundle.json of format 1 says."""
    return msgspec.json.decode(raw1, type=dict[str, object])


def read(told: dict[str, object]) -> BundleSpec:
    return decode_spec(msgspec.json.encode(told | {"seal": seal_of(told)}))


def test_format_1_says_the_same_in_the_structs_of_today(told: dict, spec: BundleSpec) -> None:
    assert (spec.format_version, spec.space_id, spec.embed_dim) == ("2.0", told["space_id"], told["embed_dim"])
    assert spec.similarity == Similarity(kind="softmax", scale=told["logit_scale"], bias=0.0)
    assert (spec.files, spec.golden) == (told["files"], told["golden"])
    image, text = spec.tower("image", ImageTower), spec.tower("text", TextTower)
    for tower, name in ((image, "image"), (text, "text")):
        fields = msgspec.json.decode(msgspec.json.encode(tower.spec))
        assert {field: fields[field] for field in told[name]["spec"]} == told[name]["spec"]
        assert (tower.architecture, tower.output) == (told[name]["architecture"], told[name]["output_name"])
        assert spec.artifact(name).file == told[name]["models"]["fp32"]
    assert (image.preprocess, image.inputs.pixel_values) == ("onnx/image_preprocess.onnx", "pixel_values")
    assert text.inputs == TextInputs(input_ids="input_ids", attention_mask="attention_mask")
    for artifact in spec.artifacts:
        assert artifact.parity is not None
        assert msgspec.to_builtins(artifact.parity) == {
            name: value for name, value in told["parity"][0].items() if name != "artifact"
        } | {"least_cosine": 0.97}
    made = spec.provenance
    assert (made.source.kind, made.source.name, made.source.library) == ("run", told["provenance"]["run"], "mmalign")
    assert made.source.version == "0.1.0"
    assert made.weights_licence == told["provenance"]["weights_licence"]


def test_its_ids_are_those_that_it_had(spec: BundleSpec) -> None:
    # As the version that wrote format 1 gave them.
    assert spec.space_id == "mma-375231699e04f87534773538f39e8a3b"
    assert spec.variant_id("fp32") == "fp32-73b270d9fe3b"
    again = decode_spec(encode_spec(spec))
    assert (again.space_id, again.variant_id("fp32")) == (spec.space_id, spec.variant_id("fp32"))


def test_format_1_0_had_no_reduced_jpegs_and_decoded_them_in_full(told: dict) -> None:
    told["format_version"] = "1.0"
    del told["image"]["spec"]["jpeg_oversampling"]
    older = read(told)
    assert older.tower("image", ImageTower).spec.jpeg_oversampling == 0
    assert decode_spec(encode_spec(older)).towers == older.towers
    told["image"]["spec"]["jpeg_oversampling"] = 3
    assert read(told).tower("image", ImageTower).spec.jpeg_oversampling == 3


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.9999"])
def test_any_minor_version_of_format_1_is_read(told: dict, version: str) -> None:
    assert read(told | {"format_version": version}).space_id == told["space_id"]


def test_quantized_towers_keep_their_golden_cases_report_and_counts(told: dict) -> None:
    files = ("onnx/int8.onnx", "onnx/fp16.onnx", "golden/cases_int8.json", "quantization.json")
    files = (*files, "clipping_int8.json", "quantization_fp16.json")
    told["files"] |= dict.fromkeys(files, "1" * 64)
    told["text"]["models"] |= {"int8": "onnx/int8.onnx", "fp16": "onnx/fp16.onnx"}
    told["goldens"] = {"int8": "golden/cases_int8.json"}
    told["quantization"] = "quantization.json"
    told["parity"].append(told["parity"][0] | {"artifact": "onnx-int8", "cosine_bound": 0.5, "least_cosine": 0.9})
    spec = read(told)
    int8, fp16 = spec.artifact("text", "int8"), spec.artifact("text", "fp16")
    assert int8.golden == "golden/cases_int8.json"
    assert int8.parity is not None
    assert (int8.parity.cosine_bound, int8.parity.least_cosine) == (0.5, 0.9)
    assert int8.quantization == Quantization(report="quantization.json", clipping="clipping_int8.json")
    assert (fp16.golden, fp16.parity) == (None, None)
    assert fp16.quantization == Quantization(report="quantization_fp16.json")
    assert spec.artifact("text").quantization is None


def test_packages_and_what_was_compiled_in_process_are_artifacts(told: dict) -> None:
    told["files"]["aoti/text.pt2"] = "2" * 64
    told["text"]["aoti"] = "aoti/text.pt2"
    for name in ("aoti-fp32", "compile-fp32"):
        told["parity"].append(told["parity"][0] | {"artifact": name, "abs_bound": 0.25})
    spec = read(told)
    package = spec.artifact("text", "fp32", AOTINDUCTOR)
    assert package.file == "aoti/text.pt2"
    assert package.parity is not None
    assert package.parity.abs_bound == 0.25
    assert [each.tower for each in spec.artifacts if each.engine == TORCH_COMPILE] == ["image", "text"]
    assert spec.offered(engine=TORCH_COMPILE) == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"golden": "gone"}, "golden is 'gone'"),
        ({"quantization": "gone"}, "names 'gone'"),
        ({"goldens": {"int8": "gone"}}, "names 'gone'"),
    ],
)
def test_every_file_that_is_named_is_listed(told: dict, change: dict, message: str) -> None:
    with pytest.raises(BundleFormatError, match=rf"{message}, which `files` does not list"):
        read(told | change)


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("field", ["models", "aoti"])
def test_every_model_that_is_named_is_listed(told: dict, tower: str, field: str) -> None:
    told[tower][field] = {"fp16": "gone"} if field == "models" else "gone"
    with pytest.raises(BundleFormatError, match=r"artifacts\[\d\]\.file is 'gone', which `files` does not list"):
        read(told)


def test_format_1_does_not_have_the_fields_of_format_2(told: dict) -> None:
    with pytest.raises(BundleFormatError, match=r"unknown field `towers`"):
        read({**told, "towers": {}})
    told["image"]["spec"]["orientation"] = "applied"
    with pytest.raises(BundleFormatError, match=r"unknown field `orientation` - at `\$\.image\.spec`"):
        read(told)


def test_an_edited_bundle_of_format_1_does_not_fit_its_seal(raw1: bytes) -> None:
    with pytest.raises(BundleFormatError, match="its seal does not fit"):
        decode_spec(raw1.replace(b'"embed_dim": 16', b'"embed_dim": 17'))


@pytest.mark.parametrize("kind", [ImageSpec1, TextSpec1, ImageTower1, TextTower1, Parity1, Provenance1, BundleSpec1])
def test_its_structs_are_frozen_and_refuse_fields_that_they_do_not_know(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.forbid_unknown_fields
    with pytest.raises(TypeError, match="Extra positional arguments provided"):
        kind(1)


@pytest.mark.parametrize(
    ("kind", "field", "inside", "outside"),
    [
        (ImageSpec1, "size", (1, 65_535), (0, 65_536)),
        (ImageSpec1, "shortest_edge", (1, 100_000), (0,)),
        (ImageSpec1, "jpeg_oversampling", (0, 100), (-1,)),
        (TextSpec1, "context_length", (2, 1_000_000), (1, 1_000_001)),
        (TextSpec1, "pad_token_id", (0, 2**31 - 1), (-1, 2**31)),
        (TextSpec1, "max_characters", (1, 10**9), (0,)),
    ],
)
def test_each_number_has_its_range(
    kind: type[msgspec.Struct], field: str, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    for value in inside:
        assert getattr(msgspec.convert({field: value}, kind), field) == value
    for value in outside:
        with pytest.raises(msgspec.ValidationError, match=rf"Expected .* - at `\$\.{field}`"):
            msgspec.convert({field: value}, kind)


@pytest.mark.parametrize(
    ("kind", "field", "words"),
    [
        (ImageSpec1, "resize", ("squash", "shortest_edge")),
        (ImageSpec1, "interpolation", ("bilinear", "bicubic")),
        (ImageSpec1, "icc_profile", ("ignore", "to_srgb")),
        (TextSpec1, "padding", ("longest", "fixed")),
    ],
)
def test_each_word_is_one_of_the_format(kind: type[msgspec.Struct], field: str, words: tuple[str, ...]) -> None:
    check_words(kind, field, words)


def test_what_it_left_out_means_what_it_meant() -> None:
    assert msgspec.structs.asdict(ImageSpec1()) == {
        "size": 224,
        "resize": "squash",
        "shortest_edge": 256,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "background": (255, 255, 255),
        "icc_profile": "ignore",
        "jpeg_oversampling": 0,
        "limits": ImageLimits(),
    }
    assert msgspec.structs.asdict(TextSpec1()) == {
        "context_length": 128,
        "padding": "longest",
        "pad_token_id": 0,
        "pad_token": "[PAD]",
        "max_characters": 1_000_000,
    }
    image = ImageTower1(spec=ImageSpec1(), preprocess="p", models={}, architecture="a")
    assert (image.aoti, image.input_name, image.output_name) == (None, "pixel_values", "image_embeds")
    text = TextTower1(spec=TextSpec1(), tokenizer="t", models={}, architecture="a")
    assert (text.aoti, text.input_names, text.output_name) == (None, ("input_ids", "attention_mask"), "text_embeds")
    made = Provenance1(created="now", run="r", data=(), opset_version=18, versions={})
    assert made.weights_licence == "unknown"


def test_its_bounds_were_those_of_today(told: dict) -> None:
    (parity, *_) = told["parity"]
    for value in (0.0, 1.0):
        assert msgspec.convert(parity | {"least_cosine": value}, Parity1).least_cosine == value
    for value in (-0.001, 1.001):
        with pytest.raises(msgspec.ValidationError, match=r"Expected .* - at `\$\.least_cosine`"):
            msgspec.convert(parity | {"least_cosine": value}, Parity1)
    assert read(told | {"embed_dim": 1}).embed_dim == 1
    with pytest.raises(BundleFormatError, match=r"Expected `int` >= 1 - at `\$\.embed_dim`"):
        read(told | {"embed_dim": 0})


def test_what_it_allowed_and_format_2_does_not_is_refused_with_the_field(told: dict) -> None:
    told["text"]["input_names"] = ["", "attention_mask"]
    with pytest.raises(BundleFormatError, match=r"length >= 1 - at `\$\.towers\[\.\.\.\]\.inputs\.input_ids`"):
        read(told)
