"""Where models come from: one module a kind of source, each with a function from a place to a `DualModel`.

To add a source, write its module and name it in `_SOURCES`. A module is imported when its kind is asked for, so that
its library is needed by nobody else.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import msgspec

from mmalign.dual_model import DualModel
from mmalign.scores import Checkpoint
from mmalign_export.errors import ExportError

# kind -> the module whose `read` gives the model
_SOURCES = {"run": "mmalign_export.sources.run"}


class SourceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of a source beside its place; each kind reads what concerns it."""

    checkpoint: Checkpoint = "best"


class Source(Protocol):
    """The function `read` of a source's module. Raises an MmalignError that names what is wrong with the place."""

    def __call__(self, location: str | Path, options: SourceOptions) -> DualModel:
        """Read the model at a place."""


_DEFAULT_OPTIONS = SourceOptions()


def read_source(kind: str, location: str | Path, options: SourceOptions = _DEFAULT_OPTIONS) -> DualModel:
    """Read a model from where it was trained or saved.

    Args:
        kind: The kind of source: "run" is the folder that `mmalign.training` wrote.
        location: The place, in the words of that kind.
        options: What else to say of it.

    Returns:
        The model, in evaluation mode on the CPU, ready to be exported.

    Raises:
        ExportError: The kind is not known.
        MmalignError: What is at the place cannot be read, as the source says.

    Example:
        >>> model = read_source("run", "runs/latest", SourceOptions(checkpoint="last"))  # doctest: +SKIP
    """
    if kind not in _SOURCES:
        raise ExportError(f"the source {kind!r} is not known; expected {', '.join(sorted(_SOURCES))}.")
    read = cast("Source", import_module(_SOURCES[kind]).read)
    return read(location, options)
