"""bundle.json as bytes: written with its seal, and read in the format of today and in those before it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import msgspec

from mmalign_runtime.errors import BundleFormatError, NewerFormatError
from mmalign_runtime.spec.bundle import FORMAT_MAJOR, FORMAT_MINOR, FORMAT_VERSION, NEEDS_RUNTIME, SPEC_NAME, BundleSpec
from mmalign_runtime.spec.version1 import BundleSpec1, from_version1
from mmalign_runtime.strict_json import JsonError, read_json

_AGAIN = "Export the bundle again."


class Format(msgspec.Struct, frozen=True):
    """What every format says of itself, whatever else is in it. Format 1 said no `needs`."""

    format_version: str
    needs: str = ""

    def number(self) -> tuple[int, int]:
        """Return (major, minor). Raises BundleFormatError when it is not a version of a format."""
        match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", self.format_version, re.ASCII)
        if match is None or int(match[1]) == 0:
            raise BundleFormatError(
                f"{SPEC_NAME}: format_version is {self.format_version!r}, this version reads 1.x and "
                f"{FORMAT_MAJOR}.x. {_AGAIN}"
            )
        return int(match[1]), int(match[2])


def seal_of(contents: dict[str, object]) -> str:
    """Return the sha256 of bundle.json's contents without its `seal`: it guards bundle.json, which hashes the rest.

    Taken over what the file says, not over the struct, so that a later minor version with more fields still fits older
    bundles.
    """
    rest = {key: value for key, value in contents.items() if key != "seal"}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def encode_spec(spec: BundleSpec) -> bytes:
    """Return the bytes of bundle.json, sealed."""
    contents: dict[str, object] = msgspec.to_builtins(spec)
    provenance: dict[str, object] = msgspec.to_builtins(spec.provenance)
    # Younger than the first readers of format 2, which refuse a field unknown.
    if spec.provenance.imported is None:
        del provenance["imported"]
    if not spec.prefix_dims:
        del contents["prefix_dims"]
    if spec.attention is None:
        del contents["attention"]
    contents["provenance"] = provenance
    contents["seal"] = seal_of(contents)
    return msgspec.json.format(msgspec.json.encode(contents, order="sorted"), indent=2) + b"\n"


def read_format(raw: bytes) -> Format:
    """Return which format the bytes of a bundle.json are in. Raises BundleFormatError when they do not say."""
    try:
        return read_json(raw, Format)
    except JsonError as error:
        raise BundleFormatError(f"{SPEC_NAME} cannot be read: {error}. {_AGAIN}") from error


def decode_spec(raw: bytes) -> BundleSpec:
    """Read the bytes of bundle.json, of format 1 or 2, as format 2.

    Raises NewerFormatError when a newer mmalign made it. Raises BundleFormatError, naming the field, when the bytes are
    not JSON, a field is missing, unknown or of a wrong type, or the seal does not fit the contents.
    """
    found = read_format(raw)
    major, minor = found.number()
    if major > FORMAT_MAJOR:
        raise _newer(found)
    try:
        read = read_json(raw, BundleSpec1) if major == 1 else read_json(raw, BundleSpec)
        contents = read_json(raw, dict[str, object])
    except JsonError as error:
        if (major, minor) > (FORMAT_MAJOR, FORMAT_MINOR):
            raise _newer(found) from error
        raise BundleFormatError(f"{SPEC_NAME}: {error}. Export the bundle again with this version.") from error
    if read.seal != seal_of(contents):
        raise BundleFormatError(
            f"{SPEC_NAME} was edited: its seal does not fit its contents. Restore it, or export the bundle again."
        )
    spec = from_version1(read) if isinstance(read, BundleSpec1) else read
    _check_artifacts(spec)
    _check_listed(spec)
    return spec


def _newer(found: Format) -> NewerFormatError:
    needs = f">= {found.needs}" if found.needs else f"newer than {NEEDS_RUNTIME}"
    return NewerFormatError(
        f"{SPEC_NAME} was made by a newer mmalign: its format is {found.format_version}, this version reads up to "
        f"{FORMAT_VERSION}. It needs mmalign-runtime {needs}: `pip install -U mmalign-runtime`."
    )


def _check_artifacts(spec: BundleSpec) -> None:
    """Raise BundleFormatError for an artifact of no tower, and for two of the same kind."""
    for number, artifact in enumerate(spec.artifacts):
        if artifact.tower not in spec.graphs():
            raise BundleFormatError(
                f"{SPEC_NAME}: artifacts[{number}].tower is {artifact.tower!r}, which is not among its towers. {_AGAIN}"
            )
    if missing := {*spec.graphs()} - {*spec.towers} - {artifact.tower for artifact in spec.offered()}:
        raise BundleFormatError(
            f"{SPEC_NAME}: attention is there, and no ONNX artifact of {sorted(missing)[0]!r}, which it needs. {_AGAIN}"
        )
    kinds = Counter(f"{artifact.kind} of tower {artifact.tower!r}" for artifact in spec.artifacts)
    if twice := [kind for kind, count in kinds.items() if count > 1]:
        raise BundleFormatError(f"{SPEC_NAME}: artifacts holds {twice[0]} twice, expected once. {_AGAIN}")


def _check_listed(spec: BundleSpec) -> None:
    """Raise BundleFormatError for a name that `files` does not list."""
    named = {"golden": spec.golden}
    for name, tower in spec.towers.items():
        named |= {f"towers.{name}.{field}": file for field, file in tower.files().items()}
    for number, artifact in enumerate(spec.artifacts):
        named |= {f"artifacts[{number}].{field}": file for field, file in artifact.files().items()}
    for field, file in named.items():
        if file not in spec.files:
            raise BundleFormatError(f"{SPEC_NAME}: {field} is {file!r}, which `files` does not list. Export it again.")
