"""Where models come from: one module a kind of source, each with a function from a place to what was imported.

To add a source, write its module and name it in `SOURCES`, with what its places are known by. A module is imported when
its kind is asked for, so that its library is needed by nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec

from mmalign.figures.scores import Checkpoint
from mmalign_export.errors import ExportError
from mmalign_export.sources.protocol import Imported


class SourceKind(msgspec.Struct, frozen=True):
    """One kind of source, and what a place of it is known by.

    Attributes:
        module: The module whose `read` gives the model of a place and options. It raises an MmalignError that names
            what is wrong with the place.
        prefix: What a user may put before a place, with a colon, to say that it is of this kind.
        mark: The file that only this library writes into a folder. "": none.
        suffixes: Of a file that is a whole source.
    """

    module: str
    prefix: str
    mark: str = ""
    suffixes: tuple[str, ...] = ()


# In the order that a folder is looked at: the file that tells most comes first.
SOURCES = {
    "run": SourceKind("mmalign_export.sources.run", "run", mark="config.toml"),
    "sentence_transformers": SourceKind(
        "mmalign_export.sources.sentence_transformers", "sentence-transformers", mark="modules.json"
    ),
    "open_clip": SourceKind("mmalign_export.sources.open_clip", "open_clip", mark="open_clip_config.json"),
    "openai": SourceKind(
        "mmalign_export.sources.openai", "openai", suffixes=(".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".tar")
    ),
    "onnx_pair": SourceKind("mmalign_export.sources.onnx_pair", "onnx", suffixes=(".onnx",)),
    "transformers": SourceKind("mmalign_export.sources.transformers", "transformers"),
}


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a source beside its place; each kind reads what concerns it, and refuses what it cannot do.

    Attributes:
        checkpoint: Of a training run: which checkpoint.
        model: The architecture of a file that holds weights alone, in the words of its library ("ViT-B-32").
        activation: The activation of such a file, where its architecture leaves that open.
        text: The place of the text tower, where it lies apart from the image tower.
        dim: Components of the vectors that are kept, of a model trained so that fewer do (Matryoshka). None: all.
        orientation: "policy" turns pictures as EXIF says, "source" does what the library does.
        alpha: "policy" composites on white, "source" does what the library does.
        length: "real" runs texts at their own length where padding changes nothing, "fixed" at the library's.
        jpeg_oversampling: As in ImageSpec. 0 decodes in full, as the libraries do.
        licence: The licence of the weights, where the source does not say it.
    """

    checkpoint: Checkpoint = "best"
    model: str = ""
    activation: Literal["", "gelu", "quick_gelu"] = ""
    text: str = ""
    dim: Annotated[int, msgspec.Meta(ge=1)] | None = None
    orientation: Literal["policy", "source"] = "policy"
    alpha: Literal["policy", "source"] = "policy"
    length: Literal["real", "fixed"] = "real"
    jpeg_oversampling: Annotated[int, msgspec.Meta(ge=0)] = 0
    licence: str = ""


DEFAULT_OPTIONS = SourceOptions()


def read_source(kind: str, location: str | Path, options: SourceOptions = DEFAULT_OPTIONS) -> Imported:
    """Read a model from where it was trained or saved.

    Args:
        kind: The kind of source: "run" is the folder that `mmalign.training` wrote, others are libraries that saved it.
        location: The place, in the words of that kind.
        options: What else to say of it.

    Returns:
        The model, in evaluation mode on the CPU, ready to be exported, with the library's own pipeline.

    Raises:
        ExportError: The kind is not known.
        MmalignError: What is at the place cannot be read, as the source says.

    Example:
        >>> imported = read_source("run", "runs/latest", SourceOptions(checkpoint="last"))  # doctest: +SKIP
    """
    if kind not in SOURCES:
        raise ExportError(f"the source {kind!r} is not known; expected {', '.join(sorted(SOURCES))}.")
    read = cast("Callable[[str | Path, SourceOptions], Imported]", import_module(SOURCES[kind].module).read)
    return read(location, options)
