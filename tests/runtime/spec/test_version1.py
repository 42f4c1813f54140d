import msgspec
import pytest

from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import (
    AOTINDUCTOR,
    TORCH_COMPILE,
    BundleSpec,
    ImageTower,
    Quantization,
    Similarity,
    TextInputs,
    TextTower,
    decode_spec,
    encode_spec,
    seal_of,
)


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
