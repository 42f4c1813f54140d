import hashlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign_runtime.errors import BundleFormatError, NewerFormatError
from mmalign_runtime.spec import (
    FORMAT_VERSION,
    SPEC_NAME,
    Artifact,
    BundleSpec,
    ImportRecord,
    Quantization,
    decode_spec,
    encode_spec,
    read_format,
    seal_of,
)
from mmalign_runtime.spec.reading import Format

Replacement = dict[str, object]


def sealed(contents: dict[str, object]) -> bytes:
    return msgspec.json.encode(contents | {"seal": seal_of(contents)})


def test_a_spec_survives_the_round_trip(spec: BundleSpec) -> None:
    again = decode_spec(encode_spec(spec))
    assert msgspec.structs.replace(again, seal=spec.seal) == spec
    assert decode_spec(encode_spec(again)) == again


def test_what_is_written_is_format_2_and_says_what_reads_it(spec: BundleSpec) -> None:
    contents = msgspec.json.decode(encode_spec(spec))
    assert (contents["format_version"], contents["needs"], FORMAT_VERSION, SPEC_NAME) == (
        "2.0",
        "0.1.0",
        "2.0",
        "bundle.json",
    )
    assert {name: tower["modality"] for name, tower in contents["towers"].items()} == {"image": "image", "text": "text"}


def test_the_proof_of_an_import_stands_only_where_there_is_one(spec: BundleSpec) -> None:
    def written(record: ImportRecord | None) -> dict[str, object]:
        provenance = msgspec.structs.replace(spec.provenance, imported=record)
        raw = encode_spec(msgspec.structs.replace(spec, provenance=provenance))
        assert decode_spec(raw).provenance.imported == record
        return msgspec.json.decode(raw)["provenance"]

    assert "imported" not in written(None)  # which readers that do not know the field refuse
    assert written(ImportRecord(reference="transformers 5.0", choices=(), stages=(), differences=()))["imported"]


def test_an_edited_spec_does_not_fit_its_seal(spec: BundleSpec) -> None:
    edited = encode_spec(spec).replace(spec.space_id.encode(), b"f" * len(spec.space_id))
    with pytest.raises(BundleFormatError, match="its seal does not fit"):
        decode_spec(edited)


@pytest.mark.parametrize("which", ["format 1", "format 2"])
def test_no_bit_of_it_can_change_unseen(spec: BundleSpec, raw1: bytes, which: str) -> None:
    raw = bytearray(raw1 if which == "format 1" else encode_spec(spec))
    before = decode_spec(bytes(raw))
    for at in range(0, len(raw), 7):
        raw[at] ^= 1 << at % 8
        try:
            found = decode_spec(bytes(raw))
        except BundleFormatError:
            pass
        else:  # white space between two fields
            assert found == before
        raw[at] ^= 1 << at % 8


REFUSED = ("0.9", "00.1", "1", "one", "", "1.10000", "00001.1", "1.1\n", "2.10000", "2.0\n", "02")


@pytest.mark.parametrize("version", REFUSED)
def test_what_is_no_version_of_the_format_is_refused(spec: BundleSpec, version: str) -> None:
    raw = encode_spec(msgspec.structs.replace(spec, format_version=version))
    with pytest.raises(BundleFormatError, match=r"this version reads 1\.x and 2\.x"):
        decode_spec(raw)


def test_a_newer_major_version_names_the_release_that_reads_it(spec: BundleSpec) -> None:
    contents = {"format_version": "3.0", "needs": "4.5.6", "anything": [1]}
    with pytest.raises(NewerFormatError, match=r"made by a newer mmalign.* needs mmalign-runtime >= 4\.5\.6"):
        decode_spec(msgspec.json.encode(contents))
    del contents["needs"]
    with pytest.raises(NewerFormatError, match=r"its format is 3\.0.*needs mmalign-runtime newer than 0\.1\.0"):
        decode_spec(msgspec.json.encode(contents))


def test_a_newer_minor_version_is_read_where_it_says_nothing_unknown(spec: BundleSpec) -> None:
    contents: dict[str, object] = msgspec.to_builtins(spec)
    contents |= {"format_version": "2.7", "needs": "0.9.0"}
    assert decode_spec(sealed(contents)).space_id == spec.space_id
    with pytest.raises(NewerFormatError, match=r"its format is 2\.7, this version reads up to 2\.0.*>= 0\.9\.0"):
        decode_spec(sealed(contents | {"colour": 1}))


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
    sound = {**fields, "towers": {**fields["towers"], "sound": {"modality": "sound"}}}
    with pytest.raises(BundleFormatError, match=r"Invalid value 'sound' - at `\$\.towers\[\.\.\.\]\.modality`"):
        decode_spec(msgspec.json.encode(sound))


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


def towers(spec: BundleSpec, name: str, **changes: object) -> Replacement:
    return {"towers": {**spec.towers, name: msgspec.structs.replace(spec.towers[name], **changes)}}


def artifacts(spec: BundleSpec, **changes: object) -> Replacement:
    first, *others = spec.artifacts
    return {"artifacts": (*others, msgspec.structs.replace(first, **changes))}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda spec: {"golden": "gone"}, "golden"),
        (lambda spec: towers(spec, "image", preprocess="gone"), r"towers\.image\.preprocess"),
        (lambda spec: towers(spec, "text", tokenizer="gone"), r"towers\.text\.tokenizer"),
        (lambda spec: artifacts(spec, file="gone"), r"artifacts\[1\]\.file"),
        (lambda spec: artifacts(spec, golden="gone"), r"artifacts\[1\]\.golden"),
        (lambda spec: artifacts(spec, external=(spec.golden, "gone")), r"artifacts\[1\]\.external\[1\]"),
        (
            lambda spec: artifacts(spec, quantization=Quantization(report="gone")),
            r"artifacts\[1\]\.quantization\.report",
        ),
        (
            lambda spec: artifacts(spec, quantization=Quantization(report=spec.golden, clipping="gone")),
            r"artifacts\[1\]\.quantization\.clipping",
        ),
    ],
)
def test_every_file_that_is_named_is_listed(
    spec: BundleSpec, change: Callable[[BundleSpec], Replacement], field: str
) -> None:
    raw = encode_spec(msgspec.structs.replace(spec, **change(spec)))
    with pytest.raises(BundleFormatError, match=rf"^bundle\.json: {field} is 'gone', which `files` does not list"):
        decode_spec(raw)


def test_an_artifact_belongs_to_a_tower_and_is_told_once(spec: BundleSpec) -> None:
    stray = msgspec.structs.replace(spec, artifacts=(Artifact(tower="sound", engine="onnx"),))
    with pytest.raises(BundleFormatError, match=r"artifacts\[0\]\.tower is 'sound', which is not among its towers"):
        decode_spec(encode_spec(stray))
    twice = msgspec.structs.replace(spec, artifacts=(*spec.artifacts, spec.artifacts[0]))
    with pytest.raises(BundleFormatError, match=r"holds onnx-fp32 of tower 'image' twice"):
        decode_spec(encode_spec(twice))
    all_twice = msgspec.structs.replace(spec, artifacts=spec.artifacts * 2)
    with pytest.raises(BundleFormatError, match=r"holds onnx-fp32 of tower 'image' twice"):
        decode_spec(encode_spec(all_twice))


def test_a_bundle_has_a_dimension_and_a_tower(spec: BundleSpec) -> None:
    for change, field in (({"embed_dim": 0}, "embed_dim"), ({"towers": {}}, "towers")):
        with pytest.raises(BundleFormatError, match=rf"at `\$\.{field}"):
            decode_spec(encode_spec(msgspec.structs.replace(spec, **change)))
    assert decode_spec(encode_spec(msgspec.structs.replace(spec, embed_dim=1))).embed_dim == 1


def test_bundle_json_is_indented_by_two_and_ends_with_a_line_break(spec: BundleSpec) -> None:
    raw = encode_spec(spec)
    assert raw.startswith(b'{\n  "artifacts": [\n    {\n')  # sorted by name: the same contents are the same bytes
    assert raw.endswith(b"}\n")


def test_what_is_read_first_is_frozen_and_takes_any_other_field(raw1: bytes) -> None:
    assert Format.__struct_config__.frozen
    assert not Format.__struct_config__.forbid_unknown_fields  # a later major version may have them
    assert read_format(raw1) == Format("1.1")


sizes = st.integers(1, 65_535) | st.tuples(st.integers(1, 65_535), st.integers(1, 65_535))
level = st.integers(0, 255)
levels = st.tuples(level, level, level)
count = st.integers(1, 2**40)
number = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.tuples(number, number, number)
rounding = st.sampled_from(["half_even", "floor"])
end = st.sampled_from(["right", "left"])
image_specs = st.fixed_dictionaries(
    {
        "size": sizes,
        "shortest_edge": count,
        "fill": levels,
        "side_rounding": rounding,
        "crop_rounding": rounding,
        "interpolation": st.sampled_from(["bilinear", "bicubic"]),
        "mean": numbers,
        "std": numbers,
        "orientation": st.sampled_from(["applied", "ignored"]),
        "alpha": st.sampled_from(["composited", "dropped"]),
        "background": levels,
        "icc_profile": st.sampled_from(["ignore", "to_srgb"]),
        "jpeg_oversampling": st.integers(0, 100),
        "limits": st.fixed_dictionaries(
            {"max_pixels": count, "max_bytes": count, "max_side": count, "max_aspect_ratio": st.floats(1, 1e6)}
        ),
    }
).flatmap(
    lambda fields: (
        st.sampled_from(["squash", "shortest_edge", "longest_edge", "naflex"]).map(
            lambda mode: fields | {"resize": mode}
        )
        | sizes.map(lambda size: fields | {"resize": "resize_then_crop", "resize_size": size})
    )
)
text_specs = st.fixed_dictionaries(
    {
        "cleaning": st.sampled_from(["none", "clip", "clip_cased", "clip_canonical", "siglip"]),
        "context_length": st.integers(2, 10**6),
        "truncation_side": end,
        "padding": st.sampled_from(["longest", "fixed"]),
        "padding_side": end,
        "pad_token_id": st.integers(0, 2**31 - 1),
        "pad_token": st.text(),
        "max_characters": count,
    }
)
names = st.text(min_size=1, max_size=8)
contents = st.fixed_dictionaries(
    {
        "image": image_specs,
        "text": text_specs,
        "mask": st.none() | names,
        "similarity": st.fixed_dictionaries(
            {"kind": st.sampled_from(["softmax", "sigmoid"]), "scale": number, "bias": number}
        ),
        "source": st.fixed_dictionaries(
            {
                "kind": names,
                "name": st.text(),
                "library": st.text(),
                "version": st.text(),
                "files": st.dictionaries(names, st.just({"sha256": "0" * 64, "size_bytes": 7}), max_size=2),
            }
        ),
        "precision": st.sampled_from(["fp32", "fp16", "int8"]),
        "engine": names,
    }
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(told=contents)
def test_whatever_it_says_is_read_as_it_was_written(told: dict[str, dict[str, object]]) -> None:
    fields = {
        "space_id": "mma-0",
        "embed_dim": 3,
        "similarity": told["similarity"],
        "towers": {
            "pictures": {
                "modality": "image",
                "spec": told["image"],
                "preprocess": "p",
                "architecture": "a",
                "width": 5,
            },
            "words": {
                "modality": "text",
                "spec": told["text"],
                "tokenizer": "t",
                "architecture": "b",
                "inputs": {"input_ids": "ids", "attention_mask": told["mask"]},
            },
        },
        "artifacts": [{"tower": "words", "engine": told["engine"], "precision": told["precision"], "file": "m"}],
        "golden": "g",
        "provenance": {"created": "", "source": told["source"], "data": [], "opset_version": 18, "versions": {}},
        "files": dict.fromkeys("ptmg", "0" * 64),
    }
    spec = msgspec.convert(fields, BundleSpec)
    again = decode_spec(encode_spec(spec))
    assert msgspec.structs.replace(again, seal="") == spec
    assert decode_spec(encode_spec(again)) == again


def test_prefixes_that_are_vectors_stand_only_where_there_are_some(spec: BundleSpec) -> None:
    assert "prefix_dims" not in msgspec.json.decode(encode_spec(spec))
    short = msgspec.structs.replace(spec, prefix_dims=(1,))
    assert decode_spec(encode_spec(short)).prefix_dims == (1,)
    contents = msgspec.json.decode(encode_spec(short)) | {"prefix_dims": [spec.embed_dim]}
    del contents["seal"]
    with pytest.raises(BundleFormatError, match=r"prefix_dims \[\d+\] are to be below embed_dim, \d+"):
        decode_spec(sealed(contents))
