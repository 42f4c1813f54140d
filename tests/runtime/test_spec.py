import msgspec
import pytest

from mmalign_runtime import Embedder
from mmalign_runtime.errors import BundleFormatError
from mmalign_runtime.spec import BundleSpec, decode_spec, encode_spec


@pytest.fixture
def spec(embedder: Embedder) -> BundleSpec:
    return embedder.bundle.spec


def test_a_spec_survives_the_round_trip(spec: BundleSpec) -> None:
    assert decode_spec(encode_spec(spec)) == spec


def test_an_edited_spec_does_not_fit_its_seal(spec: BundleSpec) -> None:
    edited = encode_spec(spec).replace(spec.space_id.encode(), b"f" * len(spec.space_id))
    with pytest.raises(BundleFormatError, match="its seal does not fit"):
        decode_spec(edited)


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
