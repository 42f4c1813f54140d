from pathlib import Path

import msgspec
import numpy as np
import pytest

from mmalign_runtime.config import RuntimeConfig
from mmalign_runtime.errors import InputError
from mmalign_runtime.saved.manifest import MANIFEST_KEY, MANIFEST_NAME, Manifest, read_manifest, write_manifest
from mmalign_runtime.saved.vectors import load_vectors, write_vectors


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
        config=RuntimeConfig(provider="cpu"),
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
        ("fingerprint", "e" * 64, "input is eeeeeeeeeeee...eeeeee, was ffffffffffff...ffffff"),
        ("space_id", "other", "space is other, was space"),
        ("variant_id", "int8-0", "variant is int8-0, was fp32-0"),
        ("config", RuntimeConfig(provider="cuda"), "--provider is cuda, was cpu"),
        ("config", RuntimeConfig(provider="cpu", engine="openvino"), "--engine is openvino, was onnxruntime"),
        ("config", RuntimeConfig(provider="cpu", allow_tf32=True), "--allow-tf32 is True, was False"),
        ("config", RuntimeConfig(provider="cpu", dim=64), "--dim is 64, was None"),
    ],
)
def test_what_would_give_other_rows_is_named(name: str, value: object, words: str) -> None:
    assert msgspec.structs.replace(manifest(), **{name: value}).differences(manifest()) == [words]


def test_another_place_is_no_difference() -> None:
    moved = msgspec.structs.replace(manifest(), source="/data/photos", bundle="/data/bundle", run="other")
    moved = msgspec.structs.replace(moved, config=RuntimeConfig(provider="cpu", num_threads=3, cache=True))
    assert moved.differences(manifest()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "holds no record that this version reads"),
        (
            msgspec.json.encode(msgspec.structs.replace(manifest(), format_version=9)),
            "format version 9, expected 1 or 2",
        ),
        (b'{"format_version": 1, "engine": "onnxruntime"}', "holds no record that this version reads"),
    ],
)
def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(InputError, match=rf"{reason}.*--force"):
        read_manifest(tmp_path)


VERSION_1 = b"""{
  "source": "photos", "kind": "image", "column": null, "id_column": null, "num_items": 5, "fingerprint": "f",
  "bundle": "bundle", "space_id": "space", "variant_id": "int8-0", "provider": "cpu", "embed_dim": 4, "batch_size": 2,
  "engine": "openvino", "is_complete": true, "num_failed": 1, "num_truncated": 0, "run": "00", "format_version": 1
}"""


def test_a_record_of_version_1_is_read_and_written_again_as_version_2(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(VERSION_1)
    found = read_manifest(tmp_path)
    assert found is not None
    assert found.config == RuntimeConfig(engine="openvino", provider="cpu", precision="int8")
    assert (found.is_complete, found.num_failed, found.batch_size) == (True, 1, 2)
    write_manifest(tmp_path, found)
    assert read_manifest(tmp_path) == found
    assert b'"format_version": 2' in (tmp_path / MANIFEST_NAME).read_bytes()


@pytest.mark.parametrize(("kind", "provider", "graphs"), [("image", "cpu", False), ("text", "cuda", None)])
def test_a_record_with_an_option_that_is_gone_is_read(
    tmp_path: Path, kind: str, provider: str, graphs: bool | None
) -> None:
    config = RuntimeConfig(provider=provider)  # type: ignore[arg-type]
    written = msgspec.structs.replace(manifest(), kind=kind, config=config)
    old = msgspec.to_builtins(written)
    old["config"]["cuda_graphs"] = graphs
    (tmp_path / MANIFEST_NAME).write_bytes(msgspec.json.encode(old))
    assert read_manifest(tmp_path) == written


def test_images_of_recorded_graphs_are_refused(tmp_path: Path) -> None:
    old = msgspec.to_builtins(msgspec.structs.replace(manifest(), config=RuntimeConfig(provider="cuda")))
    old["config"]["cuda_graphs"] = None
    (tmp_path / MANIFEST_NAME).write_bytes(msgspec.json.encode(old))
    with pytest.raises(InputError, match="CUDA graphs, which gave wrong ones"):
        read_manifest(tmp_path)
    pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, the extra mmalign-runtime[parquet]")
    metadata = {"space_id": "mma-x", MANIFEST_KEY: msgspec.json.encode(old).decode()}
    write_vectors(tmp_path / "one.parquet", ["a"], np.ones((1, 2), np.float32), metadata)
    with pytest.raises(InputError, match="CUDA graphs, which gave wrong ones"):
        load_vectors(tmp_path / "one.parquet")
