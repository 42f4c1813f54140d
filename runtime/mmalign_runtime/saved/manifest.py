"""What a bulk embedding is made of: the record beside its parts that says whether another run may go on with it."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from mmalign_runtime.atomic import replacing
from mmalign_runtime.config import DEFAULT_ENGINE, GONE_FIELDS, RuntimeConfig
from mmalign_runtime.errors import InputError
from mmalign_runtime.spec import Modality
from mmalign_runtime.strict_json import JsonError, read_json

# Readers of folders of Parquet files leave out names that begin with an underscore.
MANIFEST_NAME = "_mmalign.json"
# Its place in the metadata of a single file.
MANIFEST_KEY = "mmalign"
# What the folder of a single file's parts has behind the file's name.
PARTS_SUFFIX = ".parts"

_FORMAT_VERSION = 2
# What, when changed, would give other rows; a part's length, the threads and the place of the input do not.
_IDENTITY = {
    "kind": "--kind",
    "column": "--column",
    "id_column": "--id-column",
    "batch_size": "--batch-size",
    "num_items": "number of items",
    "fingerprint": "input",
    "space_id": "space",
    "variant_id": "variant",
}
_CONFIG_IDENTITY = {
    "dim": "--dim",
    "provider": "--provider",
    "engine": "--engine",
    "allow_tf32": "--allow-tf32",
}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bulk embedding: its input, what made its vectors, and whether it is done.

    `config` is that of the run that began it, as it was resolved there. `run` is drawn anew for each run that starts
    from nothing. `fingerprint` is the source's. `num_failed` and `num_truncated`, the texts that lost their end, count
    when `is_complete`.
    """

    source: str
    kind: Modality
    column: str | None
    id_column: str | None
    num_items: int
    fingerprint: str
    bundle: str
    space_id: str
    variant_id: str
    config: RuntimeConfig
    embed_dim: int
    batch_size: int
    is_complete: bool = False
    num_failed: int = 0
    num_truncated: int = 0
    run: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    format_version: int = _FORMAT_VERSION

    def differences(self, other: Manifest) -> list[str]:
        """Return, in words, what differs from `other` and would give other rows."""
        pairs = [(word, getattr(self, name), getattr(other, name)) for name, word in _IDENTITY.items()]
        pairs += [
            (word, getattr(self.config, name), getattr(other.config, name)) for name, word in _CONFIG_IDENTITY.items()
        ]
        return [f"{word} is {_short(now)}, was {_short(then)}" for word, now, then in pairs if now != then]


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2)


def decode_manifest(content: bytes, path: Path) -> Manifest:
    """Read a manifest found at `path`. Raises InputError when it is damaged or of another version."""
    try:
        found = read_json(content, dict[str, object])
        version = found.get("format_version", 1)
        if version == 1:
            found = _upgraded(found)
        elif version != _FORMAT_VERSION:
            seen = f"format version {version}, expected 1 or {_FORMAT_VERSION}"
            fix = "Finish it with the mmalign-runtime that began it, or start afresh: --force."
            raise InputError(f"{path}: {seen}. {fix}")
        return msgspec.convert(_without_graphs(found, path), Manifest)
    except (JsonError, msgspec.ValidationError) as error:
        raise InputError(f"{path} holds no record that this version reads ({error}). Start afresh: --force.") from error


def _upgraded(found: dict[str, object]) -> dict[str, object]:
    """Return version 1 as version 2 has it: of the config it kept the engine, the provider and, in an id, precision."""
    kept = {"engine": found.get("engine", DEFAULT_ENGINE), "provider": found.get("provider")}
    config = kept | {"precision": str(found.get("variant_id")).partition("-")[0]}
    rest = {name: value for name, value in found.items() if name not in kept}
    return rest | {"config": config, "format_version": _FORMAT_VERSION}


def _without_graphs(found: dict[str, object], path: Path) -> dict[str, object]:
    """Return a record without the fields that are gone. Raises InputError where they made wrong vectors."""
    config = found.get("config")
    if not isinstance(config, dict) or "cuda_graphs" not in config:
        return found
    if found.get("kind") == "image" and config.get("provider") == "cuda" and config["cuda_graphs"] is not False:
        raise InputError(
            f"{path}: an earlier version computed these vectors with CUDA graphs, which gave wrong ones. "
            "Embed again: --force."
        )
    return found | {"config": {name: value for name, value in config.items() if name not in GONE_FIELDS}}


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder of parts, or None where there is none. Raises as `decode_manifest` does."""
    path = folder / MANIFEST_NAME
    return decode_manifest(path.read_bytes(), path) if path.is_file() else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder of parts, in one step."""
    with replacing(folder / MANIFEST_NAME) as temporary:
        temporary.write_bytes(encode_manifest(manifest))


def unfinished_folder(path: Path) -> Path:
    """Return the folder where a single file's parts are until they are merged into it."""
    return path.with_name(f"{path.name}{PARTS_SUFFIX}")


def _short(value: object) -> str:
    return f"{value[:12]}...{value[-6:]}" if isinstance(value, str) and len(value) > 20 else str(value)
