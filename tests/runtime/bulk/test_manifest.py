from pathlib import Path

import msgspec
import pytest

from mmalign_runtime.bulk.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from mmalign_runtime.errors import InputError


def manifest() -> Manifest:
    return Manifest(
        source="photos",
        kind="image",
        column=None,
        id_column=None,
        num_items=5,
        fingerprint="f" * 64,
        bundle="bundle",
        space_id="space",
        variant_id="fp32-0",
        provider="cpu",
        embed_dim=4,
        batch_size=2,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    written = manifest()
    write_manifest(tmp_path, written)
    assert read_manifest(tmp_path) == written


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("batch_size", 3, "--batch-size is 3, was 2"),
        ("kind", "text", "--kind is text, was image"),
        ("id_column", "key", "--id-column is key, was None"),
        ("num_items", 6, "number of items is 6, was 5"),
        ("fingerprint", "e" * 64, "input is eeeeeeeeeeee..., was ffffffffffff..."),
        ("space_id", "other", "space is other, was space"),
        ("variant_id", "int8-0", "variant is int8-0, was fp32-0"),
        ("provider", "cuda", "--provider is cuda, was cpu"),
        ("engine", "openvino", "--engine is openvino, was onnxruntime"),
    ],
)
def test_what_would_give_other_rows_is_named(name: str, value: object, words: str) -> None:
    assert msgspec.structs.replace(manifest(), **{name: value}).differences(manifest()) == [words]


def test_another_place_is_no_difference() -> None:
    moved = msgspec.structs.replace(manifest(), source="/data/photos", bundle="/data/bundle", run="other")
    assert moved.differences(manifest()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "holds no record that this version reads"),
        (msgspec.json.encode(msgspec.structs.replace(manifest(), format_version=2)), "format version 2, expected 1"),
    ],
)
def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(InputError, match=rf"{reason}.*--force"):
        read_manifest(tmp_path)
