import hashlib
from typing import get_args

import msgspec
import pytest

from mmalign_runtime.errors import BundleError
from mmalign_runtime.spec import (
    AOTINDUCTOR,
    FORMAT_VERSION,
    SPEC_NAME,
    Artifact,
    BundleSpec,
    ImageInputs,
    ImageLimits,
    ImageSpec,
    ImageTower,
    Modality,
    Parity,
    Precision,
    Provenance,
    Quantization,
    Similarity,
    Source,
    SourceFile,
    TextInputs,
    TextSpec,
    TextTower,
)


def digest_of(spec: BundleSpec, *names: str) -> str:
    return hashlib.sha256("".join(spec.files[name] for name in sorted(names)).encode()).hexdigest()[:12]


def with_precisions(spec: BundleSpec, *precisions: tuple[str, Precision]) -> BundleSpec:
    made = (msgspec.structs.replace(spec.artifact(tower), precision=precision) for tower, precision in precisions)
    return msgspec.structs.replace(spec, artifacts=tuple(made))


def test_a_tower_is_found_by_its_name_and_kind(spec: BundleSpec) -> None:
    assert spec.tower("image", ImageTower).architecture == "timm:test_resnet"
    assert spec.tower("text", TextTower).tokenizer == "tokenizer.json"
    seen = r"it has image \(ImageTower\), text \(TextTower\)"
    with pytest.raises(BundleError, match=rf"no TextTower called 'image'; {seen}"):
        spec.tower("image", TextTower)
    with pytest.raises(BundleError, match=rf"no ImageTower called 'sound'; {seen}"):
        spec.tower("sound", ImageTower)


def test_an_artifact_is_found_by_tower_precision_and_engine(spec: BundleSpec) -> None:
    package = Artifact(tower="text", engine=AOTINDUCTOR, file=spec.golden)
    checked = Artifact(tower="image", engine="torch.compile")
    more = msgspec.structs.replace(spec, artifacts=(*spec.artifacts, package, checked))
    assert more.artifact("text").file == "onnx/text_model.onnx"
    assert more.artifact("text", "fp32", AOTINDUCTOR) == package
    assert (package.kind, more.artifact("text").kind) == ("aotinductor-fp32", "onnx-fp32")
    with pytest.raises(BundleError, match="the image tower has no fp32 file; it offers none"):
        more.artifact("image", "fp32", "torch.compile")
    with pytest.raises(BundleError, match="the text tower has no int8 file; it offers fp32"):
        more.artifact("text", "int8")


def test_a_precision_of_one_tower_alone_has_a_variant_and_is_not_offered_for_both(spec: BundleSpec) -> None:
    half = with_precisions(spec, ("image", "fp32"), ("image", "fp16"), ("text", "fp32"))
    assert half.precisions() == ("fp32",)
    assert half.variant_id("fp16") == f"fp16-{digest_of(spec, 'onnx/vision_model.onnx')}"


def test_precisions_are_told_most_exact_first(spec: BundleSpec) -> None:
    told = with_precisions(
        spec, *((tower, precision) for precision in ("int8", "fp16", "fp32") for tower in ("text", "image"))
    )
    assert told.precisions() == ("fp32", "fp16", "int8")
    assert told.precisions(AOTINDUCTOR) == ()
    assert [each.precision for each in told.offered(tower="text")] == ["fp32", "fp16", "int8"]


def test_a_variant_id_is_twelve_digits_over_the_files_of_all_towers(spec: BundleSpec) -> None:
    names = ("onnx/vision_model.onnx", "onnx/text_model.onnx")
    assert spec.variant_id("fp32") == f"fp32-{digest_of(spec, *names)}"
    for name in names:
        changed = {**spec.files, name: "0" * 64}
        assert msgspec.structs.replace(spec, files=changed).variant_id("fp32") != spec.variant_id("fp32")


def test_weights_beside_a_model_are_part_of_its_variant(spec: BundleSpec) -> None:
    image, text = spec.artifacts
    apart = msgspec.structs.replace(spec, artifacts=(msgspec.structs.replace(image, external=("config.json",)), text))
    expected = digest_of(spec, image.file, text.file, "config.json")
    assert apart.variant_id("fp32") == f"fp32-{expected}"


def test_two_towers_in_one_file_are_one_file_of_the_variant(spec: BundleSpec) -> None:
    image, text = spec.artifacts
    shared = msgspec.structs.replace(spec, artifacts=(image, msgspec.structs.replace(text, file=image.file)))
    assert shared.variant_id("fp32") == f"fp32-{digest_of(spec, image.file)}"


def test_a_text_tower_is_fed_what_it_takes() -> None:
    assert TextInputs().feeds(1, 2) == {"input_ids": 1}
    assert TextInputs(input_ids="ids", attention_mask="seen").feeds(1, 2) == {"ids": 1, "seen": 2}
    assert TextInputs(attention_mask="seen").names() == ("input_ids", "seen")
    assert ImageInputs().names() == ("pixel_values",)


WRITTEN = (
    Artifact,
    BundleSpec,
    ImageInputs,
    ImageLimits,
    ImageSpec,
    ImageTower,
    Parity,
    Provenance,
    Quantization,
    Similarity,
    Source,
    SourceFile,
    TextInputs,
    TextSpec,
    TextTower,
)


@pytest.mark.parametrize("kind", WRITTEN)
def test_what_is_read_from_a_bundle_is_frozen_and_refuses_fields_that_it_does_not_know(
    kind: type[msgspec.Struct],
) -> None:
    assert kind.__struct_config__.frozen
    assert kind.__struct_config__.forbid_unknown_fields
    with pytest.raises(TypeError, match="Extra positional arguments provided"):
        kind(1)


def test_the_words_of_the_format_are_its_own(spec: BundleSpec) -> None:
    assert (SPEC_NAME, FORMAT_VERSION, get_args(Modality)) == ("bundle.json", "2.0", ("image", "text"))
    assert (spec.format_version, spec.needs) == ("2.0", "0.1.0")
    for kind in ("softmax", "sigmoid"):
        assert msgspec.convert({"kind": kind, "scale": 2.0}, Similarity).kind == kind
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'cosine'"):
        msgspec.convert({"kind": "cosine", "scale": 2.0}, Similarity)


def test_a_source_file_has_a_size_from_0() -> None:
    assert msgspec.convert({"sha256": "0" * 64, "size_bytes": 0}, SourceFile).size_bytes == 0
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int` >= 0 - at `\$\.size_bytes`"):
        msgspec.convert({"sha256": "0" * 64, "size_bytes": -1}, SourceFile)


def test_one_tower_is_enough(spec: BundleSpec) -> None:
    told = msgspec.to_builtins(spec)
    assert set(msgspec.convert(told | {"towers": {"text": told["towers"]["text"]}}, BundleSpec).towers) == {"text"}


def test_the_defaults_are_part_of_the_format() -> None:
    image = ImageTower(spec=ImageSpec(), preprocess="p", architecture="a")
    text = TextTower(spec=TextSpec(), tokenizer="t", architecture="a")
    assert (image.inputs, image.output, image.width) == (
        ImageInputs(pixel_values="pixel_values"),
        "image_embeds",
        None,
    )
    assert (text.inputs, text.output, text.width) == (
        TextInputs(input_ids="input_ids", attention_mask=None),
        "text_embeds",
        None,
    )
    artifact = msgspec.structs.asdict(Artifact(tower="t", engine="e"))
    assert artifact == {
        "tower": "t",
        "engine": "e",
        "precision": "fp32",
        "file": "",
        "external": (),
        "parity": None,
        "golden": None,
        "quantization": None,
    }
    assert Similarity(kind="sigmoid", scale=2.0).bias == 0.0
    least = Parity(num_cases=1, min_cosine=1, max_abs_difference=0, cosine_bound=1, abs_bound=0).least_cosine
    assert least == 0.97
    source = Source(kind="run", name="n", library="l", version="v")
    assert (
        source.files,
        Provenance(created="now", source=source, data=(), opset_version=18, versions={}).weights_licence,
    ) == ({}, "unknown")


def test_fewer_bits_keep_a_cosine_of_97_hundredths_unless_told_otherwise() -> None:
    figures = {"num_cases": 1, "min_cosine": 1.0, "max_abs_difference": 0.0, "cosine_bound": 0.998, "abs_bound": 0.02}
    assert msgspec.convert(figures, Parity).least_cosine == 0.97
    for value in (0.0, 1.0):
        assert msgspec.convert({**figures, "least_cosine": value}, Parity).least_cosine == value
    for value in (-0.001, 1.001):
        with pytest.raises(msgspec.ValidationError, match=r"Expected .* - at `\$\.least_cosine`"):
            msgspec.convert({**figures, "least_cosine": value}, Parity)
