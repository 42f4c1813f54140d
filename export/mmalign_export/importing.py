"""From a model of another library to a bundle, by one call: the kind is detected, and the proof is part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmalign_export.golden import GoldenFile
from mmalign_export.sources import SourceOptions, read_source
from mmalign_export.sources.detect import detect_source
from mmalign_export.sources.protocol import Imported
from mmalign_export.staging import check_free
from mmalign_export.to_bundle import export_imported
from mmalign_export.to_onnx import OPSET_VERSION, check_opset
from mmalign_runtime.spec import BundleSpec

_DEFAULT_OPTIONS = SourceOptions()


def read_import(source: str | Path, kind: str | None = None, options: SourceOptions = _DEFAULT_OPTIONS) -> Imported:
    """Read a model from where another library saved it. Arguments and errors as of `import_model`."""
    found, location = detect_source(str(source)) if kind is None else (kind, source)
    return read_source(found, location, options)


def import_model(
    source: str | Path,
    out: str | Path,
    *,
    kind: str | None = None,
    options: SourceOptions = _DEFAULT_OPTIONS,
    opset_version: int = OPSET_VERSION,
    force: bool = False,
    image_files: Sequence[GoldenFile] | None = None,
) -> BundleSpec:
    """Import a model of another library as a bundle whose vectors are proven equal to that library's.

    Args:
        source: A folder, a file of weights, or a name with its kind before it ("open_clip:ViT-B-32").
        out: The bundle to write: a folder, or a .mmalign file.
        kind: The kind of source, as `read_source` takes it. None tells it from the place.
        options: What else to say of the source.
        opset_version: The ONNX opset of the towers, 18 to 25.
        force: Replace the bundle at `out`.
        image_files: Golden images that take the place of those that are usually made.

    Returns:
        The contents of its bundle.json; `provenance.imported` holds the proof.

    Raises:
        SourceError: The source is damaged, incomplete, asks for code that is not run, or could not be proven.
        ProofError: Token ids, pixels or vectors are not those of the library; the message has case and figures.
        MissingDependencyError: The library is not installed; the message names the extra.
        ExportError: As `export`. Nothing is left behind in any of these cases.

    Example:
        >>> import_model("downloads/clip-vit-base-patch32", "bundle").embed_dim  # doctest: +SKIP
        512
    """
    check_opset(opset_version)
    check_free(Path(out), force=force)
    imported = read_import(source, kind, options)
    return export_imported(imported, out, opset_version=opset_version, force=force, image_files=image_files)
