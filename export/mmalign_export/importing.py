"""From a model of another library to a bundle, by one call: the kind is detected, and the proof is part of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer
from torch import nn

from mmalign.memory import within_memory
from mmalign_export.errors import ExportError
from mmalign_export.golden import GoldenFile
from mmalign_export.sources import DEFAULT_OPTIONS, SourceOptions, read_source
from mmalign_export.sources.detect import detect_source
from mmalign_export.sources.modules import OwnModules, read_modules
from mmalign_export.sources.protocol import Imported, Original
from mmalign_export.staging import check_free
from mmalign_export.to_bundle import export_imported
from mmalign_export.to_onnx import LARGEST_FILE_BYTES, OPSET_VERSION, check_opset
from mmalign_runtime.spec import BundleSpec, ImageSpec, Similarity, TextSpec

# CLIP's scale at the end of its training; no vector depends on it.
_USUAL_SIMILARITY = Similarity(kind="softmax", scale=100.0)


def read_import(source: str | Path, kind: str | None = None, options: SourceOptions = DEFAULT_OPTIONS) -> Imported:
    """Read a model from where another library saved it. Arguments and errors as of `import_model`."""
    found, location = detect_source(str(source)) if kind is None else (kind, source)
    return read_source(found, location, options)


@within_memory("the import", "Import on a machine that has more.", ExportError)
def import_model(
    source: str | Path,
    out: str | Path,
    *,
    kind: str | None = None,
    options: SourceOptions = DEFAULT_OPTIONS,
    opset_version: int = OPSET_VERSION,
    force: bool = False,
    image_files: Sequence[GoldenFile] | None = None,
    largest_file_bytes: int = LARGEST_FILE_BYTES,
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
        largest_file_bytes: Weights that would make an .onnx file larger go into a file beside it.

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
    return export_imported(
        imported,
        out,
        opset_version=opset_version,
        force=force,
        image_files=image_files,
        largest_file_bytes=largest_file_bytes,
    )


@within_memory("the import", "Import on a machine that has more.", ExportError)
def import_modules(
    image: nn.Module,
    text: nn.Module,
    out: str | Path,
    *,
    image_spec: ImageSpec,
    text_spec: TextSpec,
    tokenizer: Tokenizer,
    similarity: Similarity = _USUAL_SIMILARITY,
    takes_mask: bool = True,
    reference: Original | None = None,
    name: str = "modules",
    licence: str = "unknown",
    opset_version: int = OPSET_VERSION,
    force: bool = False,
) -> BundleSpec:
    """Import two modules of one's own: what `import_model` cannot load, its owner loads and gives here.

    Args:
        image: From `pixel_values` (B, 3, H, W) float32 to vectors (B, D). It is put into evaluation mode.
        text: From `input_ids` and, with `takes_mask`, `attention_mask`, both (B, L) int64, to vectors (B, D).
        out: The bundle to write: a folder, or a .mmalign file.
        image_spec: How a picture becomes `pixel_values`.
        text_spec: How a text becomes ids.
        tokenizer: The tokenizer of the text module.
        similarity: How cosines are read.
        takes_mask: Whether the text module takes a mask.
        reference: The pipeline to prove the bundle against: any object with the methods of `Original`. None: eager
            PyTorch on these modules, with the pixels and tokens of the specs.
        name: What the model is called.
        licence: The licence of the weights.
        opset_version: The ONNX opset of the towers, 18 to 25.
        force: Replace the bundle at `out`.

    Returns:
        The contents of its bundle.json.

    Raises:
        SourceError: A module does not take its inputs, or gives something else than vectors.
        ProofError: Token ids, pixels or vectors are not those of the reference.
        ExportError: As `export`. Nothing is left behind in any of these cases.

    Example:
        >>> import_modules(
        ...     vision, words, "bundle", image_spec=image_spec, text_spec=text_spec, tokenizer=tokenizer
        ... )  # doctest: +SKIP
    """
    given = OwnModules(
        image=image,
        text=text,
        image_spec=image_spec,
        text_spec=text_spec,
        tokenizer=tokenizer,
        similarity=similarity,
        takes_mask=takes_mask,
        name=name,
        licence=licence,
    )
    return export_imported(read_modules(given, reference), out, opset_version=opset_version, force=force)
